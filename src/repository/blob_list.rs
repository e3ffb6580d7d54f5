//! The blobs of a snapshot as manifests and the catalog have them (docs/format.md): a revision of a blob is known by its
//! database, oid and tid, and its bytes are a plain object file, or chunks.

use serde::{Deserialize, Serialize};

use crate::repository::hash::Hash;
use crate::repository::manifest::ChunkName;
use crate::repository::record::{hex_unless_utf8, path_from};

/// How the blobs of a database are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum BlobMode {
    /// As second names of the same files, or clones of them; where that can't be, as copies.
    Link = 1,
    /// As copies.
    Copy = 2,
    /// Not at all: neither save nor restore touches them.
    Skip = 3,
}

impl BlobMode {
    /// From its number in the catalog.
    pub fn from_number(number: u8) -> Option<Self> {
        [BlobMode::Link, BlobMode::Copy, BlobMode::Skip].into_iter().find(|mode| *mode as u8 == number)
    }

    /// As options and JSON have it.
    pub fn word(self) -> &'static str {
        match self {
            BlobMode::Link => "link",
            BlobMode::Copy => "copy",
            BlobMode::Skip => "skip",
        }
    }
}

/// A database's blob directory, and what to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobDirectory {
    /// Its path as typed, relative to the directory that holds `.znap`.
    pub path: std::path::PathBuf,
    /// How its blobs are stored.
    pub mode: BlobMode,
}

/// The same in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobDirectoryEntry {
    /// Its path; lossy if it isn't UTF-8.
    pub path: String,
    /// The bytes of the path in hexadecimal, if they aren't UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// How its blobs are stored.
    pub mode: BlobMode,
}

impl BlobDirectoryEntry {
    /// What a manifest says of it.
    pub fn of(directory: &BlobDirectory) -> Self {
        let path = &directory.path;
        BlobDirectoryEntry {
            path: path.to_string_lossy().into_owned(),
            path_hex: hex_unless_utf8(path),
            mode: directory.mode,
        }
    }

    /// What it says.
    pub fn directory(&self) -> BlobDirectory {
        BlobDirectory { path: path_from(&self.path, self.path_hex.as_deref()), mode: self.mode }
    }
}

/// All blobs of a snapshot's database, of whichever snapshot's own list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobTotals {
    /// How the directory is laid out: `bushy` or `lawn`.
    pub layout: String,
    /// How many blobs are stored.
    pub count: u64,
    /// Their bytes, those of the files.
    pub bytes: u64,
    /// The sum of their [`BlobEntry::name`]s.
    pub sum: BlobSum,
}

/// A sum of hashes: as numbers of 256 bits, little-endian, modulo 2^256. Two lists of the same blobs have the same sum in whatever
/// order. It finds damage; it isn't made to withstand somebody who looks for lists of the same sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobSum(pub Hash);

impl BlobSum {
    /// The sum with one more hash.
    #[must_use]
    pub fn plus(self, hash: &Hash) -> Self {
        let mut sum = [0; 32];
        let mut carry = 0;
        for (place, (a, b)) in sum.iter_mut().zip(self.0.0.iter().zip(hash.0)) {
            carry += u16::from(*a) + u16::from(b);
            *place = carry as u8;
            carry >>= 8;
        }
        BlobSum(Hash(sum))
    }
}

impl BlobTotals {
    /// None, in a directory of this layout.
    pub fn none(layout: String) -> Self {
        BlobTotals { layout, count: 0, bytes: 0, sum: BlobSum::default() }
    }
}

/// A snapshot's blobs of one database in its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobsEntry {
    /// Of all its blobs.
    #[serde(flatten)]
    pub totals: BlobTotals,
    /// Its own, in the order of `offset`; the others are its parent's with an offset below `kept_length`. In the file: how many; the
    /// entries are at its end.
    #[serde(with = "counted")]
    pub own: Vec<BlobEntry>,
    /// The chunks of those whose bytes are in chunks, one blob's behind the other's.
    #[serde(with = "crate::repository::manifest::counted")]
    pub chunks: Vec<ChunkName>,
}

/// Where a blob's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BlobForm {
    /// Nowhere: no save has found its file.
    Missing = 0,
    /// They are a plain object file, named by their hash.
    Plain = 1,
    /// They are those of chunks, one behind the other.
    Chunks = 2,
}

/// A revision of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobEntry {
    /// Where its record begins in the database's file.
    pub offset: u64,
    /// The object.
    pub oid: u64,
    /// The transaction.
    pub tid: u64,
    /// Its length in bytes.
    pub size: u64,
    /// The permissions of its file.
    pub mode: u32,
    /// The user whom it belongs to, by number.
    pub owner: u32,
    /// And the group.
    pub group: u32,
    /// Where its bytes are.
    pub form: BlobForm,
    /// In how many chunks.
    pub chunks: u32,
    /// The hash of its bytes; zeros if they are nowhere.
    pub hash: Hash,
}

/// The length of an entry in a manifest.
pub(super) const ENTRY: usize = 84;

impl BlobEntry {
    /// One whose file isn't there.
    pub fn missing(offset: u64, oid: u64, tid: u64) -> Self {
        let (hash, form) = (Hash::default(), BlobForm::Missing);
        BlobEntry { offset, oid, tid, size: 0, mode: 0, owner: 0, group: 0, form, chunks: 0, hash }
    }

    /// What it adds to the sum of a snapshot's blobs: the hash of oid, tid and size, each as u64, and the hash of its bytes. Nothing if
    /// they are nowhere.
    pub fn name(&self) -> Option<Hash> {
        let numbers = [self.oid, self.tid, self.size].map(u64::to_le_bytes);
        let name = || Hash::of(&[numbers.as_flattened(), &self.hash.0].concat());
        (self.form != BlobForm::Missing).then(name)
    }

    pub(super) fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        let long = [self.offset, self.oid, self.tid, self.size].map(u64::to_le_bytes);
        let short = [self.mode, self.owner, self.group, self.form as u32, self.chunks].map(u32::to_le_bytes);
        bytes[..32].copy_from_slice(long.as_flattened());
        bytes[32..52].copy_from_slice(short.as_flattened());
        bytes[52..].copy_from_slice(&self.hash.0);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; ENTRY]) -> Option<Self> {
        let long = |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes);
        let short = |at: usize| bytes[at..].first_chunk().copied().map(u32::from_le_bytes);
        let form = [BlobForm::Missing, BlobForm::Plain, BlobForm::Chunks].into_iter().nth(short(44)? as usize)?;
        Some(BlobEntry {
            offset: long(0)?,
            oid: long(8)?,
            tid: long(16)?,
            size: long(24)?,
            mode: short(32)?,
            owner: short(36)?,
            group: short(40)?,
            form,
            chunks: short(48)?,
            hash: Hash::from_slice(&bytes[52..])?,
        })
    }
}

impl BlobsEntry {
    /// Its own blobs, each with its chunks.
    pub fn each(&self) -> impl Iterator<Item = (&BlobEntry, &[ChunkName])> {
        self.own.iter().scan(self.chunks.as_slice(), |left, blob| {
            let (chunks, rest) = left.split_at(left.len().min(blob.chunks as usize));
            *left = rest;
            Some((blob, chunks))
        })
    }

    /// Takes over those of its parent's own that are before `kept_length`.
    pub fn join(&mut self, parent: BlobsEntry, kept_length: u64) {
        let mut all: Vec<(BlobEntry, Vec<ChunkName>)> = Vec::new();
        let inherited = parent.each().filter(|(blob, _)| blob.offset < kept_length);
        for (blob, chunks) in self.each().chain(inherited) {
            all.push((*blob, chunks.to_vec()));
        }
        self.set(all);
    }

    /// Lists these, in the order of their records; of what was missing and was found, what was found.
    pub fn set(&mut self, mut blobs: Vec<(BlobEntry, Vec<ChunkName>)>) {
        blobs.sort_by_key(|(blob, _)| (blob.offset, blob.form == BlobForm::Missing));
        blobs.dedup_by_key(|(blob, _)| blob.offset);
        self.own = blobs.iter().map(|(blob, _)| *blob).collect();
        self.chunks = blobs.into_iter().flat_map(|(_, chunks)| chunks).collect();
    }

    /// Whether there are as many chunks as the blobs have, and only where they are.
    pub(super) fn is_consistent(&self) -> bool {
        let chunks: u64 = self.own.iter().map(|blob| u64::from(blob.chunks)).sum();
        chunks == self.chunks.len() as u64
            && self.own.iter().all(|blob| blob.form == BlobForm::Chunks || blob.chunks == 0)
    }
}

/// In JSON the list is its length; the entries follow behind.
mod counted {
    use super::BlobEntry;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(blobs: &[BlobEntry], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(blobs.len() as u64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<BlobEntry>, D::Error> {
        let count = usize::try_from(u64::deserialize(from)?).map_err(serde::de::Error::custom)?;
        // A placeholder for each, as for chunks.
        Ok(vec![BlobEntry::missing(0, 0, 0); count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_carries_and_has_no_order() {
        let (all, one) = (Hash([255; 32]), Hash(std::array::from_fn(|at| u8::from(at == 0))));
        assert_eq!(BlobSum::default().plus(&all).plus(&one), BlobSum::default());
        assert_eq!(BlobSum::default().plus(&one).plus(&all), BlobSum::default());
        assert_eq!(BlobSum::default().plus(&one).plus(&one).0.0[0], 2);
    }

    #[test]
    fn an_entry_survives_its_coding() {
        let entry = BlobEntry {
            offset: 1,
            oid: 2,
            tid: 3 << 60,
            size: 4,
            mode: 0o444,
            owner: 5,
            group: 6,
            form: BlobForm::Chunks,
            chunks: 7,
            hash: Hash([8; 32]),
        };
        assert_eq!(BlobEntry::decode(&entry.encode()), Some(entry));
        let mut bytes = entry.encode();
        bytes[44] = 3;
        assert_eq!(BlobEntry::decode(&bytes), None);
    }
}
