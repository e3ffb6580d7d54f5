//! Questions to the catalog.

use rusqlite::{OptionalExtension, Params, Row, params};

use crate::error::{Error, Result};
use crate::repository::catalog::Catalog;
use crate::repository::catalog::rows::{Database, GenerationRow, IndexPartRow, Snapshot, Stream};
use crate::repository::data::Codec;
use crate::repository::frames::{FrameAt, Location};
use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::{ChunkName, Generation};

/// A chunk of a stream: where it is in the file, and where its bytes are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamChunk {
    /// Where it begins in the database's file.
    pub offset: u64,
    /// Where its bytes are.
    pub location: Location,
}

impl StreamChunk {
    /// Where it ends in the database's file.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.location.length)
    }
}

/// Columns of a chunk's location, from `chunk k`, `frame f` and `object_file o`.
pub(super) const LOCATION: &str = "k.hash, k.length, o.name, f.offset, f.stored, f.raw, f.codec, k.start";

pub(super) fn location(row: &Row<'_>, first: usize) -> rusqlite::Result<Location> {
    let codec: u8 = row.get(first + 6)?;
    Ok(Location {
        hash: row.get(first)?,
        length: row.get(first + 1)?,
        frame: FrameAt {
            object: row.get(first + 2)?,
            offset: row.get(first + 3)?,
            stored: row.get(first + 4)?,
            raw: row.get(first + 5)?,
            codec: Codec::from_number(codec)
                .ok_or(rusqlite::Error::IntegralValueOutOfRange(first + 6, i64::from(codec)))?,
        },
        start: row.get(first + 7)?,
    })
}

impl Catalog {
    pub(super) fn one<T>(
        &self,
        what: &str,
        sql: &str,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(parameters, read).optional())
            .map_err(|error| self.error(what, error))
    }

    pub(super) fn many<T>(
        &self,
        what: &str,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(parameters, read)?.collect())
            .map_err(|error| self.error(what, error))
    }

    /// The repository's identity and the object file of its config.
    pub fn repository(&self) -> Result<(Uid, Hash)> {
        self.one(
            "read the repository's identity",
            "SELECT r.uid, o.name FROM repository r JOIN object_file o ON o.id = r.config",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .ok_or_else(|| Error::damaged(format!("the catalog {} is empty", self.path.display())))
    }

    /// The highest sequence number ever given.
    pub fn last_sequence(&self) -> Result<u64> {
        let sequence = self.one("read the sequence number", "SELECT sequence FROM repository", [], |row| row.get(0))?;
        Ok(sequence.unwrap_or(0))
    }

    /// The databases, in the order in which they were added; also those that aren't saved any more.
    pub fn databases(&self) -> Result<Vec<Database>> {
        let sql = format!(
            "SELECT {}, {} FROM database d JOIN generation g ON g.id = d.generation ORDER BY d.id",
            Database::COLUMNS,
            GenerationRow::COLUMNS
        );
        self.many("read the databases", &sql, [], Database::from_row)
    }

    /// Whether there is a snapshot in a generation, whatever its kind.
    pub fn is_used(&self, generation: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM stream t JOIN snapshot s ON s.id = t.snapshot
                   WHERE t.generation = ?1 AND s.tombstone IS NULL LIMIT 1";
        Ok(self.one("look for a cut", sql, [generation], |_| Ok(()))?.is_some())
    }

    /// The snapshots that store bases which no snapshot needs any more, and that aren't to be kept.
    pub fn idle_bases(&self) -> Result<Vec<Snapshot>> {
        let mut used = Vec::new();
        for database in self.databases()? {
            for generation in self.generations(database.row)? {
                let is_kept = database.keep_base && generation.row == database.generation.row;
                if is_kept || self.is_used(generation.row)? {
                    used.push(generation.known.uid_of_base());
                }
            }
        }
        let mut idle = Vec::new();
        for base in self.streams_where("s.tombstone IS NULL AND s.name GLOB 'base-*'", [])? {
            if !used.contains(&self.generation(base.generation)?.known.uid) {
                idle.extend(self.snapshot(&base.snapshot_name)?);
            }
        }
        Ok(idle)
    }

    /// Lets what follows read as if these snapshots were deleted. Within [`Catalog::snapshot_of`], whose end takes that back.
    pub fn without(&self, snapshots: &[Snapshot]) -> Result<()> {
        for snapshot in snapshots {
            // Any object file will do.
            let sql = "UPDATE snapshot SET tombstone = manifest WHERE id = ?1";
            self.connection.execute(sql, [snapshot.row]).map_err(|error| self.error("read", error))?;
        }
        Ok(())
    }

    /// One generation.
    pub fn generation(&self, row: i64) -> Result<GenerationRow> {
        let sql = format!("SELECT {} FROM generation g WHERE g.id = ?1", GenerationRow::COLUMNS);
        self.one("read a state of a database", &sql, [row], |row| GenerationRow::from_row(row, 0))?
            .ok_or_else(|| self.missing("a state of a database"))
    }

    /// The generations of a database, newest first, but for those that store a base.
    pub fn generations(&self, database: i64) -> Result<Vec<GenerationRow>> {
        let sql =
            format!("SELECT {} FROM generation g WHERE g.database = ?1 ORDER BY g.number DESC", GenerationRow::COLUMNS);
        let all =
            self.many("read the states of a database", &sql, [database], |row| GenerationRow::from_row(row, 0))?;
        Ok(all.into_iter().filter(|generation| !generation.known.is_of_base()).collect())
    }

    /// The stream that stores the base of a generation, if there is one: all of the file up to where that base ends.
    pub fn stored_base(&self, generation: &Generation) -> Result<Option<Stream>> {
        let streams = self.streams_where(
            "t.generation = (SELECT id FROM generation WHERE uid = ?1) AND t.offset = ?2 AND t.tid = ?3
             AND s.tombstone IS NULL AND s.kind = 'base' ORDER BY s.sequence DESC LIMIT 1",
            params![generation.uid_of_base(), generation.base_length, generation.base_tid],
        )?;
        Ok(streams.into_iter().next())
    }

    /// The error for something that isn't there, and has to be.
    pub(crate) fn missing(&self, what: &str) -> Error {
        Error::damaged(format!("the catalog {} lacks {what} that it refers to", self.path.display()))
    }

    /// All snapshots, oldest first, but for stored bases.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let sql = format!(
            "SELECT {} FROM snapshot s WHERE s.tombstone IS NULL AND s.name NOT GLOB 'base-*' ORDER BY s.sequence",
            Snapshot::COLUMNS
        );
        self.many("read the snapshots", &sql, [], Snapshot::from_row)
    }

    /// The newest snapshot by sequence, but none that a restore made, that is set aside, or that is of some databases only. Those
    /// from elsewhere are older; of them the newest is that of the latest time.
    pub fn latest(&self) -> Result<Option<Snapshot>> {
        let sql = format!(
            "SELECT {} FROM snapshot s WHERE s.tombstone IS NULL AND s.kind NOT IN ('undo', 'base', 'damaged') AND NOT s.partial
             ORDER BY s.kind = 'import', iif(s.kind = 'import', s.created, s.sequence) DESC, s.sequence DESC LIMIT 1",
            Snapshot::COLUMNS
        );
        self.one("read the newest snapshot", &sql, [], Snapshot::from_row)
    }

    /// The snapshot with exactly this id.
    pub fn snapshot(&self, id: &str) -> Result<Option<Snapshot>> {
        let sql = format!("SELECT {} FROM snapshot s WHERE s.tombstone IS NULL AND s.name = ?1", Snapshot::COLUMNS);
        self.one("look for a snapshot", &sql, [id], Snapshot::from_row)
    }

    /// The snapshot of this identity, if it wasn't deleted.
    pub fn snapshot_by_uid(&self, uid: &Uid) -> Result<Option<Snapshot>> {
        let sql = format!("SELECT {} FROM snapshot s WHERE s.tombstone IS NULL AND s.uid = ?1", Snapshot::COLUMNS);
        self.one("look for a snapshot", &sql, [uid], Snapshot::from_row)
    }

    /// The ids that begin with this, oldest first, `limit` at most.
    pub fn ids_beginning(&self, prefix: &str, limit: usize) -> Result<Vec<String>> {
        self.many(
            "look for snapshots",
            "SELECT name FROM snapshot WHERE tombstone IS NULL AND name NOT GLOB 'base-*' AND substr(name, 1, length(?1)) = ?1 ORDER BY sequence LIMIT ?2",
            params![prefix, limit],
            |row| row.get(0),
        )
    }

    fn streams_where(&self, condition: &str, parameters: impl Params) -> Result<Vec<Stream>> {
        let sql =
            format!("SELECT {} FROM stream t JOIN snapshot s ON s.id = t.snapshot WHERE {condition}", Stream::COLUMNS);
        self.many("read the cuts", &sql, parameters, Stream::from_row)
    }

    /// The cuts of all these snapshots, by sequence of the snapshot, then by database.
    pub fn all_streams(&self) -> Result<Vec<Stream>> {
        self.streams_where("s.tombstone IS NULL AND s.name NOT GLOB 'base-*' ORDER BY s.sequence, t.database", [])
    }

    /// All streams, of deleted snapshots too, by sequence of the snapshot: parents come before those that build on them.
    pub fn streams_with_deleted(&self) -> Result<Vec<Stream>> {
        self.streams_where("1 ORDER BY s.sequence, t.database", [])
    }

    /// Whether a snapshot was deleted.
    pub fn is_deleted(&self, snapshot: i64) -> Result<bool> {
        let sql = "SELECT tombstone IS NOT NULL FROM snapshot WHERE id = ?1";
        Ok(self.one("look for a deletion", sql, [snapshot], |row| row.get(0))?.unwrap_or(true))
    }

    /// The chunks that a stream has of its own, not those that it keeps: offset and name, in order. A row whose chunk
    /// is missing is missing here.
    pub fn own_chunks(&self, stream: i64) -> Result<Vec<(u64, ChunkName)>> {
        self.many(
            "read a chunk list",
            "SELECT c.offset, k.hash, k.length FROM stream_chunk c JOIN chunk k ON k.id = c.chunk
             WHERE c.stream = ?1 ORDER BY c.offset",
            [stream],
            |row| Ok((row.get(0)?, ChunkName { hash: row.get(1)?, length: row.get(2)? })),
        )
    }

    /// A snapshot's cuts, by database.
    pub fn streams_of(&self, snapshot: i64) -> Result<Vec<Stream>> {
        self.streams_where("t.snapshot = ?1 ORDER BY t.database", [snapshot])
    }

    /// One stream, of a deleted snapshot too.
    pub fn stream(&self, row: i64) -> Result<Stream> {
        self.streams_where("t.id = ?1", [row])?.pop().ok_or_else(|| self.missing("a chunk list"))
    }

    /// The furthest cut of a snapshot in this generation that comes before (`offset`, `rank`), and its snapshot's rank: for going from
    /// the furthest back until one is found that a file begins with. The rank is the sequence; but imported ones come last, of
    /// which it says nothing.
    pub fn anchor(&self, generation: i64, offset: u64, rank: i64) -> Result<Option<(i64, Stream)>> {
        let sql = format!(
            "SELECT {}, iif(s.kind = 'import', s.sequence - (1 << 40), s.sequence) AS rank
             FROM stream t JOIN snapshot s ON s.id = t.snapshot
             WHERE t.generation = ?1 AND s.tombstone IS NULL AND s.kind <> 'damaged' AND t.offset <= ?2 AND (t.offset < ?2 OR rank < ?3)
             ORDER BY t.offset DESC, rank DESC LIMIT 1",
            Stream::COLUMNS
        );
        let offset = offset.min(i64::MAX as u64);
        self.one("look for a cut", &sql, params![generation, offset, rank], |row| {
            Ok((row.get(Stream::WIDTH)?, Stream::from_row(row)?))
        })
    }

    /// The snapshots' streams in this generation that reach beyond an offset, newest first, so many at most.
    pub fn streams_beyond(&self, generation: i64, offset: u64, limit: usize) -> Result<Vec<Stream>> {
        self.streams_where(
            "t.generation = ?1 AND t.offset > ?2 AND s.tombstone IS NULL AND s.kind <> 'damaged'
             ORDER BY s.sequence DESC LIMIT ?3",
            params![generation, offset, limit],
        )
    }

    /// A stream and its ancestors, itself first. A parent's row always comes before those that build on it, so that a damaged
    /// catalog can't make this go round.
    pub fn ancestry(&self, stream: i64) -> Result<Vec<Stream>> {
        let sql = format!(
            "WITH RECURSIVE line (id, parent, depth) AS (
                 SELECT id, parent, 0 FROM stream WHERE id = ?1
                 UNION ALL
                 SELECT t.id, t.parent, depth + 1 FROM line JOIN stream t ON t.id = line.parent AND t.id < line.id)
             SELECT {} FROM line JOIN stream t ON t.id = line.id JOIN snapshot s ON s.id = t.snapshot ORDER BY line.depth",
            Stream::COLUMNS
        );
        self.many("read what a chunk list goes on from", &sql, [stream], Stream::from_row)
    }

    /// The chunks of a stream that end behind `from` and begin before `to` (offsets in the file), in order. See
    /// [`Catalog::ancestry`] for why it ends.
    pub fn stream_chunks(&self, stream: i64, from: u64, to: u64) -> Result<Vec<StreamChunk>> {
        let sql = format!(
            "WITH RECURSIVE piece (stream, parent, upto, kept_length) AS (
                 SELECT id, parent, min(offset, ?3), kept_length FROM stream WHERE id = ?1
                 UNION ALL
                 SELECT t.id, t.parent, min(p.upto, p.kept_length), t.kept_length
                 FROM piece p JOIN stream t ON t.id = p.parent AND t.id < p.stream
                 WHERE p.kept_length > ?2)
             SELECT c.offset, {LOCATION}
             FROM piece p CROSS JOIN stream_chunk c ON c.stream = p.stream AND c.offset < p.upto AND c.offset > ?2 - {MAX}
             JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file
             WHERE c.offset + k.length > ?2
             ORDER BY c.offset",
            MAX = crate::repository::chunker::MAX,
        );
        // SQLite compares as signed numbers; no file is that long.
        let (from, to) = (from.min(i64::MAX as u64), to.min(i64::MAX as u64));
        self.many("read a chunk list", &sql, params![stream, from, to], |row| {
            Ok(StreamChunk { offset: row.get(0)?, location: location(row, 1)? })
        })
    }

    /// Whether a chunk of this hash is stored.
    pub fn has_chunk(&self, hash: &Hash) -> Result<bool> {
        let found = self.one(
            "look for a chunk",
            "SELECT 1 FROM chunk WHERE substr(hash, 1, 8) = ?1 AND hash = ?2",
            params![&hash.0[..8], hash],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// A stream's own index parts: its keyframe if it has one, then its deltas, oldest first.
    pub fn index_parts(&self, stream: i64) -> Result<Vec<IndexPartRow>> {
        self.many(
            "read an index's parts",
            "SELECT id, keyframe, entries, bytes FROM index_part WHERE stream = ?1 ORDER BY position",
            [stream],
            |row| {
                Ok(IndexPartRow { row: row.get(0)?, keyframe: row.get(1)?, entries: row.get(2)?, bytes: row.get(3)? })
            },
        )
    }

    /// Where the pieces of an index part are, in order.
    pub fn index_chunks(&self, part: i64) -> Result<Vec<Location>> {
        let sql = format!(
            "SELECT {LOCATION} FROM index_chunk c JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame
             JOIN object_file o ON o.id = f.object_file WHERE c.part = ?1 ORDER BY c.position"
        );
        self.many("read an index part", &sql, [part], |row| location(row, 0))
    }
}
