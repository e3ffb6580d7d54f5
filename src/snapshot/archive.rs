//! The form of an archive that export writes and import reads (docs/format.md): tar in zstd. First what it is about, then the databases,
//! then the hash of each member.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use crate::error::{Error, IoContext, Result};

/// The first member: [`About`] as JSON.
pub(super) const ABOUT: &str = "znap.json";
/// The last one: a line per member before it, as b3sum writes them.
pub(super) const SUMS: &str = "BLAKE3SUMS";
/// The version of this form.
pub(super) const FORMAT: u32 = 1;
/// The largest window of zstd that is unpacked, as a power of two. Every zstd does so without being told.
pub(super) const WINDOW_LOG: u32 = 27;

/// What an archive is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The version of the form.
    pub(super) format: u32,
    /// The snapshot's id.
    pub(super) id: String,
    /// When it was made.
    pub(super) created: Timestamp,
    /// The user's words.
    pub(super) message: String,
    /// Whether all databases are of one moment.
    pub(super) one_moment: bool,
    /// What follows.
    pub(super) databases: Vec<Member>,
}

/// A database in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Its name in the repository.
    pub(super) name: String,
    /// The member that is its file; `.index` appended, its index.
    pub(super) file: String,
    /// How long it is.
    pub(super) bytes: u64,
    /// Its blobs, if they are in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blobs: Option<BlobMembers>,
}

/// The blobs of a database in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobMembers {
    /// The blob directory, in which members have the paths that ZODB gives them.
    pub(super) directory: String,
    /// How it is laid out: `bushy` or `lawn`. It has a `.layout`, too.
    pub(super) layout: String,
    /// How many there are.
    pub(super) count: u64,
    /// How long they are together.
    pub(super) bytes: u64,
}

/// Whose a member's file is, and its mode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owned {
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
}

/// Writes an archive, member by member.
pub(super) struct Packer<W: Write> {
    out: W,
    /// The path of the archive, for messages.
    path: std::path::PathBuf,
    time: u64,
    sums: String,
}

impl<W: Write> Packer<W> {
    /// An archive whose members have this time, in seconds.
    pub(super) fn new(out: W, path: &std::path::Path, time: u64) -> Self {
        Packer { out, path: path.to_path_buf(), time, sums: String::new() }
    }

    /// Appends a member of this length, of which `fill` gives the bytes to what it is handed.
    pub(super) fn member(
        &mut self,
        name: &str,
        length: u64,
        owned: Owned,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        // The plainest form, that every tar knows: names of up to 255 bytes, in two parts.
        let mut header = Header::new_ustar();
        header.set_path(name).map_err(|error| {
            Error::failed(format!("{name} can't be the name of a member of an archive: {error}"))
                .hint("znap restore --to DIR writes the snapshot into a directory, of which any tool makes an archive")
        })?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(length);
        header.set_mode(owned.mode);
        header.set_uid(owned.owner.into());
        header.set_gid(owned.group.into());
        header.set_mtime(self.time);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).at("write", &self.path)?;
        let mut hasher = blake3::Hasher::new();
        let mut written = 0;
        fill(&mut |bytes| {
            hasher.update(bytes);
            written += bytes.len() as u64;
            self.out.write_all(bytes).at("write", &self.path)
        })?;
        if written != length {
            return Err(Error::damaged(format!("{name} has {written} bytes instead of {length}")));
        }
        let padding = length.next_multiple_of(512) - length;
        self.out.write_all(&[0; 512][..padding as usize]).at("write", &self.path)?;
        self.sums.push_str(&sum_line(name, &hasher));
        Ok(())
    }

    /// Appends a member that is there already.
    pub(super) fn text(&mut self, name: &str, text: &str, owned: Owned) -> Result<()> {
        self.member(name, text.len() as u64, owned, |write| write(text.as_bytes()))
    }

    /// Appends the hashes of all members, and ends the archive.
    pub(super) fn finish(mut self, owned: Owned) -> Result<W> {
        let sums = std::mem::take(&mut self.sums);
        self.text(SUMS, &sums, owned)?;
        self.out.write_all(&[0; 1024]).at("write", &self.path)?;
        Ok(self.out)
    }
}

/// The line of a member among the hashes.
pub(super) fn sum_line(name: &str, hasher: &blake3::Hasher) -> String {
    format!("{}  {name}\n", hasher.finalize().to_hex())
}

/// An error of this crate where one of I/O is wanted: what the system said, if it did.
pub(super) fn as_io(error: Error) -> io::Error {
    match error.io_error().and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error.to_string()),
    }
}
