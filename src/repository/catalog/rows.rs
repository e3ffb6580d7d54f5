//! Rows of the catalog as values.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::repository::blob_list::{BlobDirectory, BlobMode, BlobSum, BlobTotals};
use crate::repository::hash::{Hash, ListHash, Uid};
use crate::repository::manifest::{CutEntry, FinalPoint, Generation};
use crate::repository::object::ObjectKind;

/// Lets a type of 32 or 16 bytes be a BLOB.
macro_rules! blob {
    ($type:ty) => {
        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <$type>::from_slice(value.as_blob()?).ok_or(FromSqlError::InvalidType)
            }
        }

        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.0)))
            }
        }
    };
}

blob!(Hash);
blob!(Uid);

impl FromSql for ListHash {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Hash::column_result(value).map(ListHash)
    }
}

impl ToSql for ListHash {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for BlobSum {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Hash::column_result(value).map(BlobSum)
    }
}

impl ToSql for BlobSum {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for BlobMode {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        BlobMode::from_number(u8::column_result(value)?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for BlobMode {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(*self as u8))
    }
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its row.
    pub row: i64,
    /// Its identity.
    pub uid: Uid,
    /// Its name.
    pub name: String,
    /// Its path as typed, relative to the directory that holds `.znap`.
    pub path: PathBuf,
    /// Its present generation.
    pub generation: GenerationRow,
    /// Whether the base of each of its generations is to be stored.
    pub keep_base: bool,
    /// Whether it is saved.
    pub tracked: bool,
    /// Where its blobs are, if it was tracked with them.
    pub blobs: Option<BlobDirectory>,
}

/// A generation and its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRow {
    /// Its row.
    pub row: i64,
    /// What is known of it.
    pub known: Generation,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its row.
    pub row: i64,
    /// Its identity.
    pub uid: Uid,
    /// Its place in the order of all snapshots.
    pub sequence: u64,
    /// How often gc wrote its manifest anew.
    pub revision: u32,
    /// Its id.
    pub name: String,
    /// Why it exists.
    pub kind: String,
    /// When it was made: microseconds since 1970, UTC.
    pub created: i64,
    /// The user's words.
    pub message: String,
    /// Whether all its databases are of one moment.
    pub one_moment: bool,
    /// Whether it has only some of the databases that there were, as its save was told.
    pub partial: bool,
    /// How many databases it has.
    pub databases: u64,
    /// How many bytes of data files its save wrote.
    pub stored_bytes: u64,
    /// The object file of its manifest.
    pub manifest: Hash,
}

/// A snapshot's tail of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its row.
    pub row: i64,
    /// The snapshot's row.
    pub snapshot: i64,
    /// The snapshot's id.
    pub snapshot_name: String,
    /// The snapshot's identity.
    pub snapshot_uid: Uid,
    /// The database's row.
    pub database: i64,
    /// The generation's row.
    pub generation: i64,
    /// The row of the stream that it keeps a part of.
    pub parent: Option<i64>,
    /// How many chunks it keeps.
    pub kept_count: u64,
    /// Up to which offset they reach.
    pub kept_length: u64,
    /// The cut.
    pub cut: CutEntry,
    /// How many chunks the whole list has.
    pub count: u64,
    /// The hash of the whole list.
    pub list_hash: ListHash,
    /// Up to where it is final.
    pub last_final: FinalPoint,
    /// The hash of its own index parts.
    pub index_hash: Hash,
    /// Its blobs, if they were saved.
    pub blobs: Option<BlobTotals>,
}

/// A keyframe or delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPartRow {
    /// Its row.
    pub row: i64,
    /// Whether it is a keyframe.
    pub keyframe: bool,
    /// How many objects it has.
    pub entries: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// An object file as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFile {
    /// Its row.
    pub row: i64,
    /// Its name.
    pub name: Hash,
    /// What it holds.
    pub kind: ObjectKind,
    /// Its length.
    pub bytes: u64,
}

impl Snapshot {
    pub(super) const COLUMNS: &'static str = "s.id, s.uid, s.sequence, s.revision, s.name, s.kind, s.created, s.message, \
         s.one_moment, s.stored_bytes, (SELECT o.name FROM object_file o WHERE o.id = s.manifest), s.partial, s.databases";
    pub(super) const WIDTH: usize = 13;

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Snapshot {
            row: row.get(0)?,
            uid: row.get(1)?,
            sequence: row.get(2)?,
            revision: row.get(3)?,
            name: row.get(4)?,
            kind: row.get(5)?,
            created: row.get(6)?,
            message: row.get(7)?,
            one_moment: row.get(8)?,
            stored_bytes: row.get(9)?,
            manifest: row.get(10)?,
            partial: row.get(11)?,
            databases: row.get(12)?,
        })
    }
}

impl Stream {
    pub(super) const COLUMNS: &'static str = "t.id, t.snapshot, s.name, s.uid, t.database, t.generation, t.parent, \
         t.kept_count, t.kept_length, t.offset, t.tid, t.last_length, t.time, t.transactions, t.count, t.list_hash, \
         t.final_count, t.final_length, t.final_hash, t.new_bytes, t.index_hash, t.blob_layout, t.blob_count, t.blob_bytes, \
         t.blob_sum";
    pub(super) const WIDTH: usize = 25;

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Stream {
            row: row.get(0)?,
            snapshot: row.get(1)?,
            snapshot_name: row.get(2)?,
            snapshot_uid: row.get(3)?,
            database: row.get(4)?,
            generation: row.get(5)?,
            parent: row.get(6)?,
            kept_count: row.get(7)?,
            kept_length: row.get(8)?,
            cut: CutEntry {
                offset: row.get(9)?,
                tid: row.get(10)?,
                last_length: row.get(11)?,
                time: row.get(12)?,
                transactions: row.get(13)?,
                new_bytes: row.get(19)?,
            },
            count: row.get(14)?,
            list_hash: row.get(15)?,
            last_final: FinalPoint { count: row.get(16)?, length: row.get(17)?, hash: row.get(18)? },
            index_hash: row.get(20)?,
            blobs: match row.get::<_, Option<String>>(21)? {
                Some(layout) => {
                    Some(BlobTotals { layout, count: row.get(22)?, bytes: row.get(23)?, sum: row.get(24)? })
                }
                None => None,
            },
        })
    }
}

impl GenerationRow {
    pub(super) const COLUMNS: &'static str = "g.id, g.uid, g.number, g.began, g.magic, g.base_length, g.base_tid, g.base_last_length, \
         g.base_check_length, g.base_check";

    pub(super) fn from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(GenerationRow {
            row: row.get(first)?,
            known: Generation {
                uid: row.get(first + 1)?,
                number: row.get(first + 2)?,
                began: row.get(first + 3)?,
                magic: row.get(first + 4)?,
                base_length: row.get(first + 5)?,
                base_tid: row.get(first + 6)?,
                base_last_length: row.get(first + 7)?,
                base_check_length: row.get(first + 8)?,
                base_check: row.get(first + 9)?,
            },
        })
    }
}

impl Database {
    pub(super) const COLUMNS: &'static str =
        "d.id, d.uid, d.name, d.path, d.keep_base, d.tracked, d.blobs, d.blobs_mode";
    const WIDTH: usize = 8;

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let path = |bytes: Vec<u8>| PathBuf::from(OsStr::from_bytes(&bytes));
        let blobs = match row.get::<_, Option<Vec<u8>>>(6)? {
            Some(bytes) => Some(BlobDirectory { path: path(bytes), mode: row.get(7)? }),
            None => None,
        };
        Ok(Database {
            row: row.get(0)?,
            uid: row.get(1)?,
            name: row.get(2)?,
            path: path(row.get(3)?),
            keep_base: row.get(4)?,
            tracked: row.get(5)?,
            blobs,
            generation: GenerationRow::from_row(row, Self::WIDTH)?,
        })
    }
}

impl ObjectFile {
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let kind: u8 = row.get(2)?;
        let kind = ObjectKind::from_number(kind).ok_or(rusqlite::Error::IntegralValueOutOfRange(2, i64::from(kind)))?;
        Ok(ObjectFile { row: row.get(0)?, name: row.get(1)?, kind, bytes: row.get(3)? })
    }
}
