//! An archive that export wrote. It may come from anywhere: nothing in it is taken for granted, and no name in it becomes a path.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tar::{Archive, EntryType};
use zstd::stream::read::Decoder;

use super::blobs::Unpacking;
use super::take::{self, Assembled, Incoming};
use super::{Work, named, short};
use crate::error::{Error, IoContext, Result};
use crate::filestorage::source::open_plain;
use crate::filestorage::{Position, index_path};
use crate::repository::catalog::Database;
use crate::snapshot::archive::{ABOUT, About, BlobMembers, FORMAT, Member, SUMS, WINDOW_LOG, sum_line};
use crate::snapshot::id;
use crate::snapshot::writing::require_room;

/// The longest description, and more than any padding.
const LONGEST: u64 = 16 << 20;
/// The longest message: no argument of a command is longer.
const LONGEST_MESSAGE: usize = 128 << 10;

pub(super) fn import(work: &mut Work<'_>) -> Result<()> {
    let path = work.options.path.clone();
    let file = open_plain(&path, false)?;
    let read = read(work, &path, file).map_err(|error| match error.hint_text() {
        Some(_) => error,
        None => error.hint("nothing was changed; get the archive again from where znap export made it"),
    });
    let taken = read.and_then(|(about, databases)| {
        let About { id, created, message, one_moment, .. } = about;
        work.take(take::About { source: short(&path), id: Some(id), created, message, one_moment }, databases)
    });
    // What is left of its blobs.
    let left = work.repository.layout.import();
    let cleared = if left.is_dir() { work.repository.disk().remove_tree(&left) } else { Ok(()) };
    taken.and(cleared)
}

/// Why an archive isn't taken.
fn refuse(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::failed(format!("{} is no whole archive of znap: {why}", path.display()))
}

/// What it is about, and its databases, each in a file of its own, checked.
fn read(work: &Work<'_>, path: &Path, file: File) -> Result<(About, Vec<Incoming>)> {
    let broken = |error: std::io::Error| refuse(path, error);
    let mut decoder = Decoder::new(BufReader::new(file)).at("read", path)?;
    decoder.window_log_max(WINDOW_LOG).at("read", path)?;
    let mut archive = Archive::new(decoder);
    let mut about: Option<(About, Vec<Database>)> = None;
    let mut blobs: BTreeMap<usize, Unpacking> = BTreeMap::new();
    let mut files: BTreeMap<String, Assembled> = BTreeMap::new();
    let mut indexes: BTreeSet<String> = BTreeSet::new();
    let mut sums = String::new();
    let mut is_whole = false;
    // Raw: members that only say something about others are none of ours, and could be of any size.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.size();
        if is_whole || entry.header().entry_type() != EntryType::Regular {
            return Err(refuse(path, format!("{name:.100?} doesn't belong in one")));
        }
        let Some((about, databases)) = &about else {
            if name != ABOUT || size > LONGEST {
                return Err(refuse(path, format!("it doesn't begin with {ABOUT}")));
            }
            let text = text(&mut entry, size).map_err(broken)?;
            sums.push_str(&sum_line(&name, blake3::Hasher::new().update(&text)));
            let described = describe(path, &text)?;
            let databases = tracked(work, path, &described)?;
            about = Some((described, databases));
            continue;
        };
        if name == SUMS {
            if size != sums.len() as u64 || text(&mut entry, size).map_err(broken)? != sums.as_bytes() {
                return Err(refuse(path, "a member isn't what its hash says"));
            }
            is_whole = true;
            continue;
        }
        let is_index = |member: &&Member| Path::new(&name) == index_path(Path::new(&member.file));
        let mut hasher = blake3::Hasher::new();
        if let Some(member) = about.databases.iter().find(|member| member.file == name) {
            if size != member.bytes || files.contains_key(&name) {
                return Err(refuse(path, format!("{name:.100?} isn't as long as it should be, or there twice")));
            }
            require_room(work.repository.root(), size)?;
            let mut whole = Assembled::new(work.repository)?;
            work.monitor.begin("reading", size);
            let hear = |bytes: &[u8]| {
                hasher.update(bytes);
            };
            whole.append(&mut entry, size, work.monitor, hear)?.map_err(broken)?;
            work.monitor.end();
            files.insert(name.clone(), whole);
        } else if let Some(member) = about.databases.iter().find(is_index) {
            if !files.contains_key(&member.file) || !indexes.insert(name.clone()) {
                return Err(refuse(path, format!("{name:.100?} comes before its database, or twice")));
            }
            // Made again from the database. It has 8 bytes an object, and no object takes less in the database.
            if size > about.databases.iter().map(|member| member.bytes).fold(LONGEST, u64::saturating_add) {
                return Err(refuse(path, format!("{name:.100?} is longer than any")));
            }
            let mut piece = vec![0; 1 << 20];
            loop {
                work.monitor.check()?;
                match entry.read(&mut piece).map_err(broken)? {
                    0 => break,
                    read => hasher.update(&piece[..read]),
                };
            }
        } else if let Some((number, members, place)) = blob_place(about, &name) {
            // Only then is it known how many it can name.
            if !files.contains_key(&about.databases[number].file) {
                return Err(refuse(path, format!("{name:.100?} comes before its database")));
            }
            let unpacking = match blobs.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let database = (&databases[number], number, about.databases[number].bytes);
                    let new = Unpacking::new(work, database, members)?;
                    place.insert(new.map_err(|why| refuse(path, why))?)
                }
            };
            let mode = entry.header().mode().map_err(broken)?;
            let hear = |bytes: &[u8]| {
                hasher.update(bytes);
            };
            unpacking.take(work, &place, (&mut entry, size, mode), hear)?.map_err(|why| refuse(path, why))?;
        } else {
            return Err(refuse(path, format!("{name:.100?} doesn't belong in one")));
        }
        sums.push_str(&sum_line(&name, &hasher));
    }
    let (about, databases) = about.filter(|_| is_whole).ok_or_else(|| refuse(path, "its end is missing"))?;
    // Only at its end does zstd check its own sum. Other programs pad with zeros.
    let padding = text(&mut archive.into_inner(), LONGEST).map_err(broken)?;
    if padding.len() as u64 == LONGEST || padding.iter().any(|byte| *byte != 0) {
        return Err(refuse(path, "something follows its end"));
    }
    let mut incoming = Vec::new();
    for (number, (member, database)) in about.databases.iter().zip(databases).enumerate() {
        let whole = files.get(&member.file).ok_or_else(|| refuse(path, format!("{:.100?} is missing", member.file)))?;
        let parsed = whole.parse(&database, path, Position::START, work.monitor)?;
        let mut parsed = parsed.whole().map_err(|error| error.context(path.display()))?;
        if let Some(unpacking) = blobs.remove(&number) {
            parsed.blobs = Some(unpacking.finish().map_err(|why| refuse(path, why))?);
        } else if member.blobs.as_ref().is_some_and(|blobs| blobs.count > 0) {
            return Err(refuse(path, "blobs are missing"));
        }
        incoming.push(parsed);
    }
    Ok((about, incoming))
}

/// Of which database a member is a blob, or else what is in its blob directory, and where in there.
fn blob_place<'a>(about: &'a About, name: &str) -> Option<(usize, &'a BlobMembers, PathBuf)> {
    about.databases.iter().enumerate().find_map(|(number, member)| {
        let members = member.blobs.as_ref()?;
        let place = Path::new(name).strip_prefix(&members.directory).ok()?;
        Some((number, members, place.to_path_buf()))
    })
}

/// A member that isn't long.
fn text(entry: &mut dyn Read, size: u64) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    entry.take(size).read_to_end(&mut text)?;
    Ok(text)
}

fn describe(path: &Path, text: &[u8]) -> Result<About> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| refuse(path, format!("{ABOUT}: {error}")))?;
    if value["format"].as_u64().is_some_and(|format| format > FORMAT.into()) {
        return Err(Error::failed(format!("{} was written by a newer znap", path.display()))
            .hint("take it in with a znap that is at least as new"));
    }
    let about: About = serde_json::from_value(value).map_err(|error| refuse(path, format!("{ABOUT}: {error}")))?;
    id::check(&about.id, "a snapshot's id").map_err(|error| refuse(path, format!("{ABOUT}: {error}")))?;
    if about.created < Timestamp::UNIX_EPOCH || about.message.len() > LONGEST_MESSAGE {
        return Err(refuse(path, format!("{ABOUT}: no snapshot has such a time, or such a long message")));
    }
    let (mut names, mut files) = (BTreeSet::new(), BTreeSet::new());
    let is_new = about.databases.iter().all(|member| names.insert(&member.name) && files.insert(&member.file));
    if about.databases.is_empty() || !is_new {
        return Err(refuse(path, "it has no database, or one of them twice"));
    }
    Ok(about)
}

/// The tracked databases that those of an archive are, in their order.
fn tracked(work: &Work<'_>, path: &Path, about: &About) -> Result<Vec<Database>> {
    let databases = work.repository.catalog.databases()?;
    if let Some(name) = &work.options.database {
        if about.databases.len() > 1 {
            return Err(Error::usage(format!("{} has several databases", path.display()))
                .hint("--database names the one that is tracked under another name; leave it away"));
        }
        return Ok(vec![named(&databases, name)?]);
    }
    let find = |name: &str| {
        databases.iter().find(|database| database.name == name).cloned().ok_or_else(|| {
            let tracked: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
            // It may be anything.
            let plain = if id::check(name, "a name").is_ok() { name } else { "NAME" };
            let track = format!("znap track FILE --name {plain} tracks the one that it is");
            let hint = match about.databases.len() {
                1 if !tracked.is_empty() => {
                    format!("if it is one of those that are ({}): --database NAME; else {track}", tracked.join(", "))
                }
                _ => track,
            };
            Error::failed(format!("{} has a database {name:.100?}, which is not tracked", path.display())).hint(hint)
        })
    };
    about.databases.iter().map(|member| find(&member.name)).collect()
}
