//! Finding which records of a FileStorage are blobs: their bytes are in files of their own, beside it.

use std::collections::HashMap;

use super::bytes::u64_at;
use super::scan::{Record, Sink};
use super::source::Source;
use super::transaction::RECORD_HEADER_LENGTH;
use crate::error::Result;

/// A revision of a blob, as a data record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRecord {
    /// Offset of the record in the file.
    pub offset: u64,
    /// The object.
    pub oid: u64,
    /// The transaction.
    pub tid: u64,
    /// Whether the object has no later record among those that were seen.
    pub current: bool,
    /// Offset of the record whose data this one has, if it has none itself: an undo. What that is isn't known yet.
    back: Option<u64>,
}

impl BlobRecord {
    /// One that is known to be a blob.
    pub fn known(offset: u64, oid: u64, tid: u64, current: bool) -> Self {
        BlobRecord { offset, oid, tid, current, back: None }
    }
}

/// How many bytes of a record's data tell whether it is a blob.
const BEGINNING: usize = 64;

/// Collects the blobs among the records of a scan.
#[derive(Debug, Default)]
pub struct BlobRecords {
    found: Vec<BlobRecord>,
    /// For each object that may be a blob, which of `found` is its last one.
    last: HashMap<u64, usize>,
    /// The record of which data is awaited, and the beginning of that.
    record: Option<Record>,
    beginning: Vec<u8>,
}

impl BlobRecords {
    /// The blobs, in the order of their records; each revision once. What undone records stand for is looked up in the file.
    pub fn finish(mut self, source: &dyn Source) -> Result<Vec<BlobRecord>> {
        self.end_record();
        let mut blobs = Vec::with_capacity(self.found.len());
        for record in self.found {
            if match record.back {
                Some(back) => leads_to_blob(source, record.offset, back)?,
                None => true,
            } {
                blobs.push(record);
            }
        }
        // A transaction may have stored an object twice.
        let mut seen = HashMap::new();
        for (at, blob) in blobs.iter().enumerate() {
            seen.insert((blob.oid, blob.tid), at);
        }
        let mut at = 0..;
        blobs.retain(|blob| seen.get(&(blob.oid, blob.tid)).copied() == at.next());
        Ok(blobs)
    }

    fn add(&mut self, record: &Record, back: Option<u64>) {
        self.last.insert(record.oid.0, self.found.len());
        let (oid, tid) = (record.oid.0, record.tid.0);
        self.found.push(BlobRecord { offset: record.position, oid, tid, current: true, back });
    }

    fn end_record(&mut self) {
        if let Some(record) = self.record.take()
            && is_blob(&self.beginning)
        {
            self.add(&record, None);
        }
        self.beginning.clear();
    }
}

impl Sink for BlobRecords {
    fn record(&mut self, record: &Record) {
        self.end_record();
        if let Some(at) = self.last.remove(&record.oid.0) {
            self.found[at].current = false;
        }
        match (record.data_length, record.back) {
            // The object doesn't exist any more.
            (0, 0) => {}
            (0, back) => self.add(record, Some(back)),
            _ => self.record = Some(*record),
        }
    }

    fn data(&mut self, part: &[u8]) {
        let Some(record) = self.record else { return };
        if self.beginning.is_empty() && part.len() >= BEGINNING {
            // Nearly every record is no blob, and comes whole.
            self.record = None;
            if is_blob(part) {
                self.add(&record, None);
            }
            return;
        }
        let room = BEGINNING.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&part[..part.len().min(room)]);
    }
}

/// Whether a record at `offset` whose data is that of the one at `back`, which may point back in turn, is a blob.
fn leads_to_blob(source: &dyn Source, mut offset: u64, mut back: u64) -> Result<bool> {
    let mut bytes = [0; RECORD_HEADER_LENGTH as usize + BEGINNING];
    let size = source.size()?;
    // Each lies before the one that names it, so this ends.
    while back > 0 && back < offset {
        let length = (bytes.len() as u64).min(size.saturating_sub(back)) as usize;
        if length < RECORD_HEADER_LENGTH as usize + 8 {
            return Ok(false);
        }
        source.read_exact_at(&mut bytes[..length], back)?;
        let data_length = u64_at(&bytes, 34);
        let data = &bytes[RECORD_HEADER_LENGTH as usize..length];
        if data_length > 0 {
            return Ok(is_blob(&data[..data.len().min(usize::try_from(data_length).unwrap_or(usize::MAX))]));
        }
        (offset, back) = (back, u64_at(data, 0));
    }
    Ok(false)
}

/// Whether data begins as a blob's does: with the pickle of the class `ZODB.blob.Blob`, and nothing else (ZODB/blob.py,
/// `is_blob_record`). zc.zlibstorage leaves it as it is: compressed it would be longer.
fn is_blob(data: &[u8]) -> bool {
    // An optional protocol, and perhaps a frame of protocol 4.
    let data = match data {
        [0x80, _, 0x95, _, _, _, _, _, _, _, _, rest @ ..] | [0x80, _, rest @ ..] => rest,
        data => data,
    };
    let Some(rest) = data
        .strip_prefix(b"cZODB.blob\nBlob\n")
        .or_else(|| data.strip_prefix(b"\x8c\x09ZODB.blob\x94\x8c\x04Blob\x94\x93"))
    else {
        return false;
    };
    // Remembered under a number, or not; then the pickle ends.
    matches!(rest, [b'.', ..] | [b'q', _, b'.', ..] | [b'r', _, _, _, _, b'.', ..] | [0x94, b'.', ..])
}

#[cfg(test)]
mod tests {
    use super::super::pickles::BLOB;
    use super::*;

    #[test]
    fn blobs_are_told_by_their_class() {
        assert!(is_blob(BLOB));
        assert!(is_blob(b"cZODB.blob\nBlob\nq\x01.N."));
        assert!(is_blob(b"\x80\x02cZODB.blob\nBlob\n.\x80\x02N."));
        assert!(is_blob(b"\x80\x04\x95\x17\0\0\0\0\0\0\0\x8c\x09ZODB.blob\x94\x8c\x04Blob\x94\x93\x94.N."));
        for other in [
            &b"\x80\x03cZODB.blob\nBlobFile\nq\x00."[..],
            b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.",
            b"\x80\x03X\x09\0\0\0ZODB.blob.",
            b"\x80\x03cZODB.blob\nBlob\nq\x00)\x86.",
            b"\x80\x03",
            b"",
        ] {
            assert!(!is_blob(other), "{}", other.escape_ascii());
        }
    }
}
