//! The catalog that is there: whether it can be believed, and what only it knows.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Kind, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, KnownSnapshot, Snapshot, Stream};
use crate::repository::counters::Counters;
use crate::repository::frames::Location;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;
use crate::repository::manifest::{DatabaseEntry, Manifest};
use crate::repository::object::ObjectKind;
use crate::snapshot::database::path_of_entry;
use crate::snapshot::gc::lists;
use crate::snapshot::repair::objects::Objects;

/// How the catalog is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// It says what the object files say.
    Good,
    /// There is none.
    Missing,
    /// It can't be read, or says something else; why, as a sentence.
    Damaged(String),
    /// It is from before some of the object files; why, as a sentence.
    Outdated(String),
}

/// The catalog that is there.
pub(super) struct Old {
    pub(super) condition: Condition,
    /// It, as long as it can be read.
    pub(super) catalog: Option<Catalog>,
}

impl Old {
    /// Opens it. Fails if it is a newer znap's, or can't be opened for a reason that lies outside it.
    pub(super) fn open(layout: &Layout, counters: &Arc<Counters>) -> Result<Self> {
        let damaged = |reason: String| Ok(Old { condition: Condition::Damaged(reason), catalog: None });
        if !layout.catalog().exists() {
            return Ok(Old { condition: Condition::Missing, catalog: None });
        }
        let catalog = match Catalog::open_read_only(layout, counters) {
            Err(error) if error.kind() == Kind::Damaged || error.is_catalog_unreadable() => {
                return damaged(error.to_string());
            }
            result => result?,
        };
        match catalog.problem() {
            Ok(None) => Ok(Old { condition: Condition::Good, catalog: Some(catalog) }),
            Ok(Some(reason)) => damaged(reason),
            Err(error) if error.kind() == Kind::Busy => Err(error),
            Err(error) => damaged(error.to_string()),
        }
    }

    /// Whether what it says of deletions and snapshots that the object files don't know can be believed.
    pub(super) fn is_current(&self) -> bool {
        self.catalog.is_some() && !matches!(self.condition, Condition::Outdated(_))
    }

    /// Compares it with the object files. `announced` is the manifest that a save was about to commit.
    pub(super) fn compare(
        &mut self,
        repository: Uid,
        objects: &Objects,
        announced: Option<Hash>,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        let Some(catalog) = &self.catalog else { return Ok(()) };
        let compared = catalog.identity().and_then(|(uid, _)| match uid == repository {
            true => differences(catalog, objects, announced, monitor).map(|found| (found, true)),
            false => Ok((Condition::Damaged("it is the catalog of another repository".into()), false)),
        });
        match compared {
            Ok((condition, usable)) => {
                self.condition = condition;
                if !usable {
                    self.catalog = None;
                }
            }
            Err(error) if matches!(error.kind(), Kind::Busy | Kind::Interrupted(_)) => return Err(error),
            Err(error) => self.condition = Condition::Damaged(error.to_string()),
        }
        Ok(())
    }
}

fn differences(
    catalog: &Catalog,
    objects: &Objects,
    announced: Option<Hash>,
    monitor: &dyn Monitor,
) -> Result<Condition> {
    let outdated = |reason: String| Ok(Condition::Outdated(reason));
    let damaged = |reason: String| Ok(Condition::Damaged(reason));
    let known = catalog.all_snapshots()?;
    let deleted = objects.deleted();
    for stored in &objects.manifests {
        let manifest = &stored.what;
        let is_known = known.iter().any(|known| known.snapshot.uid == manifest.uid);
        if !is_known && !deleted.contains(&manifest.uid) && Some(stored.file.0) != announced {
            return outdated(format!("it does not know snapshot {}", manifest.id));
        }
    }
    let by_name: HashMap<Hash, &Manifest> =
        objects.manifests.iter().map(|stored| (stored.file.0, &stored.what)).collect();
    let there = objects.names();
    let streams = catalog.streams_with_deleted()?;
    for KnownSnapshot { snapshot, deleted: was_deleted, .. } in &known {
        match by_name.get(&snapshot.manifest) {
            Some(manifest) if says_the_same(catalog, snapshot, *was_deleted, &streams, manifest)? => {}
            Some(_) => {
                return damaged(format!(
                    "it says something else about snapshot {} than its object file",
                    snapshot.name
                ));
            }
            None if there.contains(&snapshot.manifest) => {}
            None if by_name.values().any(|manifest| manifest.uid == snapshot.uid)
                || deleted.contains(&snapshot.uid) =>
            {
                return outdated(format!("the object files have something newer about snapshot {}", snapshot.name));
            }
            None => {}
        }
    }
    let tables: HashMap<Hash, &Vec<_>> = objects.data.iter().map(|stored| (stored.file.0, &stored.what)).collect();
    for file in catalog.object_files()?.into_iter().filter(|file| file.kind == ObjectKind::Data) {
        monitor.check()?;
        let chunks = catalog.chunks_of(file.row)?;
        if let Some(frames) = tables.get(&file.name) {
            let in_file: HashMap<Hash, Vec<Location>> = frames
                .iter()
                .flat_map(|frame| Location::all_of(file.name, frame))
                .fold(HashMap::new(), |mut all: HashMap<Hash, Vec<Location>>, location| {
                    all.entry(location.hash).or_default().push(location);
                    all
                });
            let same = chunks
                .iter()
                .all(|(_, location)| in_file.get(&location.hash).is_some_and(|locations| locations.contains(location)));
            if !same {
                return damaged(format!(
                    "it says something else about object file {} than is in it",
                    file.name.short()
                ));
            }
        } else if !there.contains(&file.name)
            && !chunks.is_empty()
            && chunks.iter().all(|(_, location)| objects.has(&location.hash))
        {
            return outdated(format!("object file {} was written anew since", file.name.short()));
        }
    }
    if let Some(reason) = small_differences(catalog, objects, &known)? {
        return damaged(reason);
    }
    let manifests = objects.manifests.iter().filter(|stored| Some(stored.file.0) != announced);
    let given = manifests.map(|stored| stored.what.sequence);
    let given = given.chain(objects.tombstones.iter().map(|stored| stored.what.sequence));
    if given.max() > Some(catalog.last_sequence()?) {
        return outdated("a snapshot was made and deleted since".into());
    }
    lists::check(catalog, monitor)?;
    Ok(Condition::Good)
}

/// What is wrong, if anything, with what the catalog says besides snapshots and chunks: numbers, databases, deletions and object files.
fn small_differences(catalog: &Catalog, objects: &Objects, known: &[KnownSnapshot]) -> Result<Option<String>> {
    let wrong = |reason: String| Ok(Some(reason));
    if known.iter().map(|known| known.snapshot.sequence).max() > Some(catalog.last_sequence()?) {
        return wrong("the highest number of a snapshot in it is too low".into());
    }
    let mut newest: HashMap<Uid, (u64, &DatabaseEntry)> = HashMap::new();
    for stored in &objects.manifests {
        for entry in &stored.what.databases {
            let newer = newest.entry(entry.uid).or_insert((0, entry));
            if stored.what.sequence >= newer.0 {
                *newer = (stored.what.sequence, entry);
            }
        }
    }
    for database in catalog.databases()? {
        if let Some((_, entry)) = newest.get(&database.uid)
            && (database.name != entry.name || database.path != path_of_entry(entry))
        {
            return wrong(format!("it says something else about database {} than the snapshots", entry.name));
        }
    }
    let named = catalog.object_files()?;
    for stored in objects.tombstones.iter().filter(|stored| named.iter().any(|file| file.name == stored.file.0)) {
        let mut live = known.iter().filter(|known| !known.deleted);
        if let Some(of) = live.find(|known| known.snapshot.uid == stored.what.snapshot) {
            return wrong(format!("it has forgotten that snapshot {} was deleted", of.snapshot.name));
        }
        let mut by_it = known.iter().filter(|known| known.tombstone == Some(stored.file.0));
        if let Some(of) = by_it.find(|known| known.snapshot.uid != stored.what.snapshot) {
            return wrong(format!("it says that snapshot {} was deleted by what deleted another", of.snapshot.name));
        }
    }
    let there = objects.files();
    for file in named {
        if let Some(is) = there.get(&file.name)
            && *is != (file.kind, file.bytes)
        {
            return wrong(format!("it says something else about object file {} than is in it", file.name.short()));
        }
    }
    let (_, config) = catalog.repository()?;
    let is_config = there.get(&config).is_none_or(|(kind, _)| *kind == ObjectKind::Config);
    Ok((!is_config).then(|| "what it takes for the config is none".into()))
}

/// Whether the catalog has of a snapshot what its manifest says. Of a deleted one gc may have dropped databases.
fn says_the_same(
    catalog: &Catalog,
    snapshot: &Snapshot,
    deleted: bool,
    streams: &[Stream],
    manifest: &Manifest,
) -> Result<bool> {
    let same = snapshot.uid == manifest.uid
        && snapshot.sequence == manifest.sequence
        && snapshot.revision == manifest.revision
        && snapshot.name == manifest.id
        && snapshot.kind == manifest.kind
        && snapshot.created == manifest.created
        && snapshot.message == manifest.message
        && snapshot.one_moment == manifest.one_moment
        && snapshot.stored_bytes == manifest.stored_bytes
        && snapshot.partial == manifest.partial
        && snapshot.databases == manifest.databases.len() as u64;
    if !same {
        return Ok(false);
    }
    let databases = catalog.databases()?;
    let own: Vec<&Stream> = streams.iter().filter(|stream| stream.snapshot == snapshot.row).collect();
    if !deleted && own.len() != manifest.databases.len() {
        return Ok(false);
    }
    for stream in own {
        let database = databases.iter().find(|database| database.row == stream.database);
        let entry = database.and_then(|known| manifest.databases.iter().find(|entry| entry.uid == known.uid));
        let Some(entry) = entry else { return Ok(false) };
        let parent = match stream.parent {
            Some(row) => streams.iter().find(|other| other.row == row).map(|other| other.snapshot_uid),
            None => None,
        };
        let is_same = stream.kept_count == entry.stream.kept
            && stream.kept_length == entry.stream.kept_length
            && (stream.parent.is_none() || parent == entry.stream.parent)
            && stream.cut == entry.cut
            && stream.list_hash == entry.stream.list_hash
            && stream.last_final == entry.stream.last_final
            && stream.index_hash == entry.index.hash
            && stream.blobs.as_ref() == entry.blobs.as_ref().map(|blobs| &blobs.totals)
            && catalog.generation(stream.generation)?.known == entry.generation;
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks the old catalog, as long as it answers.
pub(super) fn ask<T: Default>(old: &mut Old, question: impl FnOnce(&Catalog) -> Result<T>) -> Result<T> {
    let Some(catalog) = &old.catalog else { return Ok(T::default()) };
    match question(catalog) {
        Err(error) if matches!(error.kind(), Kind::Busy | Kind::Interrupted(_)) => Err(error),
        Err(error) => {
            old.condition = Condition::Damaged(error.to_string());
            old.catalog = None;
            Ok(T::default())
        }
        answer => answer,
    }
}
