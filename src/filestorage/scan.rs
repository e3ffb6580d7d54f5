//! Parsing and checking every record of a range of a FileStorage, as its bytes come by.

use std::path::{Path, PathBuf};

use super::bytes::u64_at;
use super::cut::{BAD_STATUS, LENGTHS_DIFFER, Position, TOO_SHORT, check_oddities};
use super::source::Source;
use super::tid::{Oid, Tid};
use super::transaction::{HEADER_LENGTH, Header, RECORD_HEADER_LENGTH};
use super::unopenable;
use super::warning::{WarningKind, Warnings};
use crate::error::Result;
use crate::monitor::Monitor;

/// How many bytes [`scan`] reads at once.
const READ: usize = 1 << 20;
/// A record header with the eight bytes that follow it if there is no data: the most that is ever kept.
const CARRY: usize = 50;

/// One data record: a state of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Offset of the record in the file.
    pub position: u64,
    /// The object.
    pub oid: Oid,
    /// The transaction that wrote it, as the record says.
    pub tid: Tid,
    /// Offset of the object's previous record, 0 if there is none (or a pack has forgotten it).
    pub previous: u64,
    /// Length in bytes of the data; 0 if `back` says what there is instead.
    pub data_length: u64,
    /// Offset of the record whose data this one has; 0 if the object doesn't exist any more. Without
    /// meaning if there is data.
    pub back: u64,
    /// Offset of the transaction that the record belongs to.
    pub transaction: u64,
}

/// What hears of everything that a [`Scanner`] finds, in the order of the file. An event may still be
/// followed by an error: nothing is sure before [`Scanner::finish`].
pub trait Sink {
    /// A transaction begins. Undone ones (status `u`) come too, without their records.
    fn transaction(&mut self, header: &Header) {
        let _ = header;
    }

    /// A record of the transaction that began last.
    fn record(&mut self, record: &Record) {
        let _ = record;
    }

    /// The next part of the data of the record that came last, in pieces of any size.
    fn data(&mut self, part: &[u8]) {
        let _ = part;
    }
}

/// Hears nothing: for a scan that only checks.
impl Sink for () {}

impl<K: Sink + ?Sized> Sink for &mut K {
    fn transaction(&mut self, header: &Header) {
        (**self).transaction(header);
    }

    fn record(&mut self, record: &Record) {
        (**self).record(record);
    }

    fn data(&mut self, part: &[u8]) {
        (**self).data(part);
    }
}

/// Both hear of everything; the second, if there is one.
impl<A: Sink, B: Sink> Sink for (A, Option<B>) {
    fn transaction(&mut self, header: &Header) {
        self.0.transaction(header);
        if let Some(second) = &mut self.1 {
            second.transaction(header);
        }
    }

    fn record(&mut self, record: &Record) {
        self.0.record(record);
        if let Some(second) = &mut self.1 {
            second.record(record);
        }
    }

    fn data(&mut self, part: &[u8]) {
        self.0.data(part);
        if let Some(second) = &mut self.1 {
            second.data(part);
        }
    }
}

/// What a finished scan has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSummary {
    /// Where the scan ended: a boundary, with the id of the last transaction before it.
    pub end: Position,
    /// Number of transactions.
    pub transactions: u64,
    /// Number of data records in them.
    pub records: u64,
    /// What is odd but doesn't keep ZODB from opening the file.
    pub warnings: Warnings,
}

/// What comes next in the file.
#[derive(Debug, Clone, Copy)]
enum State {
    /// A transaction header.
    Transaction,
    /// The header of a record, or the end of the records if this is where they end.
    Record,
    /// So many bytes of a transaction's strings, or of an undone transaction's records.
    Skip(u64),
    /// So many bytes of a record's data.
    Data(u64),
    /// The second length of the transaction.
    Length,
}

/// Parses bytes of a FileStorage that are handed to it one slice after the other, however they are
/// sliced. Keeps no more than fifty bytes of them.
pub struct Scanner {
    path: PathBuf,
    state: State,
    /// Offset of the first byte that has not been parsed.
    offset: u64,
    header: Header,
    carry: [u8; CARRY],
    carried: usize,
    summary: ScanSummary,
}

impl Scanner {
    /// A scanner of the bytes from `start` on, which must be a boundary. The path is for messages.
    pub fn new(path: impl AsRef<Path>, start: Position) -> Scanner {
        Scanner {
            path: path.as_ref().to_path_buf(),
            state: State::Transaction,
            offset: start.offset,
            header: Header::parse(start.offset, &[0; 23]),
            carry: [0; CARRY],
            carried: 0,
            summary: ScanSummary { end: start, transactions: 0, records: 0, warnings: Warnings::default() },
        }
    }

    /// Parses the next bytes. Fails, naming the offset, on everything for which ZODB would refuse to open
    /// the file. After an error the scanner is of no more use.
    pub fn feed<K: Sink + ?Sized>(&mut self, mut bytes: &[u8], sink: &mut K) -> Result<()> {
        while !bytes.is_empty() {
            match self.state {
                State::Skip(left) => {
                    let (_, rest) = bytes.split_at(part(left, bytes));
                    let left = self.pass(bytes, rest, left);
                    self.state = match left {
                        0 => self.after_record(),
                        left => State::Skip(left),
                    };
                    bytes = rest;
                }
                State::Data(left) => {
                    let (data, rest) = bytes.split_at(part(left, bytes));
                    sink.data(data);
                    let left = self.pass(bytes, rest, left);
                    self.state = match left {
                        0 => self.after_record(),
                        left => State::Data(left),
                    };
                    bytes = rest;
                }
                State::Transaction | State::Record | State::Length => {
                    bytes = self.structure(bytes, sink)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the scan. Fails if it doesn't stand between two transactions.
    pub fn finish(self) -> Result<ScanSummary> {
        match (self.state, self.carried) {
            (State::Transaction, 0) => Ok(self.summary),
            (State::Transaction, _) => Err(self.corrupt("the file ends within the header of a transaction")),
            _ => Err(unopenable(&self.path, self.header.position, "the file ends within this transaction")),
        }
    }

    /// Parses one header or length at the start of the bytes, or takes them into the carry if there is not
    /// enough of it yet. Returns the bytes after it.
    fn structure<'a, K: Sink + ?Sized>(&mut self, bytes: &'a [u8], sink: &mut K) -> Result<&'a [u8]> {
        if self.carried > 0 {
            return self.structure_carried(bytes, sink);
        }
        let need = self.need(bytes);
        let Some((taken, rest)) = bytes.split_at_checked(need) else {
            return self.structure_carried(bytes, sink);
        };
        self.parse(taken, sink)?;
        Ok(rest)
    }

    #[cold]
    fn structure_carried<'a, K: Sink + ?Sized>(&mut self, mut bytes: &'a [u8], sink: &mut K) -> Result<&'a [u8]> {
        loop {
            let need = self.need(&self.carry[..self.carried]);
            if self.carried >= need {
                let carry = self.carry;
                self.carried = 0;
                self.parse(&carry[..need], sink)?;
                return Ok(bytes);
            }
            if bytes.is_empty() {
                return Ok(bytes);
            }
            let (taken, rest) = bytes.split_at((need - self.carried).min(bytes.len()));
            self.carry[self.carried..self.carried + taken.len()].copy_from_slice(taken);
            self.carried += taken.len();
            bytes = rest;
        }
    }

    /// How many bytes the next step needs, given the first of them.
    fn need(&self, bytes: &[u8]) -> usize {
        match self.state {
            State::Transaction => HEADER_LENGTH as usize,
            State::Record if bytes.len() >= RECORD_HEADER_LENGTH as usize && u64_at(bytes, 34) == 0 => CARRY,
            State::Record => RECORD_HEADER_LENGTH as usize,
            State::Length | State::Skip(_) | State::Data(_) => 8,
        }
    }

    fn parse<K: Sink + ?Sized>(&mut self, bytes: &[u8], sink: &mut K) -> Result<()> {
        match self.state {
            State::Transaction => self.begin_transaction(bytes, sink)?,
            State::Record => self.begin_record(bytes, sink)?,
            State::Length | State::Skip(_) | State::Data(_) => self.end_transaction(bytes)?,
        }
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        if let State::Skip(0) = self.state {
            self.state = self.after_record();
        }
        Ok(())
    }

    fn begin_transaction<K: Sink + ?Sized>(&mut self, bytes: &[u8], sink: &mut K) -> Result<()> {
        let mut array = [0; 23];
        array.copy_from_slice(bytes);
        let header = Header::parse(self.offset, &array);
        if header.status == b'c' {
            return Err(self.corrupt("a transaction was voted but not finished"));
        }
        if !header.is_long_enough() {
            return Err(self.corrupt(TOO_SHORT));
        }
        if header.end() == u64::MAX {
            return Err(self.corrupt("the length of a transaction is impossible"));
        }
        if !header.status.is_ascii() {
            return Err(self.corrupt(BAD_STATUS));
        }
        check_oddities(&header, self.summary.end.tid, &mut self.summary.warnings);
        sink.transaction(&header);
        self.header = header;
        self.state = State::Skip(match header.status {
            // ZODB ignores the records of undone transactions, whatever is in them.
            b'u' => header.length - HEADER_LENGTH,
            _ => header.strings_length(),
        });
        Ok(())
    }

    fn begin_record<K: Sink + ?Sized>(&mut self, bytes: &[u8], sink: &mut K) -> Result<()> {
        let record = Record {
            position: self.offset,
            oid: Oid(u64_at(bytes, 0)),
            tid: Tid(u64_at(bytes, 8)),
            previous: u64_at(bytes, 16),
            transaction: u64_at(bytes, 24),
            data_length: u64_at(bytes, 34),
            back: u64_at(bytes, 42),
        };
        if bytes[32] != 0 || bytes[33] != 0 {
            return Err(self.corrupt("a record belongs to a version, which ZODB has not had since 3.9"));
        }
        let after_header = if record.data_length == 0 { 8 } else { record.data_length };
        let room = self.header.records_end().saturating_sub(self.offset);
        if room.checked_sub(RECORD_HEADER_LENGTH).is_none_or(|room| after_header > room) {
            return Err(self.corrupt("a record reaches beyond the end of its transaction"));
        }
        if record.transaction != self.header.position {
            return Err(self.corrupt("a record names another transaction than the one it is in"));
        }
        self.check_record(&record);
        self.summary.records += 1;
        sink.record(&record);
        self.state = match record.data_length {
            0 => State::Skip(0),
            length => State::Data(length),
        };
        Ok(())
    }

    /// Notes what is wrong with a record but doesn't keep ZODB from opening the file.
    fn check_record(&mut self, record: &Record) {
        let warnings = &mut self.summary.warnings;
        let Record { position, oid, tid, previous, back, .. } = *record;
        if tid != self.header.tid {
            warnings.push(position, WarningKind::RecordTid, || {
                format!("a record of object {oid} says {tid} instead of {}, its transaction", self.header.tid)
            });
        }
        if previous >= position {
            warnings.push(position, WarningKind::Previous, || {
                format!("a record of object {oid} has its previous record after it, at {previous}")
            });
        }
        if record.data_length == 0 && back >= position {
            warnings.push(position, WarningKind::Back, || {
                format!("a record of object {oid} has its data after it, at {back}")
            });
        }
    }

    fn end_transaction(&mut self, bytes: &[u8]) -> Result<()> {
        if u64_at(bytes, 0) != self.header.length {
            return Err(unopenable(&self.path, self.header.position, LENGTHS_DIFFER));
        }
        self.summary.end = Position { offset: self.header.end(), tid: self.header.tid };
        self.summary.transactions += 1;
        self.state = State::Transaction;
        Ok(())
    }

    /// Records that add up end exactly where the length is repeated.
    fn after_record(&self) -> State {
        if self.offset >= self.header.records_end() { State::Length } else { State::Record }
    }

    /// Goes on from `bytes` to `rest`, and says how many of the `left` bytes are left then.
    fn pass(&mut self, bytes: &[u8], rest: &[u8], left: u64) -> u64 {
        let passed = (bytes.len() - rest.len()) as u64;
        self.offset = self.offset.saturating_add(passed);
        left - passed
    }

    fn corrupt(&self, what: &str) -> crate::error::Error {
        unopenable(&self.path, self.offset, what)
    }
}

/// How many of the `left` bytes are in this slice.
fn part(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

/// Reads and parses everything between two boundaries, the second of which [`super::find_cut`] has found.
///
/// Tells the monitor of every byte read, and stops when it says so. Fails as [`Scanner::feed`] does.
pub fn scan<S: Source + ?Sized, K: Sink + ?Sized>(
    source: &S,
    from: Position,
    to: u64,
    sink: &mut K,
    monitor: &dyn Monitor,
) -> Result<ScanSummary> {
    let mut scanner = Scanner::new(source.path(), from);
    let mut offset = from.offset;
    let size = to.saturating_sub(offset).min(READ as u64);
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(READ)];
    while offset < to {
        monitor.check()?;
        let length = part(to - offset, &buffer);
        let bytes = &mut buffer[..length];
        source.read_exact_at(bytes, offset)?;
        scanner.feed(bytes, sink)?;
        offset += length as u64;
        monitor.advance(length as u64);
    }
    scanner.finish()
}
