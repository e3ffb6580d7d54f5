//! Tombstones and the config, and how all small object files are written (docs/format.md).
//!
//! They are a header, a `u32` length, and that many bytes of JSON; in manifests the names of chunks follow.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::repository::chunker;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;
use crate::repository::object::{ObjectKind, ObjectWriter, damaged, read_record};

/// A snapshot was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The repository it belongs to.
    pub repository: Uid,
    /// The identity of the deleted snapshot.
    pub snapshot: Uid,
    /// Its sequence number.
    pub sequence: u64,
    /// The name it had.
    pub id: String,
    /// When it was deleted: microseconds since 1970, UTC.
    pub deleted: i64,
}

/// What never changes in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Its identity.
    pub repository: Uid,
    /// When it was made: microseconds since 1970, UTC.
    pub created: i64,
    /// The version of the format.
    pub format: u8,
    /// How chunks are cut.
    pub chunker: ChunkerConfig,
}

/// The chunking rule and its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkerConfig {
    /// The rule's name.
    pub name: String,
    /// The smallest chunk.
    pub min: u32,
    /// The largest chunk.
    pub max: u32,
    /// The odd number that each window is multiplied by.
    pub multiplier: u32,
    /// The number added then.
    pub addend: u32,
}

impl ChunkerConfig {
    /// The rule of [`chunker`].
    pub fn current() -> Self {
        ChunkerConfig {
            name: "mincdc-hash4".into(),
            min: chunker::MIN as u32,
            max: chunker::MAX as u32,
            multiplier: 0x915f_77f5,
            addend: 0x3463_6463,
        }
    }
}

impl Tombstone {
    /// Reads what follows the header in an object file. An error is the reason why it can't be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        split_json(bytes).map(|(value, _)| value)
    }

    /// Writes it as an object file.
    pub fn write(&self, layout: &Layout) -> Result<ObjectWriter> {
        write_record(layout, ObjectKind::Tombstone, json_with_length(self))
    }

    /// Reads the object file of this name.
    pub fn read(layout: &Layout, name: &Hash) -> Result<Self> {
        read_json(layout, name, ObjectKind::Tombstone)
    }
}

impl Config {
    /// Reads what follows the header in an object file. An error is the reason why it can't be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        split_json(bytes).map(|(value, _)| value)
    }

    /// Writes it as an object file.
    pub fn write(&self, layout: &Layout) -> Result<ObjectWriter> {
        write_record(layout, ObjectKind::Config, json_with_length(self))
    }

    /// Reads the object file of this name.
    pub fn read(layout: &Layout, name: &Hash) -> Result<Self> {
        read_json(layout, name, ObjectKind::Config)
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(layout: &Layout, name: &Hash, kind: ObjectKind) -> Result<T> {
    let bytes = read_record(layout, name, kind)?;
    split_json(&bytes).map(|(value, _)| value).map_err(|reason| damaged(&layout.object(name), &reason))
}

pub(super) fn write_record(
    layout: &Layout,
    kind: ObjectKind,
    body: Result<Vec<u8>, serde_json::Error>,
) -> Result<ObjectWriter> {
    let body =
        body.map_err(|error| crate::error::Error::failed(format!("cannot write a {kind:?} as JSON: {error}")))?;
    let mut writer = ObjectWriter::create(layout, kind)?;
    writer.write(&body)?;
    Ok(writer)
}

pub(super) fn json_with_length(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(value)?;
    let mut bytes = (json.len() as u32).to_le_bytes().to_vec();
    bytes.extend(json);
    Ok(bytes)
}

pub(super) fn split_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), String> {
    let (length, rest) = bytes.split_at_checked(4).ok_or("it is too short")?;
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let (json, rest) = rest.split_at_checked(length).ok_or("it is too short")?;
    let value = serde_json::from_slice(json).map_err(|error| format!("its JSON is not as it should be: {error}"))?;
    Ok((value, rest))
}

/// A path in hexadecimal, if it isn't UTF-8.
pub fn hex_unless_utf8(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_bytes();
    std::str::from_utf8(bytes).is_err().then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A path as a record has it: lossy text, and all its bytes in hexadecimal if it isn't UTF-8.
pub fn path_from(text: &str, hex: Option<&str>) -> PathBuf {
    let digits = hex.unwrap_or_default().as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> =
        digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect();
    match bytes {
        Some(bytes) if !bytes.is_empty() => PathBuf::from(OsStr::from_bytes(&bytes)),
        _ => PathBuf::from(text),
    }
}
