//! States of a few kinds of objects, as ZODB stores them in data records: for tests and demonstrations.

use super::tid::Oid;

/// A blob: its content is in a file beside the storage.
pub const BLOB: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

const MAPPING_CLASS: &[u8] = b"cpersistent.mapping\nPersistentMapping\n";

/// A value in a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A `str`.
    Text(String),
    /// A `bytes`.
    Bytes(Vec<u8>),
    /// Another persistent mapping, by its oid.
    Mapping(Oid),
    /// A blob, by its oid.
    Blob(Oid),
}

/// A `persistent.mapping.PersistentMapping` with these items: what the root object, oid 0, must be.
pub fn mapping<'a>(items: impl IntoIterator<Item = (&'a str, Content)>) -> Vec<u8> {
    // The class, then the state {'data': {...}}; each a pickle of protocol 3.
    let mut record = b"\x80\x03".to_vec();
    record.extend(MAPPING_CLASS);
    record.extend(b".\x80\x03}");
    text(&mut record, "data");
    record.extend(b"}(");
    for (key, value) in items {
        text(&mut record, key);
        match value {
            Content::Text(value) => text(&mut record, &value),
            Content::Bytes(value) => {
                record.push(b'B');
                counted(&mut record, &value);
            }
            Content::Mapping(oid) => reference(&mut record, oid, MAPPING_CLASS),
            Content::Blob(oid) => reference(&mut record, oid, b"cZODB.blob\nBlob\n"),
        }
    }
    record.extend(b"us.");
    record
}

/// A reference is a persistent id: the pair of oid and class.
fn reference(record: &mut Vec<u8>, oid: Oid, class: &[u8]) {
    record.extend([b'C', 8]);
    record.extend(oid.0.to_be_bytes());
    record.extend(class);
    record.extend(b"\x86Q");
}

fn text(record: &mut Vec<u8>, text: &str) {
    record.push(b'X');
    counted(record, text.as_bytes());
}

/// A little-endian length of four bytes and so many of the bytes.
fn counted(record: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    record.extend(length.to_le_bytes());
    record.extend(bytes.iter().take(length as usize));
}
