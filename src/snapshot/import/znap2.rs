//! The snapshots of `znap2`: `config.ini`, with a section per database and in it `offset`, its length at the beginning; and per
//! snapshot a directory with, for each database, a copy of its index and of all its bytes behind that offset.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::take::{About, Assembled, Incoming, unsound};
use super::{Work, named, short, small};
use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::source::open_plain;
use crate::filestorage::{DataFile, LeftOutKind, Position, Source, Unusable, header_at, index_path, usable_index};
use crate::repository::catalog::Database;
use crate::snapshot::id;
use crate::snapshot::writing::require_room;

const CONFIG: &str = "config.ini";

/// A database of the configuration, and its beginning.
struct Base {
    /// As the configuration has it.
    path: String,
    offset: u64,
    database: Database,
    /// The beginning, or why there is none; the tails go behind it.
    whole: Result<(Assembled, Position), String>,
}

pub(super) fn import(work: &mut Work<'_>) -> Result<()> {
    let directory = work.options.path.clone();
    let mut bases = Vec::new();
    for (path, offset) in read_config(&directory.join(CONFIG))? {
        let database = database_of(work, &directory, &path)?;
        if bases.iter().any(|base: &Base| base.database.row == database.row) {
            return Err(Error::usage(format!("{path} is not the only database that would be {}", database.name))
                .hint("track each of those that .znap2 has snapshots of"));
        }
        let whole = beginning(work, &database, offset)?;
        bases.push(Base { path, offset, database, whole });
    }
    let mut snapshots: Vec<(Timestamp, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&directory).at("read", &directory)? {
        let path = entry.at("read", &directory)?.path();
        let metadata = fs::symlink_metadata(&path).at("look at", &path)?;
        if metadata.is_dir() {
            let created = metadata.mtime().saturating_mul(1_000_000).saturating_add(metadata.mtime_nsec() / 1000);
            match Timestamp::from_microsecond(created).ok().filter(|created| *created >= Timestamp::UNIX_EPOCH) {
                Some(created) => snapshots.push((created, path)),
                None => work.refuse(short(&path), "its time is no time that a snapshot can have"),
            }
        }
    }
    // As znap2 lists them.
    snapshots.sort();
    for (created, path) in snapshots {
        work.monitor.check()?;
        let mut incoming = Vec::new();
        let mut wrong = None;
        for base in &mut bases {
            match add(work, base, &path)? {
                Ok(one) => incoming.push(one),
                Err(reason) => wrong = wrong.or(Some(format!("{}: {reason}", base.path))),
            }
        }
        let source = short(&path);
        match wrong {
            Some(reason) => work.refuse(source, reason),
            None => {
                let id = Some(as_id(&source));
                let message = format!("znap2 {source}");
                // It copied one database after the other.
                let one_moment = incoming.len() == 1;
                work.take(About { source, id, created, message, one_moment }, incoming)?;
            }
        }
    }
    Ok(())
}

/// The sections of a configuration, in the form of Python's configparser, and the offset of each.
fn read_config(path: &Path) -> Result<Vec<(String, u64)>> {
    let bytes = small(path).map_err(|error| match error.kind() {
        Kind::NotFound => {
            Error::failed(format!("there is no {}", path.display())).hint("name the directory .znap2, which has it")
        }
        _ => error,
    })?;
    let sections = parse_config(&String::from_utf8_lossy(&bytes));
    if sections.is_empty() || sections.iter().any(|(_, offset)| offset.is_none()) {
        return Err(Error::failed(format!("{} doesn't say for every database how long it was", path.display()))
            .hint("it has a section per database, and in that a line such as: offset = 12345"));
    }
    Ok(sections.into_iter().filter_map(|(name, offset)| Some((name, offset?))).collect())
}

fn parse_config(text: &str) -> Vec<(String, Option<u64>)> {
    let mut sections: Vec<(String, Option<u64>)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((name.into(), None));
        } else if let Some((key, value)) = line.split_once(['=', ':'])
            && key.trim().eq_ignore_ascii_case("offset")
            && let Some((_, offset)) = sections.last_mut()
        {
            *offset = value.trim().parse().ok();
        }
    }
    sections
}

/// The tracked database that a section is about: the same file, beside the directory; or else of the same name.
fn database_of(work: &Work<'_>, directory: &Path, section: &str) -> Result<Database> {
    let databases = work.repository.catalog.databases()?;
    if let Some(name) = &work.options.database {
        return named(&databases, name);
    }
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let file = identity(&directory.join("..").join(section));
    let path_of = |database: &&Database| work.repository.path_of(database);
    let same = |database: &&Database| file.is_some() && identity(&path_of(database)) == file;
    let alike = |database: &&Database| path_of(database).file_name() == Path::new(section).file_name();
    databases.iter().find(same).or_else(|| databases.iter().find(alike)).cloned().ok_or_else(|| {
        Error::not_found(format!("{section}, which .znap2 has snapshots of, is not tracked"))
            .hint("name the tracked database that it is: --database NAME")
    })
}

/// The beginning of a database's file, copied, and the last boundary in it.
fn beginning(work: &Work<'_>, database: &Database, offset: u64) -> Result<Result<(Assembled, Position), String>> {
    let path = work.repository.path_of(database);
    let file = DataFile::open(&path)?;
    let size = file.size()?;
    if size < offset {
        return Ok(Err(format!(
            "{} has {size} bytes, and had {offset} when znap2 began with it: it was packed or replaced, and its snapshots \
             need what was there",
            path.display()
        )));
    }
    require_room(work.repository.root(), offset)?;
    let mut whole = Assembled::new(work.repository)?;
    work.monitor.begin("copying", offset);
    whole.begin_with(&file, offset, work.monitor)?;
    work.monitor.end();
    let parsed = whole.parse(database, &path, Position::START, work.monitor);
    Ok(unsound(parsed)?.map(|incoming| (whole, incoming.cut.position())))
}

/// Puts a snapshot's tail behind the beginning, and checks what that gives; the inner error says what is wrong with it.
fn add(work: &Work<'_>, base: &mut Base, snapshot: &Path) -> Result<Result<Incoming, String>> {
    let (whole, boundary) = match &mut base.whole {
        Ok((whole, boundary)) => (whole, *boundary),
        Err(reason) => return Ok(Err(reason.clone())),
    };
    let path = snapshot.join(&base.path);
    let tail = match open_plain(&path, false) {
        Err(error) if error.kind() == Kind::NotFound => return Ok(Err("it is half made: its file is missing".into())),
        Err(error) => return Ok(Err(error.to_string())),
        Ok(tail) => tail,
    };
    let length = tail.metadata().at("look at", &path)?.len();
    require_room(work.repository.root(), length)?;
    whole.shorten(base.offset)?;
    work.monitor.begin("reading", length);
    let copied = whole.append(&mut &tail, length, work.monitor, |_| ())?;
    work.monitor.end();
    if let Err(error) = copied {
        return Ok(Err(format!("it can't be read: {error}")));
    }
    let parsed = whole.parse(&base.database, &path, boundary, work.monitor);
    let incoming = match unsound(parsed)? {
        Ok(incoming) => incoming,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(judge(&incoming, boundary)?.map_or(Ok(incoming), Err))
}

/// What is wrong with a tail behind a beginning, both of which parse.
fn judge(incoming: &Incoming, boundary: Position) -> Result<Option<String>> {
    let (file, cut) = (&incoming.file, &incoming.cut);
    if let Some(left_out) = cut.left_out.filter(|left_out| left_out.kind != LeftOutKind::Voted) {
        // A voted one is there to its end: what copied it went on behind it.
        return Ok(Some(format!("it is half made: it ends with {left_out}")));
    }
    if cut.offset > boundary.offset && header_at(file, boundary.offset)?.tid <= boundary.tid {
        return Ok(Some("it doesn't continue the file as it is now, which was packed or replaced since".into()));
    }
    // It was copied before the file; so the file reaches at least as far, and what was there before is what it says.
    let unusable = match usable_index(file, &index_path(file.path())) {
        Ok(Ok(_)) => return Ok(None),
        Ok(Err(unusable)) => unusable,
        Err(error) => return Ok(Some(format!("its index can't be read: {error}"))),
    };
    Ok(Some(match unusable {
        Unusable::Missing => "it is half made: its index is missing".into(),
        Unusable::Ahead { .. } => format!("it is half made: its index says so ({unusable})"),
        _ => format!("its index doesn't fit ({unusable}): it is damaged, or the file was packed or replaced since"),
    }))
}

/// An id like that of znap2, which could be any name of a directory.
fn as_id(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    let id: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).take(id::LONGEST).collect();
    id.trim_start_matches(['.', '-']).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read() {
        let text = "# a comment\n[Data.fs]\noffset = 123\n\n[other.fs]\nOFFSET: 4\nmore = 5\n[bad.fs]\noffset = -1\n";
        let expected = [("Data.fs".into(), Some(123)), ("other.fs".into(), Some(4)), ("bad.fs".into(), None)];
        assert_eq!(parse_config(text), expected);
        assert_eq!(parse_config("offset = 1\n"), []);
    }

    #[test]
    fn any_name_becomes_an_id() {
        for (name, id) in [("before", "before"), ("before upgrade!", "before_upgrade_"), ("-.x", "x"), ("ü/", "__")] {
            assert_eq!(as_id(name), id);
        }
    }
}
