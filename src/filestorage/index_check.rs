//! Whether an index on disk belongs to the data file that it lies beside.

use std::fmt;
use std::io;
use std::path::Path;

use super::FIRST_TRANSACTION;
use super::bytes::u64_at;
use super::index::IndexFile;
use super::source::{DataFile, Source};
use super::tid::Oid;
use super::transaction::{Backwards, HEADER_LENGTH, Header, RECORD_HEADER_LENGTH, header_at};
use crate::error::{Error, Result};

/// How many of the last records are looked up in the index. ZODB looks up five.
const LAST_RECORDS: usize = 20;
/// How many entries are compared with the records that they point at.
const SAMPLE: u64 = 200;

/// Why an index can't be used. Displays as a phrase about the index, such as "it is missing".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// There is no index.
    Missing,
    /// The file is no index, or one of a ZODB before 3.10.
    Unreadable,
    /// It is the index of a longer file.
    Ahead {
        /// The length in bytes of the file that it is the index of.
        position: u64,
        /// The length of the file that there is.
        size: u64,
    },
    /// No complete transaction ends where it says that the file ended.
    NoTransaction {
        /// The offset at which one should end.
        position: u64,
    },
    /// An entry doesn't lead to the record that it should lead to.
    WrongRecord {
        /// The object of the entry.
        oid: Oid,
        /// The offset at which there should be a record, or is one that the index doesn't know.
        offset: u64,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Missing => f.write_str("it is missing"),
            Unusable::Unreadable => f.write_str("it is unreadable, or of a ZODB before 3.10"),
            Unusable::Ahead { position, size } => {
                write!(f, "it is ahead of the file: made for {position} bytes, of which there are {size}")
            }
            Unusable::NoTransaction { position } => {
                write!(f, "no transaction of the file ends at offset {position}, where it says one does")
            }
            Unusable::WrongRecord { oid, offset } => {
                write!(f, "it is wrong about object {oid} and the record at offset {offset}")
            }
        }
    }
}

/// Reads an index if it fits the data file, or says why it doesn't.
///
/// Does what ZODB does when it opens a storage: the index may be behind the file, and it must know the
/// last records before its position. ZODB accepts an index that is wrong about older records; here, about
/// 200 entries all over it are compared with the records, and every offset must lie before the position.
/// ZODB also ignores every index of less than 100 bytes of data, and an index by which the last
/// transaction has an object twice; that is not repeated here.
///
/// Fails only if one of the files can't be read.
pub fn usable_index(file: &DataFile, index_path: &Path) -> Result<Result<IndexFile, Unusable>> {
    let Some(bytes) = IndexFile::read_bytes(index_path)? else {
        return Ok(Err(Unusable::Missing));
    };
    let Some(index) = IndexFile::parse(bytes) else {
        return Ok(Err(Unusable::Unreadable));
    };
    Ok(check(file, &index)?.map(|()| index))
}

fn check(file: &DataFile, index: &IndexFile) -> Result<Result<(), Unusable>> {
    let position = index.position();
    let size = file.size()?;
    if position > size {
        return Ok(Err(Unusable::Ahead { position, size }));
    }
    let misplaced = index.iter().find(|(_, offset)| *offset <= FIRST_TRANSACTION || *offset >= position);
    if let Some((oid, offset)) = misplaced {
        return Ok(Err(Unusable::WrongRecord { oid: Oid(oid), offset }));
    }
    if let Err(unusable) = check_last(file, index)? {
        return Ok(Err(unusable));
    }
    for (oid, offset) in index.sample(SAMPLE) {
        if !points_right(file, oid, offset, position)? {
            return Ok(Err(Unusable::WrongRecord { oid: Oid(oid), offset }));
        }
    }
    Ok(Ok(()))
}

/// What `FileStorage._check_sanity` does, with a few more records: the objects of the last ones must be in
/// the index, with these records or later ones.
fn check_last(file: &DataFile, index: &IndexFile) -> Result<Result<(), Unusable>> {
    let no_transaction = Ok(Err(Unusable::NoTransaction { position: index.position() }));
    if index.position() < FIRST_TRANSACTION {
        return no_transaction;
    }
    let mut checked = 0;
    for header in Backwards::new(file, index.position()) {
        let header = match header {
            Ok(header) => header,
            Err(error) if error.io_error().is_none() || is_end_of_file(&error) => {
                return no_transaction;
            }
            Err(error) => return Err(error),
        };
        match header.status {
            b'u' => continue,
            b' ' | b'p' => {}
            _ => return no_transaction,
        }
        let mut at = header.records_start();
        while at < header.records_end() && checked < LAST_RECORDS {
            let Some((oid, length)) = record_in(file, &header, at)? else {
                return no_transaction;
            };
            let known = index.get(oid).unwrap_or(0);
            // A later record may have superseded this one, even within its transaction (by an undo of
            // several transactions; ZODB ignores the index then, for no good reason).
            let superseded = at < known && points_right(file, oid, known, index.position())?;
            if known != at && !superseded {
                return Ok(Err(Unusable::WrongRecord { oid: Oid(oid), offset: at }));
            }
            checked += 1;
            at += length;
        }
        if checked >= LAST_RECORDS {
            return Ok(Ok(()));
        }
    }
    // All transactions were looked at: there are fewer records than that.
    Ok(Ok(()))
}

/// Object and length of the record at an offset; `None` if there is none that fits into the transaction.
fn record_in(file: &DataFile, header: &Header, at: u64) -> Result<Option<(u64, u64)>> {
    let Some(room) = header.records_end().checked_sub(at).and_then(|room| room.checked_sub(RECORD_HEADER_LENGTH))
    else {
        return Ok(None);
    };
    let mut head = [0; RECORD_HEADER_LENGTH as usize];
    if !read(file, &mut head, at)? {
        return Ok(None);
    }
    let data = match u64_at(&head, 34) {
        0 => 8,
        length => length,
    };
    let fits = data <= room && u64_at(&head, 24) == header.position && head[32..34] == [0, 0];
    Ok(fits.then(|| (u64_at(&head, 0), RECORD_HEADER_LENGTH + data)))
}

/// Whether there is a record of this object at the offset, within a transaction that ends at `limit` or before.
fn points_right(file: &DataFile, oid: u64, offset: u64, limit: u64) -> Result<bool> {
    let mut head = [0; RECORD_HEADER_LENGTH as usize];
    if !read(file, &mut head, offset)? {
        return Ok(false);
    }
    let transaction = u64_at(&head, 24);
    if transaction < FIRST_TRANSACTION || transaction.saturating_add(HEADER_LENGTH) > offset {
        return Ok(false);
    }
    let header = match header_at(file, transaction) {
        Ok(header) => header,
        Err(error) if is_end_of_file(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let spans = header.end() <= limit
        && header.is_long_enough()
        && !matches!(header.status, b'u' | b'c')
        && header.records_start() <= offset;
    Ok(spans && record_in(file, &header, offset)?.is_some_and(|(found, _)| found == oid))
}

/// Fills the buffer; `false` if the file ends before.
fn read(file: &DataFile, buffer: &mut [u8], offset: u64) -> Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if is_end_of_file(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an error is about a file that ends too early, and not about reading it.
fn is_end_of_file(error: &Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}
