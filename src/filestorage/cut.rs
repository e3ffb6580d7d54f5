//! Finding the end of the last complete transaction without reading the transactions.
//!
//! The decisions, and the order in which they are made, are those of `read_index` of ZODB 6: what it
//! would cut off when it opens the file is left out here, and what makes it refuse the file is an error.

use std::fmt;
use std::io;

use super::source::Source;
use super::tid::Tid;
use super::transaction::{HEADER_LENGTH, Header};
use super::warning::{WarningKind, Warnings};
use super::window::Window;
use super::{FIRST_TRANSACTION, unopenable};
use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// A boundary between transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Offset in the file, the magic included: 4 or more.
    pub offset: u64,
    /// Id of the transaction that ends here; zero at the beginning.
    pub tid: Tid,
}

impl Position {
    /// The beginning: after the magic, before the first transaction.
    pub const START: Position = Position { offset: FIRST_TRANSACTION, tid: Tid(0) };
}

/// The end of the last complete transaction of a file, and what was found on the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Offset of the end: everything before it is complete transactions.
    pub offset: u64,
    /// Id of the last complete transaction; that of the start if there was none since.
    pub tid: Tid,
    /// Length in bytes of the last complete transaction, as it lies in the file with its last eight
    /// bytes; 0 if there was none since the start.
    pub last_length: u64,
    /// Number of complete transactions since the start.
    pub transactions: u64,
    /// What follows the end, if anything does.
    pub left_out: Option<LeftOut>,
    /// What is odd about the complete transactions.
    pub warnings: Warnings,
}

impl Cut {
    /// One that ends where it starts.
    pub fn at(start: Position) -> Cut {
        Cut {
            offset: start.offset,
            tid: start.tid,
            last_length: 0,
            transactions: 0,
            left_out: None,
            warnings: Warnings::default(),
        }
    }

    /// The end as a place to go on from.
    pub fn position(&self) -> Position {
        Position { offset: self.offset, tid: self.tid }
    }
}

/// Bytes at the end of a file that are no complete transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeftOut {
    /// What they look like.
    pub kind: LeftOutKind,
    /// How many they are, to the end of the file.
    pub bytes: u64,
}

/// What the bytes after the last complete transaction look like. Displays as a phrase such as
/// "a transaction that was voted but not finished".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeftOutKind {
    /// Fewer bytes than a transaction header takes.
    ShortHeader,
    /// A transaction that should be longer than the file.
    ShortTransaction,
    /// A transaction that was voted but not finished, and whatever follows it.
    Voted,
    /// Zeros, or other bytes that can't be a transaction, up to the end of the file.
    BadTail,
}

impl fmt::Display for LeftOutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeftOutKind::ShortHeader => "the first bytes of a transaction",
            LeftOutKind::ShortTransaction => "an incomplete transaction",
            LeftOutKind::Voted => "a transaction that was voted but not finished",
            LeftOutKind::BadTail => "bytes that are no transaction",
        })
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.kind, self.bytes)
    }
}

/// What to do about the transaction at some offset.
enum Verdict {
    Complete(Header),
    LeftOut(LeftOutKind),
    Refused(&'static str),
}

/// Finds the end of the last complete transaction.
///
/// Goes from header to header, beginning at `from`, which must be a boundary (it is not checked), and
/// looks at no byte from `size` on, which is the size of the file as the caller found it. It reads at most
/// 8 KiB per transaction, however long that is. The file may be written to meanwhile, and may shrink.
/// Stops when the monitor says so.
///
/// Fails if ZODB would refuse to open the file for what is wrong with a header, and with
/// `Kind::Failed` if `from` lies beyond the end of the file. Oddities of transactions that are left out
/// are not worth a warning.
pub fn find_cut<S: Source + ?Sized>(source: &S, from: Position, size: u64, monitor: &dyn Monitor) -> Result<Cut> {
    let mut walk = Walk { source, size, window: Window::new() };
    let mut cut = Cut::at(from);
    loop {
        monitor.check()?;
        if cut.offset > walk.size || cut.offset < FIRST_TRANSACTION {
            return Err(Error::failed(format!(
                "{} has {} bytes and can't be read from offset {} on",
                source.path().display(),
                walk.size,
                cut.offset
            ))
            .hint("the file is shorter than it was, or another one: see whether it was replaced or restored"));
        }
        let left = walk.size - cut.offset;
        if left == 0 {
            return Ok(cut);
        }
        match walk.judge_surely(cut.offset)? {
            Verdict::Complete(header) => {
                check_oddities(&header, cut.tid, &mut cut.warnings);
                cut.offset = header.end();
                cut.tid = header.tid;
                cut.last_length = header.length + 8;
                cut.transactions += 1;
            }
            // Shrunk to less than what was complete: the next round says so.
            Verdict::LeftOut(_) if walk.size < cut.offset => {}
            Verdict::LeftOut(kind) => {
                // The file may have shrunk while it was being judged.
                let bytes = walk.size.saturating_sub(cut.offset);
                cut.left_out = (bytes > 0).then_some(LeftOut { kind, bytes });
                return Ok(cut);
            }
            Verdict::Refused(what) => return Err(unopenable(source.path(), cut.offset, what)),
        }
    }
}

/// Notes what ZODB only logs about a transaction that follows the one with this id.
pub(super) fn check_oddities(header: &Header, before: Tid, warnings: &mut Warnings) {
    if header.tid <= before {
        warnings.push(header.position, WarningKind::TimeWentBack, || {
            format!("transaction {} is not newer than {before}, which it follows", header.tid)
        });
    }
    if !matches!(header.status, b' ' | b'p' | b'u') {
        warnings.push(header.position, WarningKind::UnknownStatus, || {
            format!("transaction {} has the unknown status \"{}\"", header.tid, header.status.escape_ascii())
        });
    }
}

/// ZODB decodes the status as ASCII and fails with an exception on anything else.
pub(super) const BAD_STATUS: &str = "the status of a transaction is no character";
pub(super) const TOO_SHORT: &str = "a transaction is too short for its own header";
pub(super) const LENGTHS_DIFFER: &str = "the two lengths of a transaction differ";

struct Walk<'a, S: Source + ?Sized> {
    source: &'a S,
    size: u64,
    window: Window,
}

impl<S: Source + ?Sized> Walk<'_, S> {
    /// Judges once more, on freshly read bytes, before refusing: a writer may have replaced an aborted
    /// transaction by another one between two of our reads. Lives with a file that shrinks, too.
    fn judge_surely(&mut self, position: u64) -> Result<Verdict> {
        let mut second = false;
        loop {
            match self.judge(position) {
                Ok(Verdict::Refused(_)) if !second => second = true,
                Err(error) if is_end_of_file(&error) => {
                    let size = self.source.size()?;
                    if size >= self.size {
                        // It shrank and grew again. Never go round more often than it takes to see that.
                        if second {
                            return Err(error);
                        }
                        second = true;
                    }
                    // What was committed never goes away: only what followed has been cut off.
                    self.size = self.size.min(size);
                    if self.size <= position {
                        return Ok(Verdict::LeftOut(LeftOutKind::ShortHeader));
                    }
                }
                verdict => return verdict,
            }
            self.window.forget();
        }
    }

    /// The order of these checks decides what becomes of a damaged end, so it is ZODB's.
    fn judge(&mut self, position: u64) -> Result<Verdict> {
        if self.size - position < HEADER_LENGTH {
            return Ok(Verdict::LeftOut(LeftOutKind::ShortHeader));
        }
        let header = Header::parse(position, &self.window.forward(self.source, position, self.size)?);
        if header.end() > self.size {
            return Ok(Verdict::LeftOut(LeftOutKind::ShortTransaction));
        }
        if header.status == b'c' {
            return Ok(Verdict::LeftOut(LeftOutKind::Voted));
        }
        if !header.is_long_enough() {
            // Is only the end of the file bad? Then its last eight bytes are no length of a transaction.
            let mut last = [0; 8];
            self.source.read_exact_at(&mut last, self.size - 8)?;
            let last = u64::from_be_bytes(last);
            let plausible = last >= HEADER_LENGTH && self.size.checked_sub(last).is_some_and(|start| start >= position);
            return Ok(match plausible {
                true => Verdict::Refused(TOO_SHORT),
                false => Verdict::LeftOut(LeftOutKind::BadTail),
            });
        }
        if !header.status.is_ascii() {
            return Ok(Verdict::Refused(BAD_STATUS));
        }
        let again: [u8; 8] = self.window.forward(self.source, header.records_end(), self.size)?;
        Ok(match u64::from_be_bytes(again) == header.length {
            true => Verdict::Complete(header),
            false => Verdict::Refused(LENGTHS_DIFFER),
        })
    }
}

fn is_end_of_file(error: &Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}
