//! List and show: what snapshots there are, and what each is made of.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::filestorage::Tid;
use crate::repository::catalog::{Catalog, Database, Snapshot, Stream};
use crate::repository::manifest::{DAMAGED, Generation, IMPORTED};
use crate::snapshot::anchor::damaged_list;
use crate::snapshot::base::needs_base;
use crate::snapshot::handle::Repository;
use crate::snapshot::index_parts;

/// A snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: String,
    /// Why it exists.
    pub kind: String,
    /// When it was made.
    pub created: Timestamp,
    /// The user's words about it.
    pub message: String,
    /// Its place in the order of all snapshots.
    pub sequence: u64,
    /// Whether all its databases are of one moment.
    pub one_moment: bool,
    /// Whether it has only some of the databases that were tracked then, as its save was told.
    pub partial: bool,
    /// Whether it needs nothing but the repository.
    pub complete: bool,
    /// Bytes of data files that its save added.
    pub stored_bytes: u64,
    /// Its databases.
    pub databases: Vec<CutInfo>,
}

/// A snapshot's part of one database.
#[derive(Debug, Clone, Serialize)]
pub struct CutInfo {
    /// The database's name.
    pub name: String,
    /// The length of the file at the snapshot.
    pub cut: u64,
    /// The last transaction's id, as ZODB writes it; `0x00` if there is none.
    pub tid: String,
    /// The time of that transaction.
    pub time: Option<Timestamp>,
    /// Transactions in the tail.
    pub transactions: u64,
    /// Bytes of the tail.
    pub tail_bytes: u64,
    /// Bytes behind the snapshot that the file began with when it was saved.
    pub new_bytes: u64,
    /// The database's file, as stored, if the snapshot needs the beginning of it.
    #[serde(serialize_with = "crate::snapshot::database::maybe_as_text")]
    pub needs: Option<PathBuf>,
    /// If it needs it as it was before a pack: when that was noticed.
    pub needs_before: Option<Timestamp>,
}

/// A snapshot in detail.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotDetails {
    /// What the list says.
    #[serde(flatten)]
    pub info: SnapshotInfo,
    /// The object file of its manifest.
    pub manifest: String,
    /// More about its databases, in the same order as `databases`.
    pub details: Vec<DatabaseDetails>,
}

/// A snapshot's part of one database in detail.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseDetails {
    /// The database's name.
    pub name: String,
    /// Its path, as stored.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// The snapshot whose chunk list it keeps a part of.
    pub parent: Option<String>,
    /// How many bytes of the file are before the tail.
    pub base_length: u64,
    /// Chunks in the tail.
    pub chunks: u64,
    /// Chunks that are kept of the parent's.
    pub kept_chunks: u64,
    /// Objects in the newest keyframe that the index is made from.
    pub index_keyframe: u64,
    /// Deltas that it is made from.
    pub index_deltas: u64,
    /// Bytes of the keyframe and the deltas.
    pub index_bytes: u64,
}

/// All snapshots, oldest first.
pub fn list(repository: &Repository) -> Result<Vec<SnapshotInfo>> {
    repository.catalog.snapshot_of(|catalog| {
        let databases = catalog.databases()?;
        let mut streams = catalog.all_streams()?.into_iter().peekable();
        let mut infos = Vec::new();
        for snapshot in catalog.snapshots()? {
            let mut own = Vec::new();
            // Both come in the order of the sequence.
            while let Some(stream) = streams.next_if(|stream| stream.snapshot == snapshot.row) {
                own.push(stream);
            }
            infos.push(info(repository, &databases, snapshot, &own)?);
        }
        // Those from elsewhere are older than when they came.
        if infos.iter().any(|info| info.kind == IMPORTED) {
            infos.sort_by_key(|info| info.created);
        }
        Ok(infos)
    })
}

/// One snapshot in detail.
pub fn show(repository: &Repository, word: &str) -> Result<SnapshotDetails> {
    repository.catalog.snapshot_of(|catalog| {
        let snapshot = repository.resolve(word)?;
        let databases = catalog.databases()?;
        let streams = catalog.streams_of(snapshot.row)?;
        let manifest = snapshot.manifest.to_string();
        let mut details = Vec::new();
        for stream in &streams {
            let database = of(&databases, stream)?;
            let parent = match stream.parent {
                Some(row) => Some(catalog.stream(row)?.snapshot_name),
                None => None,
            };
            let parts = match index_parts::sources(catalog, stream) {
                // It is known to be.
                Err(error) if error.kind() == Kind::Damaged && snapshot.kind == DAMAGED => Vec::new(),
                result => result?,
            };
            details.push(DatabaseDetails {
                name: database.name.clone(),
                path: database.path.clone(),
                parent,
                base_length: catalog.generation(stream.generation)?.known.base_length,
                chunks: stream.count,
                kept_chunks: stream.kept_count,
                index_keyframe: parts.first().map_or(0, |stored| stored.part.entries),
                index_deltas: (parts.len() as u64).saturating_sub(1),
                index_bytes: parts.iter().map(|stored| stored.part.bytes).sum(),
            });
        }
        Ok(SnapshotDetails { info: info(repository, &databases, snapshot, &streams)?, manifest, details })
    })
}

fn of<'a>(databases: &'a [Database], stream: &Stream) -> Result<&'a Database> {
    databases.iter().find(|database| database.row == stream.database).ok_or_else(|| damaged_list(stream))
}

fn info(
    repository: &Repository,
    databases: &[Database],
    snapshot: Snapshot,
    streams: &[Stream],
) -> Result<SnapshotInfo> {
    let mut cuts = Vec::new();
    for stream in streams {
        let database = of(databases, stream)?;
        let generation = if stream.generation == database.generation.row {
            database.generation.known.clone()
        } else {
            repository.catalog.generation(stream.generation)?.known
        };
        let needs = needs_base(&repository.catalog, &generation)?;
        let needs_before = if needs { ended(&repository.catalog, database, &generation)? } else { None };
        cuts.push(CutInfo {
            name: database.name.clone(),
            cut: stream.cut.offset,
            tid: Tid(stream.cut.tid).to_string(),
            time: (stream.cut.last_length > 0).then(|| Tid(stream.cut.tid).time()),
            transactions: stream.cut.transactions,
            tail_bytes: stream.cut.offset.saturating_sub(generation.base_length),
            new_bytes: stream.cut.new_bytes,
            needs: needs.then(|| database.path.clone()),
            needs_before,
        });
    }
    let complete = snapshot.kind != DAMAGED && cuts.iter().all(|cut| cut.needs.is_none());
    Ok(SnapshotInfo {
        id: snapshot.name,
        kind: snapshot.kind,
        created: time(snapshot.created)?,
        message: snapshot.message,
        sequence: snapshot.sequence,
        one_moment: snapshot.one_moment,
        partial: snapshot.partial,
        complete,
        stored_bytes: snapshot.stored_bytes,
        databases: cuts,
    })
}

/// When the next generation of a database was noticed; `None` if this is the newest, or the file is in it.
fn ended(catalog: &Catalog, database: &Database, generation: &Generation) -> Result<Option<Timestamp>> {
    if database.generation.known.uid == generation.uid {
        return Ok(None);
    }
    let others = catalog.generations(database.row)?.into_iter().filter(|other| other.known.is_of_the_file());
    let newer = others.filter(|other| other.known.number > generation.number);
    newer.min_by_key(|other| other.known.number).map(|next| time(next.known.began)).transpose()
}

/// A time as the catalog has it.
fn time(microseconds: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|_| Error::damaged("the catalog has an impossible time").hint("put catalog.db back from a copy"))
}
