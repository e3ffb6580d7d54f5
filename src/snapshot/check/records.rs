//! The small object files: each is read whole, which checks its hash, and compared with what the catalog says.

use std::collections::HashMap;

use crate::error::Result;
use crate::repository::catalog::{Database, KnownSnapshot, Stream};
use crate::repository::manifest::{ChunkerConfig, Config, DAMAGED, DatabaseEntry, Manifest, Tombstone};
use crate::repository::object::{ObjectKind, VERSION};
use crate::repository::record::hex_unless_utf8;

use super::catalog::{Known, about_catalog};
use super::{Check, Finding, Subject, damage};

/// Reads the config, all manifests and all tombstones.
pub(super) fn check(check: &mut Check<'_>, known: &Known) -> Result<()> {
    config(check, known)?;
    let mut streams: HashMap<i64, Vec<&Stream>> = HashMap::new();
    for stream in &known.streams {
        streams.entry(stream.snapshot).or_default().push(stream);
    }
    check.monitor.begin("reading what the snapshots are made of", known.snapshots.len() as u64);
    for snapshot in &known.snapshots {
        check.monitor.check()?;
        manifest(check, known, snapshot, streams.get(&snapshot.snapshot.row).map_or(&[], Vec::as_slice))?;
        if snapshot.deleted {
            tombstone(check, known, snapshot)?;
        }
        check.monitor.advance(1);
    }
    check.monitor.end();
    forgotten(check, known)
}

/// Has the catalog forgotten that a snapshot was deleted?
fn forgotten(check: &mut Check<'_>, known: &Known) -> Result<()> {
    for file in known.files.iter().filter(|file| file.kind == ObjectKind::Tombstone) {
        // One that can't be read is found elsewhere.
        let Ok(tombstone) = Tombstone::read(check.layout(), &file.name) else { continue };
        let is_of_it = |known: &&KnownSnapshot| known.snapshot.uid == tombstone.snapshot && !known.deleted;
        if let Some(alive) = known.snapshots.iter().find(is_of_it) {
            let id = &alive.snapshot.name;
            let what = format!("snapshot {id} was deleted, and the catalog has forgotten that");
            check.add(Finding { what, prevents_restore: false, ..about_catalog(vec![id.clone()]) });
        }
    }
    Ok(())
}

fn config(check: &mut Check<'_>, known: &Known) -> Result<()> {
    let (uid, name) = known.repository;
    let finding = Finding { object_file: Some(name.to_string()), ..Finding::about(Subject::Config) };
    match Config::read(check.layout(), &name) {
        Ok(config) if config.repository != uid => {
            let what = "the catalog is of another repository than the object files".into();
            check.add(Finding { what, ..about_catalog(Vec::new()) });
        }
        Ok(config) if config.format != VERSION || config.chunker != ChunkerConfig::current() => {
            let what = "the repository's config is of another version of znap".into();
            check.add(Finding { what, ..finding });
        }
        Ok(_) => {}
        Err(error) => check.note(error, finding)?,
    }
    Ok(())
}

fn tombstone(check: &mut Check<'_>, known: &Known, deleted: &KnownSnapshot) -> Result<()> {
    let snapshot = &deleted.snapshot;
    let Some(name) = deleted.tombstone else {
        // Another snapshot may have its id by now.
        let what = format!("the catalog says that snapshot {} was deleted, but not by what", snapshot.name);
        check.add(Finding { what, ..about_catalog(Vec::new()) });
        return Ok(());
    };
    match Tombstone::read(check.layout(), &name) {
        Ok(tombstone) => {
            let is_of_it = tombstone.repository == known.repository.0
                && tombstone.snapshot == snapshot.uid
                && tombstone.sequence == snapshot.sequence
                && tombstone.id == snapshot.name;
            if !is_of_it {
                let what = format!("the catalog says that snapshot {} was deleted, and it wasn't", snapshot.name);
                check.add(Finding { what, ..about_catalog(Vec::new()) });
            }
        }
        Err(error) => {
            let what = damage(error)?;
            if !check.is_gone(&name)? {
                let what = format!("{what}; it says that snapshot {} was deleted", snapshot.name);
                let hint = "the catalog still knows that; only a catalog made anew would not".to_string();
                let finding = Finding { hint: Some(hint), ..Finding::about(Subject::Tombstone) };
                check.add(Finding { what, object_file: Some(name.to_string()), ..finding });
            }
        }
    }
    Ok(())
}

fn manifest(check: &mut Check<'_>, known: &Known, of: &KnownSnapshot, streams: &[&Stream]) -> Result<()> {
    let snapshot = &of.snapshot;
    let snapshots = if of.deleted { Vec::new() } else { vec![snapshot.name.clone()] };
    match Manifest::read(check.layout(), &snapshot.manifest) {
        Ok(manifest) => {
            let differ = differences(known, of, streams, &manifest);
            if !differ.is_empty() {
                let what = format!(
                    "the catalog says something else of snapshot {} than its manifest: {}",
                    snapshot.name,
                    differ.join(", ")
                );
                check.add(Finding { what, ..about_catalog(snapshots) });
            }
        }
        Err(error) => {
            let what = damage(error)?;
            if !check.is_gone(&snapshot.manifest)? {
                let which = if of.deleted { "deleted snapshot" } else { "snapshot" };
                let what = format!("{what}; it is the manifest of {which} {}", snapshot.name);
                let hint = "as long as the catalog is whole, the snapshot still restores; put the file back from a copy of .znap";
                let finding = Finding { snapshots, hint: Some(hint.into()), ..Finding::about(Subject::Manifest) };
                check.add(Finding { what, object_file: Some(snapshot.manifest.to_string()), ..finding });
            }
        }
    }
    Ok(())
}

/// In what the catalog differs from a manifest.
fn differences(known: &Known, of: &KnownSnapshot, streams: &[&Stream], manifest: &Manifest) -> Vec<String> {
    let snapshot = &of.snapshot;
    let mut differ = Vec::new();
    let mut same = |is_same: bool, what: &str| {
        if !is_same {
            differ.push(what.to_string());
        }
    };
    same(manifest.repository == known.repository.0, "repository");
    same(manifest.uid == snapshot.uid, "identity");
    same(manifest.partial == snapshot.partial, "databases that were saved");
    same(manifest.sequence == snapshot.sequence, "sequence");
    same(manifest.revision == snapshot.revision, "revision");
    same(manifest.id == snapshot.name, "id");
    same(manifest.kind == snapshot.kind, "kind");
    same(manifest.created == snapshot.created, "time");
    same(manifest.message == snapshot.message, "message");
    same(manifest.one_moment == snapshot.one_moment, "whether it is of one moment");
    same(manifest.stored_bytes == snapshot.stored_bytes, "stored bytes");
    same(manifest.partial == snapshot.partial, "whether it is of some databases only");
    same(manifest.databases.len() as u64 == snapshot.databases, "how many databases it was saved with");
    let mut matched = 0;
    for entry in &manifest.databases {
        let database = known.databases.iter().find(|database| database.uid == entry.uid);
        let stream =
            database.and_then(|database| streams.iter().find(|stream| stream.database == database.row).copied());
        match (database, stream) {
            (Some(database), Some(stream)) => {
                matched += 1;
                let what = entry_differences(known, of, database, stream, entry);
                differ.extend(what.into_iter().map(|what| format!("{what} of {}", entry.name)));
            }
            // Of a deleted one, what nothing builds on goes.
            (Some(_), None) if of.deleted => {}
            _ => differ.push(format!("that it has database {}", entry.name)),
        }
    }
    if matched != streams.len() {
        differ.push("how many databases it has".into());
    }
    differ
}

fn entry_differences(
    known: &Known,
    of: &KnownSnapshot,
    database: &Database,
    stream: &Stream,
    entry: &DatabaseEntry,
) -> Vec<&'static str> {
    let mut differ = Vec::new();
    let mut same = |is_same: bool, what: &'static str| {
        if !is_same {
            differ.push(what);
        }
    };
    same(database.name == entry.name, "name");
    same(database.path.to_string_lossy() == entry.path && hex_unless_utf8(&database.path) == entry.path_hex, "path");
    same(known.generations.get(&stream.generation) == Some(&entry.generation), "beginning");
    same(stream.cut == entry.cut, "end");
    let list = &entry.stream;
    // A parent that nobody has, or of which nothing is needed, is not in the catalog.
    let may_be_gone = of.deleted || of.snapshot.kind == DAMAGED;
    let parent = stream.parent.map(|row| known.streams.iter().find(|other| other.row == row));
    let parent_is_same = match parent {
        None => list.parent.is_none() || may_be_gone,
        Some(parent) => parent.is_some_and(|parent| {
            Some(parent.snapshot_uid) == list.parent
                && parent.database == stream.database
                && parent.generation == stream.generation
        }),
    };
    same(parent_is_same, "snapshot that it builds on");
    same(stream.kept_count == list.kept && stream.kept_length == list.kept_length, "kept chunks");
    same(stream.count == list.kept + list.chunks.len() as u64, "number of chunks");
    // The chunks and the index parts that are needed were compared with these hashes already.
    same(stream.list_hash == list.list_hash && stream.last_final == list.last_final, "list hash");
    same(stream.index_hash == entry.index.hash, "index parts");
    same(stream.blobs.as_ref() == entry.blobs.as_ref().map(|blobs| &blobs.totals), "blobs");
    differ
}
