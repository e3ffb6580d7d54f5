//! Changes to the catalog: each function is one committed transaction.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::error::Result;
use crate::repository::blob_list::{BlobDirectory, BlobEntry, BlobForm, BlobsEntry};
use crate::repository::catalog::Catalog;
use crate::repository::data::Frame;
use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::{ChunkName, DatabaseEntry, Generation, IndexPart, Manifest};
use crate::repository::object::ObjectKind;

/// A database as init registers it.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its identity.
    pub uid: Uid,
    /// Its name, unique in the repository.
    pub name: String,
    /// Its path, relative to the directory that holds `.znap`.
    pub path: PathBuf,
    /// Its first generation.
    pub generation: Generation,
    /// Whether the base of each of its generations is to be stored.
    pub keep_base: bool,
    /// Whether it is saved.
    pub tracked: bool,
    /// Where its blobs are, if it is tracked with them.
    pub blobs: Option<BlobDirectory>,
}

/// A snapshot whose object files are all published.
#[derive(Debug)]
pub struct PreparedSnapshot {
    /// All about it.
    pub manifest: Manifest,
    /// The manifest's object file: name and length.
    pub manifest_file: (Hash, u64),
    /// The data files that its save wrote: name, length, frames.
    pub data_files: Vec<(Hash, u64, Vec<Frame>)>,
}

type Tx<'a> = Transaction<'a>;

/// How much of a list goes into the catalog.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// Chunks that begin before this offset.
    pub(super) upto: u64,
    /// Whether what isn't stored may be left out: a chunk, or the parent.
    pub(super) gaps: bool,
}

/// All of it.
pub(super) const WHOLE: Extent = Extent { upto: u64::MAX, gaps: false };

impl Catalog {
    /// Fills a new catalog: the repository's identity, its config, its databases.
    pub fn register(&mut self, uid: &Uid, created: i64, config: (Hash, u64), databases: &[Registration]) -> Result<()> {
        self.transaction("record the databases", |tx| {
            let config = insert_object(tx, &config.0, ObjectKind::Config, config.1)?;
            tx.execute(
                "INSERT INTO repository (id, uid, config, created, sequence) VALUES (1, ?1, ?2, ?3, 0)",
                params![uid, config, created],
            )?;
            for database in databases {
                insert_database(tx, database)?;
            }
            Ok(())
        })
    }

    /// Adds a database.
    pub fn add_database(&mut self, database: &Registration) -> Result<()> {
        self.transaction("record the database", |tx| insert_database(tx, database))
    }

    /// Records whether a database is saved, and where its blobs are.
    pub fn set_database(&mut self, row: i64, tracked: bool, blobs: Option<&BlobDirectory>) -> Result<()> {
        self.transaction("record what is saved of the database", |tx| {
            tx.execute(
                "UPDATE database SET tracked = ?2, blobs = ?3, blobs_mode = ?4 WHERE id = ?1",
                params![
                    row,
                    tracked,
                    blobs.map(|blobs| blobs.path.as_os_str().as_bytes()),
                    blobs.map(|blobs| blobs.mode),
                ],
            )?;
            Ok(())
        })
    }

    /// Records in which generation a database's file is.
    pub fn set_generation(&mut self, database: i64, generation: i64) -> Result<()> {
        self.transaction("record the state of a database", |tx| {
            tx.execute("UPDATE database SET generation = ?2 WHERE id = ?1", params![database, generation])?;
            Ok(())
        })
    }

    /// Sets whether the base of each of a database's generations is to be stored.
    pub fn set_keep_base(&mut self, database: i64, keep: bool) -> Result<()> {
        self.transaction("record a setting", |tx| {
            tx.execute("UPDATE database SET keep_base = ?2 WHERE id = ?1", params![database, keep])?;
            Ok(())
        })
    }

    /// Commits a snapshot: from here on it exists.
    pub fn record_snapshot(&mut self, prepared: &PreparedSnapshot) -> Result<()> {
        let manifest = &prepared.manifest;
        self.transaction("record the snapshot", |tx| {
            for (name, bytes, frames) in &prepared.data_files {
                insert_data_file(tx, name, *bytes, frames)?;
            }
            let snapshot = insert_snapshot(tx, manifest, prepared.manifest_file, None)?;
            manifest.databases.iter().try_for_each(|entry| insert_stream(tx, snapshot, entry, WHOLE))
        })
    }

    /// Commits that a snapshot is deleted, by this tombstone (name and length).
    pub fn record_tombstone(&mut self, snapshot: i64, tombstone: (Hash, u64)) -> Result<()> {
        self.transaction("record the deletion", |tx| {
            let file = insert_object(tx, &tombstone.0, ObjectKind::Tombstone, tombstone.1)?;
            tx.execute("UPDATE snapshot SET tombstone = ?2 WHERE id = ?1", params![snapshot, file])?;
            Ok(())
        })
    }
}

/// Inserts a database with its first generation.
pub(super) fn insert_database(tx: &Tx<'_>, database: &Registration) -> rusqlite::Result<()> {
    let blobs = database.blobs.as_ref();
    tx.execute(
        "INSERT INTO database (uid, name, path, keep_base, tracked, blobs, blobs_mode) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            database.uid,
            database.name,
            database.path.as_os_str().as_bytes(),
            database.keep_base,
            database.tracked,
            blobs.map(|blobs| blobs.path.as_os_str().as_bytes()),
            blobs.map(|blobs| blobs.mode),
        ],
    )?;
    insert_generation(tx, tx.last_insert_rowid(), &database.generation)?;
    Ok(())
}

/// Inserts a snapshot's own row, with that of its tombstone if it was deleted, and returns it.
pub(super) fn insert_snapshot(
    tx: &Tx<'_>,
    manifest: &Manifest,
    (name, bytes): (Hash, u64),
    tombstone: Option<i64>,
) -> rusqlite::Result<i64> {
    let file = insert_object(tx, &name, ObjectKind::Manifest, bytes)?;
    tx.execute("UPDATE repository SET sequence = max(sequence, ?1)", [manifest.sequence])?;
    tx.execute(
        "INSERT INTO snapshot (uid, sequence, revision, name, kind, created, message, one_moment, stored_bytes, manifest,
                               tombstone, partial, databases)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            manifest.uid,
            manifest.sequence,
            manifest.revision,
            manifest.id,
            manifest.kind,
            manifest.created,
            manifest.message,
            manifest.one_moment,
            manifest.stored_bytes,
            file,
            tombstone,
            manifest.partial,
            manifest.databases.len() as u64,
        ],
    )?;
    Ok(tx.last_insert_rowid())
}

/// Drops what a stream has of its own: chunks, index parts, and which blobs.
pub(super) fn delete_lists(tx: &Tx<'_>, row: i64) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM stream_chunk WHERE stream = ?1", [row])?;
    tx.execute("DELETE FROM index_chunk WHERE part IN (SELECT id FROM index_part WHERE stream = ?1)", [row])?;
    tx.execute("DELETE FROM index_part WHERE stream = ?1", [row])?;
    tx.execute("DELETE FROM stream_blob WHERE stream = ?1", [row])?;
    tx.execute("DELETE FROM missing_blob WHERE stream = ?1", [row])?;
    Ok(())
}

/// Makes a stream what an entry of its snapshot's new manifest says: what it keeps, and its lists. Its cut is the same.
pub(super) fn replace_stream(tx: &Tx<'_>, row: i64, entry: &DatabaseEntry) -> rusqlite::Result<()> {
    let database = tx.query_row("SELECT database FROM stream WHERE id = ?1", [row], |row| row.get(0))?;
    tx.execute(
        "UPDATE stream SET parent = ?2, kept_count = ?3, kept_length = ?4, index_hash = ?5 WHERE id = ?1",
        params![row, parent_row(tx, database, entry)?, entry.stream.kept, entry.stream.kept_length, entry.index.hash],
    )?;
    delete_lists(tx, row)?;
    insert_lists(tx, row, entry, WHOLE)
}

/// The row of an object file, inserted if it isn't there: equal content has an equal name.
pub(super) fn insert_object(tx: &Tx<'_>, name: &Hash, kind: ObjectKind, bytes: u64) -> rusqlite::Result<i64> {
    let found = tx
        .prepare_cached("SELECT id, kind FROM object_file WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get::<_, u8>(1)?)))
        .optional()?;
    match found {
        Some((row, known)) if known == kind as u8 => return Ok(row),
        // A blob that has the bytes of an object file isn't stored as a plain one.
        Some(_) => return Err(rusqlite::Error::QueryReturnedMoreThanOneRow),
        None => {}
    }
    tx.prepare_cached("INSERT INTO object_file (name, kind, bytes) VALUES (?1, ?2, ?3)")?
        .execute(params![name, kind as u8, bytes])?;
    Ok(tx.last_insert_rowid())
}

/// Inserts a data file with its frames and those of its chunks that are stored nowhere else.
pub(super) fn insert_data_file(tx: &Tx<'_>, name: &Hash, bytes: u64, frames: &[Frame]) -> rusqlite::Result<()> {
    let rows = insert_frames(tx, name, bytes, frames)?;
    let mut insert = tx.prepare_cached("INSERT INTO chunk (hash, length, frame, start) VALUES (?1, ?2, ?3, ?4)")?;
    for (frame, row) in frames.iter().zip(rows) {
        let mut start = 0;
        for (hash, length) in &frame.chunks {
            if chunk_row(tx, hash)?.is_none() {
                insert.execute(params![hash, length, row, start])?;
            }
            start += length;
        }
    }
    Ok(())
}

/// Inserts a data file and its frames; returns the frames' rows.
pub(super) fn insert_frames(tx: &Tx<'_>, name: &Hash, bytes: u64, frames: &[Frame]) -> rusqlite::Result<Vec<i64>> {
    let file = insert_object(tx, name, ObjectKind::Data, bytes)?;
    let known: Vec<i64> = tx
        .prepare_cached("SELECT id FROM frame WHERE object_file = ?1 ORDER BY offset")?
        .query_map([file], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if known.len() == frames.len() {
        return Ok(known);
    }
    let mut insert = tx.prepare_cached(
        "INSERT INTO frame (object_file, content, codec, offset, stored, raw) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    frames
        .iter()
        .map(|frame| {
            insert.insert(params![file, frame.content as u8, frame.codec as u8, frame.offset, frame.stored, frame.raw])
        })
        .collect()
}

fn chunk_row(tx: &Tx<'_>, hash: &Hash) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached("SELECT id FROM chunk WHERE substr(hash, 1, 8) = ?1 AND hash = ?2")?
        .query_row(params![&hash.0[..8], hash], |row| row.get(0))
        .optional()
}

/// The row of a chunk that has to be there, unless gaps may be; otherwise the whole transaction fails.
fn stored_chunk(tx: &Tx<'_>, chunk: &ChunkName, gaps: bool) -> rusqlite::Result<Option<i64>> {
    match chunk_row(tx, &chunk.hash)? {
        None if !gaps => Err(rusqlite::Error::QueryReturnedNoRows),
        found => Ok(found),
    }
}

fn insert_generation(tx: &Tx<'_>, database: i64, generation: &Generation) -> rusqlite::Result<i64> {
    tx.execute(
        "INSERT INTO generation (uid, database, number, began, magic, base_length, base_tid, base_last_length,
                                 base_check_length, base_check)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            generation.uid,
            database,
            generation.number,
            generation.began,
            generation.magic,
            generation.base_length,
            generation.base_tid,
            generation.base_last_length,
            generation.base_check_length,
            generation.base_check
        ],
    )?;
    let row = tx.last_insert_rowid();
    // The newest of the file is the present one; any other only where nothing is known of the file.
    tx.execute(
        "UPDATE database SET generation = ?2 WHERE id = ?1 AND (generation IS NULL OR ?4 AND
         (SELECT g.number < ?3 OR g.number >= 1 << 30 FROM generation g WHERE g.id = database.generation))",
        params![database, row, generation.number, generation.is_of_the_file()],
    )?;
    Ok(row)
}

/// Inserts a snapshot's stream of one database, and so much of its lists.
pub(super) fn insert_stream(tx: &Tx<'_>, snapshot: i64, entry: &DatabaseEntry, extent: Extent) -> rusqlite::Result<()> {
    let database: i64 = tx.query_row("SELECT id FROM database WHERE uid = ?1", [entry.uid], |row| row.get(0))?;
    let generation = tx
        .query_row("SELECT id FROM generation WHERE uid = ?1", [entry.generation.uid], |row| row.get(0))
        .optional()?;
    let generation = match generation {
        Some(row) => row,
        None => insert_generation(tx, database, &entry.generation)?,
    };
    let stream = &entry.stream;
    let parent = match parent_row(tx, database, entry) {
        Err(rusqlite::Error::QueryReturnedNoRows) if extent.gaps => None,
        result => result?,
    };
    let (cut, blobs) = (&entry.cut, entry.blobs.as_ref().map(|blobs| &blobs.totals));
    tx.execute(
        "INSERT INTO stream (snapshot, database, generation, parent, kept_count, kept_length, offset, tid, last_length,
                             time, transactions, count, list_hash, final_count, final_length, final_hash, new_bytes,
                             index_hash, blob_layout, blob_count, blob_bytes, blob_sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)",
        params![
            snapshot,
            database,
            generation,
            parent,
            stream.kept,
            stream.kept_length,
            cut.offset,
            cut.tid,
            cut.last_length,
            cut.time,
            cut.transactions,
            stream.kept + stream.chunks.len() as u64,
            stream.list_hash,
            stream.last_final.count,
            stream.last_final.length,
            stream.last_final.hash,
            cut.new_bytes,
            entry.index.hash,
            blobs.map(|blobs| &blobs.layout),
            blobs.map(|blobs| blobs.count),
            blobs.map(|blobs| blobs.bytes),
            blobs.map(|blobs| blobs.sum),
        ],
    )?;
    insert_lists(tx, tx.last_insert_rowid(), entry, extent)
}

/// The row of the stream that an entry keeps a part of.
fn parent_row(tx: &Tx<'_>, database: i64, entry: &DatabaseEntry) -> rusqlite::Result<Option<i64>> {
    let Some(uid) = entry.stream.parent else {
        return Ok(None);
    };
    tx.query_row(
        "SELECT t.id FROM stream t JOIN snapshot s ON s.id = t.snapshot WHERE s.uid = ?1 AND t.database = ?2",
        params![uid, database],
        |row| row.get(0),
    )
    .map(Some)
}

/// Inserts what a stream has of its own: chunks, index parts, and which blobs.
fn insert_lists(tx: &Tx<'_>, row: i64, entry: &DatabaseEntry, extent: Extent) -> rusqlite::Result<()> {
    let stream = &entry.stream;
    let mut insert = tx.prepare_cached("INSERT INTO stream_chunk (stream, offset, chunk) VALUES (?1, ?2, ?3)")?;
    let mut offset = stream.kept_length;
    for chunk in &stream.chunks {
        if offset >= extent.upto {
            break;
        }
        if let Some(stored) = stored_chunk(tx, chunk, extent.gaps)? {
            insert.execute(params![row, offset, stored])?;
        }
        offset += u64::from(chunk.length);
    }
    let parts = entry.index.keyframe.iter().map(|part| (true, part));
    let parts = parts.chain(entry.index.deltas.iter().map(|part| (false, part)));
    for (position, (keyframe, part)) in parts.enumerate() {
        insert_index_part(tx, row, position as i64, keyframe, part, extent.gaps)?;
    }
    entry.blobs.iter().try_for_each(|blobs| insert_blobs(tx, row, entry.uid, blobs, extent))
}

/// Inserts which blobs a stream has of its own, and those that weren't known; and where the bytes of one are that were lost, and are
/// there again.
fn insert_blobs(
    tx: &Tx<'_>,
    stream: i64,
    database: Uid,
    blobs: &BlobsEntry,
    Extent { upto, gaps }: Extent,
) -> rusqlite::Result<()> {
    let database: i64 = tx.query_row("SELECT id FROM database WHERE uid = ?1", [database], |row| row.get(0))?;
    let mut find = tx.prepare_cached(
        "SELECT id, size, hash, object_file IS NOT NULL,
                (SELECT coalesce(sum(k.length), 0) FROM blob_chunk c JOIN chunk k ON k.id = c.chunk WHERE c.blob = blob.id)
         FROM blob WHERE database = ?1 AND oid = ?2 AND tid = ?3",
    )?;
    let mut insert = tx.prepare_cached(
        "INSERT INTO blob (database, oid, tid, size, mode, owner, \"group\", hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut name = tx.prepare_cached("INSERT INTO stream_blob (stream, offset, blob) VALUES (?1, ?2, ?3)")?;
    let mut miss = tx.prepare_cached("INSERT INTO missing_blob (stream, offset, oid, tid) VALUES (?1, ?2, ?3, ?4)")?;
    for (blob, chunks) in blobs.each().take_while(|(blob, _)| blob.offset < upto) {
        let BlobEntry { offset, oid, tid, size, mode, owner, group, form, hash, .. } = *blob;
        if form == BlobForm::Missing {
            miss.execute(params![stream, offset, oid, tid])?;
            continue;
        }
        type Known = (i64, u64, Hash, bool, u64);
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Known> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        };
        let row = match find.query_row(params![database, oid, tid], read).optional()? {
            // A save has looked, and repair, too.
            Some((_, known_size, known_hash, ..)) if (known_size, known_hash) != (size, hash) => {
                return Err(rusqlite::Error::QueryReturnedMoreThanOneRow);
            }
            Some((row, _, _, is_plain, bytes)) => {
                let is_whole = is_plain || bytes == size;
                if !is_whole || (!gaps && is_plain != (form == BlobForm::Plain)) {
                    store_blob(tx, row, blob, chunks, gaps)?;
                }
                row
            }
            None => {
                insert.execute(params![database, oid, tid, size, mode, owner, group, hash])?;
                let row = tx.last_insert_rowid();
                store_blob(tx, row, blob, chunks, gaps)?;
                row
            }
        };
        name.execute(params![stream, offset, row])?;
    }
    Ok(())
}

/// Records where the bytes of a blob are.
fn store_blob(tx: &Tx<'_>, row: i64, blob: &BlobEntry, chunks: &[ChunkName], gaps: bool) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM blob_chunk WHERE blob = ?1")?.execute([row])?;
    let file = match blob.form {
        BlobForm::Plain => Some(insert_object(tx, &blob.hash, ObjectKind::Plain, blob.size)?),
        _ => None,
    };
    tx.prepare_cached("UPDATE blob SET object_file = ?2 WHERE id = ?1")?.execute(params![row, file])?;
    let mut insert = tx.prepare_cached("INSERT INTO blob_chunk (blob, position, chunk) VALUES (?1, ?2, ?3)")?;
    for (position, chunk) in chunks.iter().enumerate() {
        if let Some(stored) = stored_chunk(tx, chunk, gaps)? {
            insert.execute(params![row, position as i64, stored])?;
        }
    }
    Ok(())
}

fn insert_index_part(
    tx: &Tx<'_>,
    stream: i64,
    position: i64,
    keyframe: bool,
    part: &IndexPart,
    gaps: bool,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO index_part (stream, position, keyframe, entries, bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![stream, position, keyframe, part.entries, part.bytes])?;
    let row = tx.last_insert_rowid();
    for (position, chunk) in part.chunks.iter().enumerate() {
        if let Some(stored) = stored_chunk(tx, chunk, gaps)? {
            tx.prepare_cached("INSERT INTO index_chunk (part, position, chunk) VALUES (?1, ?2, ?3)")?
                .execute(params![row, position as i64, stored])?;
        }
    }
    Ok(())
}
