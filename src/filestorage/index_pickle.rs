//! The few pickle instructions that index files are made of.
//!
//! Reads what every ZODB since 3.10 has written, under Python 2 or 3; writes what ZODB 6 writes.

use std::ops::Range;

/// The values that occur in an index. Byte strings are ranges of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    None,
    Number(u64),
    Bytes(Range<usize>),
    /// A tuple of two byte strings.
    Pair(Range<usize>, Range<usize>),
}

/// What is on the stack while a pickle is being read.
#[derive(Debug, Clone)]
enum Item {
    Mark,
    Value(Value),
}

/// More than any index needs; keeps nonsense from growing the stack.
const DEEPEST: usize = 8;

/// Reads one pickle after the other from a file's bytes.
pub(super) struct Pickles<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Pickles<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Pickles<'a> {
        Pickles { bytes, at: 0 }
    }

    /// The next pickle; `None` if it is incomplete or holds anything that is not in an index.
    pub(super) fn load(&mut self) -> Option<Value> {
        let mut stack: Vec<Item> = Vec::new();
        loop {
            let item = match self.take(1)?[0] {
                0x80 => {
                    self.take(1)?;
                    continue;
                }
                b'.' => {
                    return match (stack.pop(), stack.is_empty()) {
                        (Some(Item::Value(value)), true) => Some(value),
                        _ => None,
                    };
                }
                // Puts into the memo, from which an index never gets anything.
                b'q' => {
                    self.take(1)?;
                    continue;
                }
                b'r' => {
                    self.take(4)?;
                    continue;
                }
                b'p' => {
                    self.line()?;
                    continue;
                }
                b'(' => Item::Mark,
                b't' | 0x86 => Item::Value(Self::pair(&mut stack)?),
                b'N' => Item::Value(Value::None),
                b'K' => Item::Value(Value::Number(self.take(1)?[0].into())),
                b'M' => Item::Value(Value::Number(self.little_endian(2)?)),
                b'J' => Item::Value(Value::Number(self.little_endian(4).filter(|number| *number < 1 << 31)?)),
                0x8a => {
                    let length = usize::from(self.take(1)?[0]);
                    Item::Value(Value::Number(self.long(length)?))
                }
                b'I' | b'L' => Item::Value(Value::Number(self.decimal()?)),
                b'C' | b'U' => {
                    let length = usize::from(self.take(1)?[0]);
                    Item::Value(Value::Bytes(self.range(length)?))
                }
                b'B' | b'T' => {
                    let length = self.little_endian(4).and_then(|length| usize::try_from(length).ok())?;
                    Item::Value(Value::Bytes(self.range(length)?))
                }
                // Text counts only where it is the same in bytes.
                b'X' => {
                    let length = self.little_endian(4).and_then(|length| usize::try_from(length).ok())?;
                    let range = self.range(length)?;
                    self.bytes.get(range.clone()).filter(|text| text.is_ascii())?;
                    Item::Value(Value::Bytes(range))
                }
                _ => return None,
            };
            if stack.len() >= DEEPEST {
                return None;
            }
            stack.push(item);
        }
    }

    /// Makes one tuple of the two byte strings on top of the stack, and takes the mark below them, if
    /// there is one, away.
    fn pair(stack: &mut Vec<Item>) -> Option<Value> {
        let (second, first) = (stack.pop()?, stack.pop()?);
        if matches!(stack.last(), Some(Item::Mark)) {
            stack.pop();
        }
        match (first, second) {
            (Item::Value(Value::Bytes(first)), Item::Value(Value::Bytes(second))) => Some(Value::Pair(first, second)),
            _ => None,
        }
    }

    fn range(&mut self, length: usize) -> Option<Range<usize>> {
        let start = self.at;
        self.take(length)?;
        Some(start..self.at)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn little_endian(&mut self, length: usize) -> Option<u64> {
        let bytes = self.take(length)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A number in two's complement, which must fit and not be negative.
    fn long(&mut self, length: usize) -> Option<u64> {
        let bytes = self.take(length)?;
        if bytes.last().is_some_and(|byte| *byte >= 0x80) {
            return None;
        }
        let (low, high) = bytes.split_at(length.min(8));
        high.iter().all(|byte| *byte == 0).then_some(())?;
        Some(low.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn line(&mut self) -> Option<&'a str> {
        let rest = self.bytes.get(self.at..)?;
        // The longest number has twenty digits.
        let length = rest.iter().take(32).position(|byte| *byte == b'\n')?;
        let line = self.take(length + 1)?;
        std::str::from_utf8(line.get(..length)?).ok()
    }

    fn decimal(&mut self) -> Option<u64> {
        let line = self.line()?;
        let digits = line.strip_suffix('L').unwrap_or(line);
        digits.bytes().all(|digit| digit.is_ascii_digit()).then_some(())?;
        digits.parse().ok()
    }
}

const PROTOCOL: [u8; 2] = [0x80, 3];
const STOP: u8 = b'.';

/// The pickle of a number, as ZODB writes an index's position.
pub(super) fn dump_number(number: u64) -> Vec<u8> {
    let little = number.to_le_bytes();
    let mut pickle = PROTOCOL.to_vec();
    match number {
        0..=0xff => pickle.extend([b'K', little[0]]),
        0x100..=0xffff => pickle.extend([b'M', little[0], little[1]]),
        0x1_0000..=0x7fff_ffff => {
            pickle.push(b'J');
            pickle.extend(&little[..4]);
        }
        _ => {
            // One bit of the last byte is the sign.
            let significant = 64 - number.leading_zeros() as usize;
            let length = significant / 8 + 1;
            pickle.extend([0x8a, u8::try_from(length).unwrap_or(9)]);
            pickle.extend(little.iter().chain(&[0]).take(length));
        }
    }
    pickle.push(STOP);
    pickle
}

/// What stands before a bucket's bytes: the start of a pickle of a pair of the prefix and so many bytes.
pub(super) fn dump_bucket_start(prefix: u64, length: u32) -> Vec<u8> {
    let mut pickle = PROTOCOL.to_vec();
    pickle.extend([b'C', 6]);
    pickle.extend(&prefix.to_be_bytes()[2..]);
    match u8::try_from(length) {
        Ok(length) => pickle.extend([b'C', length]),
        Err(_) => {
            pickle.push(b'B');
            pickle.extend(length.to_le_bytes());
        }
    }
    pickle
}

/// What stands after a bucket's bytes.
pub(super) const BUCKET_END: [u8; 2] = [0x86, STOP];

/// What stands after the last bucket: the pickle of `None`.
pub(super) const END: [u8; 4] = [PROTOCOL[0], PROTOCOL[1], b'N', STOP];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_zodb_pickles_them() {
        for (number, pickle) in [
            (4, &b"\x80\x03K\x04."[..]),
            (255, b"\x80\x03K\xff."),
            (1474, b"\x80\x03M\xc2\x05."),
            (0x1_0000, b"\x80\x03J\0\0\x01\0."),
            ((1 << 31) - 1, b"\x80\x03J\xff\xff\xff\x7f."),
            ((1 << 31) + 5, b"\x80\x03\x8a\x05\x05\0\0\x80\0."),
            (1 << 40, b"\x80\x03\x8a\x06\0\0\0\0\0\x01."),
            ((1 << 39) - 1, b"\x80\x03\x8a\x05\xff\xff\xff\xff\x7f."),
            (1 << 39, b"\x80\x03\x8a\x06\0\0\0\0\x80\0."),
            (u64::MAX, b"\x80\x03\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0."),
        ] {
            assert_eq!(dump_number(number), pickle, "{number}");
            assert_eq!(Pickles::new(pickle).load(), Some(Value::Number(number)));
        }
    }

    #[test]
    fn what_older_zodbs_wrote() {
        for (pickle, value) in [
            (&b"I1474\n."[..], Value::Number(1474)),
            (b"L1474L\n.", Value::Number(1474)),
            (b"I01\n.", Value::Number(1)),
            (b"\x80\x02\x8a\x00.", Value::Number(0)),
            (b"(U\x02ab q\x01U\x01xq\x02tq\x03.", Value::None),
            (b"(U\x02abq\x01T\x01\0\0\0xr\x02\0\0\0tq\x03.", Value::Pair(3..5, 12..13)),
            (b"X\x02\0\0\0ab\x80\x02B\x01\0\0\0x\x86.", Value::Pair(5..7, 14..15)),
            (b"N.", Value::None),
        ] {
            let loaded = Pickles::new(pickle).load();
            if pickle.contains(&b' ') {
                assert_eq!(loaded, None);
            } else {
                assert_eq!(loaded, Some(value), "{}", pickle.escape_ascii());
            }
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for pickle in [
            &b""[..],
            b".",
            b"K",
            b"K\x01",
            b"J\0\0\0\x80.",
            b"\x8a\x01\x80.",
            b"I-1\n.",
            b"I\n.",
            b"}.",
            b"((((((((((N.",
            b"NN.",
            b"(.",
            b"t.",
            b"T\xff\xff\xff\xffx.",
            b"\x80\x02}q\x01(U\x03pos.",
            b"X\x02\0\0\0\xc3\xa4.",
        ] {
            assert_eq!(Pickles::new(pickle).load(), None, "{}", pickle.escape_ascii());
        }
    }
}
