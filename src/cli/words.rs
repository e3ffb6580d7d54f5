//! Numbers, sizes, times and texts as people read them.

use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use znap::repository::counters::Counts;
use znap::snapshot::BlobPlan;

/// So many of something: `1 transaction`, `1,234 transactions`.
pub fn count(number: u64, one: &str, several: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {several}", grouped(number)) }
}

/// The usual case of [`count`].
pub fn transactions(number: u64) -> String {
    count(number, "transaction", "transactions")
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with three digits: `999 bytes`, `1.23 kB`, `440 MB`; a MB is a million bytes.
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return count(bytes, "byte", "bytes");
    }
    let mut value = bytes as f64 / 1e3;
    let mut unit = "kB";
    for next in ["MB", "GB", "TB", "PB"] {
        // What would be rounded up to 1000 belongs to the next unit.
        if value < 999.5 {
            break;
        }
        value /= 1e3;
        unit = next;
    }
    let places = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.places$} {unit}")
}

/// A size, and the exact number.
pub fn exact_size(bytes: u64) -> String {
    if bytes < 1000 { size(bytes) } else { format!("{} ({} bytes)", size(bytes), grouped(bytes)) }
}

/// A time to the minute, with its zone: `2026-11-20 14:03 CET`.
pub fn time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// A time to the second, with its zone: `2026-11-20 14:03:07 CET`.
pub fn exact_time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Up to where a snapshot reaches.
pub fn up_to(time: Option<Timestamp>, tid: &str, zone: &TimeZone) -> String {
    match time {
        Some(time) => format!("up to {} (tid {tid})", exact_time(time, zone)),
        None => "without any transaction".into(),
    }
}

/// How old something is, in its two largest units: `3 days 4 hours`.
pub fn age(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0).unsigned_abs();
    let units = [
        (seconds / 86_400, "day", "days"),
        (seconds / 3600 % 24, "hour", "hours"),
        (seconds / 60 % 60, "minute", "minutes"),
        (seconds % 60, "second", "seconds"),
    ];
    let Some(first) = units.iter().position(|(number, ..)| *number > 0) else {
        return "0 seconds".into();
    };
    let words: Vec<String> = units
        .iter()
        .skip(first)
        .take(2)
        .filter(|(number, ..)| *number > 0)
        .map(|(number, one, several)| count(*number, one, several))
        .collect();
    words.join(" ")
}

/// Text out of a database on one line, where nothing in it can control a terminal, change the direction in
/// which it is written, or be there unseen.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect()
}

/// A database's name, and its file.
pub fn database(name: &str, path: &Path) -> String {
    format!("{name} ({})", clean(&path.to_string_lossy()))
}

/// Cleans each line of a text.
pub fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// The beginning of a text, cleaned, if it is longer than a table has room for.
pub fn short(text: &str) -> String {
    const ROOM: usize = 60;
    let text = clean(text);
    match text.char_indices().nth(ROOM) {
        Some(_) => text.chars().take(ROOM - 1).chain(['…']).collect(),
        None => text,
    }
}

/// Unicode's characters for formatting, and others that show nothing.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}'
        | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// What a restore found right in the bytes that stayed: so many by their hashes, so many by their structure only.
pub fn checked(by_hash: u64, by_structure: u64) -> Option<String> {
    match (by_hash, by_structure) {
        (0, 0) => None,
        (_, 0) => Some(format!("checked {} against their hashes", size(by_hash))),
        (0, _) => Some(format!("checked the structure of the first {}", size(by_structure))),
        _ => Some(format!(
            "checked {} against their hashes, and the structure of the first {}",
            size(by_hash),
            size(by_structure)
        )),
    }
}

/// What an operation cost.
pub fn counts(counts: &Counts) -> String {
    format!(
        "cost: {} read from databases, {} written to databases; {} read from the repository, {} written to it; \
         {} and {} in the catalog; {}",
        size(counts.database_bytes_read),
        size(counts.database_bytes_written),
        size(counts.object_bytes_read),
        size(counts.object_bytes_written),
        count(counts.rows, "row", "rows"),
        count(counts.commits, "commit", "commits"),
        count(counts.fsyncs, "sync", "syncs"),
    )
}

/// What follows the number of a snapshot's blobs: how many more nobody has.
pub(super) fn missing(blobs: &BlobPlan) -> String {
    match blobs.missing {
        0 => String::new(),
        missing => format!("; {missing} more that the database names were missing when it was saved, or are lost"),
    }
}

/// What is to be said of snapshots that need a file of which nothing is to be found, if there are any.
pub(super) fn lost(ids: &[String]) -> Option<String> {
    let some = ids.iter().take(LOST).map(|id| clean(id)).collect::<Vec<_>>().join(", ");
    let more = match ids.len().saturating_sub(LOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!ids.is_empty()).then(|| {
        format!(
            "the beginning of a database, as it was before a pack, isn't stored, and is nowhere to be found: only znap restore ID \
             --base-from FILE, with a copy of it, puts back {some}{more}"
        )
    })
}

/// How many of them are named.
const LOST: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1000, "1.00 kB"),
            (1234, "1.23 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (440_123_456, "440 MB"),
            (12_300_000_000, "12.3 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(exact_size(1_234_567), "1.23 MB (1,234,567 bytes)");
    }

    #[test]
    fn nothing_unseen_is_left() {
        assert_eq!(clean("a\x1b\u{9b}\u{202e}\u{2066}\u{200b}\u{e0041}z ünï 日本 🙂"), "a      z ünï 日本 🙂");
        assert_eq!(clean_lines("a\n\u{2067}b"), "a\n b");
        assert_eq!(short(&"ä".repeat(60)), "ä".repeat(60));
        assert_eq!(short(&"ä".repeat(61)), format!("{}…", "ä".repeat(59)));
    }

    #[test]
    fn checks_say_how_far_they_went() {
        assert_eq!(checked(0, 0), None);
        assert_eq!(
            checked(3_220_000, 6_950_000).unwrap(),
            "checked 3.22 MB against their hashes, and the structure of the first 6.95 MB"
        );
        assert_eq!(checked(5, 0).unwrap(), "checked 5 bytes against their hashes");
        assert_eq!(checked(0, 5).unwrap(), "checked the structure of the first 5 bytes");
    }

    #[test]
    fn ages_have_two_units() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (61, "1 minute 1 second"),
            (3600, "1 hour"),
            (3661, "1 hour 1 minute"),
            (100_000, "1 day 3 hours"),
            (-5, "0 seconds"),
        ] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_have_a_zone() {
        let moment: Timestamp = "2026-11-20T13:03:07Z".parse().unwrap();
        let zone = TimeZone::posix("CET-1").unwrap();
        assert_eq!(time(moment, &zone), "2026-11-20 14:03 CET");
        assert_eq!(exact_time(moment, &TimeZone::UTC), "2026-11-20 13:03:07 UTC");
    }
}
