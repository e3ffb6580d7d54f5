//! Recognising a file: is it the one that init saw, and which snapshot does it begin with?
//!
//! By content only, never by time stamp or inode, and by a few hundred kilobytes at most: a snapshot's
//! last transaction, its last chunk and an earlier one have to be where they were, and at the base's end the
//! last transaction and the hash of the bytes before it.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::filestorage::{
    DataFile, FIRST_TRANSACTION, Magic, Position, Record, Sink, Source, Tid, find_cut, header_at, scan,
    transaction_ending_at,
};
use crate::monitor::Silent;
use crate::repository::catalog::{Catalog, Stream};
use crate::repository::hash::Hash;
use crate::repository::manifest::{CutEntry, Generation};

/// How many bytes before the base's end are hashed to recognise it.
pub const BASE_CHECK: u64 = 64 * 1024;

/// How many transactions at most a pack drops at the end of a file.
const LAST: usize = 1000;

/// Whether a file is still the one that a generation is about, and if not, what seems to have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognition {
    /// It begins with the base.
    Same,
    /// Its magic is another one.
    Converted {
        /// The magic now.
        now: String,
    },
    /// It was packed; and where the file before is, if it is found.
    Packed {
        /// The file before the pack, if it is still there.
        old: Option<PathBuf>,
    },
    /// It ends before the base does, and shows no sign of a pack.
    Shorter,
    /// It is another file.
    Replaced,
}

impl Recognition {
    /// What happened to the file, in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Recognition::Same => "same",
            Recognition::Converted { .. } => "converted",
            Recognition::Packed { .. } => "packed",
            Recognition::Shorter => "shorter",
            Recognition::Replaced => "replaced",
        }
    }
}

/// Compares a file with what is known of its base. What a pack replaced may be left as `Data.fs.old`, or in a `second` place.
pub fn recognise(file: &DataFile, generation: &Generation, second: Option<PathBuf>) -> Result<Recognition> {
    if is_of(file, generation)? {
        return Ok(Recognition::Same);
    }
    if file.magic().to_string() != generation.magic {
        return Ok(Recognition::Converted { now: file.magic().to_string() });
    }
    let size = file.size()?;
    let other = if size < generation.base_length { Recognition::Shorter } else { Recognition::Replaced };
    // What a pack has made has nothing left where it was; and is no older than what it was made of, but for transactions that only
    // deleted objects. What ends earlier otherwise lacks something: it isn't what came of the file.
    if !is_packed(file)? || ends_a_transaction(file, &end_of_base(generation))? {
        return Ok(other);
    }
    let older = last_tid(file)?.filter(|last| *last < Tid(generation.base_tid));
    let mut unreadable = None;
    for path in [Some(old_path(file.path())), second].into_iter().flatten() {
        let is_before = |before: DataFile| -> Result<bool> {
            Ok(is_of(&before, generation)?
                && older.map_or(Ok(true), |last| only_deletes_behind(&before, last, size))?)
        };
        match DataFile::open(&path).and_then(is_before) {
            Ok(true) => return Ok(Recognition::Packed { old: Some(path) }),
            Err(error) if is_unreadable(&error) => unreadable = unreadable.or(Some(error)),
            _ => {}
        }
    }
    match (older, unreadable) {
        (None, _) => Ok(Recognition::Packed { old: None }),
        // That might have told.
        (Some(_), Some(error)) => Err(error),
        (Some(_), None) => Ok(other),
    }
}

/// Whether a file has one of its last transactions with this id, and only deletions behind it; not if that ends at `part`, as it does
/// where a file of this length is a part of it.
fn only_deletes_behind(file: &DataFile, tid: Tid, part: u64) -> Result<bool> {
    let size = file.size()?;
    let mut end = size;
    for _ in 0..LAST {
        match unless_shorter(transaction_ending_at(file, end))?.flatten() {
            Some(header) if header.tid > tid => end = header.position,
            Some(header) if header.tid == tid && end != part => {
                let mut deletions = Deletions(true);
                let scanned = scan(file, Position { offset: end, tid }, size, &mut deletions, &Silent);
                return Ok(scanned.is_ok() && deletions.0);
            }
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Whether there was nothing else.
struct Deletions(bool);

impl Sink for Deletions {
    fn record(&mut self, record: &Record) {
        self.0 &= record.data_length == 0 && record.back == 0;
    }
}

/// The id of a file's last complete transaction; `None` if it can't be told.
fn last_tid(file: &DataFile) -> Result<Option<Tid>> {
    let size = file.size()?;
    if let Some(last) = unless_shorter(transaction_ending_at(file, size))?.flatten() {
        return Ok(Some(last.tid));
    }
    // Something is being written, or it was cut.
    Ok(find_cut(file, Position::START, size, &Silent).ok().map(|cut| cut.tid))
}

/// Whether a file's first transaction says that it was packed.
pub(crate) fn is_packed(file: &DataFile) -> Result<bool> {
    Ok(file.size()? >= FIRST_TRANSACTION + 31 && header_at(file, FIRST_TRANSACTION)?.status == b'p')
}

/// Whether a file has the magic of a generation, and begins with its base.
pub fn is_of(file: &DataFile, generation: &Generation) -> Result<bool> {
    Ok(file.magic().to_string() == generation.magic && begins_with_base(file, generation)?)
}

/// Whether a file, whatever its first four bytes are, begins with the base of any of these.
pub(crate) fn begins_any(file: &DataFile, generations: &[&Generation]) -> Result<bool> {
    for generation in generations {
        if generation.base_length == FIRST_TRANSACTION || begins_with_base(file, generation)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The magic of files of this generation; `None` if there is no such.
pub fn magic_of(generation: &Generation) -> Option<Magic> {
    <[u8; 4]>::try_from(generation.magic.as_bytes()).ok().and_then(Magic::from_bytes)
}

pub(crate) fn old_path(path: &std::path::Path) -> PathBuf {
    let mut old = path.as_os_str().to_owned();
    old.push(".old");
    PathBuf::from(old)
}

fn begins_with_base(file: &DataFile, generation: &Generation) -> Result<bool> {
    if file.size()? < generation.base_length {
        return Ok(false);
    }
    if !ends_a_transaction(file, &end_of_base(generation))? {
        return Ok(false);
    }
    let (length, hash) = base_check(file, generation.base_length)?;
    Ok(length == generation.base_check_length && hash == generation.base_check)
}

fn end_of_base(generation: &Generation) -> CutEntry {
    CutEntry {
        offset: generation.base_length,
        tid: generation.base_tid,
        last_length: generation.base_last_length,
        time: 0,
        transactions: 0,
        new_bytes: 0,
    }
}

/// The bytes before `base_length` that are remembered of a base: how many, and their hash.
pub fn base_check(file: &DataFile, base_length: u64) -> Result<(u32, Hash)> {
    let length = base_length.min(BASE_CHECK);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, base_length - length)?;
    Ok((length as u32, Hash::of(&bytes)))
}

/// `None` if the file has become too short for what was to be read: ZODB cuts an aborted transaction off at
/// any moment, and a file that is shorter than a snapshot doesn't begin with it.
pub(crate) fn unless_shorter<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof) => {
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// Whether a file is there, for all that is known, and can't be read.
pub(crate) fn is_unreadable(error: &Error) -> bool {
    error.kind() != Kind::NotFound && error.io_error().is_some()
}

/// `None` if a file can't be read, where another one may do, or the answer is known without it.
pub(crate) fn unless_unreadable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if is_unreadable(&error) => Ok(None),
        result => result.map(Some),
    }
}

/// Whether the transaction that a cut names ends there.
pub(crate) fn ends_a_transaction(file: &DataFile, cut: &CutEntry) -> Result<bool> {
    if cut.last_length == 0 {
        return Ok(cut.offset == FIRST_TRANSACTION);
    }
    let found = unless_shorter(transaction_ending_at(file, cut.offset))?.flatten();
    Ok(found.is_some_and(|header| {
        header.tid == Tid(cut.tid) && header.end() - header.position == cut.last_length && header.status != b'c'
    }))
}

/// Whether the file begins with this snapshot's tail. The base has been recognised before.
pub fn begins_with(file: &DataFile, size: u64, catalog: &Catalog, stream: &Stream) -> Result<bool> {
    if stream.cut.offset > size || !ends_a_transaction(file, &stream.cut)? {
        return Ok(false);
    }
    let base_length = catalog.generation(stream.generation)?.known.base_length;
    if stream.cut.offset == base_length {
        return Ok(true);
    }
    let middle = base_length + (stream.cut.offset - base_length) / 2;
    let mut checked = None;
    for place in [stream.cut.offset - 1, middle] {
        let chunk = catalog.stream_chunks(stream.row, place, place + 1)?.pop();
        let Some(chunk) = chunk.filter(|chunk| chunk.end() <= stream.cut.offset) else {
            return Err(damaged_list(stream));
        };
        if checked == Some(chunk.offset) {
            continue;
        }
        checked = Some(chunk.offset);
        // At most a chunk's largest size, whatever a damaged row says.
        if chunk.location.length as usize > crate::repository::chunker::MAX {
            return Err(damaged_list(stream));
        }
        let mut bytes = vec![0; chunk.location.length as usize];
        let read = unless_shorter(file.read_exact_at(&mut bytes, chunk.offset))?;
        if read.is_none() || Hash::of(&bytes) != chunk.location.hash {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The error for a chunk list that can't be right.
pub fn damaged_list(stream: &Stream) -> Error {
    Error::damaged(format!("the chunk list of snapshot {} in the catalog is damaged", stream.snapshot_name))
        .hint("put catalog.db back from a copy; or rebuild it with znap repair")
}

/// The furthest-reaching snapshot that the file begins with.
pub fn nearest(file: &DataFile, size: u64, catalog: &Catalog, generation: i64) -> Result<Option<Stream>> {
    nearest_of(file, size, catalog, generation, |_| Ok(true))
}

/// The furthest-reaching of those that are accepted.
pub(crate) fn nearest_of(
    file: &DataFile,
    size: u64,
    catalog: &Catalog,
    generation: i64,
    accept: impl Fn(&Stream) -> Result<bool>,
) -> Result<Option<Stream>> {
    let mut before = (size, i64::MAX);
    while let Some((rank, stream)) = catalog.anchor(generation, before.0, before.1)? {
        if accept(&stream)? && begins_with(file, size, catalog, &stream)? {
            return Ok(Some(stream));
        }
        before = (stream.cut.offset, rank);
    }
    Ok(None)
}

/// Up to where a file is known: to the end of the snapshot that it begins with, or else of the base.
pub(crate) fn known_end(snapshot: Option<&Stream>, generation: &Generation) -> Position {
    match snapshot {
        Some(stream) => Position { offset: stream.cut.offset, tid: Tid(stream.cut.tid) },
        None => Position { offset: generation.base_length, tid: Tid(generation.base_tid) },
    }
}

/// The refusal for a file that isn't the one that was tracked.
pub fn refusal(path: &std::path::Path, recognition: &Recognition, generation: &Generation) -> Option<Error> {
    let path = path.display();
    let again = "the snapshots stay in the repository, but znap can't work on this file with them; \
                 put the file before it back, or a snapshot (znap restore --to DIR ID writes it elsewhere); \
                 or start a repository for this one with znap -R DIR init";
    let goes_on = "znap save goes on with the file as it is now";
    Some(match recognition {
        Recognition::Same => return None,
        Recognition::Packed { .. } if generation.base_length <= FIRST_TRANSACTION => {
            Error::failed(format!("{path} was packed since the last snapshot")).hint(goes_on)
        }
        Recognition::Converted { now } => {
            Error::failed(format!("{path} was converted from {} to {now} since the last snapshot", generation.magic))
                .hint(goes_on)
        }
        Recognition::Packed { old: Some(old) } => Error::failed(format!("{path} was packed since the last snapshot"))
            .hint(format!("{goes_on}, and stores what older snapshots need of {}", old.display())),
        Recognition::Packed { old: None } => Error::failed(format!("{path} was packed since the last snapshot"))
            .hint(format!("{goes_on}; older snapshots need a copy of it as it was (znap restore ID --base-from FILE)")),
        Recognition::Shorter => Error::failed(format!(
            "{path} is shorter than when znap first saw it ({} bytes): it was truncated or replaced",
            generation.base_length
        ))
        .hint(again),
        Recognition::Replaced => {
            Error::failed(format!("{path} is not the file that znap first saw there: it was replaced")).hint(again)
        }
    })
}
