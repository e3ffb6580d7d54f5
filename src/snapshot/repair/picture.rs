//! What is to be in the catalog: which snapshots, how much of each list, and which of them are whole.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::{ChunkName, DAMAGED, DatabaseEntry, IndexPart, Manifest, STORED_BASE, Tombstone};
use crate::snapshot::id;
use crate::snapshot::repair::objects::{Objects, Stored};
use crate::snapshot::repair::records::Again;

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

/// All snapshots that the object files tell of, parents first, and then by sequence.
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

    /// Whether it is a snapshot, or one builds on it.
    pub(super) fn is_needed(&self) -> bool {
        !self.is_deleted() || self.reach.iter().any(Option::is_some)
    }

    /// Whether a manifest or a tombstone has to be written of it. As long as a deleted one's manifest is there, so must be its
    /// tombstone.
    pub(super) fn lacks_record(&self) -> bool {
        let is_there = self.file.is_some();
        (!is_there && self.is_needed()) || (is_there && matches!(self.tombstone, Some(Record::New(_))))
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

/// Puts parents first; otherwise by number, then by time.
fn in_order(mut snapshots: Vec<Chosen>) -> Vec<Chosen> {
    snapshots.sort_by_key(|chosen| (chosen.manifest.sequence, chosen.manifest.created, chosen.manifest.uid));
    let places: HashMap<Uid, usize> =
        snapshots.iter().enumerate().map(|(at, chosen)| (chosen.manifest.uid, at)).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); snapshots.len()];
    let mut waits_for: Vec<usize> = vec![0; snapshots.len()];
    for (at, chosen) in snapshots.iter().enumerate() {
        let parents = chosen.manifest.databases.iter().filter_map(|entry| entry.stream.parent);
        let parents: HashSet<usize> = parents.filter_map(|parent| places.get(&parent).copied()).collect();
        waits_for[at] = parents.len();
        parents.into_iter().for_each(|parent| children[parent].push(at));
    }
    let mut rest: BTreeSet<usize> = (0..snapshots.len()).collect();
    let mut ready: BTreeSet<usize> = rest.iter().copied().filter(|at| waits_for[*at] == 0).collect();
    let mut unordered: Vec<Option<Chosen>> = snapshots.into_iter().map(Some).collect();
    let mut ordered = Vec::new();
    // Where some build on each other in a circle, which only somebody who makes them up can do, the first comes first.
    while let Some(at) = ready.pop_first().or_else(|| rest.first().copied()) {
        rest.remove(&at);
        ordered.extend(unordered[at].take());
        for &child in &children[at] {
            waits_for[child] = waits_for[child].saturating_sub(1);
            if waits_for[child] == 0 && rest.contains(&child) {
                ready.insert(child);
            }
        }
    }
    ordered
}

/// An id like this one that no other snapshot has.
fn free_id(id: &str, number: u64, taken: &HashSet<String>) -> String {
    let mut number = number;
    loop {
        let end = format!("+{number}");
        let room = id::LONGEST.saturating_sub(end.len());
        let free: String = id.chars().take(room).chain(end.chars()).collect();
        if !taken.contains(&free) {
            return free;
        }
        number += 1;
    }
}

impl Picture {
    /// Of each snapshot the manifest that a good catalog names; without one the newest revision of which most is there: one that a gc
    /// was about to commit may lack what it needs, and the one before it is as good. `sequence` is the highest number ever given.
    pub(super) fn new(objects: &Objects, again: &Again, named: &HashSet<Hash>, sequence: u64) -> Self {
        let mut uids: HashSet<Uid> = objects.manifests.iter().map(|stored| stored.what.uid).collect();
        uids.extend(again.manifests.iter().map(|manifest| manifest.uid));
        // Without what it builds on one is worth nothing, however many of its own chunks are there.
        let is_orphan = |manifest: &Manifest| {
            let mut parents = manifest.databases.iter().filter_map(|entry| entry.stream.parent);
            parents.any(|parent| !uids.contains(&parent))
        };
        let lacks = |manifest: &Manifest| {
            let own = |entry: &DatabaseEntry| {
                let chunks = entry.stream.chunks.iter().chain(parts(entry).flat_map(|(_, part)| &part.chunks));
                chunks.filter(|chunk| !objects.has(&chunk.hash)).count()
            };
            manifest.databases.iter().map(own).sum::<usize>()
        };
        let rank = |stored: &Stored<Manifest>| {
            let manifest = &stored.what;
            let is_named = named.contains(&stored.file.0);
            (is_named, Reverse(is_orphan(manifest)), Reverse(lacks(manifest)), manifest.revision)
        };
        let mut best: HashMap<Uid, (&Stored<Manifest>, u32)> = HashMap::new();
        for stored in &objects.manifests {
            let manifest = &stored.what;
            let top = best.get(&manifest.uid).map_or(0, |(_, top)| *top).max(manifest.revision);
            let before = best.get(&manifest.uid).map(|(before, _)| *before);
            let better = before.filter(|before| rank(before) >= rank(stored)).unwrap_or(stored);
            best.insert(manifest.uid, (better, top));
        }
        let tombstones = again.tombstones.iter().cloned();
        let mut buried: HashMap<Uid, Record<Tombstone>> =
            tombstones.map(|stone| (stone.snapshot, Record::New(stone))).collect();
        for stone in &objects.tombstones {
            buried.insert(stone.what.snapshot, Record::There(stone.file));
        }
        let there = best.into_values().map(|(stored, top)| (stored.what.clone(), Some(stored.file), top));
        let made = again.manifests.iter().map(|manifest| (manifest.clone(), None, manifest.revision));
        let snapshots: Vec<Chosen> = there
            .chain(made)
            .map(|(manifest, file, top_revision)| Chosen {
                tombstone: buried.get(&manifest.uid).cloned(),
                reach: vec![None; manifest.databases.len()],
                manifest,
                file,
                top_revision,
            })
            .collect();
        let snapshots = in_order(snapshots);
        let places = snapshots.iter().enumerate().map(|(at, chosen)| (chosen.manifest.uid, at)).collect();
        let mut picture = Picture { snapshots, places };
        picture.find_reach();
        picture.settle_conflicts(sequence);
        picture
    }

    /// Gives new numbers where two snapshots have the same, or one has a lower one than what it builds on: an old catalog was put
    /// back and worked with, or this was interrupted. And new ids where two have the same.
    fn settle_conflicts(&mut self, sequence: u64) {
        let mut next = self.snapshots.iter().map(|chosen| chosen.manifest.sequence).fold(sequence, u64::max);
        let mut before = None;
        let mut ids: HashSet<String> = HashSet::new();
        let mut old_numbers: HashMap<Uid, u64> = HashMap::new();
        let mut renumbers = false;
        // What is deleted, and of no use to others, is in nobody's way.
        for chosen in self.snapshots.iter_mut().filter(|chosen| chosen.is_needed()) {
            let number = chosen.manifest.sequence;
            old_numbers.insert(chosen.manifest.uid, number);
            ids.extend((!chosen.is_deleted()).then(|| chosen.manifest.id.clone()));
            renumbers |= before.is_some_and(|before| before >= number);
            before = Some(number);
            if renumbers {
                next += 1;
                chosen.change().sequence = next;
            }
        }
        let mut given: HashSet<String> = HashSet::new();
        for chosen in self.snapshots.iter_mut().rev().filter(|chosen| !chosen.is_deleted()) {
            if !given.insert(chosen.manifest.id.clone()) {
                // The same whether or not the new numbers are written down already.
                let number = old_numbers.get(&chosen.manifest.uid).copied().unwrap_or(next);
                let id = free_id(&chosen.manifest.id, number, &ids);
                ids.insert(id.clone());
                given.insert(id.clone());
                chosen.change().id = id;
            }
        }
    }

    /// How much of each list is needed: a snapshot's own whole, a deleted one's as far as those that build on it reach.
    fn find_reach(&mut self) {
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

    /// What the catalog has a row of: all that is needed; and what is deleted as long as its manifest is there, so that it isn't
    /// taken for a snapshot when its tombstone is lost, unless another one has its number.
    pub(super) fn recorded(&self) -> Vec<&Chosen> {
        let needed = self.snapshots.iter().filter(|chosen| chosen.is_needed());
        let mut numbers: HashSet<u64> = needed.map(|chosen| chosen.manifest.sequence).collect();
        let mut recorded = Vec::new();
        for chosen in &self.snapshots {
            if chosen.is_needed() || (chosen.file.is_some() && numbers.insert(chosen.manifest.sequence)) {
                recorded.push(chosen);
            }
        }
        recorded
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
            let end = offset.saturating_add(u64::from(name.length));
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
                let kind = if manifest.id.starts_with(id::UNDO) {
                    "undo"
                } else if manifest.id.starts_with(id::BASE) {
                    STORED_BASE
                } else {
                    "save"
                };
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
