//! Single transactions: their headers, strings and neighbours.

use super::bytes::{u16_at, u64_at};
use super::source::Source;
use super::tid::Tid;
use super::window::Window;
use super::{FIRST_TRANSACTION, unopenable};
use crate::error::Result;

/// Length in bytes of a transaction header without the strings.
pub const HEADER_LENGTH: u64 = 23;
/// Length in bytes of a data record's header.
pub const RECORD_HEADER_LENGTH: u64 = 42;

/// The fixed part of a transaction's header, as it stands in the file. Nothing in it has been checked
/// unless a function says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset of the transaction in the file.
    pub position: u64,
    /// The transaction's id.
    pub tid: Tid,
    /// Length in bytes without the last eight, which repeat this number.
    pub length: u64,
    /// `b' '`, `b'p'` (packed), `b'u'` (undone, to be ignored) or `b'c'` (voted, not finished).
    pub status: u8,
    /// Length in bytes of the user's name.
    pub user_length: u16,
    /// Length in bytes of the description.
    pub description_length: u16,
    /// Length in bytes of the extension, a pickle.
    pub extension_length: u16,
}

impl Header {
    /// The header in these bytes, which were read at this offset.
    pub fn parse(position: u64, bytes: &[u8; 23]) -> Header {
        Header {
            position,
            tid: Tid(u64_at(bytes, 0)),
            length: u64_at(bytes, 8),
            status: bytes[16],
            user_length: u16_at(bytes, 17),
            description_length: u16_at(bytes, 19),
            extension_length: u16_at(bytes, 21),
        }
    }

    /// Offset of the byte after the transaction, its last eight bytes included. At most `u64::MAX`, where no
    /// transaction can end: a length that is too large never looks like one that fits.
    pub fn end(&self) -> u64 {
        self.records_end().saturating_add(8)
    }

    /// Length in bytes of user, description and extension together.
    pub fn strings_length(&self) -> u64 {
        u64::from(self.user_length) + u64::from(self.description_length) + u64::from(self.extension_length)
    }

    /// Whether the length is enough for the header and its strings.
    pub fn is_long_enough(&self) -> bool {
        self.length >= HEADER_LENGTH + self.strings_length()
    }

    /// Offset of the first record.
    pub(super) fn records_start(&self) -> u64 {
        self.position.saturating_add(HEADER_LENGTH + self.strings_length())
    }

    /// Offset of the byte after the last record, where the length is repeated.
    pub(super) fn records_end(&self) -> u64 {
        self.position.saturating_add(self.length)
    }
}

/// A transaction as a log shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Where it is and how long.
    pub header: Header,
    /// Who committed it, in whatever encoding the application used.
    pub user: Vec<u8>,
    /// What it was for, such as the path of a request.
    pub description: Vec<u8>,
    /// A pickle of more properties, or nothing.
    pub extension: Vec<u8>,
    /// Number of data records; 0 if the transaction was undone in place (status `u`).
    pub objects: u64,
}

/// Reads the header at an offset, which must be the start of a transaction: what is there is not checked.
pub fn header_at<S: Source + ?Sized>(source: &S, position: u64) -> Result<Header> {
    let mut bytes = [0; 23];
    source.read_exact_at(&mut bytes, position)?;
    Ok(Header::parse(position, &bytes))
}

/// The transaction that ends at this offset; `None` if `end` is the beginning of the file or no plausible
/// transaction ends there (its length must stand at both ends and have room for header and strings).
/// Fails only if the file can't be read.
pub fn transaction_ending_at<S: Source + ?Sized>(source: &S, end: u64) -> Result<Option<Header>> {
    ending_at(source, &mut Window::new(), end)
}

fn ending_at<S: Source + ?Sized>(source: &S, window: &mut Window, end: u64) -> Result<Option<Header>> {
    if end < FIRST_TRANSACTION + HEADER_LENGTH + 8 {
        return Ok(None);
    }
    let length = u64::from_be_bytes(window.backward(source, end - 8)?);
    let position = (end - 8).checked_sub(length).filter(|position| *position >= FIRST_TRANSACTION);
    let Some(position) = position.filter(|_| length >= HEADER_LENGTH) else {
        return Ok(None);
    };
    let header = Header::parse(position, &window.backward(source, position)?);
    Ok((header.length == length && header.is_long_enough()).then_some(header))
}

/// Reads a transaction's strings and counts its records, at a cost of one small read per record of some
/// size, never of its data. Fails if the records don't add up to the length in the header.
pub fn read_transaction<S: Source + ?Sized>(source: &S, header: &Header) -> Result<Transaction> {
    let corrupt = |offset, what| unopenable(source.path(), offset, what);
    if !header.is_long_enough() {
        return Err(corrupt(header.position, "a transaction is too short for its own header"));
    }
    // Three strings of at most 65,535 bytes.
    let mut strings = vec![0; usize::try_from(header.strings_length()).unwrap_or(0)];
    source.read_exact_at(&mut strings, header.position.saturating_add(HEADER_LENGTH))?;
    let mut description = strings.split_off(usize::from(header.user_length));
    let extension = description.split_off(usize::from(header.description_length));

    let mut objects = 0;
    let (mut at, end) = (header.records_start(), header.records_end());
    let mut window = Window::new();
    while header.status != b'u' && at < end {
        let left = end - at;
        if left < RECORD_HEADER_LENGTH {
            return Err(corrupt(at, "a record reaches beyond the end of its transaction"));
        }
        let head: [u8; 42] = window.forward(source, at, end)?;
        let data = match u64_at(&head, 34) {
            0 => 8,
            length => length,
        };
        if data > left - RECORD_HEADER_LENGTH {
            return Err(corrupt(at, "a record reaches beyond the end of its transaction"));
        }
        at += RECORD_HEADER_LENGTH + data;
        objects += 1;
    }
    Ok(Transaction { header: *header, user: strings, description, extension, objects })
}

/// The transactions before an offset, newest first. Ends after the first error.
pub struct Backwards<'a, S: Source + ?Sized> {
    source: &'a S,
    window: Window,
    end: u64,
}

impl<'a, S: Source + ?Sized> Backwards<'a, S> {
    /// The transactions before `end`, which must be the end of one, or of the magic.
    pub fn new(source: &'a S, end: u64) -> Self {
        Backwards { source, window: Window::new(), end }
    }
}

impl<S: Source + ?Sized> Iterator for Backwards<'_, S> {
    type Item = Result<Header>;

    fn next(&mut self) -> Option<Result<Header>> {
        if self.end <= FIRST_TRANSACTION {
            return None;
        }
        let end = std::mem::replace(&mut self.end, 0);
        match ending_at(self.source, &mut self.window, end) {
            Ok(Some(header)) => {
                self.end = header.position;
                Some(Ok(header))
            }
            Ok(None) => {
                Some(Err(unopenable(self.source.path(), end, "no complete transaction ends here, where one should")))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// The transactions between two offsets, oldest first, whatever their status. Ends after the first error.
pub struct Forwards<'a, S: Source + ?Sized> {
    source: &'a S,
    window: Window,
    from: u64,
    to: u64,
}

impl<'a, S: Source + ?Sized> Forwards<'a, S> {
    /// The transactions from `from` to `to`, both of which must be the ends of transactions, or of the magic.
    pub fn new(source: &'a S, from: u64, to: u64) -> Self {
        Forwards { source, window: Window::new(), from, to }
    }

    fn step(&mut self, position: u64) -> Result<Header> {
        let corrupt = |what| Err(unopenable(self.source.path(), position, what));
        if self.to - position < HEADER_LENGTH + 8 {
            return corrupt("a transaction is not complete");
        }
        let header = Header::parse(position, &self.window.forward(self.source, position, self.to)?);
        if header.end() > self.to || !header.is_long_enough() {
            return corrupt("the length of a transaction is impossible");
        }
        let again: [u8; 8] = self.window.forward(self.source, header.records_end(), self.to)?;
        if u64::from_be_bytes(again) != header.length {
            return corrupt("the two lengths of a transaction differ");
        }
        Ok(header)
    }
}

impl<S: Source + ?Sized> Iterator for Forwards<'_, S> {
    type Item = Result<Header>;

    fn next(&mut self) -> Option<Result<Header>> {
        if self.from >= self.to {
            return None;
        }
        let position = std::mem::replace(&mut self.from, u64::MAX);
        let result = self.step(position);
        if let Ok(header) = &result {
            self.from = header.end();
        }
        Some(result)
    }
}
