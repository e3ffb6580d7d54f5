//! What the catalog says of blobs.

use std::collections::HashSet;

use rusqlite::{Row, params};

use crate::error::Result;
use crate::repository::blob_list::{BlobEntry, BlobForm, BlobsEntry};
use crate::repository::catalog::read::{LOCATION, location};
use crate::repository::catalog::rows::{ObjectFile, Stream};
use crate::repository::catalog::{BATCH, Catalog};
use crate::repository::frames::Location;
use crate::repository::hash::Hash;
use crate::repository::manifest::ChunkName;
use crate::repository::object::ObjectKind;

/// A revision of a blob as a stream names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its row.
    pub row: i64,
    /// What is known of it.
    pub entry: BlobEntry,
}

/// Columns of a [`StoredBlob`], but for the offset, from `blob b`.
const COLUMNS: &str = "b.id, b.oid, b.tid, b.size, b.mode, b.owner, b.\"group\", b.hash, b.object_file IS NOT NULL, \
     (SELECT count(*) FROM blob_chunk c WHERE c.blob = b.id)";
const WIDTH: usize = 10;

fn from_row(row: &Row<'_>, offset: u64) -> rusqlite::Result<StoredBlob> {
    let form = if row.get(8)? { BlobForm::Plain } else { BlobForm::Chunks };
    let entry = BlobEntry {
        offset,
        oid: row.get(1)?,
        tid: row.get(2)?,
        size: row.get(3)?,
        mode: row.get(4)?,
        owner: row.get(5)?,
        group: row.get(6)?,
        form,
        chunks: row.get(9)?,
        hash: row.get(7)?,
    };
    Ok(StoredBlob { row: row.get(0)?, entry })
}

/// Of which parts of which streams' own lists a stream (?1) consists, between two offsets (?2 and ?3).
const PIECES: &str = "WITH RECURSIVE piece (stream, parent, upto, kept_length) AS (
         SELECT id, parent, min(offset, ?3), kept_length FROM stream WHERE id = ?1
         UNION ALL
         SELECT t.id, t.parent, min(p.upto, p.kept_length), t.kept_length
         FROM piece p JOIN stream t ON t.id = p.parent AND t.id < p.stream
         WHERE p.kept_length > ?2)";

fn missing_from_row(row: &Row<'_>) -> rusqlite::Result<BlobEntry> {
    Ok(BlobEntry::missing(row.get(0)?, row.get(1)?, row.get(2)?))
}

impl Catalog {
    /// What is known of a revision of a blob, with offset 0.
    pub fn blob(&self, database: i64, oid: u64, tid: u64) -> Result<Option<StoredBlob>> {
        let sql = format!("SELECT {COLUMNS} FROM blob b WHERE b.database = ?1 AND b.oid = ?2 AND b.tid = ?3");
        self.one("look for a blob", &sql, params![database, oid, tid], |row| from_row(row, 0))
    }

    /// The blobs of a stream, its own and those that it has from its parents, whose records are between two offsets of the file;
    /// in the order of their records.
    pub fn blobs_between(&self, stream: i64, from: u64, to: u64) -> Result<Vec<StoredBlob>> {
        let sql = format!(
            "{PIECES} SELECT {COLUMNS}, r.offset
             FROM piece p CROSS JOIN stream_blob r ON r.stream = p.stream AND r.offset < p.upto AND r.offset >= ?2
             JOIN blob b ON b.id = r.blob ORDER BY r.offset",
        );
        let (from, to) = (from.min(i64::MAX as u64), to.min(i64::MAX as u64));
        self.many("read the blobs", &sql, params![stream, from, to], |row| from_row(row, row.get(WIDTH)?))
    }

    /// What saves of a stream and of those that it builds on didn't find of its file's blobs, some of which a later one may have
    /// found.
    pub fn missing_blobs(&self, stream: &Stream) -> Result<Vec<BlobEntry>> {
        if self.one("look for missing blobs", "SELECT 1 FROM missing_blob LIMIT 1", [], |_| Ok(()))?.is_none() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "{PIECES} SELECT r.offset, r.oid, r.tid
             FROM piece p CROSS JOIN missing_blob r ON r.stream = p.stream AND r.offset < p.upto AND r.offset >= ?2
             ORDER BY r.offset",
        );
        self.many("read what blobs are missing", &sql, params![stream.row, 0, stream.cut.offset], missing_from_row)
    }

    /// The blobs that a stream has of its own, in the order of their records.
    pub fn own_blobs(&self, stream: &Stream) -> Result<Option<BlobsEntry>> {
        let Some(totals) = stream.blobs.clone() else { return Ok(None) };
        let mut entry = BlobsEntry { totals, own: Vec::new(), chunks: Vec::new() };
        let sql = format!(
            "SELECT {COLUMNS}, r.offset FROM stream_blob r JOIN blob b ON b.id = r.blob WHERE r.stream = ?1 ORDER BY r.offset"
        );
        for blob in self.many("read the blobs", &sql, [stream.row], |row| from_row(row, row.get(WIDTH)?))? {
            if blob.entry.chunks > 0 {
                entry.chunks.extend(self.blob_chunks(blob.row)?.iter().map(ChunkName::of));
            }
            entry.own.push(blob.entry);
        }
        let sql = "SELECT offset, oid, tid FROM missing_blob WHERE stream = ?1";
        entry.own.extend(self.many("read what blobs are missing", sql, [stream.row], missing_from_row)?);
        // Those that are missing have no chunks.
        entry.own.sort_by_key(|blob| blob.offset);
        Ok(Some(entry))
    }

    /// What streams have of their own of stored blobs, in the order of the records.
    pub fn blob_names(&self) -> Result<Vec<(i64, StoredBlob)>> {
        let sql = format!(
            "SELECT {COLUMNS}, r.offset, r.stream FROM stream_blob r JOIN blob b ON b.id = r.blob ORDER BY r.stream, r.offset"
        );
        self.many("read the blobs", &sql, [], |row| Ok((row.get(WIDTH + 1)?, from_row(row, row.get(WIDTH)?)?)))
    }

    /// Where the pieces of a blob are, in order.
    pub fn blob_chunks(&self, blob: i64) -> Result<Vec<Location>> {
        let sql = format!(
            "SELECT {LOCATION} FROM blob_chunk c JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame
             JOIN object_file o ON o.id = f.object_file WHERE c.blob = ?1 ORDER BY c.position"
        );
        self.many("read a blob's pieces", &sql, [blob], |row| location(row, 0))
    }

    /// How many bytes the pieces of a blob have that are stored.
    pub fn blob_bytes(&self, blob: i64) -> Result<u64> {
        let sql =
            "SELECT coalesce(sum(k.length), 0) FROM blob_chunk c JOIN chunk k ON k.id = c.chunk WHERE c.blob = ?1";
        Ok(self.one("read a blob's pieces", sql, [blob], |row| row.get(0))?.unwrap_or(0))
    }

    /// What the object file of this name holds, if there is one.
    pub fn object_kind(&self, name: &Hash) -> Result<Option<ObjectKind>> {
        let sql = "SELECT id, name, kind, bytes FROM object_file WHERE name = ?1";
        Ok(self.one("look for an object file", sql, [name], ObjectFile::from_row)?.map(|file| file.kind))
    }

    /// The blobs, by their rows, of which the catalog doesn't say where all bytes are: a row is lost.
    pub fn broken_blobs(&self) -> Result<HashSet<i64>> {
        let sql = "SELECT b.id FROM blob b LEFT JOIN object_file o ON o.id = b.object_file LEFT JOIN (
                       SELECT c.blob, sum(k.length) AS bytes, count(*) AS pieces, max(c.position) AS last
                       FROM blob_chunk c JOIN chunk k ON k.id = c.chunk GROUP BY c.blob
                   ) p ON p.blob = b.id
                   WHERE CASE WHEN b.object_file IS NULL
                         THEN coalesce(p.bytes, 0) <> b.size OR coalesce(p.last + 1 <> p.pieces, 0)
                         ELSE o.kind IS NOT 5 OR o.name <> b.hash END";
        Ok(self.many("check the blobs", sql, [], |row| row.get(0))?.into_iter().collect())
    }

    /// Drops the blobs that no list names, and the plain object files that no blob is.
    pub fn drop_blobs(&mut self) -> Result<()> {
        let sql = "SELECT id FROM blob EXCEPT SELECT blob FROM stream_blob";
        let dead: Vec<i64> = self.many("look for unused blobs", sql, [], |row| row.get(0))?;
        for batch in dead.chunks(BATCH) {
            self.transaction("drop unused blobs", |tx| {
                let mut chunks = tx.prepare_cached("DELETE FROM blob_chunk WHERE blob = ?1")?;
                let mut blob = tx.prepare_cached("DELETE FROM blob WHERE id = ?1")?;
                for row in batch {
                    chunks.execute([row])?;
                    blob.execute([row])?;
                }
                Ok(())
            })?;
        }
        let unused = "kind = 5 AND id NOT IN (SELECT object_file FROM blob WHERE object_file IS NOT NULL)";
        let exists = format!("SELECT 1 FROM object_file WHERE {unused} LIMIT 1");
        if self.one("look for unused blob files", &exists, [], |_| Ok(()))?.is_some() {
            self.transaction("drop unused blob files", |tx| {
                tx.execute(&format!("DELETE FROM object_file WHERE {unused}"), [])
            })?;
        }
        Ok(())
    }
}
