//! Status: how the databases are now, next to the snapshots.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Kind, Result};
use crate::filestorage::{Opener, Source, find_cut, openers};
use crate::monitor::Monitor;
use crate::repository::catalog::Database;
use crate::snapshot::anchor::{known_end, nearest};
use crate::snapshot::database;
use crate::snapshot::generations::{Life, life_of};
use crate::snapshot::handle::Repository;
use crate::snapshot::links::{held_bytes, is_at_risk, lost_snapshots};

/// How things are.
#[derive(Debug, Clone, Serialize)]
pub struct StatusReport {
    /// The repository's directory.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub root: PathBuf,
    /// How many snapshots there are.
    pub snapshots: u64,
    /// How many bytes the repository takes.
    pub repository_bytes: u64,
    /// Per tracked database.
    pub databases: Vec<DatabaseStatus>,
    /// The names of the databases that aren't saved any more.
    pub untracked: Vec<String>,
    /// The snapshots that need a file of before a pack of which nothing is to be found.
    pub lost: Vec<String>,
}

/// How a database is.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseStatus {
    /// Its name.
    pub name: String,
    /// Its file.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// The directory of its blobs, and how they are saved.
    #[serde(serialize_with = "crate::snapshot::database::maybe_as_text")]
    pub blobs: Option<PathBuf>,
    /// `link`, `copy` or `skip`.
    pub blobs_mode: Option<&'static str>,
    /// Its size; `None` if it can't be looked at.
    pub size: Option<u64>,
    /// Why it can't be worked with, if it can't.
    pub problem: Option<String>,
    /// Who has it open, in words.
    pub openers: Vec<String>,
    /// The furthest-reaching snapshot that it begins with.
    pub snapshot: Option<String>,
    /// When that was made.
    pub snapshot_created: Option<Timestamp>,
    /// Transactions since then.
    pub new_transactions: u64,
    /// Bytes since then.
    pub new_bytes: u64,
    /// What lies behind the last complete transaction, in words.
    pub left_out: Option<String>,
    /// What happened to the file since the last snapshot, so that the next one begins anew: `packed` or `converted`.
    pub new_life: Option<&'static str>,
    /// Whether two packs without a save between would lose what snapshots need.
    pub at_risk: bool,
    /// What files from before a pack take that znap keeps, because snapshots need something of them that isn't stored.
    pub held_bytes: u64,
}

/// Looks at every database. One that is missing or was replaced is reported, not an error.
pub fn status(repository: &Repository, monitor: &dyn Monitor) -> Result<StatusReport> {
    let (snapshots, databases, untracked) = repository.catalog.snapshot_of(|catalog| {
        let (tracked, others): (Vec<_>, Vec<_>) = catalog.databases()?.into_iter().partition(|known| known.tracked);
        let databases = tracked.iter().map(|database| look(repository, database, monitor));
        let untracked = others.into_iter().map(|database| database.name).collect();
        Ok((catalog.snapshots()?.len() as u64, databases.collect::<Result<Vec<_>>>()?, untracked))
    })?;
    Ok(StatusReport {
        root: repository.root().to_path_buf(),
        snapshots,
        repository_bytes: crate::snapshot::gc::repository_bytes(&repository.layout)?,
        databases,
        untracked,
        lost: lost_snapshots(repository)?,
    })
}

fn look(repository: &Repository, database: &Database, monitor: &dyn Monitor) -> Result<DatabaseStatus> {
    let path = repository.path_of(database);
    let mut status = DatabaseStatus {
        name: database.name.clone(),
        path: path.clone(),
        blobs: database.blobs.as_ref().map(|blobs| repository.seen(&blobs.path)),
        blobs_mode: database.blobs.as_ref().map(|blobs| blobs.mode.word()),
        size: None,
        problem: None,
        openers: Vec::new(),
        snapshot: None,
        snapshot_created: None,
        new_transactions: 0,
        new_bytes: 0,
        left_out: None,
        new_life: None,
        at_risk: is_at_risk(repository, database)?,
        held_bytes: held_bytes(repository, database)?,
    };
    let file = match database::open_patiently(&path, monitor) {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Failed) => {
            status.problem = Some(error.to_string());
            return Ok(status);
        }
        result => result?,
    };
    let size = file.size()?;
    status.size = Some(size);
    status.openers = openers(file.identity()).iter().map(Opener::to_string).collect();
    let generation = match life_of(repository, database, &file) {
        Ok(Life::Known(generation)) => generation,
        Ok(Life::New(recognition, _)) => {
            status.new_life = Some(recognition.word());
            return Ok(status);
        }
        Err(error) if error.kind() == Kind::Failed && error.io_error().is_none() => {
            status.problem = Some(error.to_string());
            return Ok(status);
        }
        Err(error) => return Err(error),
    };
    let stream = nearest(&file, size, &repository.catalog, generation.row)?;
    let from = known_end(stream.as_ref(), &generation.known);
    if let Some(stream) = stream {
        let snapshot = repository.catalog.snapshot(&stream.snapshot_name)?;
        status.snapshot_created = snapshot.and_then(|snapshot| Timestamp::from_microsecond(snapshot.created).ok());
        status.snapshot = Some(stream.snapshot_name);
    }
    match find_cut(&file, from, size, monitor) {
        Ok(cut) => {
            status.new_transactions = cut.transactions;
            status.new_bytes = cut.offset - from.offset;
            status.left_out = cut.left_out.map(|left| left.to_string());
        }
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
        Err(error) => status.problem = Some(error.to_string()),
    }
    Ok(status)
}
