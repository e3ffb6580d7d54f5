//! Making lost parts of indexes again: an index is a function of the file's bytes. Coded again, what it is made
//! from is mostly the very same bytes; where it isn't, the snapshot gets a keyframe of its own.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::filestorage::{Changes, DataFile, FIRST_TRANSACTION, Position, Source, Tid, scan};
use crate::monitor::Monitor;
use crate::repository::data::Content;
use crate::repository::frames::Location;
use crate::repository::hash::Hash;
use crate::repository::manifest::{ChunkName, DatabaseEntry, IndexEntry, IndexPart};
use crate::snapshot::anchor::{Recognition, recognise};
use crate::snapshot::index_parts::encode;
use crate::snapshot::repair::objects::Objects;
use crate::snapshot::repair::picture::{Picture, parts};
use crate::snapshot::repair::search::Search;

/// Makes all lost parts of indexes again that can be; parents first.
pub(super) fn make_again(
    picture: &mut Picture,
    objects: &Objects,
    search: &mut Search,
    databases: &[(crate::repository::hash::Uid, PathBuf)],
    monitor: &dyn Monitor,
) -> Result<()> {
    let lost: Vec<(usize, usize)> = picture
        .entries()
        .filter(|(at, _, entry, _)| is_lost(entry, objects, search) || is_orphan(picture, *at, entry))
        .map(|(at, number, _, _)| (at, number))
        .collect();
    for (at, number) in lost {
        monitor.check()?;
        let entry = picture.snapshots[at].manifest.databases[number].clone();
        let orphan = is_orphan(picture, at, &entry);
        if orphan && entry.index.keyframe.is_some() && !is_lost(&entry, objects, search) {
            let IndexEntry { keyframe, deltas, .. } = entry.index;
            stand_alone(&mut picture.snapshots[at].change().databases[number], keyframe, deltas);
            continue;
        }
        // Perhaps another one's was the same.
        if !orphan && !is_lost(&entry, objects, search) {
            continue;
        }
        let path = databases.iter().find(|(uid, _)| *uid == entry.uid).map(|(_, path)| path.as_path());
        let parent = picture.parent(at, &entry).ok().flatten().map(|(_, parent)| parent.cut);
        let only_delta = entry.index.keyframe.is_none() && entry.index.deltas.len() == 1;
        if let (true, Some(cut)) = (only_delta, parent) {
            let from = Position { offset: cut.offset, tid: Tid(cut.tid) };
            if let Some(pairs) = pairs_of((&*picture, objects, &mut *search), (at, &entry), from, None, monitor)? {
                encode_into(pairs, |piece| search.offer(piece))?;
            }
        }
        if !orphan && !is_lost(&entry, objects, search) {
            continue;
        }
        let whole = pairs_of((&*picture, objects, &mut *search), (at, &entry), Position::START, path, monitor)?;
        let Some(pairs) = whole else {
            continue;
        };
        if entry.index.keyframe.is_some() && entry.index.deltas.is_empty() {
            encode_into(pairs.clone(), |piece| search.offer(piece))?;
        }
        // What is deleted keeps its manifest.
        if (orphan || is_lost(&entry, objects, search)) && !picture.snapshots[at].is_deleted() {
            let keyframe = encode(pairs.into_iter().map(Ok), |piece| Ok(search.add(piece, Content::Keyframe)))?;
            if keyframe.is_some() {
                let changed = &mut picture.snapshots[at].change().databases[number];
                if orphan {
                    stand_alone(changed, keyframe, Vec::new());
                } else {
                    changed.index = IndexEntry::new(changed.stream.parent, keyframe, Vec::new());
                }
            }
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
            let file = file.filter(|file| matches!(recognise(file, &entry.generation), Ok(Recognition::Same)));
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
            let next = self.list.partition_point(|(offset, name)| offset + u64::from(name.length) <= at);
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
