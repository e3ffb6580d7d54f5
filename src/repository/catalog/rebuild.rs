//! Making the catalog anew, beside the one that is there, from what the object files say; and what is asked of the
//! old one before.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::params;

use crate::error::{Error, IoContext, Result};
use crate::repository::catalog::Catalog;
use crate::repository::catalog::write::{Extent, insert_data_file, insert_object, insert_snapshot, insert_stream};
use crate::repository::counters::Counters;
use crate::repository::data::{Content, Frame};
use crate::repository::frames::Location;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;
use crate::repository::manifest::Manifest;
use crate::repository::object::ObjectKind;

/// A snapshot as it goes into a new catalog.
#[derive(Debug)]
pub struct RebuiltSnapshot<'a> {
    /// All about it.
    pub manifest: &'a Manifest,
    /// The manifest's object file: name and length.
    pub manifest_file: (Hash, u64),
    /// Its tombstone's, if it was deleted.
    pub tombstone: Option<(Hash, u64)>,
    /// For each of its databases up to which offset its list is needed; `None` leaves it out.
    pub reach: Vec<Option<u64>>,
}

impl Catalog {
    /// Makes a new, empty catalog beside the one that is there, in place of an unfinished one. Nothing is forced to the disk
    /// before [`Catalog::finish_beside`]. Only repair does that.
    pub fn create_beside(layout: &Layout, counters: &Arc<Counters>) -> Result<Self> {
        let path = layout.new_catalog();
        layout.disk().remove_if_there(&journal_of(&path))?;
        layout.disk().remove_if_there(&path)?;
        Self::create_at(layout, &path, false, counters)
    }

    /// Closes a catalog that [`Catalog::create_beside`] made, and forces it to the disk.
    pub fn finish_beside(self, layout: &Layout) -> Result<()> {
        let (path, disk) = (self.path.clone(), self.disk.clone());
        self.connection.close().map_err(|(_, error)| Error::catalog("close what is", &path, error))?;
        let file = std::fs::OpenOptions::new().write(true).open(&path).at("open", &path)?;
        disk.sync(&file, &path)?;
        disk.sync_directory(layout.root())
    }

    /// Records a data file with its frames and those of its chunks that no other one has.
    pub fn record_data_file(&mut self, name: &Hash, bytes: u64, frames: &[Frame]) -> Result<()> {
        self.transaction("record a data file", |tx| insert_data_file(tx, name, bytes, frames))
    }

    /// Records a snapshot, after those that it builds on, and so much of its lists as is needed. Chunks that aren't stored, and a
    /// parent that isn't there, are left out: the caller checks the lists.
    pub fn record_rebuilt(&mut self, rebuilt: &RebuiltSnapshot<'_>) -> Result<()> {
        self.transaction("record a snapshot", |tx| {
            // Together with its row: one that isn't deleted may have the same name.
            let tombstone = rebuilt.tombstone.as_ref();
            let tombstone =
                tombstone.map(|(name, bytes)| insert_object(tx, name, ObjectKind::Tombstone, *bytes)).transpose()?;
            let snapshot = insert_snapshot(tx, rebuilt.manifest, rebuilt.manifest_file, tombstone)?;
            for (entry, reach) in rebuilt.manifest.databases.iter().zip(&rebuilt.reach) {
                if let Some(upto) = *reach {
                    insert_stream(tx, snapshot, entry, Extent { upto, gaps: true })?;
                }
            }
            Ok(())
        })
    }

    /// Records tombstones (name and length) of snapshots of which nothing else is needed, and the highest sequence number ever
    /// given.
    pub fn record_tombstones(&mut self, tombstones: &[(Hash, u64)], sequence: u64) -> Result<()> {
        self.transaction("record deletions", |tx| {
            for (name, bytes) in tombstones {
                insert_object(tx, name, ObjectKind::Tombstone, *bytes)?;
            }
            tx.execute("UPDATE repository SET sequence = max(sequence, ?1)", [sequence])?;
            Ok(())
        })
    }

    /// What is wrong with the file itself, if anything: what SQLite finds, tables and views that aren't as they should be, and
    /// rows that refer to rows that aren't there.
    pub fn problem(&self) -> Result<Option<String>> {
        if let Some(found) = self.integrity(true)?.into_iter().next() {
            return Ok(Some(found));
        }
        let differ = self.schema_differences()?;
        if differ > 0 {
            return Ok(Some(format!("{differ} of its tables, indexes and views aren't as they should be")));
        }
        let broken = self.broken_references()?;
        Ok((broken > 0).then(|| format!("{broken} of its rows refer to others that aren't there")))
    }

    /// The streams of snapshots that repair has set aside: their lists have gaps.
    pub fn streams_set_aside(&self) -> Result<HashSet<i64>> {
        let sql = "SELECT t.id FROM stream t JOIN snapshot s ON s.id = t.snapshot WHERE s.kind = 'damaged'";
        Ok(self.many("read what is set aside", sql, [], |row| row.get(0))?.into_iter().collect())
    }

    /// When the repository was made: microseconds since 1970, UTC.
    pub fn created(&self) -> Result<Option<i64>> {
        self.one("read when it was made", "SELECT created FROM repository", [], |row| row.get(0))
    }

    /// The frames of a data file, in order of their offsets: content, and the chunks that the catalog has of it.
    pub fn chunks_of(&self, file: i64) -> Result<Vec<(Content, Location)>> {
        self.many(
            "read a data file's chunks",
            "SELECT k.hash, k.length, o.name, f.offset, f.stored, f.raw, f.codec, k.start, f.content
             FROM frame f JOIN chunk k ON k.frame = f.id JOIN object_file o ON o.id = f.object_file
             WHERE f.object_file = ?1 ORDER BY f.offset, k.start",
            params![file],
            |row| {
                let content: u8 = row.get(8)?;
                let known = Content::from_number(content)
                    .ok_or(rusqlite::Error::IntegralValueOutOfRange(8, i64::from(content)))?;
                Ok((known, super::read::location(row, 0)?))
            },
        )
    }

    /// Identity and highest sequence number, for a catalog that may be of another repository.
    pub fn identity(&self) -> Result<(Uid, u64)> {
        Ok((self.repository()?.0, self.last_sequence()?))
    }
}

/// Where SQLite keeps what it needs to take back an unfinished transaction.
pub fn journal_of(catalog: &Path) -> PathBuf {
    let mut name = catalog.as_os_str().to_owned();
    name.push("-journal");
    PathBuf::from(name)
}
