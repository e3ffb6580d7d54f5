//! The backups of repozo: full ones and increments, `YYYY-MM-DD-HH-MM-SS` (UTC) and `.fs`, `.fsz`, `.deltafs` or `.deltafsz`; and per
//! full one a `.dat`, with a line for it and for each increment: path, first and last offset, MD5 of the bytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use md5::{Digest, Md5};

use super::gunzip::Gunzip;
use super::take::{About, Assembled, Incoming, unsound};
use super::{Work, small};
use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::Position;
use crate::filestorage::source::open_plain;
use crate::repository::catalog::Database;
use crate::snapshot::writing::require_room;

/// The length of a time in a name.
const TIME: usize = 19;
/// How many bytes of gzip hold at least one that is zipped.
const ZIPPED: u64 = 1100;

/// A line of a `.dat`.
struct Piece {
    name: String,
    start: u64,
    end: u64,
    md5: String,
}

pub(super) fn import(work: &mut Work<'_>) -> Result<()> {
    let directory = work.options.path.clone();
    let database = work.only_database()?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&directory).at("read", &directory)? {
        names.insert(entry.at("read", &directory)?.file_name().to_string_lossy().into_owned());
    }
    let mut unnamed: BTreeSet<&String> = names.iter().filter(|name| is_backup(name)).collect();
    if unnamed.is_empty() {
        return Err(Error::failed(format!("there are no backups of repozo in {}", directory.display()))
            .hint("name the directory that repozo's option -r names"));
    }
    for list in names.iter().filter(|name| has_time(name) && &name[TIME..] == ".dat") {
        let pieces = read_list(work, &directory, list)?;
        unnamed.retain(|name| pieces.iter().all(|piece| piece.name != **name));
        import_series(work, &database, &directory, &pieces)?;
    }
    for name in unnamed {
        work.refuse(name, "no .dat names it, so that it can't be checked: it wasn't finished, or its .dat is gone");
    }
    work.report.refused.sort_by(|one, other| one.source.cmp(&other.source));
    Ok(())
}

fn has_time(name: &str) -> bool {
    let digit_or_dash = |(place, byte): (usize, &u8)| match place {
        4 | 7 | 10 | 13 | 16 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    name.is_char_boundary(TIME) && name.as_bytes()[..TIME].iter().enumerate().all(digit_or_dash)
}

fn is_backup(name: &str) -> bool {
    has_time(name) && [".fs", ".fsz", ".deltafs", ".deltafsz"].contains(&&name[TIME..])
}

/// What a `.dat` says. A line that makes no sense is reported; what follows it then has a gap before it.
fn read_list(work: &mut Work<'_>, directory: &Path, list: &str) -> Result<Vec<Piece>> {
    let path = directory.join(list);
    let mut pieces = Vec::new();
    let bytes = match small(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            work.refuse(list, error.to_string());
            return Ok(pieces);
        }
    };
    for (number, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        match parse_line(line) {
            Some(piece) => pieces.push(piece),
            None => work.refuse(list, format!("its line {} makes no sense", number + 1)),
        }
    }
    if pieces.is_empty() {
        work.refuse(list, "it names no backup");
    }
    Ok(pieces)
}

/// The path comes first, as it was typed, perhaps with spaces in it.
fn parse_line(line: &str) -> Option<Piece> {
    let mut words = line.rsplitn(4, ' ');
    let (md5, end, start, path) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let name = path.rsplit('/').next().unwrap_or(path);
    let piece = Piece { name: name.into(), start: start.parse().ok()?, end: end.parse().ok()?, md5: md5.into() };
    (is_backup(name) && piece.start <= piece.end && md5.len() == 32).then_some(piece)
}

/// Takes a full backup and its increments, those that are sound and have all before them.
fn import_series(work: &mut Work<'_>, database: &Database, directory: &Path, pieces: &[Piece]) -> Result<()> {
    let mut whole = Assembled::new(work.repository)?;
    let mut reached = Position::START;
    for piece in pieces {
        work.monitor.check()?;
        let before = whole.length;
        match add(work, database, &directory.join(&piece.name), piece, &mut whole, reached)? {
            Ok((created, incoming)) => {
                reached = incoming.cut.position();
                let (source, message) = (piece.name.clone(), format!("repozo {}", piece.name));
                work.take(About { source, id: None, created, message, one_moment: true }, vec![incoming])?;
            }
            Err(reason) => {
                whole.shorten(before)?;
                work.refuse(&piece.name, reason);
            }
        }
    }
    Ok(())
}

/// Appends one of them to those before, and checks it; the inner error says what is wrong with it.
fn add(
    work: &Work<'_>,
    database: &Database,
    path: &Path,
    piece: &Piece,
    whole: &mut Assembled,
    reached: Position,
) -> Result<Result<(Timestamp, Incoming), String>> {
    let wrong = |reason: String| Ok(Err(reason));
    let (before, start) = (whole.length, piece.start);
    if start < before {
        return wrong(format!("it begins at {start}, but what was before it reaches to {before}: they overlap"));
    }
    if start > before {
        return wrong(format!("it begins at {start}, but what was taken before it reaches to {before} only"));
    }
    let Some(created) = time_of(&piece.name) else { return wrong("its name is no time".into()) };
    let file = match open_plain(path, false) {
        Err(error) if error.kind() == Kind::NotFound => return wrong("it is missing".into()),
        Err(error) => return wrong(error.to_string()),
        Ok(file) => file,
    };
    let there = file.metadata().at("look at", path)?.len();
    let length = piece.end - piece.start;
    let zipped = piece.name.ends_with('z');
    if !zipped && there != length {
        return wrong(format!("it has {there} bytes instead of {length}"));
    }
    if zipped && length / ZIPPED > there {
        return wrong(format!("its {there} bytes are too few to be {length}"));
    }
    require_room(work.repository.root(), length)?;
    let mut reader: Box<dyn Read> = if zipped { Box::new(Gunzip::new(file)) } else { Box::new(file) };
    let mut sum = Md5::new();
    work.monitor.begin("reading", length);
    let copied = whole.append(&mut reader, length, work.monitor, |bytes| sum.update(bytes))?;
    work.monitor.end();
    // One more, which must not be there: only then has gzip checked its own sum.
    match copied.and_then(|copied| Ok((copied, reader.read(&mut [0])?))) {
        Err(error) => return wrong(format!("it can't be read: {error}")),
        Ok((copied, 0)) if copied == length => {}
        Ok((copied, 0)) => return wrong(format!("it has {copied} bytes instead of {length}")),
        Ok(_) => return wrong(format!("it has more than {length} bytes")),
    }
    let sum: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if sum != piece.md5.to_ascii_lowercase() {
        return wrong("its bytes aren't those that were backed up: their MD5 is another one".into());
    }
    let parsed = whole.parse(database, path, reached, work.monitor).and_then(Incoming::whole);
    Ok(unsound(parsed)?.map(|incoming| (created, incoming)))
}

fn time_of(name: &str) -> Option<Timestamp> {
    let time = DateTime::strptime("%Y-%m-%d-%H-%M-%S", name.get(..TIME)?).ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (time >= Timestamp::UNIX_EPOCH).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lines() {
        for good in ["2026-11-20-13-03-59.fs", "2026-11-20-13-03-59.deltafsz"] {
            assert!(is_backup(good), "{good}");
        }
        for bad in ["2026-11-20-13-03-59.dat", "tmp.tmp", "", "2026-11-20-13-03-5ä.fs", "x2026-11-20-13-03-59.fs"] {
            assert!(!is_backup(bad), "{bad}");
        }
        assert_eq!(time_of("2026-11-20-13-03-59.fs").unwrap().to_string(), "2026-11-20T13:03:59Z");
        assert_eq!(time_of("2026-13-20-13-03-59.fs"), None);
        assert_eq!(time_of("1969-12-31-23-59-59.fs"), None);
        let sum = "0".repeat(32);
        let piece = parse_line(&format!("/srv/my backups/2026-11-20-13-03-59.fs 0 126 {sum}")).unwrap();
        assert_eq!((piece.name.as_str(), piece.start, piece.end), ("2026-11-20-13-03-59.fs", 0, 126));
        for bad in ["", "a 0 1 x", &format!("2026-11-20-13-03-59.fs 5 1 {sum}"), &format!("../Data.fs 0 1 {sum}")] {
            assert!(parse_line(bad).is_none(), "{bad}");
        }
    }
}
