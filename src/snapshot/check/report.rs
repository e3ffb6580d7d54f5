//! What a check found.

use std::path::PathBuf;

use serde::Serialize;

use crate::repository::counters::Counts;

/// What a check found. Lists are bounded; a number beside each says how many more there are.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// The repository's directory.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub root: PathBuf,
    /// How many snapshots there are.
    pub snapshots: u64,
    /// How many object files the catalog names.
    pub object_files: u64,
    /// How many bytes they have.
    pub object_bytes: u64,
    /// What is damaged.
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub more_findings: u64,
    /// The snapshots that can't be restored whole, oldest first.
    pub damaged_snapshots: Vec<String>,
    /// How many more there are.
    pub more_damaged_snapshots: u64,
    /// The newest snapshot that nothing damaged is needed for; `None` if there is none, or if the catalog can't be believed.
    pub last_whole: Option<String>,
    /// How far the data was read, if it was.
    pub data: Option<DataCheck>,
    /// The databases, if they were looked at.
    pub databases: Option<Vec<DatabaseCheck>>,
    /// Files that killed commands have left, or that a command is just writing: no damage.
    pub left_over_files: u64,
    /// Names of files among the object files that znap knows nothing of.
    pub unknown_files: Vec<String>,
    /// The snapshot whose restore is unfinished.
    pub unfinished_restore: Option<String>,
    /// What it cost.
    pub counts: Counts,
}

impl CheckReport {
    /// Whether anything is damaged.
    pub fn is_damaged(&self) -> bool {
        !self.findings.is_empty()
    }
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The catalog, or something that it says.
    Catalog,
    /// An object file with pieces of databases and indexes.
    Data,
    /// An object file that is a blob.
    Blob,
    /// The object file that says all about one snapshot.
    Manifest,
    /// The object file that says that a snapshot was deleted.
    Tombstone,
    /// The object file that says what never changes in the repository.
    Config,
    /// The lock files.
    Locks,
    /// What is remembered of a restore.
    Restore,
    /// A snapshot that repair has set aside: nobody has all of it.
    Snapshot,
    /// A database's own file.
    Database,
}

/// One thing that is damaged, and what that affects.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What sort of thing.
    pub subject: Subject,
    /// What is wrong, in a sentence.
    pub what: String,
    /// The object file that it is about.
    pub object_file: Option<String>,
    /// The snapshots that it affects, oldest first.
    pub snapshots: Vec<String>,
    /// How many more there are.
    pub more_snapshots: u64,
    /// Whether they can't be restored whole; else a restore doesn't need what is damaged.
    pub prevents_restore: bool,
    /// Of how many other snapshots something is in the same object file, and whole.
    pub other_snapshots: u64,
    /// What of the databases is affected.
    pub databases: Vec<Affected>,
    /// What can be done, if anything special.
    pub hint: Option<String>,
}

/// What a damaged object file affects of a database.
#[derive(Debug, Clone, Serialize)]
pub struct Affected {
    /// The database's name.
    pub name: String,
    /// Whether stored indexes of it are affected.
    pub index: bool,
    /// Bytes of its file that are affected, over all snapshots.
    pub bytes: u64,
    /// Where they are.
    pub ranges: Vec<AffectedRange>,
    /// How many more such ranges there are.
    pub more_ranges: u64,
    /// The objects that have records there, as far as that is known.
    pub oids: Vec<String>,
    /// How many more there are.
    pub more_oids: u64,
}

/// A range of a database's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AffectedRange {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset behind the last byte.
    pub end: u64,
    /// Whether the database's own file still has these bytes.
    pub in_database: bool,
    /// Transactions that have bytes there, if the file has them.
    pub transactions: Option<u64>,
    /// Records that have bytes there, if the file has them.
    pub records: Option<u64>,
}

/// How far the data was read.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DataCheck {
    /// How many object files with data were read, and every hash in them checked.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many are left for the next time.
    pub files_left: u64,
    /// How many bytes these have.
    pub bytes_left: u64,
    /// Whether it went on where an earlier check had stopped.
    pub went_on: bool,
    /// Why it couldn't be remembered where to go on, if it couldn't.
    pub not_remembered: Option<String>,
}

/// How a database's own file is.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseCheck {
    /// Its name.
    pub name: String,
    /// Its file.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// Its size; `None` if it can't be looked at.
    pub size: Option<u64>,
    /// Why it can't be compared with snapshots, in words.
    pub problem: Option<String>,
    /// What is wrong with its structure, in words.
    pub damage: Option<String>,
    /// Where the transaction begins that is wrong.
    pub damaged_at: Option<u64>,
    /// Complete transactions that were read, from the file's beginning.
    pub transactions: u64,
    /// Records in them.
    pub records: u64,
    /// What lies behind the last complete transaction, in words.
    pub left_out: Option<String>,
    /// What is odd, and no obstacle to ZODB.
    pub warnings: Vec<String>,
    /// Bytes, from the beginning of what snapshots keep, that are what snapshots have, by their hashes.
    pub same_bytes: u64,
    /// The first offset at which it differs from what it should be, by a snapshot that it goes on from.
    pub differs_at: Option<u64>,
    /// That snapshot.
    pub differs_from: Option<String>,
    /// The furthest-reaching snapshot all of whose bytes it begins with.
    pub last_good: Option<String>,
}

/// The first `limit` of these, and how many more there are.
pub(super) fn bounded<T>(mut items: Vec<T>, limit: usize) -> (Vec<T>, u64) {
    let more = items.len().saturating_sub(limit) as u64;
    items.truncate(limit);
    (items, more)
}
