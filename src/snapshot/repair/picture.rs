//! What is to be in the catalog: which snapshots, how much of each list, and which of them are whole.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::{ChunkName, DAMAGED, DatabaseEntry, IndexPart, Manifest, Tombstone};
use crate::snapshot::id;
use crate::snapshot::repair::objects::{Objects, Stored};

/// An object file that there is, or one that is to be written.
#[derive(Debug, Clone)]
pub(super) enum Record<T> {
    There((Hash, u64)),
    New(T),
}

/// A snapshot as it is to be.
pub(super) struct Chosen {
    pub(super) manifest: Manifest,
    /// Its object file, unless it is to be written.
    pub(super) file: Option<(Hash, u64)>,
    /// The highest revision that any manifest of it has.
    pub(super) top_revision: u32,
    pub(super) tombstone: Option<Record<Tombstone>>,
    /// For each of its databases, up to which offset its list is needed; `None`: not at all.
    pub(super) reach: Vec<Option<u64>>,
}

/// What of a snapshot's database can't be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    /// Ranges of the file.
    pub(super) ranges: Vec<(u64, u64)>,
    /// Whether its index can't be made.
    pub(super) index: bool,
}

impl Gaps {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && !self.index
    }
}

/// A snapshot that is set aside.
pub(super) struct Aside {
    /// Its number.
    pub(super) at: usize,
    /// What each of its databases lacks.
    pub(super) gaps: Vec<Gaps>,
    /// Whether it was set aside before.
    pub(super) before: bool,
}

/// What became of snapshots that had gaps.
pub(super) struct Judgement {
    pub(super) aside: Vec<Aside>,
    /// The ids of those that have none any more.
    pub(super) back: Vec<String>,
}

/// All snapshots that the catalog needs, by sequence.
pub(super) struct Picture {
    pub(super) snapshots: Vec<Chosen>,
    places: HashMap<Uid, usize>,
}

/// Chunks, with their offsets in the file.
pub(super) type List = Vec<(u64, ChunkName)>;

impl Chosen {
    /// Has its manifest written anew.
    pub(super) fn change(&mut self) -> &mut Manifest {
        if self.file.take().is_some() {
            self.manifest.revision = self.top_revision + 1;
        }
        &mut self.manifest
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.tombstone.is_some()
    }
}

/// All parts of a database's index that an entry has of its own: whether it is a keyframe, and the part.
pub(super) fn parts(entry: &DatabaseEntry) -> impl Iterator<Item = (bool, &IndexPart)> {
    let deltas = entry.index.deltas.iter().map(|part| (false, part));
    entry.index.keyframe.iter().map(|part| (true, part)).chain(deltas)
}

/// The chunks that an entry has of its own, with their offsets in the file.
pub(super) fn own_chunks(entry: &DatabaseEntry) -> impl Iterator<Item = (u64, &ChunkName)> {
    entry.stream.chunks.iter().scan(entry.stream.kept_length, |offset, chunk| {
        let at = *offset;
        *offset = offset.saturating_add(u64::from(chunk.length));
        Some((at, chunk))
    })
}

/// Whether whole data files have everything that a manifest lists.
pub(super) fn lacks_nothing(objects: &Objects, manifest: &Manifest) -> bool {
    manifest.databases.iter().all(|entry| {
        let pieces = parts(entry).flat_map(|(_, part)| &part.chunks);
        entry.stream.chunks.iter().chain(pieces).all(|chunk| objects.has(&chunk.hash))
    })
}

impl Picture {
    /// Of each snapshot the newest revision of which most is there: one that a gc was about to commit may lack what it needs, and the
    /// one before it is as good.
    pub(super) fn new(objects: &Objects, made_again: Vec<Manifest>, tombstones: Vec<Tombstone>) -> Self {
        let uids: HashSet<Uid> = objects.manifests.iter().map(|stored| stored.what.uid).collect();
        let lacks = |manifest: &Manifest| {
            let own = |entry: &DatabaseEntry| {
                let chunks = entry.stream.chunks.iter().chain(parts(entry).flat_map(|(_, part)| &part.chunks));
                let orphan = entry.stream.parent.is_some_and(|parent| !uids.contains(&parent));
                chunks.filter(|chunk| !objects.has(&chunk.hash)).count() + usize::from(orphan)
            };
            manifest.databases.iter().map(own).sum::<usize>()
        };
        let mut best: HashMap<Uid, (&Stored<Manifest>, u32)> = HashMap::new();
        for stored in &objects.manifests {
            let manifest = &stored.what;
            let top = best.get(&manifest.uid).map_or(0, |(_, top)| *top).max(manifest.revision);
            let before = best.get(&manifest.uid).map(|(before, _)| *before);
            let rank = |manifest: &Manifest| (Reverse(lacks(manifest)), manifest.revision);
            let better = before.filter(|before| rank(&before.what) >= rank(manifest)).unwrap_or(stored);
            best.insert(manifest.uid, (better, top));
        }
        let mut buried: HashMap<Uid, Record<Tombstone>> =
            tombstones.into_iter().map(|stone| (stone.snapshot, Record::New(stone))).collect();
        for stone in &objects.tombstones {
            buried.insert(stone.what.snapshot, Record::There(stone.file));
        }
        let there = best.into_values().map(|(stored, top)| (stored.what.clone(), Some(stored.file), top));
        let again = made_again.into_iter().map(|manifest| {
            let top = manifest.revision;
            (manifest, None, top)
        });
        let mut snapshots: Vec<Chosen> = there
            .chain(again)
            .map(|(manifest, file, top_revision)| Chosen {
                tombstone: buried.get(&manifest.uid).cloned(),
                reach: vec![None; manifest.databases.len()],
                manifest,
                file,
                top_revision,
            })
            .collect();
        snapshots.sort_by_key(|chosen| (chosen.manifest.sequence, chosen.manifest.created, chosen.manifest.uid));
        let mut picture = Picture { snapshots, places: HashMap::new() };
        picture.settle_conflicts();
        picture.find_reach();
        picture
    }

    /// Gives new numbers, and ids, where two snapshots have the same: an old catalog was put back and worked with.
    fn settle_conflicts(&mut self) {
        let same = self.snapshots.windows(2).position(|two| two[0].manifest.sequence == two[1].manifest.sequence);
        if let Some(first) = same {
            let mut next = self.snapshots.last().map_or(0, |chosen| chosen.manifest.sequence);
            let mut rest = self.snapshots.split_off(first);
            // Nothing is older than what it builds on.
            rest.sort_by_key(|chosen| (chosen.manifest.created, chosen.manifest.sequence, chosen.manifest.uid));
            for mut chosen in rest {
                next += 1;
                chosen.change().sequence = next;
                self.snapshots.push(chosen);
            }
        }
        let mut ids: HashSet<String> = HashSet::new();
        for chosen in self.snapshots.iter_mut().rev().filter(|chosen| !chosen.is_deleted()) {
            if !ids.insert(chosen.manifest.id.clone()) {
                let end = format!("+{}", chosen.manifest.sequence);
                let room = id::LONGEST.saturating_sub(end.len());
                let id: String = chosen.manifest.id.chars().take(room).chain(end.chars()).collect();
                ids.insert(id.clone());
                chosen.change().id = id;
            }
        }
    }

    /// How much of each list is needed: a snapshot's own whole, a deleted one's as far as those that build on it reach.
    fn find_reach(&mut self) {
        let places = self.snapshots.iter().enumerate().map(|(at, chosen)| (chosen.manifest.uid, at));
        self.places = places.collect();
        let mut needed: HashMap<(usize, Uid), u64> = HashMap::new();
        for at in (0..self.snapshots.len()).rev() {
            let chosen = &mut self.snapshots[at];
            let deleted = chosen.is_deleted();
            for (entry, reach) in chosen.manifest.databases.iter().zip(&mut chosen.reach) {
                let of_others = needed.get(&(at, entry.uid)).copied();
                *reach = if deleted { of_others } else { Some(entry.cut.offset) };
                let parent =
                    entry.stream.parent.and_then(|parent| self.places.get(&parent)).filter(|place| **place < at);
                if let (Some(upto), Some(&parent)) = (*reach, parent) {
                    let kept = needed.entry((parent, entry.uid)).or_default();
                    *kept = upto.min(entry.stream.kept_length).max(*kept);
                }
            }
        }
    }

    /// What the catalog needs of each snapshot: its number, the number of the database in it, and the entry with its reach.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, usize, &DatabaseEntry, u64)> {
        self.snapshots.iter().enumerate().flat_map(|(at, chosen)| {
            let entries = chosen.manifest.databases.iter().zip(&chosen.reach).enumerate();
            entries.filter_map(move |(number, (entry, reach))| reach.map(|upto| (at, number, entry, upto)))
        })
    }

    /// The entry that this one, of the snapshot with this number, keeps a part of; an error if it isn't there.
    pub(super) fn parent(&self, at: usize, entry: &DatabaseEntry) -> Result<Option<(usize, &DatabaseEntry)>, ()> {
        let Some(uid) = entry.stream.parent else { return Ok(None) };
        let place = *self.places.get(&uid).filter(|place| **place < at).ok_or(())?;
        let databases = &self.snapshots[place].manifest.databases;
        let parent = databases.iter().find(|other| other.uid == entry.uid).ok_or(())?;
        Ok(Some((place, parent)))
    }

    /// The chunk list of an entry, whole: offsets and names; and ranges of the file of which no list is there.
    pub(super) fn list(&self, at: usize, entry: &DatabaseEntry) -> (List, Option<(u64, u64)>) {
        let mut pieces: Vec<Vec<(u64, ChunkName)>> = Vec::new();
        let mut unknown = None;
        let (mut at, mut entry, mut upto) = (at, entry, u64::MAX);
        loop {
            let own = own_chunks(entry).filter(|(offset, _)| *offset < upto);
            pieces.push(own.map(|(offset, name)| (offset, *name)).collect());
            upto = upto.min(entry.stream.kept_length);
            match self.parent(at, entry) {
                Ok(Some((place, parent))) => (at, entry) = (place, parent),
                Ok(None) => break,
                Err(()) => {
                    unknown = Some((entry.generation.base_length, upto)).filter(|(from, to)| from < to);
                    break;
                }
            }
        }
        (pieces.into_iter().rev().flatten().collect(), unknown)
    }

    /// What of each snapshot that isn't deleted can't be had, if `has` says which chunks can: by its number, then by its database's.
    pub(super) fn gaps(&self, has: impl Fn(&Hash) -> bool) -> Vec<(usize, Vec<Gaps>)> {
        // Whether the list up to its cut, and the index, of an entry are whole.
        let mut whole: HashMap<(usize, Uid), (u64, bool)> = HashMap::new();
        let mut found = Vec::new();
        for (at, chosen) in self.snapshots.iter().enumerate() {
            let mut gaps = Vec::new();
            for (entry, reach) in chosen.manifest.databases.iter().zip(&chosen.reach) {
                let Some(upto) = *reach else { continue };
                let (good, index) = match self.parent(at, entry) {
                    Ok(None) => (entry.generation.base_length, true),
                    Ok(Some((place, _))) => whole.get(&(place, entry.uid)).copied().unwrap_or((0, false)),
                    Err(()) => (entry.generation.base_length, false),
                };
                let mut good = good.min(entry.stream.kept_length);
                if good == entry.stream.kept_length {
                    let lost = own_chunks(entry).find(|(offset, chunk)| *offset < upto && !has(&chunk.hash));
                    good = lost.map_or(u64::MAX, |(offset, _)| offset);
                }
                let own = parts(entry).all(|(_, part)| part.chunks.iter().all(|chunk| has(&chunk.hash)));
                // What an index is made from counts only together with the parent that it was made for.
                let index = own
                    && self.parent(at, entry).is_ok()
                    && (entry.index.keyframe.is_some() || (entry.stream.parent.is_some() && index));
                whole.insert((at, entry.uid), (good, index));
                let ranges = if good < entry.cut.offset { self.lost_ranges(at, entry, &has) } else { Vec::new() };
                gaps.push(Gaps { ranges, index: !index });
            }
            if !chosen.is_deleted() {
                found.push((at, gaps));
            }
        }
        found
    }

    fn lost_ranges(&self, at: usize, entry: &DatabaseEntry, has: impl Fn(&Hash) -> bool) -> Vec<(u64, u64)> {
        let (list, unknown) = self.list(at, entry);
        let mut ranges: Vec<(u64, u64)> = unknown.into_iter().collect();
        for (offset, name) in list.into_iter().filter(|(_, name)| !has(&name.hash)) {
            let end = offset + u64::from(name.length);
            match ranges.last_mut() {
                Some(last) if last.1 == offset => last.1 = end,
                _ => ranges.push((offset, end)),
            }
        }
        ranges
    }

    /// Sets aside what has gaps, and brings back what was set aside and has none any more.
    pub(super) fn judge(&mut self, has: impl Fn(&Hash) -> bool) -> Judgement {
        let (mut aside, mut back) = (Vec::new(), Vec::new());
        for (at, gaps) in self.gaps(has) {
            let chosen = &mut self.snapshots[at];
            let is_whole = gaps.iter().all(Gaps::is_empty);
            if is_whole && chosen.manifest.kind == DAMAGED {
                let manifest = chosen.change();
                let kind = if manifest.id.starts_with(id::UNDO) { "undo" } else { "save" };
                manifest.kind = manifest.kind_before.take().unwrap_or_else(|| kind.into());
                back.push(manifest.id.clone());
            } else if !is_whole {
                let before = chosen.manifest.kind == DAMAGED;
                if !before {
                    let manifest = chosen.change();
                    manifest.kind_before = Some(std::mem::replace(&mut manifest.kind, DAMAGED.into()));
                }
                aside.push(Aside { at, gaps, before });
            }
        }
        Judgement { aside, back }
    }
}
