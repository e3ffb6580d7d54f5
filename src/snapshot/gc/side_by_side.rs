//! A packed file beside its past. A pack writes the same records at other places, with other pointers in between: hardly a chunk stays
//! the same, but zstd finds the records, where it sees both in one frame. So gc puts what the generations of a database have of the
//! same time into the same frames: the stored bases, and the tails of those generations that are over, which the next base
//! has, too. What each chunk holds is told by the transactions, whose ids a pack keeps.
//!
//! That is done once after each pack: as soon as more than a quarter of what of a stored base has something older of its time has none
//! of that in its frames. To tell takes decompressing all of it, so what was decided is [`remembered`](super::remembered), for the
//! frames it was decided of. Whatever is written anew later keeps its order.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::{Kind, Result};
use crate::filestorage::{FIRST_TRANSACTION, Forwards};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Database, MovingChunk, Stream, StreamChunk};
use crate::repository::chunk_writer::Compression;
use crate::repository::data::FILE_LIMIT;
use crate::repository::frames::FrameAt;
use crate::repository::hash::Hash;
use crate::snapshot::gc::remembered::Remembered;
use crate::snapshot::gc::rewrite::move_chunks;
use crate::snapshot::handle::Repository;
use crate::snapshot::log::StoredTail;
use crate::snapshot::plan::checked_chunks;

/// How many bytes of a file lie together before those of the next generation follow. Nearly the same is then a few megabytes
/// away, and a restore still reads long runs.
const BLOCK: u64 = 1 << 20;

/// A base, or a tail.
struct Part {
    stream: Stream,
    is_base: bool,
    /// Where in the file its chunks begin.
    from: u64,
    chunks: Vec<StreamChunk>,
}

/// Where a chunk belongs: in which block of all that there ever was, in which part, and where in that.
type Place = (u64, usize, u64);

/// What of the databases lies beside something older, or is to.
#[derive(Default)]
pub(super) struct Beside {
    /// All of its chunks.
    pub(super) chunks: HashSet<Hash>,
    /// The databases, by row, of which it isn't known that theirs lie as they are to.
    unknown: HashSet<i64>,
    /// The data files that have some of these databases' chunks.
    pub(super) unsettled: HashSet<Hash>,
}

impl Beside {
    /// As far as the catalog and what is remembered tell.
    pub(super) fn look(repository: &Repository) -> Result<Self> {
        let remembered = Remembered::read(&repository.layout);
        let mut beside = Beside::default();
        for database in repository.catalog.databases()? {
            let parts = parts(&repository.catalog, &database, &mut beside.chunks)?;
            if !parts.is_empty() && !remembered.has(&state(&parts)) {
                beside.unknown.insert(database.row);
                let chunks = parts.iter().flat_map(|part| &part.chunks);
                beside.unsettled.extend(chunks.map(|chunk| chunk.location.frame.object));
            }
        }
        Ok(beside)
    }

    /// Puts side by side what isn't. Returns from how many data files chunks were taken.
    pub(super) fn put(&mut self, repository: &mut Repository, monitor: &dyn Monitor) -> Result<u64> {
        let mut files = 0;
        let mut taken = HashSet::new();
        for database in repository.catalog.databases()? {
            let parts = parts(&repository.catalog, &database, &mut taken)?;
            if !self.unknown.contains(&database.row) {
                continue;
            }
            match put_parts(repository, &parts, monitor) {
                // What is damaged stays where it is, and what there is no room for: nothing needs this.
                Err(error) if error.kind() == Kind::Damaged || error.is_no_space() => {}
                taken_from => {
                    files += taken_from?;
                    self.unknown.remove(&database.row);
                }
            }
        }
        Ok(files)
    }

    /// Has the next gc know what lies as it is to.
    pub(super) fn remember(&self, repository: &Repository) -> Result<()> {
        let mut states = BTreeSet::new();
        let mut taken = HashSet::new();
        for database in repository.catalog.databases()? {
            let parts = parts(&repository.catalog, &database, &mut taken)?;
            if !parts.is_empty() && !self.unknown.contains(&database.row) {
                states.insert(state(&parts));
            }
        }
        Remembered::write(&repository.layout, states)
    }
}

fn put_parts(repository: &mut Repository, parts: &[Part], monitor: &dyn Monitor) -> Result<u64> {
    let places = places(repository, parts, monitor)?;
    if !are_apart(parts, &places) {
        return Ok(0);
    }
    put(repository, parts, &places, monitor)
}

/// The stored bases of a database and the tails of generations that are over, oldest first; none if no base has anything older. What
/// databases before it have taken isn't among it: two copies of one database would take it from each other for ever.
fn parts(catalog: &Catalog, database: &Database, taken: &mut HashSet<Hash>) -> Result<Vec<Part>> {
    let mut parts = match stored_parts(catalog, database) {
        // It stays where it is: nothing needs this.
        Err(error) if error.kind() == Kind::Damaged => Vec::new(),
        parts => parts?,
    };
    if !parts.iter().skip(1).any(|part| part.is_base) {
        return Ok(Vec::new());
    }
    for part in &mut parts {
        part.chunks.retain(|chunk| !taken.contains(&chunk.location.hash));
    }
    taken.extend(parts.iter().flat_map(|part| &part.chunks).map(|chunk| chunk.location.hash));
    Ok(parts)
}

fn stored_parts(catalog: &Catalog, database: &Database) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut add = |stream: Stream, is_base: bool, from: u64| -> Result<()> {
        let chunks = checked_chunks(catalog, &stream, None, from)?;
        parts.push(Part { stream, is_base, from, chunks });
        Ok(())
    };
    for generation in catalog.generations(database.row)?.into_iter().rev() {
        if let Some(base) = catalog.stored_base(&generation.known)? {
            add(base, true, FIRST_TRANSACTION)?;
        }
        if generation.row != database.generation.row
            && let Some((_, furthest)) = catalog.anchor(generation.row, u64::MAX, i64::MAX)?
        {
            add(furthest, false, generation.known.base_length)?;
        }
    }
    Ok(parts)
}

/// A hash of which chunks these are, and of the frames in which they lie: all that decides whether they lie as they are to.
fn state(parts: &[Part]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&[u8::from(part.is_base)]).update(&(part.chunks.len() as u64).to_le_bytes());
        for StreamChunk { location, .. } in &part.chunks {
            hasher
                .update(&location.hash.0)
                .update(&location.frame.object.0)
                .update(&location.frame.offset.to_le_bytes());
        }
    }
    Hash(*hasher.finalize().as_bytes())
}

/// Whether more than a quarter of what some base could have beside it, because something older is in the same block,
/// has nothing of that block in its frame.
fn are_apart(parts: &[Part], places: &HashMap<Hash, Place>) -> bool {
    let block = |chunk: &StreamChunk| places.get(&chunk.location.hash).map(|place| place.0);
    let mut older: HashSet<u64> = HashSet::new();
    let mut older_in_frame: HashSet<(u64, FrameAt)> = HashSet::new();
    for part in parts {
        let placed = || part.chunks.iter().filter_map(|chunk| Some((block(chunk)?, chunk)));
        let (mut bytes, mut alone) = (0, 0);
        for (block, chunk) in placed().filter(|(block, _)| part.is_base && older.contains(block)) {
            let length = u64::from(chunk.location.length);
            bytes += length;
            if !older_in_frame.contains(&(block, chunk.location.frame)) {
                alone += length;
            }
        }
        if alone * 4 > bytes {
            return true;
        }
        older.extend(placed().map(|(block, _)| block));
        older_in_frame.extend(placed().map(|(block, chunk)| (block, chunk.location.frame)));
    }
    false
}

/// A transaction: its id, its place among all that there ever were, its length.
struct Known {
    tid: u64,
    at: u64,
    length: u64,
}

/// Finds out where each chunk belongs.
fn places(repository: &Repository, parts: &[Part], monitor: &dyn Monitor) -> Result<HashMap<Hash, Place>> {
    let mut known: Vec<Known> = Vec::new();
    let mut places = HashMap::new();
    monitor.begin("reading what lies before and behind packs", parts.iter().map(Part::bytes).sum());
    for (number, part) in parts.iter().enumerate() {
        let source = StoredTail::open(repository, &part.stream, part.from, None)?;
        let mut chunks = part.chunks.iter().peekable();
        for header in Forwards::new(&source, part.from, part.stream.cut.offset) {
            monitor.check()?;
            let header = header?;
            let length = header.end() - header.position;
            let (at, its_length) = match known.binary_search_by_key(&header.tid.0, |known| known.tid) {
                Ok(found) => (known[found].at, known[found].length),
                Err(next) => match known.get(next) {
                    // No generation before had it: where its time is.
                    Some(next) => (next.at, 0),
                    None => {
                        let at = known.last().map_or(0, |last| last.at + last.length);
                        known.push(Known { tid: header.tid.0, at, length });
                        (at, length)
                    }
                },
            };
            while let Some(chunk) = chunks.next_if(|chunk| chunk.offset < header.end()) {
                let within = u128::from(chunk.offset.saturating_sub(header.position));
                let at = at + (within * u128::from(its_length) / u128::from(length.max(1))) as u64;
                places.entry(chunk.location.hash).or_insert((at / BLOCK, number, chunk.offset));
            }
            monitor.advance(length);
        }
    }
    monitor.end();
    Ok(places)
}

impl Part {
    fn bytes(&self) -> u64 {
        self.stream.cut.offset - self.from
    }
}

/// Moves the chunks to frames in which they lie in the order of their places, some frames at a time. What else is in their
/// data files stays there, and is unused space then.
fn put(
    repository: &mut Repository,
    parts: &[Part],
    places: &HashMap<Hash, Place>,
    monitor: &dyn Monitor,
) -> Result<u64> {
    let names: HashSet<Hash> =
        parts.iter().flat_map(|part| &part.chunks).map(|chunk| chunk.location.frame.object).collect();
    let files = repository.catalog.object_files()?.into_iter().filter(|file| names.contains(&file.name));
    let files: Vec<i64> = files.map(|file| file.row).collect();
    let chunks = repository.catalog.chunks_to_move(&files)?.into_iter();
    let mut chunks: Vec<(Place, MovingChunk)> =
        chunks.filter_map(|chunk| Some((*places.get(&chunk.location.hash)?, chunk))).collect();
    chunks.sort_by_key(|(place, _)| *place);
    let mut chunks: Vec<MovingChunk> = chunks.into_iter().map(|(_, chunk)| chunk).collect();
    monitor.begin("putting packed files beside their past", chunks.iter().map(MovingChunk::bytes).sum());
    while !chunks.is_empty() {
        let mut bytes = 0;
        let fitting = chunks.iter().take_while(|chunk| {
            bytes += chunk.bytes();
            bytes <= FILE_LIMIT
        });
        // One at least, whatever a damaged catalog says of its length.
        let fitting = fitting.count().max(1);
        let rest = chunks.split_off(fitting.min(chunks.len()));
        // It is seldom done, and stays: worth some time.
        move_chunks(repository, &chunks, &[], Compression::SMALL, monitor)?;
        // The data files that have nothing more.
        repository.catalog.drop_chunks()?;
        super::unlink_unnamed(repository, monitor)?;
        chunks = rest;
    }
    monitor.end();
    Ok(files.len() as u64)
}
