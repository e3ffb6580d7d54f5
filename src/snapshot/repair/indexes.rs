//! Making lost parts of indexes again: an index is a function of the file's bytes. Coded again, what it is made
//! from is mostly the very same bytes; where it isn't, the snapshot gets a keyframe of its own.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::filestorage::{Changes, DataFile, FIRST_TRANSACTION, Position, Source, Tid, scan};
use crate::monitor::Monitor;
use crate::repository::data::Content;
use crate::repository::frames::Location;
use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::{ChunkName, DatabaseEntry, IndexEntry, IndexPart};
use crate::snapshot::anchor::{Recognition, recognise};
use crate::snapshot::index_parts::encode;
use crate::snapshot::repair::objects::Objects;
use crate::snapshot::repair::picture::{Picture, parts};
use crate::snapshot::repair::search::Search;

/// Where an entry is: the number of its snapshot, and its own in there.
type Spot = (usize, usize);

/// Makes all lost parts of indexes again that can be; parents first. Where what a snapshot's index builds on can't be made,
/// and its tail is whole, it gets an index of its own.
pub(super) fn make_again(
    picture: &mut Picture,
    objects: &Objects,
    search: &mut Search,
    databases: &[(Uid, PathBuf)],
    monitor: &dyn Monitor,
) -> Result<()> {
    // The entries so far whose index can be made.
    let mut whole: HashSet<(usize, Uid)> = HashSet::new();
    let spots: Vec<Spot> = picture.entries().map(|(at, number, ..)| (at, number)).collect();
    for spot in spots {
        if !is_whole(picture, spot, objects, search, &whole) {
            monitor.check()?;
            make_one(picture, spot, objects, search, databases, &whole, monitor)?;
        }
        if is_whole(picture, spot, objects, search, &whole) {
            whole.insert((spot.0, entry_at(picture, spot).uid));
        }
    }
    Ok(())
}

fn entry_at(picture: &Picture, (at, number): Spot) -> &DatabaseEntry {
    &picture.snapshots[at].manifest.databases[number]
}

/// Whether an entry's index can be made of what is there and what was found.
fn is_whole(picture: &Picture, spot: Spot, objects: &Objects, search: &Search, whole: &HashSet<(usize, Uid)>) -> bool {
    let entry = entry_at(picture, spot);
    let is_below = match picture.parent(spot.0, entry) {
        Err(()) => return false,
        Ok(None) => false,
        Ok(Some((place, _))) => whole.contains(&(place, entry.uid)),
    };
    (is_below || entry.index.keyframe.is_some()) && !is_lost(entry, objects, search)
}

/// Makes again what an entry's index lacks, if that can be.
fn make_one(
    picture: &mut Picture,
    spot: Spot,
    objects: &Objects,
    search: &mut Search,
    databases: &[(Uid, PathBuf)],
    whole: &HashSet<(usize, Uid)>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let (at, number) = spot;
    let entry = entry_at(picture, spot).clone();
    let has_keyframe = entry.index.keyframe.is_some();
    let orphan = is_orphan(picture, at, &entry);
    if orphan && has_keyframe && !is_lost(&entry, objects, search) {
        let IndexEntry { keyframe, deltas, .. } = entry.index;
        stand_alone(&mut picture.snapshots[at].change().databases[number], keyframe, deltas);
        return Ok(());
    }
    let parent = picture.parent(at, &entry).ok().flatten().map(|(_, parent)| parent.cut);
    let only_delta = !has_keyframe && entry.index.deltas.len() == 1;
    if let (true, true, Some(cut)) = (is_lost(&entry, objects, search), only_delta, parent) {
        let from = Position { offset: cut.offset, tid: Tid(cut.tid) };
        if let Some(pairs) = pairs_of((&*picture, objects, &mut *search), (at, &entry), from, None, monitor)? {
            encode_into(pairs, |piece| search.offer(piece))?;
        }
    }
    let only_keyframe = has_keyframe && entry.index.deltas.is_empty();
    // What is deleted keeps its manifest.
    let may_change = !picture.snapshots[at].is_deleted();
    if is_whole(picture, spot, objects, search, whole) || !(only_keyframe || may_change) {
        return Ok(());
    }
    let path = databases.iter().find(|(uid, _)| *uid == entry.uid).map(|(_, path)| path.as_path());
    let all = pairs_of((&*picture, objects, &mut *search), (at, &entry), Position::START, path, monitor)?;
    let Some(pairs) = all else { return Ok(()) };
    if only_keyframe {
        encode_into(pairs.clone(), |piece| search.offer(piece))?;
    }
    if may_change && !is_whole(picture, spot, objects, search, whole) {
        let keyframe = encode(pairs.into_iter().map(Ok), |piece| {
            let hash = Hash::of(piece);
            Ok(if objects.has(&hash) { hash } else { search.add(piece, Content::Keyframe) })
        })?;
        let keyframe = keyframe.unwrap_or(IndexPart { entries: 0, bytes: 0, chunks: Vec::new() });
        let changed = &mut picture.snapshots[at].change().databases[number];
        if orphan {
            stand_alone(changed, Some(keyframe), Vec::new());
        } else {
            changed.index = IndexEntry::new(changed.stream.parent, Some(keyframe), Vec::new());
        }
    }
    Ok(())
}

fn is_lost(entry: &DatabaseEntry, objects: &Objects, search: &Search) -> bool {
    let mut chunks = parts(entry).flat_map(|(_, part)| &part.chunks);
    chunks.any(|chunk| !objects.has(&chunk.hash) && !search.found.contains_key(&chunk.hash))
}

/// Whether the snapshot that an entry builds on is gone, and nothing of its list is kept.
fn is_orphan(picture: &Picture, at: usize, entry: &DatabaseEntry) -> bool {
    !picture.snapshots[at].is_deleted()
        && entry.stream.kept_length == entry.generation.base_length
        && picture.parent(at, entry).is_err()
}

/// Makes an entry one that builds on nothing.
fn stand_alone(entry: &mut DatabaseEntry, keyframe: Option<IndexPart>, deltas: Vec<IndexPart>) {
    (entry.stream.parent, entry.stream.kept) = (None, 0);
    entry.index = IndexEntry::new(None, keyframe, deltas);
}

fn encode_into(pairs: Vec<(u64, u64)>, mut keep: impl FnMut(&[u8])) -> Result<()> {
    encode(pairs.into_iter().map(Ok), |piece| {
        keep(piece);
        Ok(Hash::of(piece))
    })
    .map(|_| ())
}

/// The (oid, offset) pairs of a snapshot's file from a boundary to its cut; `None` if not all of that can be read.
fn pairs_of(
    (picture, objects, search): (&Picture, &Objects, &mut Search),
    (at, entry): (usize, &DatabaseEntry),
    from: Position,
    base: Option<&Path>,
    monitor: &dyn Monitor,
) -> Result<Option<Vec<(u64, u64)>>> {
    let (list, unknown) = picture.list(at, entry);
    let base_length = entry.generation.base_length;
    let base = match base {
        Some(path) if from.offset < base_length && base_length > FIRST_TRANSACTION => {
            let file = DataFile::open(path).ok();
            let file = file.filter(|file| matches!(recognise(file, &entry.generation, None), Ok(Recognition::Same)));
            let Some(file) = file else { return Ok(None) };
            Some(file)
        }
        _ if from.offset < base_length && base_length > FIRST_TRANSACTION => return Ok(None),
        _ => None,
    };
    if unknown.is_some_and(|(_, to)| to > from.offset) {
        return Ok(None);
    }
    let source = Tail {
        path: PathBuf::from(format!("snapshot {}", picture.snapshots[at].manifest.id)),
        length: entry.cut.offset,
        base_length,
        base,
        list,
        objects,
        search: RefCell::new(search),
    };
    let mut changes = Changes::new(from.offset);
    match scan(&source, from, entry.cut.offset, &mut changes, monitor) {
        Ok(_) => Ok(Some(changes.into_pairs())),
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The bytes of a snapshot's file: out of whole data files, and out of wherever lost chunks were found.
struct Tail<'a> {
    path: PathBuf,
    length: u64,
    base_length: u64,
    base: Option<DataFile>,
    list: Vec<(u64, ChunkName)>,
    objects: &'a Objects,
    search: RefCell<&'a mut Search>,
}

impl Tail<'_> {
    fn chunk(&self, name: &ChunkName) -> Result<Vec<u8>> {
        let Some(spot) = self.objects.chunks.get(&name.hash) else {
            return self.search.borrow_mut().bytes(&name.hash);
        };
        let data = self.objects.data.get(spot.file as usize);
        let frame = data.and_then(|data| data.what.get(spot.frame as usize).map(|frame| (data.file.0, frame)));
        let (object, frame) = frame.ok_or_else(|| Error::failed("a chunk is not where it was"))?;
        let location = Location::all_of(object, frame).find(|location| location.start == spot.start);
        self.search.borrow_mut().stored(&location.ok_or_else(|| Error::failed("a chunk is not where it was"))?)
    }
}

impl Source for Tail<'_> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> Result<u64> {
        Ok(self.length)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            if at < self.base_length {
                let length = rest.len().min((self.base_length - at) as usize);
                let (part, others) = rest.split_at_mut(length);
                match &self.base {
                    Some(base) => base.read_exact_at(part, at)?,
                    None => part.fill(0),
                }
                (at, rest) = (at + length as u64, others);
                continue;
            }
            let next = self.list.partition_point(|(offset, name)| offset.saturating_add(u64::from(name.length)) <= at);
            let (start, name) = self
                .list
                .get(next)
                .filter(|(start, _)| *start <= at)
                .ok_or_else(|| Error::failed(format!("{} lacks its bytes at {at}", self.path.display())))?;
            let bytes = self.chunk(name)?;
            let within = bytes.get((at - start) as usize..).unwrap_or_default();
            let length = rest.len().min(within.len());
            let (part, others) = rest.split_at_mut(length);
            part.copy_from_slice(&within[..length]);
            (at, rest) = (at + length as u64, others);
        }
        Ok(())
    }
}
