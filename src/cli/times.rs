//! Times and ages as people type them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use znap::error::{Error, Result};

/// A time: `2026-11-20`, `2026-11-20 14:03`, RFC 3339, or an age such as `2h` or `3 days`.
pub fn time(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return time.to_zoned(zone.clone()).map(|time| time.timestamp()).map_err(|_| nonsense(text));
    }
    let span: Span = text.parse().map_err(|_| nonsense(text))?;
    if span.is_negative() {
        return Err(nonsense(text));
    }
    let time = now.to_zoned(zone.clone()).checked_sub(span).map_err(|_| nonsense(text))?;
    Ok(time.timestamp())
}

fn nonsense(text: &str) -> Error {
    Error::usage(format!("{text:?} is no time"))
        .hint("type it like 2026-11-20, \"2026-11-20 14:03\", 2026-11-20T13:03:00Z, or an age like 2h or 3d")
}

/// An age: `26h`, `1d 2h`, `90 minutes`. A day has 24 hours.
pub fn duration(text: &str) -> Result<SignedDuration> {
    let nonsense = || Error::usage(format!("{text:?} is no age")).hint("type it like 26h, 90m or 2d");
    let span: Span = text.parse().map_err(|_| nonsense())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| nonsense())?;
    if duration.is_negative() { Err(nonsense()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        for (text, expected) in [
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-11-20 14:03", "2026-11-20T13:03:00Z"),
            ("2026-11-20T14:03:05", "2026-11-20T13:03:05Z"),
            ("2026-11-20T14:03:00Z", "2026-11-20T14:03:00Z"),
            ("2026-11-20T14:03:00+02:00", "2026-11-20T12:03:00Z"),
            ("2h", "2026-11-20T10:00:00Z"),
            ("3d", "2026-11-17T12:00:00Z"),
            ("1 month", "2026-10-20T12:00:00Z"),
        ] {
            assert_eq!(time(text, now, &zone).unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "yesterday", "-2h", "2026-13-01", "99999999 years", "5"] {
            assert!(time(bad, now, &zone).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, seconds) in
            [("26h", 93_600), ("1d", 86_400), ("1d 2h", 93_600), ("90 minutes", 5400), ("1w", 604_800), ("PT5M", 300)]
        {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "26", "-1h", "1 month", "1 year", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
