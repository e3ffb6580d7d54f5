//! What gc asks and changes. Each change is one short transaction.

use std::collections::HashMap;

use rusqlite::params;

use crate::error::Result;
use crate::repository::catalog::rows::ObjectFile;
use crate::repository::catalog::write::{delete_lists, insert_data_file, insert_frames, insert_object, replace_stream};
use crate::repository::catalog::{BATCH, Catalog};
use crate::repository::data::{Codec, Content, Frame};
use crate::repository::frames::{FrameAt, Location};
use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::DatabaseEntry;
use crate::repository::object::ObjectKind;

/// A stream of a deleted snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadStream {
    /// Its row.
    pub row: i64,
    /// The deleted snapshot's manifest.
    pub manifest: Hash,
    /// The identity of its database.
    pub database: Uid,
    /// The streams that keep a part of its list.
    pub children: Vec<i64>,
    /// Its own parent.
    pub parent: Option<i64>,
}

/// How much of a data file is still needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectUse {
    /// The file.
    pub file: ObjectFile,
    /// Decompressed bytes of all its frames.
    pub raw: u64,
    /// Decompressed bytes of the chunks that some snapshot needs.
    pub live_raw: u64,
}

impl ObjectUse {
    /// How many of the file's bytes nothing needs, about: as if all of it were compressed alike.
    pub fn unused_bytes(&self) -> u64 {
        self.file.bytes * self.raw.saturating_sub(self.live_raw) / self.raw.max(1)
    }
}

/// A chunk that gc will move.
#[derive(Debug, Clone)]
pub struct MovingChunk {
    /// Its row.
    pub row: i64,
    /// What it is a piece of.
    pub content: Content,
    /// Where it is.
    pub location: Location,
}

impl MovingChunk {
    /// Whether it is a piece of a blob that isn't compressed: it would become no smaller.
    pub fn is_stored_as_it_is(&self) -> bool {
        self.content == Content::Blob && self.location.frame.codec == Codec::Raw
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        u64::from(self.location.length)
    }
}

/// What a stream adds to the index of its parent.
#[derive(Debug, Clone, Copy)]
pub struct IndexLink {
    /// The stream.
    pub stream: i64,
    /// The one that it builds on.
    pub parent: Option<i64>,
    /// Whether it has a keyframe, so that its parent's index isn't needed.
    pub has_keyframe: bool,
    /// How many deltas of its own it has.
    pub deltas: u64,
}

/// New forms of streams, with everything published that they need.
#[derive(Debug)]
pub struct Replacement {
    /// The streams, each once.
    pub streams: Vec<StreamReplacement>,
    /// The new manifests: the snapshot's row, name, length, revision.
    pub manifests: Vec<(i64, Hash, u64, u32)>,
    /// Data files written for them.
    pub data_files: Vec<(Hash, u64, Vec<Frame>)>,
}

/// A stream's new form.
#[derive(Debug)]
pub struct StreamReplacement {
    /// The stream that stays.
    pub stream: i64,
    /// Deleted streams that it no longer needs, nearest ancestor first.
    pub joined: Vec<i64>,
    /// What its snapshot's new manifest says of it.
    pub entry: DatabaseEntry,
}

impl Catalog {
    /// All object files that the catalog refers to.
    pub fn object_files(&self) -> Result<Vec<ObjectFile>> {
        self.many("read the object files", "SELECT id, name, kind, bytes FROM object_file", [], ObjectFile::from_row)
    }

    /// The identities of all snapshots, deleted ones too as long as something of them is left.
    pub fn known_snapshots(&self) -> Result<Vec<Uid>> {
        self.many("read the snapshots", "SELECT uid FROM snapshot", [], |row| row.get(0))
    }

    /// The streams of deleted snapshots, oldest first.
    pub fn dead_streams(&self) -> Result<Vec<DeadStream>> {
        let mut dead = self.many(
            "read what was deleted",
            "SELECT t.id, o.name, d.uid, t.parent FROM stream t JOIN snapshot s ON s.id = t.snapshot
             JOIN object_file o ON o.id = s.manifest JOIN database d ON d.id = t.database
             WHERE s.tombstone IS NOT NULL ORDER BY s.sequence",
            [],
            |row| {
                Ok(DeadStream {
                    row: row.get(0)?,
                    manifest: row.get(1)?,
                    database: row.get(2)?,
                    parent: row.get(3)?,
                    children: Vec::new(),
                })
            },
        )?;
        for stream in &mut dead {
            stream.children =
                self.many("read what was deleted", "SELECT id FROM stream WHERE parent = ?1", [stream.row], |row| {
                    row.get(0)
                })?;
        }
        Ok(dead)
    }

    /// Drops a stream that nothing builds on.
    pub fn drop_stream(&mut self, stream: i64) -> Result<()> {
        self.transaction("drop a deleted chunk list", |tx| {
            delete_lists(tx, stream)?;
            tx.execute("DELETE FROM stream WHERE id = ?1", [stream])?;
            Ok(())
        })
    }

    /// Puts the new forms of streams in their place, and drops the deleted streams that were joined into them.
    pub fn replace_streams(&mut self, replacement: &Replacement) -> Result<()> {
        self.transaction("replace chunk lists", |tx| {
            for (name, bytes, frames) in &replacement.data_files {
                insert_data_file(tx, name, *bytes, frames)?;
            }
            for StreamReplacement { stream, joined, entry } in &replacement.streams {
                replace_stream(tx, *stream, entry)?;
                for &dead in joined {
                    delete_lists(tx, dead)?;
                    tx.prepare_cached("DELETE FROM stream WHERE id = ?1")?.execute([dead])?;
                }
            }
            for (snapshot, name, bytes, revision) in &replacement.manifests {
                let file = insert_object(tx, name, ObjectKind::Manifest, *bytes)?;
                tx.prepare_cached("UPDATE snapshot SET manifest = ?2, revision = ?3 WHERE id = ?1")?
                    .execute(params![snapshot, file, revision])?;
            }
            tx.execute("DELETE FROM object_file WHERE kind = 2 AND id NOT IN (SELECT manifest FROM snapshot)", [])?;
            Ok(())
        })
    }

    /// What the indexes of all streams, of deleted snapshots too, are made from; parents first.
    pub fn index_links(&self) -> Result<Vec<IndexLink>> {
        self.many(
            "read what indexes are made from",
            "SELECT t.id, t.parent, coalesce(max(i.keyframe), 0), coalesce(sum(NOT i.keyframe), 0)
             FROM stream t JOIN snapshot s ON s.id = t.snapshot LEFT JOIN index_part i ON i.stream = t.id
             GROUP BY t.id ORDER BY s.sequence",
            [],
            |row| {
                Ok(IndexLink {
                    stream: row.get(0)?,
                    parent: row.get(1)?,
                    has_keyframe: row.get(2)?,
                    deltas: row.get(3)?,
                })
            },
        )
    }

    /// The object file of a snapshot's manifest.
    pub fn manifest_of(&self, snapshot: i64) -> Result<Hash> {
        self.one(
            "read a snapshot's manifest",
            "SELECT o.name FROM snapshot s JOIN object_file o ON o.id = s.manifest WHERE s.id = ?1",
            [snapshot],
            |row| row.get(0),
        )?
        .ok_or_else(|| self.missing("a manifest"))
    }

    /// How many chunks no snapshot needs, those of deleted snapshots included.
    pub fn unused_chunks(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM chunk WHERE id NOT IN (SELECT chunk FROM live_chunk)";
        Ok(self.one("count unused chunks", sql, [], |row| row.get(0))?.unwrap_or(0))
    }

    /// The plain object files that no snapshot needs.
    pub fn unused_plain(&self) -> Result<Vec<ObjectFile>> {
        let sql = "SELECT id, name, kind, bytes FROM object_file WHERE kind = 5
                   AND id NOT IN (SELECT b.object_file FROM live_blob n JOIN blob b ON b.id = n.blob WHERE b.object_file IS NOT NULL)";
        self.many("look for unused blob files", sql, [], ObjectFile::from_row)
    }

    /// How many deleted snapshots are still there in part because several others build on them.
    pub fn deleted_still_needed(&self) -> Result<u64> {
        let count = self.one(
            "count what was deleted",
            "SELECT count(*) FROM snapshot WHERE tombstone IS NOT NULL",
            [],
            |row| row.get(0),
        )?;
        Ok(count.unwrap_or(0))
    }

    /// Drops from deleted streams the chunks and blobs that no snapshot reaches through them.
    pub fn trim_dead_streams(&mut self) -> Result<()> {
        self.transaction("trim deleted lists", |tx| {
            for list in ["stream_chunk", "stream_blob", "missing_blob"] {
                trim(tx, list)?;
            }
            Ok(())
        })
    }

    /// Drops deleted snapshots of which nothing is needed any more, and with them their manifests.
    /// Their tombstones stay until [`Self::drop_tombstones`].
    pub fn drop_snapshots(&mut self) -> Result<u64> {
        self.transaction("drop deleted snapshots", |tx| {
            let dropped = tx.execute(
                "DELETE FROM snapshot WHERE tombstone IS NOT NULL AND id NOT IN (SELECT snapshot FROM stream)",
                [],
            )?;
            tx.execute("DELETE FROM object_file WHERE kind = 2 AND id NOT IN (SELECT manifest FROM snapshot)", [])?;
            Ok(dropped as u64)
        })
    }

    /// Drops the tombstones of snapshots whose manifests are gone.
    pub fn drop_tombstones(&mut self) -> Result<()> {
        self.transaction("drop tombstones", |tx| {
            tx.execute(
                "DELETE FROM object_file WHERE kind = 3
                 AND id NOT IN (SELECT tombstone FROM snapshot WHERE tombstone IS NOT NULL)",
                [],
            )?;
            Ok(())
        })
    }

    /// Drops chunks that no list names, then data files without chunks. A frame without chunks stays as long as its file: its
    /// bytes are there, and count as unused.
    pub fn drop_chunks(&mut self) -> Result<u64> {
        let dead: Vec<i64> = self.many(
            "look for unused chunks",
            "SELECT id FROM chunk EXCEPT SELECT chunk FROM stream_chunk EXCEPT SELECT chunk FROM index_chunk
             EXCEPT SELECT chunk FROM blob_chunk",
            [],
            |row| row.get(0),
        )?;
        for batch in dead.chunks(BATCH) {
            self.transaction("drop unused chunks", |tx| {
                let mut delete = tx.prepare_cached("DELETE FROM chunk WHERE id = ?1")?;
                for row in batch {
                    delete.execute([row])?;
                }
                Ok(())
            })?;
        }
        let unused = "kind = 1 AND id NOT IN
             (SELECT f.object_file FROM frame f WHERE f.id IN (SELECT frame FROM chunk))";
        let exists = format!("SELECT 1 FROM object_file WHERE {unused} LIMIT 1");
        if self.one("look for unused data files", &exists, [], |_| Ok(()))?.is_some() {
            self.transaction("drop unused data files", |tx| {
                let files = format!("SELECT id FROM object_file WHERE {unused}");
                tx.execute(&format!("DELETE FROM frame WHERE object_file IN ({files})"), [])?;
                tx.execute(&format!("DELETE FROM object_file WHERE {unused}"), [])?;
                Ok(())
            })?;
        }
        Ok(dead.len() as u64)
    }

    /// How much of each data file is needed by snapshots that aren't deleted.
    pub fn object_use(&self) -> Result<Vec<ObjectUse>> {
        self.many(
            "measure the data files",
            "SELECT o.id, o.name, o.kind, o.bytes,
                    (SELECT coalesce(sum(f.raw), 0) FROM frame f WHERE f.object_file = o.id), coalesce(l.raw, 0)
             FROM object_file o LEFT JOIN (
                 SELECT f.object_file, sum(k.length) AS raw FROM live_chunk n JOIN chunk k ON k.id = n.chunk
                 JOIN frame f ON f.id = k.frame GROUP BY f.object_file
             ) l ON l.object_file = o.id
             WHERE o.kind = 1 ORDER BY o.id",
            [],
            |row| Ok(ObjectUse { file: ObjectFile::from_row(row)?, raw: row.get(4)?, live_raw: row.get(5)? }),
        )
    }

    /// The chunks of a data file, in an order in which similar ones are near each other: by content, then
    /// by where the first list that has one puts it.
    pub fn chunks_to_move(&self, files: &[i64]) -> Result<Vec<MovingChunk>> {
        let mut chunks: Vec<((Content, i64, u64), MovingChunk)> = Vec::new();
        for file in files {
            let rows = self.many(
                "read a data file's chunks",
                "SELECT k.id, f.content, k.hash, k.length, o.name, f.offset, f.stored, f.raw, f.codec, k.start
                 FROM frame f JOIN chunk k ON k.frame = f.id JOIN object_file o ON o.id = f.object_file
                 WHERE f.object_file = ?1",
                [file],
                |row| {
                    let (content, codec): (u8, u8) = (row.get(1)?, row.get(8)?);
                    let unknown =
                        |column, number: u8| rusqlite::Error::IntegralValueOutOfRange(column, i64::from(number));
                    Ok(MovingChunk {
                        row: row.get(0)?,
                        content: Content::from_number(content).ok_or_else(|| unknown(1, content))?,
                        location: Location {
                            hash: row.get(2)?,
                            length: row.get(3)?,
                            frame: FrameAt {
                                object: row.get(4)?,
                                offset: row.get(5)?,
                                stored: row.get(6)?,
                                raw: row.get(7)?,
                                codec: Codec::from_number(codec).ok_or_else(|| unknown(8, codec))?,
                            },
                            start: row.get(9)?,
                        },
                    })
                },
            )?;
            // Blobs that can't be compressed by themselves.
            chunks.extend(
                rows.into_iter().map(|chunk| ((chunk.content, i64::from(chunk.is_stored_as_it_is()), 0), chunk)),
            );
        }
        let places = self.first_places()?;
        for (key, chunk) in &mut chunks {
            if let Some(&(database, offset)) = places.get(&chunk.row) {
                (key.1, key.2) = (database, offset);
            }
        }
        chunks.sort_by_key(|(key, chunk)| (*key, chunk.row));
        Ok(chunks.into_iter().map(|(_, chunk)| chunk).collect())
    }

    /// For each chunk of a tail, the generation and the smallest offset at which it is used.
    fn first_places(&self) -> Result<HashMap<i64, (i64, u64)>> {
        let places = self.many(
            "read where chunks are used",
            "SELECT c.chunk, t.generation, min(c.offset) FROM stream_chunk c JOIN stream t ON t.id = c.stream GROUP BY c.chunk",
            [],
            |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))),
        )?;
        Ok(places.into_iter().collect())
    }

    /// Commits that chunks are now in these published data files, and that the old files aren't needed.
    pub fn record_rewrite(
        &mut self,
        new_files: &[(Hash, u64, Vec<Frame>)],
        moved: &HashMap<Hash, i64>,
        old_files: &[i64],
    ) -> Result<()> {
        self.transaction("record where chunks were moved", |tx| {
            let mut update = tx.prepare_cached("UPDATE chunk SET frame = ?2, start = ?3 WHERE id = ?1")?;
            let mut new_rows = Vec::new();
            for (name, bytes, frames) in new_files {
                new_rows.push(insert_object(tx, name, ObjectKind::Data, *bytes)?);
                let rows = insert_frames(tx, name, *bytes, frames)?;
                for (frame, row) in frames.iter().zip(rows) {
                    let mut start: u32 = 0;
                    for (hash, length) in &frame.chunks {
                        if let Some(chunk) = moved.get(hash) {
                            update.execute(params![chunk, row, start])?;
                        }
                        start += length;
                    }
                }
            }
            for old in old_files {
                // A rewrite that gives the very same file leaves it where it is.
                if !new_rows.contains(old) {
                    tx.execute("DELETE FROM frame WHERE object_file = ?1", [old])?;
                    tx.execute("DELETE FROM object_file WHERE id = ?1", [old])?;
                }
            }
            Ok(())
        })
    }
}

/// Drops from one kind of list what lies in deleted streams behind the place up to which some snapshot needs them.
fn trim(tx: &rusqlite::Transaction<'_>, list: &str) -> rusqlite::Result<usize> {
    let sql = format!(
        "DELETE FROM {list} WHERE (stream, offset) IN (
             SELECT c.stream, c.offset FROM live_stream r JOIN stream t ON t.id = r.stream
             JOIN snapshot s ON s.id = t.snapshot JOIN {list} c ON c.stream = t.id AND c.offset >= r.upto
             WHERE s.tombstone IS NOT NULL)"
    );
    tx.execute(&sql, [])
}
