//! Lists of blobs, checked against the sums that snapshots have of them.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::repository::blob_list::BlobSum;
use crate::repository::catalog::{Catalog, StoredBlob, Stream};

/// All blobs of a stream, after checking that they are those that its snapshot has; `None` if its blobs weren't saved.
pub(crate) fn blobs_of(catalog: &Catalog, stream: &Stream) -> Result<Option<Vec<StoredBlob>>> {
    let Some(totals) = &stream.blobs else { return Ok(None) };
    let blobs = catalog.blobs_between(stream.row, 0, stream.cut.offset)?;
    let sum = blobs.iter().filter_map(|blob| blob.entry.name()).fold(BlobSum::default(), |sum, name| sum.plus(&name));
    if sum == totals.sum && blobs.len() as u64 == totals.count { Ok(Some(blobs)) } else { Err(damaged(stream)) }
}

/// The error for a list of blobs that can't be right.
pub(crate) fn damaged(stream: &Stream) -> Error {
    Error::damaged(format!("the list of blobs of snapshot {} in the catalog is damaged", stream.snapshot_name))
        .hint("put catalog.db back from a copy; or rebuild it with znap repair")
}

/// The lists of all streams, for checking many of them.
pub(crate) struct Lists {
    /// Of each stream its own: the offset of a record, and the sum and number of all up to it.
    own: HashMap<i64, Vec<(u64, BlobSum, u64)>>,
    parents: HashMap<i64, (Option<i64>, u64)>,
}

impl Lists {
    /// Reads them.
    pub(crate) fn read(catalog: &Catalog, streams: &[Stream]) -> Result<Self> {
        let mut own: HashMap<i64, Vec<(u64, BlobSum, u64)>> = HashMap::new();
        // Of these a row is lost, and gc would drop the bytes that it named: without them the sum is another one.
        let broken = catalog.broken_blobs()?;
        for (stream, blob) in catalog.blob_names()? {
            let list = own.entry(stream).or_default();
            let (sum, count) = list.last().map_or((BlobSum::default(), 0), |last| (last.1, last.2));
            let name = blob.entry.name().filter(|_| !broken.contains(&blob.row));
            list.push((blob.entry.offset, name.map_or(sum, |name| sum.plus(&name)), count + 1));
        }
        let parents = streams.iter().map(|stream| (stream.row, (stream.parent, stream.kept_length))).collect();
        Ok(Lists { own, parents })
    }

    /// Checks the blobs of a stream against its sum.
    pub(crate) fn check(&self, stream: &Stream) -> Result<()> {
        let Some(totals) = &stream.blobs else { return Ok(()) };
        let (mut sum, mut count) = (BlobSum::default(), 0);
        let (mut at, mut upto) = (Some(stream.row), stream.cut.offset);
        while let Some(row) = at {
            let list = self.own.get(&row).map_or(&[][..], Vec::as_slice);
            if let Some((_, part, blobs)) = list[..list.partition_point(|(offset, ..)| *offset < upto)].last() {
                (sum, count) = (sum.plus(&part.0), count + blobs);
            }
            // A parent's row always comes before those that build on it.
            let (parent, kept) = self.parents.get(&row).copied().unwrap_or((None, 0));
            (at, upto) = (parent.filter(|parent| *parent < row), upto.min(kept));
        }
        if sum == totals.sum && count == totals.count { Ok(()) } else { Err(damaged(stream)) }
    }
}
