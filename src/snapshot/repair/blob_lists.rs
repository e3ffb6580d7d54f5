//! Lists of blobs: what nobody has any more becomes missing in them, so that a save takes it again where the database still has it,
//! and no list says what isn't so.

use std::collections::{HashMap, HashSet};

use crate::repository::blob_list::{BlobEntry, BlobForm, BlobSum, BlobTotals};
use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::ChunkName;
use crate::snapshot::repair::picture::Picture;

/// Of a snapshot's own list of a database, after each blob: its offset, and the sum, number and bytes of all up to it.
type Sums = Vec<(u64, BlobSum, u64, u64)>;

/// What is lost.
#[derive(Debug, Default)]
pub(super) struct LostBlobs {
    /// Pieces of blobs.
    pub(super) chunks: HashSet<Hash>,
    /// Revisions of blobs, each once.
    pub(super) blobs: HashSet<(Uid, u64, u64)>,
}

/// Goes through all lists, those of parents first. A blob of which a piece is nowhere, or of which another list says that it has other
/// bytes, is missing from now on; and the totals are made right.
pub(super) fn settle(picture: &mut Picture, has: impl Fn(&Hash) -> bool) -> LostBlobs {
    let mut lost = LostBlobs::default();
    // What is known of each revision: one of those that contradict each other counts.
    let mut agreed: HashMap<(Uid, u64, u64), (u64, Hash)> = HashMap::new();
    let mut lists: HashMap<(usize, Uid), (Sums, Option<usize>, u64)> = HashMap::new();
    for at in 0..picture.snapshots.len() {
        let chosen = &picture.snapshots[at];
        if !chosen.is_needed() {
            continue;
        }
        let is_deleted = chosen.is_deleted();
        let mut changes = Vec::new();
        for (number, entry) in chosen.manifest.databases.iter().enumerate() {
            let Some(blobs) = &entry.blobs else { continue };
            let mut own: Vec<(BlobEntry, Vec<ChunkName>)> = Vec::new();
            let (mut sums, mut total) = (Sums::new(), (BlobSum::default(), 0, 0));
            let mut is_changed = false;
            for (blob, chunks) in blobs.each() {
                let name = (entry.uid, blob.oid, blob.tid);
                let gone: Vec<Hash> = chunks.iter().map(|chunk| chunk.hash).filter(|hash| !has(hash)).collect();
                let is_whole = blob.form == BlobForm::Missing
                    || gone.is_empty()
                        && *agreed.entry(name).or_insert((blob.size, blob.hash)) == (blob.size, blob.hash);
                let mut kept = (*blob, chunks.to_vec());
                if !is_whole {
                    lost.chunks.extend(gone);
                    lost.blobs.insert(name);
                    kept = (BlobEntry::missing(blob.offset, blob.oid, blob.tid), Vec::new());
                    is_changed = true;
                }
                if let Some(name) = kept.0.name() {
                    total = (total.0.plus(&name), total.1 + 1, total.2 + kept.0.size);
                    sums.push((blob.offset, total.0, total.1, total.2));
                }
                own.push(kept);
            }
            let parent = picture.parent(at, entry).ok().flatten().map(|(place, _)| place);
            lists.insert((at, entry.uid), (sums, parent, entry.stream.kept_length));
            let totals = match is_deleted {
                // Of these only what others need has to be there.
                true => blobs.totals.clone(),
                false => totals_of(&lists, at, entry.uid, entry.cut.offset, blobs.totals.layout.clone()),
            };
            if is_changed || totals != blobs.totals {
                changes.push((number, own, totals));
            }
        }
        for (number, own, totals) in changes {
            if let Some(blobs) = &mut picture.snapshots[at].change().databases[number].blobs {
                blobs.totals = totals;
                blobs.set(own);
            }
        }
    }
    lost
}

fn totals_of(
    lists: &HashMap<(usize, Uid), (Sums, Option<usize>, u64)>,
    at: usize,
    database: Uid,
    cut: u64,
    layout: String,
) -> BlobTotals {
    let mut totals = BlobTotals::none(layout);
    let (mut next, mut upto) = (Some(at), cut);
    // Parents come first, so this ends.
    while let Some((sums, parent, kept)) = next.and_then(|at| lists.get(&(at, database))) {
        if let Some((_, sum, count, bytes)) = sums[..sums.partition_point(|(offset, ..)| *offset < upto)].last() {
            totals.sum = totals.sum.plus(&sum.0);
            totals.count += count;
            totals.bytes += bytes;
        }
        (next, upto) = (*parent, upto.min(*kept));
    }
    totals
}
