//! Reading `Data.fs.index`: which record of a FileStorage is the current one of each object.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::bytes::{u16_at, u48_at};
use super::index_pickle::{Pickles, Value};
use super::source::open_plain;
use crate::error::{Error, IoContext, Kind, Result};

/// Bytes an object takes in an index: two of its oid, six of the offset.
const ENTRY: usize = 8;

/// The path of the index of a storage: `.index` appended to that of the data file.
pub fn index_path(data_fs: &Path) -> PathBuf {
    with_suffix(data_fs, ".index")
}

/// Appends to the file's name, whatever bytes it consists of.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// An index as it lies in its file: eight bytes an object, and nothing is decoded before it is asked for.
pub struct IndexFile {
    bytes: Vec<u8>,
    position: u64,
    buckets: Vec<Bucket>,
    length: u64,
}

/// The objects whose oids begin with the same six bytes: first their last two bytes each, then their offsets.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    prefix: u64,
    start: usize,
    count: usize,
}

impl IndexFile {
    /// Reads an index. `None` if there is none, or if the file is none that ZODB since 3.10 could use (the
    /// older form as well). Fails only if the file exists and can't be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Option<IndexFile>> {
        match Self::read_bytes(path.as_ref())? {
            Some(bytes) => Ok(Self::parse(bytes)),
            None => Ok(None),
        }
    }

    /// The bytes of the file, if there is one.
    pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
        let mut file = match open_plain(path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = file.metadata().at("look at", path)?.len();
        let mut bytes = Vec::new();
        let reserved = usize::try_from(size).ok().map(|size| bytes.try_reserve_exact(size));
        if !matches!(reserved, Some(Ok(()))) {
            return Err(Error::failed(format!("there is not enough memory to read {} ({size} bytes)", path.display())));
        }
        file.read_to_end(&mut bytes).at("read", path)?;
        Ok(Some(bytes))
    }

    /// The index in these bytes; `None` if they are no index, or one whose entries are not in order.
    pub fn parse(bytes: Vec<u8>) -> Option<IndexFile> {
        let mut pickles = Pickles::new(&bytes);
        let Value::Number(position) = pickles.load()? else {
            return None;
        };
        let mut buckets: Vec<Bucket> = Vec::new();
        let mut length = 0;
        loop {
            let (prefix, entries) = match pickles.load()? {
                Value::None => break,
                Value::Pair(prefix, entries) => (prefix, entries),
                _ => return None,
            };
            if prefix.len() != 6 || entries.len() % ENTRY != 0 {
                return None;
            }
            let bucket =
                Bucket { prefix: u48_at(bytes.get(prefix)?, 0), start: entries.start, count: entries.len() / ENTRY };
            let suffixes = bytes.get(bucket.start..bucket.start + bucket.count * 2)?;
            let (suffixes, _) = suffixes.as_chunks::<2>();
            // Big-endian, so their order as bytes is that of the numbers. ZODB would find nothing
            // in a bucket out of order.
            let ordered = suffixes.is_sorted_by(|one, other| one < other);
            let follows = buckets.last().is_none_or(|last| last.prefix < bucket.prefix);
            if !ordered || !follows {
                return None;
            }
            length += bucket.count as u64;
            buckets.push(bucket);
        }
        Some(IndexFile { bytes, position, buckets, length })
    }

    /// The length of the data file that this is the index of, in bytes: a transaction ends there.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Number of objects.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The offset of an object's current record.
    pub fn get(&self, oid: u64) -> Option<u64> {
        let at = self.buckets.binary_search_by_key(&(oid >> 16), |bucket| bucket.prefix).ok()?;
        let bucket = self.buckets.get(at)?;
        let suffixes = self.bytes.get(bucket.start..bucket.start + bucket.count * 2)?;
        let (suffixes, _) = suffixes.as_chunks::<2>();
        let last = oid.to_be_bytes();
        let entry = suffixes.binary_search(&[last[6], last[7]]).ok()?;
        Some(self.entry(bucket, entry).1)
    }

    /// All (oid, offset), sorted by oid.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().flat_map(|bucket| (0..bucket.count).map(|entry| self.entry(bucket, entry)))
    }

    /// About so many entries, spread evenly over the index; all of them if there are not more.
    pub(super) fn sample(&self, wanted: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let step = self.length.div_ceil(wanted.max(1)).max(1);
        let mut before: u64 = 0;
        self.buckets.iter().flat_map(move |bucket| {
            let first = before.next_multiple_of(step) - before;
            before += bucket.count as u64;
            let first = usize::try_from(first).unwrap_or(usize::MAX);
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            (first..bucket.count).step_by(step).map(|entry| self.entry(bucket, entry))
        })
    }

    fn entry(&self, bucket: &Bucket, entry: usize) -> (u64, u64) {
        let suffix = u16_at(&self.bytes, bucket.start + entry * 2);
        let offset = u48_at(&self.bytes, bucket.start + bucket.count * 2 + entry * 6);
        (bucket.prefix << 16 | u64::from(suffix), offset)
    }
}

impl std::fmt::Debug for IndexFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexFile").field("position", &self.position).field("objects", &self.length).finish()
    }
}
