//! Joining the chunk lists of deleted snapshots into the one list that builds on them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, DeadStream, Replacement, Stream, StreamReplacement};
use crate::repository::chunk_writer::{ChunkWriter, Compression};
use crate::repository::data::Content;
use crate::repository::data_writer::NewDataFile;
use crate::repository::frames::FrameFiles;
use crate::repository::manifest::{DatabaseEntry, IndexEntry, Manifest};
use crate::repository::object::publish;
use crate::snapshot::gc::lists;
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
    let mut rewrites = Rewrites::new(repository);
    let needed = lists::needed_indexes(&repository.catalog)?;
    // What is set aside stays as it is: its lists have gaps.
    let set_aside = repository.catalog.streams_set_aside()?;
    let foldable: HashSet<i64> = dead
        .values()
        .filter(|stream| stream.children.len() == 1 && !set_aside.contains(&stream.children[0]))
        .map(|stream| stream.row)
        .collect();
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
        fold(repository, &mut rewrites, child, &line, &needed)?;
    }
    rewrites.commit(repository)
}

/// How many deltas an index may be made from: beyond that gc stores a keyframe, so that a restore merges, and
/// opens, a bounded number of parts.
const LONGEST_CHAIN: u64 = 64;

/// Gives a keyframe to streams whose index would be made from too many deltas. Returns whether there were any.
pub(super) fn shorten_index_chains(repository: &mut Repository, monitor: &dyn Monitor) -> Result<bool> {
    // How many deltas a stream's index has, and whether the keyframe below them is committed.
    let mut lengths: HashMap<i64, (u64, bool)> = HashMap::new();
    let mut rewrites = Rewrites::new(repository);
    let mut shortened = false;
    let needed = lists::needed_indexes(&repository.catalog)?;
    for link in repository.catalog.index_links()? {
        let row = link.stream;
        let before = link.parent.filter(|_| !link.has_keyframe).and_then(|parent| lengths.get(&parent).copied());
        let (length, mut committed) = before.unwrap_or((0, true));
        let mut length = length + link.deltas;
        if length > LONGEST_CHAIN && needed.contains(&row) {
            monitor.check()?;
            if !committed {
                // The catalog has to know it, or all deltas since the one before it would be merged.
                std::mem::replace(&mut rewrites, Rewrites::new(repository)).commit(repository)?;
            }
            let stream = repository.catalog.stream(row)?;
            let parts = index_parts::sources(&repository.catalog, &stream)?;
            let entry = rewrites.entry(repository, &stream)?;
            rewrites.add(repository, &stream, entry, Vec::new(), &parts, Content::Keyframe)?;
            (length, committed) = (0, false);
            shortened = true;
        }
        lengths.insert(row, (length, committed));
    }
    rewrites.commit(repository)?;
    Ok(shortened)
}

/// Joins a line of deleted lists, nearest ancestor first, into the list of `child`. `needed` are the streams whose index parts
/// some snapshot needs.
fn fold(
    repository: &mut Repository,
    rewrites: &mut Rewrites,
    child: i64,
    line: &[&DeadStream],
    needed: &HashSet<i64>,
) -> Result<()> {
    let stream = repository.catalog.stream(child)?;
    let mut parts = match parts_of_line(&repository.catalog, &stream, line) {
        // Repair may have left it so. It stays as it is.
        Err(error) if error.kind() == Kind::Damaged && !needed.contains(&child) => return Ok(()),
        parts => parts?,
    };
    let mut entry = rewrites.entry(repository, &stream)?;
    for dead in line {
        let parent = Manifest::read(&repository.layout, &dead.manifest)?;
        let parent = parent.databases.into_iter().find(|other| other.uid == entry.uid);
        let mut parent = parent.ok_or_else(|| lacks_database(&stream))?;
        // Not what the manifest says: repair may have had to leave that snapshot out.
        let older = dead.parent.map(|row| repository.catalog.stream(row)).transpose()?;
        parent.stream.parent = older.map(|older| older.snapshot_uid);
        join(&mut entry, parent);
    }
    // Several deltas become one.
    parts.retain(|stored| !stored.part.keyframe);
    let joined = line.iter().map(|dead| dead.row).collect();
    let several = if parts.len() > 1 { &parts[..] } else { &[] };
    rewrites.add(repository, &stream, entry, joined, several, Content::Delta)
}

/// The parts that a stream's index is made from, with those of a line of lists that it builds on, nearest first.
fn parts_of_line(catalog: &Catalog, stream: &Stream, line: &[&DeadStream]) -> Result<Vec<StoredPart>> {
    let mut parts = index_parts::own_parts(catalog, stream)?;
    for dead in line {
        if parts.first().is_some_and(|stored| stored.part.keyframe) {
            break;
        }
        let mut older = index_parts::own_parts(catalog, &catalog.stream(dead.row)?)?;
        older.append(&mut parts);
        parts = older;
    }
    Ok(parts)
}

/// How many streams are replaced in one step: they share its syncs and its transaction.
const STREAMS: usize = 200;
/// After how many chunks in their lists a step ends: so that its transaction is short.
const CHUNKS: usize = 20_000;

/// Streams that get a new form, and the manifests of their snapshots, which are written anew with it.
struct Rewrites {
    writer: ChunkWriter,
    streams: Vec<StreamReplacement>,
    /// By the snapshot's row: several databases of one snapshot share its manifest.
    manifests: BTreeMap<i64, Manifest>,
    chunks: usize,
}

impl Rewrites {
    fn new(repository: &Repository) -> Self {
        Rewrites {
            writer: ChunkWriter::new(&repository.layout, &repository.counters, Compression::FAST),
            streams: Vec::new(),
            manifests: BTreeMap::new(),
            chunks: 0,
        }
    }

    /// What the manifest of a stream's snapshot says of it.
    fn entry(&mut self, repository: &Repository, stream: &Stream) -> Result<DatabaseEntry> {
        let manifest = match self.manifests.entry(stream.snapshot) {
            Entry::Occupied(manifest) => manifest.into_mut(),
            Entry::Vacant(place) => {
                let name = repository.catalog.manifest_of(stream.snapshot)?;
                let mut manifest = Manifest::read(&repository.layout, &name)?;
                manifest.revision += 1;
                place.insert(manifest)
            }
        };
        let database = repository.catalog.databases()?.into_iter().find(|other| other.row == stream.database);
        let entry = database.and_then(|known| manifest.databases.iter().find(|entry| entry.uid == known.uid));
        entry.cloned().ok_or_else(|| lacks_database(stream))
    }

    /// Adds a stream's new form, in which these parts of the index, if there are any, are merged into one keyframe or delta. Its
    /// entry came from [`Rewrites::entry`].
    fn add(
        &mut self,
        repository: &mut Repository,
        stream: &Stream,
        mut entry: DatabaseEntry,
        joined: Vec<i64>,
        parts: &[StoredPart],
        content: Content,
    ) -> Result<()> {
        let (mut keyframe, mut deltas) = (entry.index.keyframe.take(), std::mem::take(&mut entry.index.deltas));
        if !parts.is_empty() {
            let files = Arc::new(FrameFiles::new(&repository.layout, &repository.counters));
            let merged = with_merged(&files, parts, &stream.snapshot_name, |pairs| {
                index_parts::store(pairs, content, &mut self.writer, &repository.catalog)
            })?;
            match content {
                Content::Keyframe => (keyframe, deltas) = (merged, Vec::new()),
                _ => deltas = merged.into_iter().collect(),
            }
        }
        entry.index = IndexEntry::new(entry.stream.parent, keyframe, deltas);
        let manifest = self.manifests.get_mut(&stream.snapshot);
        let place = manifest.and_then(|manifest| manifest.databases.iter_mut().find(|other| other.uid == entry.uid));
        *place.ok_or_else(|| lacks_database(stream))? = entry.clone();
        self.chunks += entry.stream.chunks.len();
        self.streams.push(StreamReplacement { stream: stream.row, joined, entry });
        if self.streams.len() >= STREAMS || self.chunks >= CHUNKS {
            std::mem::replace(self, Self::new(repository)).commit(repository)?;
        }
        Ok(())
    }

    /// Publishes everything, and commits it.
    fn commit(self, repository: &mut Repository) -> Result<()> {
        if self.streams.is_empty() {
            return Ok(());
        }
        let data_files = self.writer.finish()?;
        // All are written before the first is synced, so that the syncs share the file system's journal.
        let mut writers = Vec::new();
        for (snapshot, manifest) in &self.manifests {
            writers.push((*snapshot, manifest.revision, manifest.write(&repository.layout)?));
        }
        let mut manifests = Vec::new();
        // Data files get their names first: no manifest may name what isn't there.
        let records = data_files.iter().map(NewDataFile::record).collect();
        let mut files: Vec<_> = data_files.into_iter().map(|data| data.file).collect();
        for (snapshot, revision, writer) in writers {
            let file = writer.finish(&repository.counters)?;
            manifests.push((snapshot, file.name, file.bytes, revision));
            files.push(file);
        }
        let replacement = Replacement { streams: self.streams, manifests, data_files: records };
        publish(&repository.layout, files, &repository.counters)?;
        repository.catalog.replace_streams(&replacement)
    }
}

fn lacks_database(stream: &Stream) -> Error {
    Error::damaged(format!("the manifest of snapshot {} lacks a database", stream.snapshot_name))
        .hint("put .znap back from a copy; other snapshots still restore")
}

/// Makes `child`, which builds on `parent`, build on what the parent builds on.
fn join(child: &mut DatabaseEntry, parent: DatabaseEntry) {
    let (stream, older) = (&mut child.stream, parent.stream);
    let kept_length = stream.kept_length;
    stream.parent = older.parent;
    if stream.kept > older.kept {
        let kept = (stream.kept - older.kept) as usize;
        let own = std::mem::take(&mut stream.chunks);
        stream.chunks = older.chunks.into_iter().take(kept).chain(own).collect();
        stream.kept = older.kept;
        stream.kept_length = older.kept_length;
    }
    if let (Some(own), Some(older)) = (&mut child.blobs, parent.blobs) {
        own.join(older, kept_length);
    }
    if child.index.keyframe.is_none() {
        child.index.keyframe = parent.index.keyframe;
        let newer = std::mem::take(&mut child.index.deltas);
        child.index.deltas = parent.index.deltas.into_iter().chain(newer).collect();
        // Its hash is made when the rewrite is finished.
    }
}
