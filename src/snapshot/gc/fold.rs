//! Joining the chunk lists of deleted snapshots into the one list that builds on them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::filestorage::merge;
use crate::monitor::Monitor;
use crate::repository::catalog::{DeadStream, Folded};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::chunk_writer::{ChunkWriter, Compression};
use crate::repository::data::Content;
use crate::repository::manifest::{DatabaseEntry, IndexPart, Manifest};
use crate::repository::object::publish;
use crate::snapshot::handle::Repository;
use crate::snapshot::index_parts::{self, PartReader};

/// Drops the lists of deleted snapshots that nothing builds on, and joins those that one list builds on
/// into it. One that several build on stays.
pub(super) fn fold_deleted(repository: &mut Repository, monitor: &dyn Monitor) -> Result<()> {
    let mut dead: HashMap<i64, DeadStream> =
        repository.catalog.dead_streams()?.into_iter().map(|stream| (stream.row, stream)).collect();
    let mut leaves: Vec<i64> = dead.values().filter(|s| s.children.is_empty()).map(|s| s.row).collect();
    while let Some(row) = leaves.pop() {
        monitor.check()?;
        repository.catalog.drop_stream(row)?;
        let parent = dead.remove(&row).and_then(|stream| stream.parent);
        if let Some(parent) = parent.and_then(|parent| dead.get_mut(&parent)) {
            parent.children.retain(|child| *child != row);
            if parent.children.is_empty() {
                leaves.push(parent.row);
            }
        }
    }
    let foldable: HashSet<i64> = dead.values().filter(|s| s.children.len() == 1).map(|s| s.row).collect();
    // From each list that stays, up through the ones that only it builds on.
    for stream in dead.values().filter(|stream| foldable.contains(&stream.row)) {
        let child = stream.children[0];
        if foldable.contains(&child) {
            continue;
        }
        monitor.check()?;
        let mut line = vec![stream];
        let mut parent = stream.parent;
        while let Some(next) = parent.filter(|row| foldable.contains(row)).and_then(|row| dead.get(&row)) {
            line.push(next);
            parent = next.parent;
        }
        fold(repository, child, &line)?;
    }
    Ok(())
}

/// Joins a line of deleted lists, nearest ancestor first, into the list of `child`.
fn fold(repository: &mut Repository, child: i64, line: &[&DeadStream]) -> Result<()> {
    let stream = repository.catalog.stream(child)?;
    let name = repository.catalog.manifest_of(stream.snapshot)?;
    let mut manifest = Manifest::read(&repository.layout, &name)?;
    let database = line.first().map(|dead| dead.database);
    let lacks = || {
        Error::damaged(format!("the manifest of snapshot {} lacks a database", stream.snapshot_name))
            .hint("restore from a copy of the repository")
    };
    let entry = manifest.databases.iter_mut().find(|entry| Some(entry.uid) == database).ok_or_else(lacks)?;
    for dead in line {
        let parent = Manifest::read(&repository.layout, &dead.manifest)?;
        let parent = parent.databases.into_iter().find(|other| other.uid == entry.uid).ok_or_else(lacks)?;
        join(entry, parent);
    }

    // The deltas become one; what they are made of is read through the catalog, hashes checked.
    let mut writer = ChunkWriter::new(&repository.layout, &repository.counters, Compression::GC);
    if entry.index.deltas.len() > 1 {
        let mut rows = index_parts::own_deltas(&repository.catalog, child)?;
        if entry.index.keyframe.is_none() || !index_parts::has_keyframe(&repository.catalog, child)? {
            for dead in line {
                let mut older = index_parts::own_deltas(&repository.catalog, dead.row)?;
                older.append(&mut rows);
                rows = older;
                if index_parts::has_keyframe(&repository.catalog, dead.row)? {
                    break;
                }
            }
        }
        let reader = RefCell::new(ChunkReader::new(&repository.layout, &repository.counters));
        let mut layers = Vec::new();
        for row in &rows {
            let pieces = repository.catalog.index_chunks(row.row)?;
            layers.push(PartReader::new(row, pieces, &stream.snapshot_name, &reader));
        }
        let merged = index_parts::store(merge(layers), Content::Delta, &mut writer, &repository.catalog)?;
        entry.index.deltas = merged.into_iter().collect();
    }
    let delta: Option<IndexPart> = entry.index.deltas.first().cloned();
    manifest.revision += 1;

    let data_files = writer.finish()?;
    let manifest_file = manifest.write(&repository.layout)?.finish(&repository.counters)?;
    let folded = Folded {
        child,
        dead: line.iter().map(|dead| dead.row).collect(),
        manifest: (manifest_file.name, manifest_file.bytes, manifest.revision),
        delta,
        data_files: data_files.iter().map(|data| (data.file.name, data.file.bytes, data.frames.clone())).collect(),
    };
    let files = data_files.into_iter().map(|data| data.file).chain([manifest_file]).collect();
    publish(&repository.layout, files, &repository.counters)?;
    repository.catalog.fold_streams(&folded)
}

/// Makes `child`, which builds on `parent`, build on what the parent builds on.
fn join(child: &mut DatabaseEntry, parent: DatabaseEntry) {
    let (stream, older) = (&mut child.stream, parent.stream);
    stream.parent = older.parent;
    if stream.kept > older.kept {
        let kept = (stream.kept - older.kept) as usize;
        let own = std::mem::take(&mut stream.chunks);
        stream.chunks = older.chunks.into_iter().take(kept).chain(own).collect();
        stream.kept = older.kept;
        stream.kept_length = older.kept_length;
    }
    if child.index.keyframe.is_none() {
        child.index.keyframe = parent.index.keyframe;
        let newer = std::mem::take(&mut child.index.deltas);
        child.index.deltas = parent.index.deltas.into_iter().chain(newer).collect();
    }
}
