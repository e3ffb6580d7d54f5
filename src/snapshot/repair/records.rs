//! Manifests, tombstones and the config, made again from a catalog that still knows what they said.

use std::collections::HashSet;

use jiff::Timestamp;

use crate::error::Result;
use crate::repository::blob_list::BlobDirectoryEntry;
use crate::repository::catalog::{Catalog, KnownSnapshot, Snapshot, Stream};
use crate::repository::hash::{Hash, ListHash, Uid};
use crate::repository::manifest::{
    ChunkName, ChunkerConfig, Config, DatabaseEntry, IndexEntry, IndexPart, Manifest, StreamEntry, Tombstone,
};
use crate::repository::object::VERSION;
use crate::repository::record::hex_unless_utf8;
use crate::snapshot::blobs::lists::blobs_of;
use crate::snapshot::index_parts;
use crate::snapshot::repair::objects::Objects;
use crate::snapshot::repair::old::{Old, ask};
use crate::snapshot::repair::picture::lacks_nothing;
use crate::snapshot::repair::possible::{Agreed, impossible};

/// The manifest of a snapshot as the catalog knows it; `None` if its lists there aren't what they were. Of a
/// deleted one only what others need of it has to be there.
pub(super) fn manifest(
    catalog: &Catalog,
    repository: Uid,
    snapshot: &Snapshot,
    deleted: bool,
) -> Result<Option<Manifest>> {
    let known = catalog.databases()?;
    let mut databases = Vec::new();
    for stream in catalog.streams_of(snapshot.row)? {
        let Some(database) = known.iter().find(|database| database.row == stream.database) else { return Ok(None) };
        let generation = catalog.generation(stream.generation)?.known;
        let Some(entry) = stream_entry(catalog, &stream, generation.base_length, deleted)? else { return Ok(None) };
        let Some(index) = index_entry(catalog, &stream) else { return Ok(None) };
        // As with its chunks, of a deleted one only what others need has to be there.
        if !deleted && blobs_of(catalog, &stream).is_err() {
            return Ok(None);
        }
        databases.push(DatabaseEntry {
            uid: database.uid,
            name: database.name.clone(),
            path: database.path.to_string_lossy().into_owned(),
            path_hex: hex_unless_utf8(&database.path),
            keep_base: database.keep_base,
            blob_directory: database.blobs.as_ref().map(BlobDirectoryEntry::of),
            generation,
            cut: stream.cut,
            stream: entry,
            index,
            blobs: catalog.own_blobs(&stream)?,
        });
    }
    Ok(Some(Manifest {
        repository,
        uid: snapshot.uid,
        sequence: snapshot.sequence,
        revision: snapshot.revision,
        id: snapshot.name.clone(),
        kind: snapshot.kind.clone(),
        kind_before: None,
        created: snapshot.created,
        message: snapshot.message.clone(),
        one_moment: snapshot.one_moment,
        partial: snapshot.partial,
        stored_bytes: snapshot.stored_bytes,
        databases,
    }))
}

fn stream_entry(catalog: &Catalog, stream: &Stream, base_length: u64, deleted: bool) -> Result<Option<StreamEntry>> {
    let parent = stream.parent.map(|row| catalog.stream(row)).transpose()?;
    let (mut reached, mut hash) = match &parent {
        None => (base_length, ListHash::default()),
        Some(parent) if stream.kept_length == parent.cut.offset => (parent.cut.offset, parent.list_hash),
        Some(parent) => (parent.last_final.length, parent.last_final.hash),
    };
    if stream.kept_length != reached {
        return Ok(None);
    }
    let mut chunks: Vec<ChunkName> = Vec::new();
    for (offset, name) in catalog.own_chunks(stream.row)? {
        if offset != reached {
            return Ok(None);
        }
        reached += u64::from(name.length);
        hash = hash.extended(name.length, &name.hash);
        chunks.push(name);
    }
    let is_whole = reached == stream.cut.offset && hash == stream.list_hash;
    Ok((is_whole || deleted).then(|| StreamEntry {
        parent: parent.map(|parent| parent.snapshot_uid),
        kept: stream.kept_count,
        kept_length: stream.kept_length,
        list_hash: stream.list_hash,
        last_final: stream.last_final,
        chunks,
    }))
}

fn index_entry(catalog: &Catalog, stream: &Stream) -> Option<IndexEntry> {
    let (mut keyframe, mut deltas) = (None, Vec::new());
    for stored in index_parts::own_parts(catalog, stream).ok()? {
        let chunks = stored.pieces.iter().map(|piece| ChunkName { hash: piece.hash, length: piece.length }).collect();
        let part = IndexPart { entries: stored.part.entries, bytes: stored.part.bytes, chunks };
        match stored.part.keyframe {
            true => keyframe = Some(part),
            false => deltas.push(part),
        }
    }
    Some(IndexEntry { keyframe, deltas, hash: stream.index_hash })
}

/// A tombstone for a snapshot that the catalog knows to be deleted.
pub(super) fn tombstone(repository: Uid, snapshot: &Snapshot) -> Tombstone {
    Tombstone {
        repository,
        snapshot: snapshot.uid,
        sequence: snapshot.sequence,
        id: snapshot.name.clone(),
        deleted: Timestamp::now().as_microsecond(),
    }
}

/// The config of a repository that was made at this time; there was never another kind of one.
pub(super) fn config(repository: Uid, created: i64) -> Config {
    Config { repository, created, format: VERSION, chunker: ChunkerConfig::current() }
}

/// What the catalog still knows of damaged and missing records.
#[derive(Default)]
pub(super) struct Again {
    pub(super) manifests: Vec<Manifest>,
    /// Those of them of which only the catalog says that they are there: they may have been deleted since it was made.
    pub(super) alone: HashSet<Uid>,
    /// Those of these that lack something, and on which nothing builds: they count only if all they need is found.
    pub(super) doubtful: HashSet<Uid>,
    pub(super) tombstones: Vec<Tombstone>,
    /// The ids of snapshots of which nothing is left.
    pub(super) forgotten: Vec<String>,
    /// The names of files of which nothing is missing now.
    pub(super) made: HashSet<Hash>,
}

/// Makes again what can be.
pub(super) fn again(old: &mut Old, repository: Uid, objects: &Objects, known: &[KnownSnapshot]) -> Result<Again> {
    let mut again = Again::default();
    let mut agreed = Agreed::default();
    objects.manifests.iter().for_each(|stored| {
        agreed.add(&stored.what);
    });
    let there: HashSet<Uid> = objects.manifests.iter().map(|stored| stored.what.uid).collect();
    let buried = objects.deleted();
    let is_current = old.is_current();
    for KnownSnapshot { snapshot, deleted, tombstone: stone } in known {
        // A deletion is never taken back, however old the catalog is.
        if *deleted && !buried.contains(&snapshot.uid) {
            again.tombstones.push(tombstone(repository, snapshot));
        }
        again.made.extend(stone);
        if there.contains(&snapshot.uid) {
            again.made.insert(snapshot.manifest);
            continue;
        }
        let is_damaged = objects.damaged.iter().any(|file| file.name == snapshot.manifest);
        if !is_damaged && !is_current {
            // It was deleted, and gc has removed it, since this catalog was made.
            continue;
        }
        let made = ask(old, |catalog| manifest(catalog, repository, snapshot, *deleted))?;
        let made = made.filter(|manifest| impossible(manifest).is_none() && agreed.add(manifest));
        let deleted = *deleted || buried.contains(&snapshot.uid);
        match made {
            Some(manifest) => {
                if !is_damaged && !deleted {
                    again.alone.insert(snapshot.uid);
                    if !lacks_nothing(objects, &manifest) {
                        again.doubtful.insert(snapshot.uid);
                    }
                }
                again.made.insert(snapshot.manifest);
                again.manifests.push(manifest);
            }
            None if deleted => {
                again.made.insert(snapshot.manifest);
            }
            None => again.forgotten.push(snapshot.name.clone()),
        }
    }
    again.believe_parents(objects);
    Ok(again)
}

impl Again {
    /// What others build on wasn't collected: gc would have written those anew.
    fn believe_parents(&mut self, objects: &Objects) {
        let parents = |manifest: &Manifest| -> Vec<Uid> {
            manifest.databases.iter().filter_map(|entry| entry.stream.parent).collect()
        };
        let mut believed: Vec<Uid> = objects.manifests.iter().flat_map(|stored| parents(&stored.what)).collect();
        let sure = self.manifests.iter().filter(|manifest| !self.doubtful.contains(&manifest.uid));
        believed.extend(sure.flat_map(parents));
        while let Some(uid) = believed.pop() {
            self.alone.remove(&uid);
            if self.doubtful.remove(&uid) {
                let made = self.manifests.iter().find(|manifest| manifest.uid == uid);
                believed.extend(made.into_iter().flat_map(parents));
            }
        }
    }
}
