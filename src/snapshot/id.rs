//! Snapshot ids: what users call snapshots. No id ever becomes a path.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};

/// The word that means the newest snapshot, and so can't be an id.
pub const LATEST: &str = "latest";

/// What the ids of snapshots begin with that a restore makes of what it would drop.
pub const UNDO: &str = "undo-";

/// What the ids of snapshots begin with that store the beginning of a file for others.
pub const BASE: &str = "base-";

/// The longest id.
pub const LONGEST: usize = 128;

/// Refuses anything but 1 to 128 ASCII letters, digits, `.`, `_`, `-`, `@`, `+`, not beginning with `-` or `.`.
pub fn check(id: &str, what: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
    let reason = if id.is_empty() {
        "it is empty"
    } else if id.len() > LONGEST {
        "it is longer than 128 characters"
    } else if id.starts_with(['-', '.']) {
        "it begins with - or ."
    } else if !id.bytes().all(allowed) {
        "it has other characters"
    } else {
        return Ok(());
    };
    Err(Error::usage(format!("{:?} can't be {what}: {reason}", Shortened(id)))
        .hint("use 1 to 128 ASCII letters, digits, and . _ - @ + (not - or . first)"))
}

/// Refuses what can't be the id of a new snapshot.
pub fn check_new(id: &str) -> Result<()> {
    check(id, "a snapshot's id")?;
    if id == LATEST {
        return Err(Error::usage("\"latest\" can't be a snapshot's id: it always means the newest one")
            .hint("choose another id"));
    }
    if id.starts_with(UNDO) || id.starts_with(BASE) {
        return Err(Error::usage(format!("{id} can't be the id of your snapshot: znap gives such ids to its own"))
            .hint("choose an id that doesn't begin with undo- or base-"));
    }
    Ok(())
}

/// An id made of the local time, such as `2026-11-20_14-03-59`; sorts by time. When `taken` says that
/// there is one already, a fraction of the second is added.
pub fn from_time(now: Timestamp, zone: &TimeZone, taken: impl Fn(&str) -> Result<bool>) -> Result<String> {
    let local = now.to_zoned(zone.clone());
    let second = local.strftime("%Y-%m-%d_%H-%M-%S").to_string();
    if !taken(&second)? {
        return Ok(second);
    }
    // A thousand saves in a second don't happen; should the clock stand still, count on.
    for millisecond in i64::from(local.millisecond()).. {
        let id = format!("{second}.{millisecond:03}");
        if !taken(&id)? {
            return Ok(id);
        }
    }
    Err(Error::failed("no free id for this moment"))
}

/// An untrusted word as shown in a message: bounded.
struct Shortened<'a>(&'a str);

impl std::fmt::Debug for Shortened<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.chars().count() > 60 {
            let start: String = self.0.chars().take(60).collect();
            write!(f, "{start:?}…")
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_words() {
        let longest = "x".repeat(128);
        for good in ["a", "before-upgrade", "A.b_c@d+e", "1", "2026-11-20_14-03-59", "a..b", longest.as_str()] {
            assert!(check_new(good).is_ok(), "{good}");
        }
        let longer = "x".repeat(129);
        for bad in [
            "",
            ".",
            "..",
            "-x",
            ".x",
            "a/b",
            "a b",
            "ä",
            "a\n",
            "a\0",
            "latest",
            "undo-1",
            "base-1",
            "../x",
            longer.as_str(),
        ] {
            let error = check_new(bad).expect_err(bad);
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            assert!(error.to_string().len() < 300);
        }
        assert!(check("latest", "an id").is_ok());
    }

    #[test]
    fn time_stamps_sort_and_are_unique() {
        let now: Timestamp = "2026-11-20T13:03:59.250Z".parse().expect("a time");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let mut taken: Vec<String> = Vec::new();
        for _ in 0..3 {
            let id = from_time(now, &zone, |id| Ok(taken.iter().any(|other| other == id))).expect("an id");
            assert!(check_new(&id).is_ok());
            taken.push(id);
        }
        assert_eq!(taken[0], "2026-11-20_14-03-59");
        let mut sorted = taken.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted, taken);
    }
}
