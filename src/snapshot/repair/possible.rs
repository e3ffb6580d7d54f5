//! Manifests that can't be right although they are what their names say: somebody made them up. One of them must not keep
//! the rest from being repaired.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash as Key;

use crate::repository::blob_list::{BlobEntry, BlobForm, BlobTotals, BlobsEntry};
use crate::repository::chunker;
use crate::repository::hash::Uid;
use crate::repository::manifest::{ChunkName, DatabaseEntry, Generation, Manifest};
use crate::snapshot::id;
use crate::snapshot::repair::picture::parts;

/// The largest number that is taken for one: a few of them can be added up, and SQLite can store the sum.
pub(super) const LARGEST: u64 = i64::MAX as u64 / 8;
/// The longest piece of an index.
pub(super) const LARGEST_PIECE: u32 = 1 << 20;

/// Why a manifest is none of znap's, as the end of a sentence; `None` if it may be one.
pub(super) fn impossible(manifest: &Manifest) -> Option<&'static str> {
    if id::check(&manifest.id, "a snapshot's id").is_err() {
        return Some("the id in it can't be one");
    }
    for (number, entry) in manifest.databases.iter().enumerate() {
        let mut others = manifest.databases[..number].iter();
        if others.any(|other| other.uid == entry.uid || other.name == entry.name) {
            return Some("it has a database twice");
        }
    }
    let numbers = [manifest.sequence, manifest.stored_bytes];
    let is_possible =
        numbers.iter().all(|number| *number <= LARGEST) && manifest.databases.iter().all(has_possible_numbers);
    (!is_possible).then_some("a number in it is too large")
}

fn has_possible_numbers(entry: &DatabaseEntry) -> bool {
    let DatabaseEntry { generation, cut, stream, .. } = entry;
    let numbers = [
        generation.base_length,
        generation.base_last_length,
        cut.offset,
        cut.last_length,
        cut.transactions,
        cut.new_bytes,
        stream.kept,
        stream.kept_length,
        stream.last_final.count,
        stream.last_final.length,
    ];
    let in_parts = || parts(entry).flat_map(|(_, part)| [part.entries, part.bytes]);
    let mut pieces = parts(entry).flat_map(|(_, part)| &part.chunks);
    numbers.into_iter().chain(in_parts()).all(|number| number <= LARGEST)
        && [generation.base_tid, cut.tid].iter().all(|tid| *tid <= i64::MAX as u64)
        && stream.chunks.iter().all(|chunk| chunk.length as usize <= chunker::MAX)
        && pieces.all(|piece| piece.length <= LARGEST_PIECE)
        && entry.blobs.as_ref().is_none_or(has_possible_blobs)
}

fn has_possible_blobs(blobs: &BlobsEntry) -> bool {
    let BlobTotals { count, bytes, .. } = blobs.totals;
    let is_possible = |(blob, chunks): (&BlobEntry, &[ChunkName])| {
        let length: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        blob.offset <= LARGEST
            && blob.size <= LARGEST
            && blob.oid.max(blob.tid) <= i64::MAX as u64
            && chunks.iter().all(|chunk| chunk.length <= LARGEST_PIECE)
            && (blob.form != BlobForm::Chunks || length == blob.size)
    };
    count.max(bytes) <= LARGEST
        && blobs.own.is_sorted_by(|one, next| one.offset < next.offset)
        && blobs.each().all(is_possible)
}

/// What manifests say of databases, and have to agree about.
#[derive(Default)]
pub(super) struct Agreed {
    names: HashMap<String, Uid>,
    databases: HashMap<Uid, String>,
    generations: HashMap<Uid, (Uid, Generation)>,
    numbers: HashMap<(Uid, u32), Uid>,
}

impl Agreed {
    /// Adds what a manifest says; false if it contradicts the ones before it: no catalog can have both.
    pub(super) fn add(&mut self, manifest: &Manifest) -> bool {
        manifest.databases.iter().all(|entry| {
            let generation = &entry.generation;
            agrees(&mut self.names, entry.name.clone(), entry.uid)
                && agrees(&mut self.databases, entry.uid, entry.name.clone())
                && agrees(&mut self.generations, generation.uid, (entry.uid, generation.clone()))
                && agrees(&mut self.numbers, (entry.uid, generation.number), generation.uid)
        })
    }
}

fn agrees<K: Eq + Key, V: PartialEq>(known: &mut HashMap<K, V>, key: K, value: V) -> bool {
    match known.entry(key) {
        Entry::Occupied(before) => *before.get() == value,
        Entry::Vacant(place) => {
            place.insert(value);
            true
        }
    }
}
