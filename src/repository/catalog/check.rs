//! What check asks the catalog: whether it is whole, and all that it says about object files.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::repository::catalog::rows::Snapshot;
use crate::repository::catalog::{Catalog, MIGRATIONS};
use crate::repository::data::{Codec, Content};
use crate::repository::frames::FrameAt;
use crate::repository::hash::{Hash, Uid};

/// A snapshot, deleted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSnapshot {
    /// What is known of it.
    pub snapshot: Snapshot,
    /// Whether it was deleted.
    pub deleted: bool,
    /// The object file of its tombstone, if it was deleted.
    pub tombstone: Option<Hash>,
}

/// A frame, with those of its chunks that the catalog knows, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFrame {
    /// Where it is.
    pub at: FrameAt,
    /// What its chunks are.
    pub content: Content,
    /// Its chunks.
    pub chunks: Vec<KnownChunk>,
}

/// A chunk in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownChunk {
    /// Its row.
    pub row: i64,
    /// Its hash.
    pub hash: Hash,
    /// Its length in bytes.
    pub length: u32,
    /// Where in the decompressed frame it begins.
    pub start: u32,
}

/// A place in a tail that names a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The stream that has it in its own part of the list.
    pub stream: i64,
    /// Where in the database's file it begins.
    pub offset: u64,
    /// The chunk's row.
    pub chunk: i64,
}

/// References that SQLite doesn't check: the rows that have broken ones.
const REFERENCES: [&str; 12] = [
    "database AS d WHERE NOT EXISTS (SELECT 1 FROM generation g WHERE g.id = d.generation AND g.database = d.id)",
    "stream_chunk WHERE stream NOT IN (SELECT id FROM stream)",
    "stream_chunk WHERE chunk NOT IN (SELECT id FROM chunk)",
    "index_chunk WHERE part NOT IN (SELECT id FROM index_part)",
    "index_chunk WHERE chunk NOT IN (SELECT id FROM chunk)",
    "chunk WHERE frame NOT IN (SELECT id FROM frame)",
    "stream_blob WHERE stream NOT IN (SELECT id FROM stream)",
    "missing_blob WHERE stream NOT IN (SELECT id FROM stream)",
    "stream_blob WHERE blob NOT IN (SELECT id FROM blob)",
    "blob_chunk WHERE blob NOT IN (SELECT id FROM blob)",
    "blob_chunk WHERE chunk NOT IN (SELECT id FROM chunk)",
    "blob WHERE object_file IS NOT NULL AND object_file NOT IN (SELECT id FROM object_file WHERE kind = 5)",
];

impl Catalog {
    /// What SQLite finds wrong with the file, at most twenty lines; none if it is whole. If `thorough`, each of its indexes is
    /// compared with its table, too.
    pub fn integrity(&self, thorough: bool) -> Result<Vec<String>> {
        let sql = if thorough { "PRAGMA integrity_check(20)" } else { "PRAGMA quick_check(20)" };
        let lines: Vec<String> = self.many("look for damage", sql, [], |row| row.get(0))?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// How many references lead to rows that aren't there.
    pub fn broken_references(&self) -> Result<u64> {
        let mut broken = 0;
        for which in ["pragma_foreign_key_check"].iter().chain(&REFERENCES) {
            let sql = format!("SELECT count(*) FROM {which}");
            broken += self.one("check the references", &sql, [], |row| row.get::<_, u64>(0))?.unwrap_or(0);
        }
        Ok(broken)
    }

    /// How many tables, indexes and views aren't as this program makes them.
    pub fn schema_differences(&self) -> Result<u64> {
        let version: i64 = self
            .connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| self.error("read the version", error))?;
        let model = MODEL.as_ref().map_err(|error| Error::failed(error.clone()))?;
        let found: HashMap<String, String> =
            schema(&self.connection).map_err(|error| self.error("read the schema", error))?.into_iter().collect();
        let differ = model.iter().filter(|(name, sql)| found.get(name) != Some(sql)).count();
        // A catalog without a version is none. One of an older version was brought up to date when it was opened.
        Ok(differ as u64 + u64::from(version <= 0))
    }

    /// All snapshots, deleted ones too as long as something of them is left, by sequence.
    pub fn all_snapshots(&self) -> Result<Vec<KnownSnapshot>> {
        let sql = format!(
            "SELECT {}, s.tombstone IS NOT NULL, (SELECT o.name FROM object_file o WHERE o.id = s.tombstone)
             FROM snapshot s ORDER BY s.sequence",
            Snapshot::COLUMNS
        );
        self.many("read the snapshots", &sql, [], |row| {
            Ok(KnownSnapshot {
                snapshot: Snapshot::from_row(row)?,
                deleted: row.get(Snapshot::WIDTH)?,
                tombstone: row.get(Snapshot::WIDTH + 1)?,
            })
        })
    }

    /// All frames, by the row of their object file, in the order in which they are in it.
    pub fn frames(&self) -> Result<HashMap<i64, Vec<KnownFrame>>> {
        let mut frames: HashMap<i64, Vec<KnownFrame>> = HashMap::new();
        let mut places: HashMap<i64, (i64, usize)> = HashMap::new();
        let rows = self.many(
            "read where chunks are",
            "SELECT f.id, f.object_file, o.name, f.offset, f.stored, f.raw, f.codec, f.content
             FROM frame f JOIN object_file o ON o.id = f.object_file ORDER BY f.object_file, f.offset",
            [],
            |row| {
                let (codec, content): (u8, u8) = (row.get(6)?, row.get(7)?);
                let unknown = |column, number: u8| rusqlite::Error::IntegralValueOutOfRange(column, i64::from(number));
                let at = FrameAt {
                    object: row.get(2)?,
                    offset: row.get(3)?,
                    stored: row.get(4)?,
                    raw: row.get(5)?,
                    codec: Codec::from_number(codec).ok_or_else(|| unknown(6, codec))?,
                };
                let content = Content::from_number(content).ok_or_else(|| unknown(7, content))?;
                Ok((row.get(0)?, row.get(1)?, KnownFrame { at, content, chunks: Vec::new() }))
            },
        )?;
        for (row, file, frame) in rows {
            let of_file: &mut Vec<KnownFrame> = frames.entry(file).or_default();
            places.insert(row, (file, of_file.len()));
            of_file.push(frame);
        }
        self.each("read where chunks are", "SELECT frame, id, hash, length, start FROM chunk", |row| {
            let chunk = KnownChunk { row: row.get(1)?, hash: row.get(2)?, length: row.get(3)?, start: row.get(4)? };
            let frame = places.get(&row.get(0)?).and_then(|(file, at)| frames.get_mut(file)?.get_mut(*at));
            if let Some(frame) = frame {
                frame.chunks.push(chunk);
            }
            Ok(())
        })?;
        for frame in frames.values_mut().flatten() {
            frame.chunks.sort_by_key(|chunk| chunk.start);
        }
        Ok(frames)
    }

    /// Whether there is such a snapshot, a deleted one too as long as something of it is left.
    pub fn knows(&self, snapshot: &Uid) -> Result<bool> {
        let sql = "SELECT 1 FROM snapshot WHERE uid = ?1";
        Ok(self.one("look for a snapshot", sql, [snapshot], |_| Ok(()))?.is_some())
    }

    /// Whether the catalog names this object file.
    pub fn names(&self, object_file: &Hash) -> Result<bool> {
        let sql = "SELECT 1 FROM object_file WHERE name = ?1";
        Ok(self.one("look for an object file", sql, [object_file], |_| Ok(()))?.is_some())
    }

    /// The object file that has this chunk, if there is such a chunk.
    pub fn object_file_of(&self, chunk: i64) -> Result<Option<Hash>> {
        self.one(
            "look for a chunk",
            "SELECT o.name FROM chunk k JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file
             WHERE k.id = ?1",
            [chunk],
            |row| row.get(0),
        )
    }

    /// All places in tails that name one of these chunks. Reads every list.
    pub fn places_of(&self, chunks: &HashSet<i64>) -> Result<Vec<ChunkPlace>> {
        self.chunk_places("look where chunks are needed", "SELECT stream, offset, chunk FROM stream_chunk", chunks)
    }

    /// The places in streams' own lists of blobs of those whose bytes are in one of these chunks.
    pub fn blob_places_of(&self, chunks: &HashSet<i64>) -> Result<Vec<ChunkPlace>> {
        let sql = "SELECT r.stream, r.offset, c.chunk FROM blob_chunk c JOIN stream_blob r ON r.blob = c.blob";
        self.chunk_places("look where blobs are needed", sql, chunks)
    }

    fn chunk_places(&self, operation: &str, sql: &str, chunks: &HashSet<i64>) -> Result<Vec<ChunkPlace>> {
        let mut places = Vec::new();
        self.each(operation, sql, |row| {
            let chunk = row.get(2)?;
            if chunks.contains(&chunk) {
                places.push(ChunkPlace { stream: row.get(0)?, offset: row.get(1)?, chunk });
            }
            Ok(())
        })?;
        Ok(places)
    }

    /// The same of those that are this plain object file; their chunk is 0.
    pub fn plain_places_of(&self, name: &Hash) -> Result<Vec<ChunkPlace>> {
        self.many(
            "look where a blob is needed",
            "SELECT r.stream, r.offset FROM object_file o JOIN blob b ON b.object_file = o.id
             JOIN stream_blob r ON r.blob = b.id WHERE o.name = ?1 AND o.kind = 5",
            [name],
            |row| Ok(ChunkPlace { stream: row.get(0)?, offset: row.get(1)?, chunk: 0 }),
        )
    }

    /// All streams that have one of these chunks as a piece of their own index parts: the stream, and the chunk.
    pub fn index_places_of(&self, chunks: &HashSet<i64>) -> Result<Vec<(i64, i64)>> {
        let mut places = Vec::new();
        let sql = "SELECT p.stream, c.chunk FROM index_chunk c JOIN index_part p ON p.id = c.part";
        self.each("look where chunks are needed", sql, |row| {
            let chunk = row.get(1)?;
            if chunks.contains(&chunk) {
                places.push((row.get(0)?, chunk));
            }
            Ok(())
        })?;
        Ok(places)
    }

    /// Gives each row to `use_row`, without keeping them.
    fn each(
        &self,
        what: &str,
        sql: &str,
        mut use_row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<()> {
        let mut read = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                use_row(row)?;
            }
            Ok(())
        };
        read().map_err(|error| self.error(what, error))
    }
}

/// What is in the schema of a new catalog, or why it can't be made.
static MODEL: LazyLock<Result<Vec<(String, String)>, String>> = LazyLock::new(|| {
    let make = || -> Result<_, rusqlite_migration::Error> {
        let mut connection = Connection::open_in_memory()?;
        MIGRATIONS.to_latest(&mut connection)?;
        Ok(schema(&connection)?)
    };
    make().map_err(|error| format!("cannot make a catalog to compare with: {error}"))
});

/// Names and texts of all tables, indexes and views.
fn schema(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = "SELECT type || ' ' || name, tbl_name || ' ' || coalesce(sql, '') FROM sqlite_schema";
    connection.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
