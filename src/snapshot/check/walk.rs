//! The transactions and records of a database's own file that have bytes in a range.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::{Kind, Result};
use crate::filestorage::transaction::RECORD_HEADER_LENGTH;
use crate::filestorage::{DataFile, Forwards, Position, Record, Sink, Source, Tid, scan};
use crate::monitor::Monitor;
use crate::repository::catalog::Database;
use crate::repository::hash::Hash;
use crate::snapshot::anchor::{Recognition, nearest, recognise};
use crate::snapshot::handle::Repository;

use super::damage;
use super::details::LostPlace;

/// The longest chunk there is.
const LONGEST: u32 = 1 << 20;

/// A database's own file, as far as it is what snapshots are of.
pub(super) struct Live {
    file: DataFile,
    size: u64,
    /// Where transactions end for certain, in order.
    boundaries: Vec<u64>,
}

/// What is in a range.
pub(super) struct Found {
    pub(super) transactions: u64,
    pub(super) records: u64,
    pub(super) oids: BTreeSet<u64>,
}

impl Live {
    /// Opens it; `None` if it isn't there, or is another file.
    pub(super) fn open(repository: &Repository, database: &Database) -> Result<Option<Self>> {
        let open = || -> Result<Option<Self>> {
            let file = DataFile::open(repository.path_of(database))?;
            let generation = &database.generation;
            if recognise(&file, &generation.known, None)? != Recognition::Same {
                return Ok(None);
            }
            let size = file.size()?;
            let mut boundaries = vec![generation.known.base_length];
            if let Some(stream) = nearest(&file, size, &repository.catalog, generation.row)? {
                let line = repository.catalog.ancestry(stream.row)?;
                boundaries.extend(line.iter().map(|stream| stream.cut.offset));
            }
            boundaries.sort_unstable();
            Ok(Some(Live { file, size, boundaries }))
        };
        match open() {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => damage(error).map(|_| None),
            live => live,
        }
    }

    /// How many bytes were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.file.bytes_read()
    }

    /// Whether the file has a chunk where it is lost.
    pub(super) fn has(&self, place: &LostPlace) -> bool {
        let mut bytes = vec![0; place.length.min(LONGEST) as usize];
        self.file.read_exact_at(&mut bytes, place.offset).is_ok() && Hash::of(&bytes) == place.hash
    }

    /// The transactions and records with bytes in the range; `None` if they can't be read.
    pub(super) fn records_in(&self, range: &Range<u64>, monitor: &dyn Monitor) -> Result<Option<Found>> {
        let Some(from) = self.boundaries.iter().rev().find(|boundary| **boundary <= range.start) else {
            return Ok(None);
        };
        let mut within = Within { range: range.clone(), records: 0, oids: BTreeSet::new() };
        let mut transactions = 0;
        for header in Forwards::new(&self.file, *from, self.size) {
            let read = header.and_then(|header| {
                if header.position >= range.end {
                    return Ok(false);
                }
                if header.end() > range.start {
                    transactions += 1;
                    let before = Position { offset: header.position, tid: Tid(0) };
                    scan(&self.file, before, header.end(), &mut within, &Quiet(monitor))?;
                }
                monitor.check()?;
                Ok(header.end() < range.end)
            });
            match read {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return damage(error).map(|_| None),
            }
        }
        Ok(Some(Found { transactions, records: within.records, oids: within.oids }))
    }
}

/// Counts the records that have bytes in a range.
struct Within {
    range: Range<u64>,
    records: u64,
    oids: BTreeSet<u64>,
}

impl Sink for Within {
    fn record(&mut self, record: &Record) {
        let data = if record.data_length == 0 { 8 } else { record.data_length };
        let end = record.position.saturating_add(RECORD_HEADER_LENGTH).saturating_add(data);
        if record.position < self.range.end && end > self.range.start {
            self.records += 1;
            self.oids.insert(record.oid.0);
        }
    }
}

/// Asks whether to go on, and says nothing of how far it is.
pub(super) struct Quiet<'a>(pub(super) &'a dyn Monitor);

impl Monitor for Quiet<'_> {
    fn begin(&self, _phase: &str, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn notice(&self, text: &str) {
        self.0.notice(text);
    }
    fn check(&self) -> Result<()> {
        self.0.check()
    }
}
