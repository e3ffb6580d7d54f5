//! Where frames are, and reading them from data files.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zstd::zstd_safe::compress_bound;

use crate::error::{Error, Result};
use crate::repository::counters::Counters;
use crate::repository::data::{Codec, FRAME_LIMIT, Frame};
use crate::repository::hash::Hash;
use crate::repository::huge_pages;
use crate::repository::layout::Layout;
use crate::repository::object::{damaged, open_object_at};

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameAt {
    /// The object file that has it.
    pub object: Hash,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in the file.
    pub stored: u32,
    /// Its length when decompressed.
    pub raw: u32,
    /// How it is stored.
    pub codec: Codec,
}

impl FrameAt {
    /// Whether its lengths are possible: what a reader allocates is bounded by what a frame may be, whatever a
    /// damaged catalog says.
    pub fn is_possible(&self) -> bool {
        self.raw as usize <= FRAME_LIMIT && self.stored as usize <= compress_bound(FRAME_LIMIT)
    }

    /// Decompresses what is stored with zstd, in place of what `raw` has; says whether it has the length that it should
    /// have.
    pub fn decompress(&self, stored: &[u8], raw: &mut Vec<u8>) -> bool {
        let length = self.raw as usize;
        raw.clear();
        huge_pages::reserve(raw, length);
        zstd::zstd_safe::decompress(raw, stored).is_ok_and(|written| written == length)
    }
}

/// Where a chunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its hash.
    pub hash: Hash,
    /// Its length in bytes.
    pub length: u32,
    /// The frame that has it.
    pub frame: FrameAt,
    /// Where it begins in the decompressed frame.
    pub start: u32,
}

impl Location {
    /// Where the chunks of a frame are.
    pub fn all_of(object: Hash, frame: &Frame) -> impl Iterator<Item = Location> + '_ {
        let &Frame { offset, stored, raw, codec, .. } = frame;
        let frame_at = FrameAt { object, offset, stored, raw, codec };
        let mut next = 0;
        frame.chunks.iter().map(move |&(hash, length)| {
            let start = next;
            next += length;
            Location { hash, length, frame: frame_at, start }
        })
    }
}

/// How many files stay open for the next frame, unless they have to.
const OPEN_FILES: usize = 64;

/// The data files that frames are read from. Several threads may read at once.
pub struct FrameFiles {
    folder: PathBuf,
    counters: Arc<Counters>,
    open: Mutex<OpenFiles>,
}

#[derive(Default)]
struct OpenFiles {
    files: HashMap<Hash, Arc<File>>,
    /// Whether those that are open have to stay open.
    pinned: bool,
}

impl FrameFiles {
    /// Those of this repository.
    pub fn new(layout: &Layout, counters: &Arc<Counters>) -> Self {
        Self::in_folder(&layout.objects(), counters)
    }

    /// Those in a folder of object files, which may be another repository's.
    pub fn in_folder(folder: &Path, counters: &Arc<Counters>) -> Self {
        FrameFiles { folder: folder.to_path_buf(), counters: Arc::clone(counters), open: Mutex::default() }
    }

    /// Opens the object files of these chunks now, so that a later gc can't take them away: the caller holds the
    /// gate. Who holds the writer's lock needn't, and has but a few files open at any time.
    pub fn open<'a>(&self, locations: impl IntoIterator<Item = &'a Location>) -> Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.pinned = true;
        for location in locations {
            let object = location.frame.object;
            if let Entry::Vacant(place) = open.files.entry(object) {
                place.insert(Arc::new(open_object_at(&self.folder.join(object.to_string()))?));
            }
        }
        Ok(())
    }

    /// The path of the file that has this frame.
    pub fn path(&self, frame: &FrameAt) -> PathBuf {
        self.folder.join(frame.object.to_string())
    }

    fn file(&self, object: &Hash) -> Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.files.get(object) {
            return Ok(Arc::clone(file));
        }
        if !open.pinned && open.files.len() >= OPEN_FILES {
            open.files.clear();
        }
        let file = Arc::new(open_object_at(&self.folder.join(object.to_string()))?);
        open.files.insert(*object, Arc::clone(&file));
        Ok(file)
    }

    /// Reads and decompresses a frame. Its chunks are not checked yet: see [`FrameFiles::check`].
    /// `compressed` is room to read into, to be used again.
    pub fn load(&self, frame: &FrameAt, compressed: &mut Vec<u8>) -> Result<Vec<u8>> {
        let mut raw = Vec::new();
        self.load_into(frame, compressed, &mut raw)?;
        Ok(raw)
    }

    /// Like [`FrameFiles::load`], in place of what `raw` has.
    pub fn load_into(&self, frame: &FrameAt, compressed: &mut Vec<u8>, raw: &mut Vec<u8>) -> Result<()> {
        let path = self.path(frame);
        if !frame.is_possible() {
            return Err(Error::damaged(format!(
                "the catalog lists an impossible compressed block of {} (offset {})",
                path.display(),
                frame.offset
            )));
        }
        let file = self.file(&frame.object)?;
        // What is stored as it is is read to where it belongs.
        let into = if frame.codec == Codec::Raw { &mut *raw } else { &mut *compressed };
        into.resize(frame.stored as usize, 0);
        file.read_exact_at(into, frame.offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(&path, "it is too short"),
            _ => Error::io("read", &path, error),
        })?;
        self.counters.read(u64::from(frame.stored));
        match frame.codec {
            Codec::Raw => {}
            Codec::Zstd => {
                if !frame.decompress(compressed, raw) {
                    let reason = format!("the compressed block at offset {} does not decompress", frame.offset);
                    return Err(damaged(&path, &reason));
                }
            }
        }
        Ok(())
    }

    /// A chunk's bytes in its decompressed frame, checked against its hash.
    pub fn check<'a>(&self, location: &Location, frame: &'a [u8]) -> Result<&'a [u8]> {
        let start = location.start as usize;
        start
            .checked_add(location.length as usize)
            .and_then(|end| frame.get(start..end))
            .filter(|bytes| Hash::of(bytes) == location.hash)
            .ok_or_else(|| {
                let reason = format!("chunk {} in it does not match its hash", location.hash.short());
                damaged(&self.path(&location.frame), &reason)
            })
    }
}
