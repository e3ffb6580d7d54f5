//! Transaction ids, which are times, and object ids.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use crate::error::{Error, Result};

/// The id of a transaction: eight bytes that ZODB makes from the time of the commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub u64);

/// The id of a persistent object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(pub u64);

const NANOSECONDS_A_MINUTE: u128 = 60_000_000_000;

impl Tid {
    /// The time in this id, in UTC, rounded to a microsecond, which is what clocks gave ZODB.
    ///
    /// The upper half counts minutes since 1900 as if every month had 31 days; a day that its month
    /// doesn't have becomes the last one of the month.
    pub fn time(self) -> Timestamp {
        let (minutes, fraction) = (self.0 >> 32, self.0 & 0xffff_ffff);
        let year = (minutes / 535_680 + 1900).min(9998);
        let month = minutes / 44_640 % 12 + 1;
        let day = minutes / 1440 % 31 + 1;
        let (hour, minute) = (minutes / 60 % 24, minutes % 60);
        let small = |number: u64| i8::try_from(number).unwrap_or(1);
        let Ok(first) = Date::new(i16::try_from(year).unwrap_or(9998), small(month), 1) else {
            return Timestamp::MAX;
        };
        let day = small(day).min(first.days_in_month());
        let Ok(start) = Date::new(first.year(), first.month(), day)
            .and_then(|date| date.at(small(hour), small(minute), 0, 0).to_zoned(TimeZone::UTC))
        else {
            return Timestamp::MAX;
        };
        let nanoseconds = (u128::from(fraction) * NANOSECONDS_A_MINUTE) >> 32;
        let microseconds = i64::try_from((nanoseconds + 500) / 1000).unwrap_or(0);
        start.timestamp().checked_add(SignedDuration::from_micros(microseconds)).unwrap_or(Timestamp::MAX)
    }

    /// The id that ZODB makes for a commit at this time; the least or greatest id if it can't hold the time.
    pub fn from_time(time: Timestamp) -> Tid {
        let utc = time.to_zoned(TimeZone::UTC);
        let Ok(years) = u64::try_from(i32::from(utc.year()) - 1900) else {
            return Tid(0);
        };
        let part = |number: i8| u64::try_from(number).unwrap_or(0);
        let months = years * 12 + part(utc.month() - 1);
        let days = months * 31 + part(utc.day() - 1);
        let minutes = (days * 24 + part(utc.hour())) * 60 + part(utc.minute());
        let Ok(minutes) = u32::try_from(minutes) else {
            return Tid(u64::MAX);
        };
        let nanoseconds =
            u128::from(part(utc.second())) * 1_000_000_000 + u128::try_from(utc.subsec_nanosecond()).unwrap_or(0);
        let fraction = u64::try_from((nanoseconds << 32) / NANOSECONDS_A_MINUTE).unwrap_or(0);
        Tid(u64::from(minutes) << 32 | fraction)
    }
}

/// As ZODB writes ids: `0x` and an even number of digits, so zero is `0x00`.
fn write_id(id: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let bytes = id.to_be_bytes();
    let skip = bytes.iter().take(7).take_while(|byte| **byte == 0).count();
    f.write_str("0x")?;
    bytes.iter().skip(skip).try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The id in `0x` and up to sixteen digits.
fn parse_id(text: &str, what: &str) -> Result<u64> {
    text.strip_prefix("0x")
        .filter(|digits| !digits.is_empty() && digits.len() <= 16)
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| {
            Error::usage(format!("{text:?} is no {what}"))
                .hint("write 0x and up to 16 hexadecimal digits, such as 0x03e8f6a4c1d2b799")
        })
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_id(self.0, f)
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_id(self.0, f)
    }
}

impl FromStr for Tid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Tid> {
        parse_id(text, "transaction id").map(Tid)
    }
}

impl FromStr for Oid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Oid> {
        parse_id(text, "object id").map(Oid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_zodb_writes_them() {
        for (id, text) in [(0, "0x00"), (1, "0x01"), (0x123, "0x0123"), (u64::MAX, "0xffffffffffffffff")] {
            assert_eq!(Tid(id).to_string(), text);
            assert_eq!(Oid(id).to_string(), text);
            assert_eq!(text.parse::<Tid>().unwrap(), Tid(id));
        }
        for nonsense in ["", "0x", "12", "0xg", "0x+1", "0x11223344556677889"] {
            assert!(nonsense.parse::<Tid>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_time_survives_the_round_trip() {
        for text in ["2026-11-20T14:03:07.123456Z", "1970-01-01T00:00:00Z", "2024-02-29T23:59:59.999999Z"] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(Tid::from_time(time).time(), time);
        }
        // From persistent: TimeStamp(2002, 1, 2, 3, 4, 30).
        let half_past = "2002-01-02T03:04:30Z".parse().unwrap();
        let minutes = ((102 * 12) * 31 + 1) * 1440 + 3 * 60 + 4;
        assert_eq!(Tid::from_time(half_past), Tid(minutes << 32 | 0x8000_0000));
    }

    #[test]
    fn no_id_is_too_odd_for_a_time() {
        for id in [0, 1, u64::MAX, u64::MAX << 32, 0xffff_ffff, 1 << 63] {
            let _ = Tid(id).time();
        }
        // Minutes of "31 February 1900".
        let odd = (31 + 30) * 1440;
        assert_eq!(Tid(odd << 32).time().to_string(), "1900-02-28T00:00:00Z");
        assert_eq!(Tid::from_time("1899-12-31T00:00:00Z".parse().unwrap()), Tid(0));
    }
}
