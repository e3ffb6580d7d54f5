//! Writing small FileStorages that ZODB can open: for tests and demonstrations.
//!
//! What is written is what ZODB would write, in the order in which ZODB writes it, but nothing is forced to
//! the disk, and no lock is taken.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::cut::{Position, find_cut};
use super::index::index_path;
use super::index_writer::IndexWriter;
use super::scan::scan;
use super::source::{DataFile, Magic, Source};
use super::tid::{Oid, Tid};
use super::transaction::{HEADER_LENGTH, Header};
use super::{Changes, FIRST_TRANSACTION};
use crate::error::{Error, IoContext, Result};
use crate::monitor::Silent;

/// 2026-01-01 00:00 UTC: the transaction id of a new file's first transaction if none is given.
const FIRST_TID: Tid = Tid(((2026 - 1900) * 12 * 31 * 24 * 60) << 32);
/// A second, by which transaction ids grow if none is given.
const SECOND: u64 = (1 << 32) / 60;
const STATUS_AT: u64 = 16;

/// Appends transactions to a FileStorage.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    end: Position,
    index: BTreeMap<u64, u64>,
}

/// What a record says about its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Its state: two pickles, not empty. See [`super::pickles`].
    Data(Vec<u8>),
    /// It has the state in the record at this offset again, as after an undo.
    Back(u64),
    /// It doesn't exist any more.
    Deleted,
}

impl Writer {
    /// Creates a new file without transactions. The file must not exist.
    pub fn create(path: impl AsRef<Path>) -> Result<Writer> {
        Self::create_as(path, Magic::Fs30)
    }

    /// Like [`Writer::create`], with another magic.
    pub fn create_as(path: impl AsRef<Path>, magic: Magic) -> Result<Writer> {
        let path = path.as_ref().to_path_buf();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).at("create", &path)?;
        file.write_all_at(&magic.bytes(), 0).at("write", &path)?;
        Ok(Writer { file, path, end: Position::START, index: BTreeMap::new() })
    }

    /// Opens a file to append to it. What follows its last complete transaction is cut off by the next one.
    pub fn open(path: impl AsRef<Path>) -> Result<Writer> {
        let data = DataFile::open_for_writing(path.as_ref())?;
        let cut = find_cut(&data, Position::START, data.size()?, &Silent)?;
        let mut changes = Changes::new(FIRST_TRANSACTION);
        scan(&data, Position::START, cut.offset, &mut changes, &Silent)?;
        Ok(Writer {
            file: data.file().try_clone().at("open", path.as_ref())?,
            path: path.as_ref().to_path_buf(),
            end: cut.position(),
            index: changes.into_pairs().into_iter().collect(),
        })
    }

    /// The end of the last committed transaction.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The offset of every object's last record.
    pub fn index(&self) -> &BTreeMap<u64, u64> {
        &self.index
    }

    /// Writes the index beside the file, as ZODB does when it closes the storage.
    pub fn save_index(&self) -> Result<()> {
        let path = index_path(&self.path);
        let file = File::create(&path).at("create", &path)?;
        let mut writer = IndexWriter::new(BufWriter::new(file), self.end.offset)?;
        for (oid, offset) in &self.index {
            writer.push(*oid, *offset)?;
        }
        writer.finish()?.into_inner().map_err(|error| Error::io("write", &path, error.into_error()))?;
        Ok(())
    }

    /// Begins a transaction. Nothing is written before it is committed, voted or torn.
    pub fn transaction(&mut self) -> TransactionBuilder<'_> {
        let tid = match self.end.tid {
            Tid(0) => FIRST_TID,
            Tid(last) => Tid(last.saturating_add(SECOND)),
        };
        TransactionBuilder { writer: self, tid, status: b' ', strings: Default::default(), records: Vec::new() }
    }

    /// Puts bytes after the last committed transaction, in place of whatever is there. The next transaction
    /// overwrites them.
    pub fn set_tail(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.set_len(self.end.offset).at("truncate", &self.path)?;
        self.file.write_all_at(bytes, self.end.offset).at("write", &self.path)
    }
}

/// A transaction that is being put together.
#[derive(Debug)]
#[must_use = "nothing is written before it is committed"]
pub struct TransactionBuilder<'a> {
    writer: &'a mut Writer,
    tid: Tid,
    status: u8,
    strings: [Vec<u8>; 3],
    records: Vec<(u64, Payload)>,
}

impl TransactionBuilder<'_> {
    /// Its id. Without one it is a second later than the transaction before.
    pub fn tid(mut self, tid: Tid) -> Self {
        self.tid = tid;
        self
    }

    /// The status it has when it is committed: a space unless this is called.
    pub fn status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// Who commits it.
    pub fn user(mut self, user: impl AsRef<[u8]>) -> Self {
        self.strings[0] = user.as_ref().to_vec();
        self
    }

    /// What it is for.
    pub fn description(mut self, description: impl AsRef<[u8]>) -> Self {
        self.strings[1] = description.as_ref().to_vec();
        self
    }

    /// The pickle of a dictionary with more properties.
    pub fn extension(mut self, extension: impl AsRef<[u8]>) -> Self {
        self.strings[2] = extension.as_ref().to_vec();
        self
    }

    /// Adds a record of an object.
    pub fn record(mut self, oid: Oid, payload: Payload) -> Self {
        self.records.push((oid.0, payload));
        self
    }

    /// Adds a record with an object's new state.
    pub fn data(self, oid: Oid, data: impl Into<Vec<u8>>) -> Self {
        self.record(oid, Payload::Data(data.into()))
    }

    /// Adds a record that gives an object the state in an earlier record, as an undo does.
    pub fn back(self, oid: Oid, offset: u64) -> Self {
        self.record(oid, Payload::Back(offset))
    }

    /// Adds a record that deletes an object.
    pub fn delete(self, oid: Oid) -> Self {
        self.record(oid, Payload::Deleted)
    }

    /// Writes the transaction as ZODB does: first as voted, then it sets the final status. Returns its header.
    pub fn commit(self) -> Result<Header> {
        let (bytes, offsets) = self.encode(b'c')?;
        let TransactionBuilder { writer, tid, status, .. } = self;
        writer.set_tail(&bytes)?;
        let position = writer.end.offset;
        writer.file.write_all_at(&[status], position + STATUS_AT).at("write", &writer.path)?;
        // ZODB ignores the records of a transaction that was undone in place.
        if status != b'u' {
            writer.index.extend(offsets);
        }
        writer.end = Position { offset: position + bytes.len() as u64, tid };
        let mut head = [0; HEADER_LENGTH as usize];
        head.copy_from_slice(&bytes[..HEADER_LENGTH as usize]);
        Ok(Header { status, ..Header::parse(position, &head) })
    }

    /// Writes the transaction as it is between vote and finish. Returns its length in bytes. It doesn't count
    /// as committed: the next transaction overwrites it.
    pub fn vote(self) -> Result<u64> {
        let (bytes, _) = self.encode(b'c')?;
        self.writer.set_tail(&bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Writes the first bytes of the transaction, as many as given or as there are. It doesn't count
    /// as committed: the next transaction overwrites it.
    pub fn tear(self, length: usize) -> Result<()> {
        let (bytes, _) = self.encode(self.status)?;
        self.writer.set_tail(&bytes[..length.min(bytes.len())])
    }

    /// The transaction's bytes at the end of the file, and the offset of each object's last record.
    fn encode(&self, status: u8) -> Result<(Vec<u8>, BTreeMap<u64, u64>)> {
        let position = self.writer.end.offset;
        let mut bytes = Vec::new();
        bytes.extend(self.tid.0.to_be_bytes());
        // The length, known at the end.
        bytes.extend([0; 8]);
        bytes.push(status);
        for string in &self.strings {
            let length = u16::try_from(string.len()).map_err(|_| {
                Error::usage("user, description and extension of a transaction have at most 65535 bytes each")
            })?;
            bytes.extend(length.to_be_bytes());
        }
        bytes.extend(self.strings.iter().flatten());

        let mut offsets = BTreeMap::new();
        for (oid, payload) in &self.records {
            let offset = position + bytes.len() as u64;
            let (data, back) = match payload {
                Payload::Data(data) => (&data[..], None),
                Payload::Back(back) => (&[][..], Some(*back)),
                Payload::Deleted => (&[][..], Some(0)),
            };
            if back.is_none() && data.is_empty() {
                return Err(Error::usage(format!("the state of object {} is empty", Oid(*oid))));
            }
            let previous = self.writer.index.get(oid).copied().unwrap_or(0);
            for number in [*oid, self.tid.0, previous, position] {
                bytes.extend(number.to_be_bytes());
            }
            bytes.extend([0; 2]);
            bytes.extend((data.len() as u64).to_be_bytes());
            bytes.extend(data);
            bytes.extend(back.iter().flat_map(|back| back.to_be_bytes()));
            offsets.insert(*oid, offset);
        }
        let length = (bytes.len() as u64).to_be_bytes();
        bytes[8..16].copy_from_slice(&length);
        bytes.extend(length);
        Ok((bytes, offsets))
    }
}
