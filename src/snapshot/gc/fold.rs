//! Joining the chunk lists of deleted snapshots into the one list that builds on them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::{DeadStream, Replacement, Stream};
use crate::repository::chunk_writer::{ChunkWriter, Compression, NewDataFile};
use crate::repository::data::Content;
use crate::repository::frames::FrameFiles;
use crate::repository::manifest::{DatabaseEntry, IndexEntry, Manifest};
use crate::repository::object::publish;
use crate::snapshot::handle::Repository;
use crate::snapshot::index_parts::{self, StoredPart};
use crate::snapshot::index_reader::with_merged;

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

/// How many deltas an index may be made from: beyond that gc stores a keyframe, so that a restore merges, and
/// opens, a bounded number of parts.
const LONGEST_CHAIN: u64 = 64;

/// Gives a keyframe to streams whose index would be made from too many deltas.
pub(super) fn shorten_index_chains(repository: &mut Repository, monitor: &dyn Monitor) -> Result<()> {
    let mut lengths: HashMap<i64, u64> = HashMap::new();
    for link in repository.catalog.index_links()? {
        let row = link.stream;
        let before = link.parent.filter(|_| !link.has_keyframe).and_then(|parent| lengths.get(&parent).copied());
        let mut length = before.unwrap_or(0) + link.deltas;
        if length > LONGEST_CHAIN {
            monitor.check()?;
            let stream = repository.catalog.stream(row)?;
            let parts = index_parts::sources(&repository.catalog, &stream)?;
            Rewrite::of(repository, &stream)?.finish(repository, Vec::new(), &parts, Content::Keyframe)?;
            length = 0;
        }
        lengths.insert(row, length);
    }
    Ok(())
}

/// Joins a line of deleted lists, nearest ancestor first, into the list of `child`.
fn fold(repository: &mut Repository, child: i64, line: &[&DeadStream]) -> Result<()> {
    let stream = repository.catalog.stream(child)?;
    let mut rewrite = Rewrite::of(repository, &stream)?;
    let mut parts = index_parts::own_parts(&repository.catalog, &stream)?;
    for dead in line {
        let parent = Manifest::read(&repository.layout, &dead.manifest)?;
        let uid = rewrite.entry()?.uid;
        let parent = parent.databases.into_iter().find(|other| other.uid == uid);
        join(rewrite.entry()?, parent.ok_or_else(|| lacks_database(&stream))?);
        if !parts.first().is_some_and(|stored| stored.part.keyframe) {
            let mut older = index_parts::own_parts(&repository.catalog, &repository.catalog.stream(dead.row)?)?;
            older.append(&mut parts);
            parts = older;
        }
    }
    // Several deltas become one.
    parts.retain(|stored| !stored.part.keyframe);
    let joined = line.iter().map(|dead| dead.row).collect();
    let several = if parts.len() > 1 { &parts[..] } else { &[] };
    rewrite.finish(repository, joined, several, Content::Delta)
}

/// A snapshot's manifest being written anew, for one of its streams.
struct Rewrite {
    manifest: Manifest,
    stream: Stream,
    /// Which of the manifest's databases the stream is of.
    database: usize,
}

impl Rewrite {
    fn of(repository: &Repository, stream: &Stream) -> Result<Self> {
        let name = repository.catalog.manifest_of(stream.snapshot)?;
        let manifest = Manifest::read(&repository.layout, &name)?;
        let uid = repository.catalog.databases()?.into_iter().find(|other| other.row == stream.database);
        let database = uid.and_then(|uid| manifest.databases.iter().position(|entry| entry.uid == uid.uid));
        let database = database.ok_or_else(|| lacks_database(stream))?;
        Ok(Rewrite { manifest, stream: stream.clone(), database })
    }

    fn entry(&mut self) -> Result<&mut DatabaseEntry> {
        self.manifest.databases.get_mut(self.database).ok_or_else(|| lacks_database(&self.stream))
    }

    /// Merges these parts of the index, if there are any, into one keyframe or delta; publishes everything,
    /// and commits it.
    fn finish(
        mut self,
        repository: &mut Repository,
        joined: Vec<i64>,
        parts: &[StoredPart],
        content: Content,
    ) -> Result<()> {
        let mut writer = ChunkWriter::new(&repository.layout, &repository.counters, Compression::GC);
        let name = self.stream.snapshot_name.clone();
        let entry = self.entry()?;
        let (mut keyframe, mut deltas) = (entry.index.keyframe.take(), std::mem::take(&mut entry.index.deltas));
        if !parts.is_empty() {
            let files = Arc::new(FrameFiles::new(&repository.layout, &repository.counters));
            let merged = with_merged(&files, parts, &name, |pairs| {
                index_parts::store(pairs, content, &mut writer, &repository.catalog)
            })?;
            match content {
                Content::Keyframe => (keyframe, deltas) = (merged, Vec::new()),
                _ => deltas = merged.into_iter().collect(),
            }
        }
        entry.index = IndexEntry::new(keyframe, deltas);
        let entry = entry.clone();
        self.manifest.revision += 1;

        let data_files = writer.finish()?;
        let manifest_file = self.manifest.write(&repository.layout)?.finish(&repository.counters)?;
        let replacement = Replacement {
            stream: self.stream.row,
            joined,
            entry,
            manifest: (manifest_file.name, manifest_file.bytes, self.manifest.revision),
            data_files: data_files.iter().map(NewDataFile::record).collect(),
        };
        let files = data_files.into_iter().map(|data| data.file).chain([manifest_file]).collect();
        publish(&repository.layout, files, &repository.counters)?;
        repository.catalog.replace_stream(&replacement)
    }
}

fn lacks_database(stream: &Stream) -> Error {
    Error::damaged(format!("the manifest of snapshot {} lacks a database", stream.snapshot_name))
        .hint("put .znap back from a copy; other snapshots still restore")
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
        // Its hash is made when the rewrite is finished.
    }
}
