//! Manifests (docs/format.md): a header, a `u32` length, that many bytes of JSON, and the names of the chunks that the JSON counts: 32
//! bytes of hash and a `u32` length each. What else is stored as JSON: [`crate::repository::record`].

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::repository::blob_list::{BlobDirectoryEntry, BlobEntry, BlobsEntry, ENTRY};
use crate::repository::hash::{Hash, ListHash, Uid};
use crate::repository::layout::Layout;
use crate::repository::object::{ObjectKind, ObjectWriter, damaged, read_record};
use crate::repository::record::{json_with_length, split_json, write_record};

pub use crate::repository::record::{ChunkerConfig, Config, Tombstone};

/// A chunk as lists name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkName {
    /// The hash of its bytes.
    pub hash: Hash,
    /// How many bytes.
    pub length: u32,
}

impl ChunkName {
    /// The name of a chunk that is somewhere.
    pub fn of(location: &crate::repository::frames::Location) -> Self {
        ChunkName { hash: location.hash, length: location.length }
    }
}

/// All about one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The repository it belongs to.
    pub repository: Uid,
    /// The snapshot's identity for ever; other manifests refer to it by this.
    pub uid: Uid,
    /// Its place in the order of all snapshots; only grows.
    pub sequence: u64,
    /// How often gc wrote this manifest anew; the highest counts.
    pub revision: u32,
    /// The name that the user gave it.
    pub id: String,
    /// Why it exists: `save`, or `undo`; [`IMPORTED`]; [`STORED_BASE`]; or [`DAMAGED`].
    pub kind: String,
    /// Of a damaged one: its kind before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind_before: Option<String>,
    /// When it was made: microseconds since 1970, UTC.
    pub created: i64,
    /// The user's words about it.
    pub message: String,
    /// Whether all its databases are of one moment.
    pub one_moment: bool,
    /// Whether it has only some of the databases that there were, as its save was told.
    #[serde(default, skip_serializing_if = "is_false")]
    pub partial: bool,
    /// How many bytes of data files its save wrote.
    pub stored_bytes: u64,
    /// One entry per database.
    pub databases: Vec<DatabaseEntry>,
}

/// The kind of a snapshot that repair has set aside: it needs what nobody has any more.
pub const DAMAGED: &str = "damaged";

/// The kind of a snapshot that a save made.
pub const SAVE: &str = "save";
/// The kind of a snapshot that stores the base of a generation. Others need it, and users don't see it.
pub const STORED_BASE: &str = "base";

/// The kind of a snapshot that was taken in from elsewhere: an archive, or what another tool had made.
pub const IMPORTED: &str = "import";

/// A snapshot's part of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseEntry {
    /// The database's identity for ever.
    pub uid: Uid,
    /// Its name in the repository.
    pub name: String,
    /// Its path, relative to the directory that holds `.znap`; lossy if it isn't UTF-8.
    pub path: String,
    /// The bytes of the path in hexadecimal, if they aren't UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// Whether the base of each of its generations is to be stored.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_base: bool,
    /// Where its blobs are, if it was tracked with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_directory: Option<BlobDirectoryEntry>,
    /// The life of the file that the cut is in.
    pub generation: Generation,
    /// Where the snapshot ends.
    pub cut: CutEntry,
    /// The tail up to there.
    pub stream: StreamEntry,
    /// What its index is made from.
    pub index: IndexEntry,
    /// Its blobs, if they were saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<BlobsEntry>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The life of a database file between two packs, and how to recognise it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its identity.
    pub uid: Uid,
    /// 1 for the one that init found, and so on; 2^30 and on for those of files that were taken in from elsewhere.
    pub number: u32,
    /// When znap first saw it: microseconds since 1970, UTC.
    pub began: i64,
    /// The file's first four bytes, as text.
    pub magic: String,
    /// The length of the base; the tail begins there.
    pub base_length: u64,
    /// The tid of the base's last transaction, 0 if it has none.
    pub base_tid: u64,
    /// The length of that transaction, 0 if there is none.
    pub base_last_length: u64,
    /// How many bytes before the base's end `base_check` covers.
    pub base_check_length: u32,
    /// Their hash.
    pub base_check: Hash,
}

/// What is added to a generation's number for the one that stores its base.
const BASE: u32 = 1 << 31;

/// The number of the first generation of files that were taken in from elsewhere.
const FROM_ELSEWHERE: u32 = 1 << 30;

impl Generation {
    /// A generation of files from elsewhere, of which so many are there already. It has no base, and so any file with its magic may
    /// be of it.
    pub fn from_elsewhere(uid: Uid, others: u32, began: i64, magic: String) -> Generation {
        Generation { uid, number: FROM_ELSEWHERE + others, ..Self::without_base(began, magic) }
    }

    /// Whether it is of files from elsewhere, and not the present file's.
    pub fn is_from_elsewhere(&self) -> bool {
        (FROM_ELSEWHERE..BASE).contains(&self.number)
    }

    /// Whether it is the life of the file that is tracked.
    pub fn is_of_the_file(&self) -> bool {
        self.number < FROM_ELSEWHERE
    }

    fn without_base(began: i64, magic: String) -> Generation {
        Generation {
            uid: Uid([0; 16]),
            number: 0,
            began,
            base_length: magic.len() as u64,
            base_tid: 0,
            base_last_length: 0,
            base_check_length: magic.len() as u32,
            base_check: Hash::of(magic.as_bytes()),
            magic,
        }
    }

    /// The generation under which this one's base is stored: a file with the same magic that has no base of its own. The one
    /// snapshot in it ends where the base does. Its identity follows from this one's.
    pub fn of_base(&self) -> Generation {
        let base = Self::without_base(self.began, self.magic.clone());
        Generation { uid: self.uid_of_base(), number: self.number | BASE, ..base }
    }

    /// The identity of that generation: the first half of a hash of this one's.
    pub fn uid_of_base(&self) -> Uid {
        let hash = Hash::of(&[b"znap base of".as_slice(), &self.uid.0].concat());
        let mut uid = [0; 16];
        uid.copy_from_slice(&hash.0[..16]);
        Uid(uid)
    }

    /// Whether it stores the base of another one, and is no file's life.
    pub fn is_of_base(&self) -> bool {
        self.number >= BASE
    }
}

/// Where a snapshot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutEntry {
    /// The length of the file up to the cut.
    pub offset: u64,
    /// The last transaction's tid, 0 if there is none.
    pub tid: u64,
    /// The last transaction's length in the file, 0 if there is none.
    pub last_length: u64,
    /// When that transaction was: microseconds since 1970, UTC; 0 if there is none.
    pub time: i64,
    /// How many transactions the tail has.
    pub transactions: u64,
    /// How many bytes lie behind the cut that the file was found to begin with when it was saved.
    pub new_bytes: u64,
}

/// A tail as a list of chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEntry {
    /// The snapshot whose list is kept in part, if any.
    pub parent: Option<Uid>,
    /// How many of its chunks are kept.
    pub kept: u64,
    /// Up to which offset in the file they reach; the base's length if there is no parent.
    pub kept_length: u64,
    /// The hash of the whole list.
    pub list_hash: ListHash,
    /// Where the list stops being final.
    pub last_final: FinalPoint,
    /// The chunks that follow the kept ones. In the file: a count here, the names behind the JSON.
    #[serde(with = "counted")]
    pub chunks: Vec<ChunkName>,
}

/// Up to where chunks are final: no longer file could have had them cut otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalPoint {
    /// How many chunks of the list.
    pub count: u64,
    /// The offset in the file where they end.
    pub length: u64,
    /// The hash of the list of them.
    pub hash: ListHash,
}

/// What an index is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The whole index at some point; without one, the parent's index is the start.
    pub keyframe: Option<IndexPart>,
    /// The changes since, oldest first.
    pub deltas: Vec<IndexPart>,
    /// The hash of these parts, so that a catalog that has lost one is found out: see [`parts_hash`].
    pub hash: Hash,
}

impl IndexEntry {
    /// One whose hash is right, of a snapshot with this parent.
    pub fn new(parent: Option<Uid>, keyframe: Option<IndexPart>, deltas: Vec<IndexPart>) -> Self {
        let parts = keyframe.iter().map(|part| (true, part)).chain(deltas.iter().map(|part| (false, part)));
        let parts = parts.map(|(keyframe, part)| (keyframe, part.entries, part.bytes, part.chunks.iter()));
        let hash = parts_hash(parent, parts);
        IndexEntry { keyframe, deltas, hash }
    }
}

/// The hash of index parts: of the parent's uid (zeros without one), since without it the parts are nothing; and, for each,
/// of whether it is a keyframe (one byte), its entries, bytes and number of chunks (u64 each), and its chunks' names as they
/// are in a manifest.
pub fn parts_hash<'a, C>(parent: Option<Uid>, parts: impl IntoIterator<Item = (bool, u64, u64, C)>) -> Hash
where
    C: ExactSizeIterator<Item = &'a ChunkName>,
{
    let mut hasher = blake3::Hasher::new();
    hasher.update(&parent.map_or([0; 16], |uid| uid.0));
    for (keyframe, entries, bytes, chunks) in parts {
        hasher.update(&[u8::from(keyframe)]);
        for number in [entries, bytes, chunks.len() as u64] {
            hasher.update(&number.to_le_bytes());
        }
        for chunk in chunks {
            hasher.update(&chunk.hash.0);
            hasher.update(&chunk.length.to_le_bytes());
        }
    }
    Hash(*hasher.finalize().as_bytes())
}

/// A keyframe or a delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPart {
    /// How many objects it has.
    pub entries: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its pieces. In the file: a count here, the names behind the JSON.
    #[serde(with = "counted")]
    pub chunks: Vec<ChunkName>,
}

/// In JSON a list of chunks is its length; the names follow behind.
pub(super) mod counted {
    use super::ChunkName;
    use crate::repository::hash::Hash;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::repository) fn serialize<S: Serializer>(chunks: &[ChunkName], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(chunks.len() as u64)
    }

    pub(in crate::repository) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ChunkName>, D::Error> {
        let count = u64::deserialize(from)?;
        let count = usize::try_from(count).map_err(serde::de::Error::custom)?;
        // A placeholder for each; Manifest::decode has checked that so many names follow, and fills them in.
        Ok(vec![ChunkName { hash: Hash::default(), length: 0 }; count])
    }
}

/// The bytes behind the JSON that its members called `chunks` and `own` count; `None` if that is no possible number.
fn counted_bytes(json: &serde_json::Value) -> Option<u64> {
    use serde_json::Value;
    match json {
        Value::Array(values) => values.iter().try_fold(0u64, |sum, value| sum.checked_add(counted_bytes(value)?)),
        Value::Object(members) => members.iter().try_fold(0u64, |sum, (name, value)| {
            sum.checked_add(match name.as_str() {
                "chunks" => value.as_u64()?.checked_mul(NAME as u64)?,
                "own" => value.as_u64()?.checked_mul(ENTRY as u64)?,
                _ => counted_bytes(value)?,
            })
        }),
        _ => Some(0),
    }
}

/// The length of a chunk's name in a manifest.
const NAME: usize = 36;

impl Manifest {
    /// All chunk lists, in the order in which their names follow the JSON: per database
    /// the stream's chunks, the keyframe's, each delta's, its blobs'.
    fn lists_mut(&mut self) -> impl Iterator<Item = &mut Vec<ChunkName>> {
        self.databases.iter_mut().flat_map(|database| {
            std::iter::once(&mut database.stream.chunks)
                .chain(database.index.keyframe.iter_mut().map(|part| &mut part.chunks))
                .chain(database.index.deltas.iter_mut().map(|part| &mut part.chunks))
                .chain(database.blobs.iter_mut().map(|blobs| &mut blobs.chunks))
        })
    }

    /// The blobs of all databases, in the order in which they follow the names of the chunks.
    fn blobs_mut(&mut self) -> impl Iterator<Item = &mut BlobEntry> {
        self.databases.iter_mut().flat_map(|database| &mut database.blobs).flat_map(|blobs| &mut blobs.own)
    }

    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = json_with_length(self)?;
        for chunk in self.clone().lists_mut().flat_map(|list| list.iter()) {
            bytes.extend(chunk.hash.0);
            bytes.extend(chunk.length.to_le_bytes());
        }
        let blobs = self.databases.iter().flat_map(|database| &database.blobs).flat_map(|blobs| &blobs.own);
        bytes.extend(blobs.flat_map(BlobEntry::encode));
        Ok(bytes)
    }

    /// Reads what follows the header in an object file. An error is the reason why it can't be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        // Before anything is allocated for what the JSON counts: is it there?
        let (json, lists): (serde_json::Value, &[u8]) = split_json(bytes)?;
        let other = "it lists another number of chunks or blobs than it counts";
        if counted_bytes(&json) != Some(lists.len() as u64) {
            return Err(other.into());
        }
        // Of the very values that were counted: in the text, a name may be there twice.
        let mut manifest: Manifest = serde_json::from_value(json).map_err(|error| error.to_string())?;
        let mut lists = lists;
        for chunk in manifest.lists_mut().flatten() {
            let (name, rest) = lists.split_first_chunk::<NAME>().ok_or(other)?;
            chunk.hash = Hash::from_slice(&name[..32]).unwrap_or_default();
            chunk.length = u32::from_le_bytes([name[32], name[33], name[34], name[35]]);
            lists = rest;
        }
        for blob in manifest.blobs_mut() {
            let (entry, rest) = lists.split_first_chunk::<ENTRY>().ok_or(other)?;
            *blob = BlobEntry::decode(entry).ok_or("it has a blob of a kind that this znap doesn't know")?;
            lists = rest;
        }
        let mut blobs = manifest.databases.iter().flat_map(|database| &database.blobs);
        if !lists.is_empty() || !blobs.all(BlobsEntry::is_consistent) {
            return Err(other.into());
        }
        Ok(manifest)
    }

    /// Writes it as an object file.
    pub fn write(&self, layout: &Layout) -> Result<ObjectWriter> {
        write_record(layout, ObjectKind::Manifest, self.encode())
    }

    /// Reads the object file of this name.
    pub fn read(layout: &Layout, name: &Hash) -> Result<Self> {
        let bytes = read_record(layout, name, ObjectKind::Manifest)?;
        Self::decode(&bytes).map_err(|reason| damaged(&layout.object(name), &reason))
    }
}
