//! Making a snapshot of files that were put together from elsewhere.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use jiff::Timestamp;

use super::blobs::IncomingBlobs;
use super::compare::Compared;
use super::{Imported, ImportedBlobs, ImportedDatabase, Present, Work};
use crate::disk::Disk;
use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::{Cut, DataFile, Position, Source, find_cut, scan};
use crate::monitor::{Monitor, Silent};
use crate::repository::catalog::{Database, GenerationRow, Stream};
use crate::repository::hash::Uid;
use crate::repository::manifest::{DAMAGED, Generation, IMPORTED};
use crate::snapshot::anchor::{begins_any, begins_with, nearest_of};
use crate::snapshot::base::{needs_base, store_base};
use crate::snapshot::blobs::save::hides_blobs;
use crate::snapshot::database::check_tid;
use crate::snapshot::generations::known_life_of;
use crate::snapshot::handle::Repository;
use crate::snapshot::id;
use crate::snapshot::save::{New, SaveOptions, Saving, store};
use crate::snapshot::writing::copy_range;

/// How many bytes are copied at once.
const COPIED: usize = 1 << 20;

/// A file without a name in the repository's directory.
pub(super) struct Assembled {
    disk: Disk,
    file: File,
    /// For messages.
    place: PathBuf,
    pub(super) length: u64,
    compared: Rc<RefCell<Compared>>,
}

impl Assembled {
    pub(super) fn new(repository: &Repository) -> Result<Self> {
        let file = tempfile::tempfile_in(repository.root()).at("make a temporary file in", repository.root())?;
        let place = repository.root().join("a temporary file");
        Ok(Assembled { disk: repository.disk().clone(), file, place, length: 0, compared: Rc::default() })
    }

    /// Becomes the first bytes of a file.
    pub(super) fn begin_with(&mut self, file: &DataFile, length: u64, monitor: &dyn Monitor) -> Result<()> {
        copy_range(&self.disk, file.file(), 0..length, (&self.file, &self.place), monitor)?;
        self.length = length;
        Ok(())
    }

    /// Makes it shorter.
    pub(super) fn shorten(&mut self, length: u64) -> Result<()> {
        self.disk.set_length(&self.file, &self.place, length)?;
        self.length = length;
        self.compared.borrow_mut().shorten(length);
        Ok(())
    }

    /// Appends at most so many bytes, all of which `hear` gets; returns how many there were. The inner error is one of reading.
    pub(super) fn append(
        &mut self,
        from: &mut dyn Read,
        limit: u64,
        monitor: &dyn Monitor,
        mut hear: impl FnMut(&[u8]),
    ) -> Result<std::io::Result<u64>> {
        let mut buffer = vec![0; COPIED];
        let mut copied = 0;
        while copied < limit {
            monitor.check()?;
            let wanted = buffer.len().min((limit - copied) as usize);
            let read = match from.read(&mut buffer[..wanted]) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            hear(&buffer[..read]);
            self.disk.write_at(&self.file, &self.place, &buffer[..read], self.length)?;
            self.length += read as u64;
            copied += read as u64;
            monitor.advance(read as u64);
        }
        Ok(Ok(copied))
    }

    /// As a part of a snapshot, whose file has this path in messages: finds the end of the last complete transaction, and parses everything
    /// behind `from`, a boundary.
    pub(super) fn parse(
        &self,
        database: &Database,
        path: &Path,
        from: Position,
        monitor: &dyn Monitor,
    ) -> Result<Incoming> {
        let file = self.file.try_clone().at("open again", &self.place)?;
        let file = DataFile::checked(file, path)?;
        let cut = find_cut(&file, from, self.length, monitor)?;
        scan(&file, from, cut.offset, &mut (), monitor)?;
        check_tid(path, cut.tid)?;
        Ok(Incoming { database: database.clone(), file, cut, blobs: None, compared: Rc::clone(&self.compared) })
    }
}

/// What an error says is wrong with the bytes that are to be taken; any other one ends the import.
pub(super) fn unsound<T>(result: Result<T>) -> Result<Result<T, String>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind() == Kind::Failed && error.io_error().is_none() => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// A file that is to be a snapshot's part of a database.
pub(super) struct Incoming {
    pub(super) database: Database,
    pub(super) file: DataFile,
    /// The end of its last complete transaction.
    pub(super) cut: Cut,
    /// The blobs that come with it, if any do.
    pub(super) blobs: Option<IncomingBlobs>,
    /// What is known of its bytes.
    pub(super) compared: Rc<RefCell<Compared>>,
}

impl Incoming {
    /// The blobs that come with it, if they are to be stored.
    fn taken_blobs(&self) -> Option<&IncomingBlobs> {
        self.blobs.as_ref().filter(|blobs| blobs.are_taken())
    }

    /// Where it is whole, and what is left out if it isn't.
    pub(super) fn whole(self) -> Result<Self> {
        match self.cut.left_out {
            None => Ok(self),
            Some(left_out) => Err(Error::failed(format!("it ends with {left_out}"))),
        }
    }
}

/// What a snapshot is to be called, and to say.
pub(super) struct About {
    /// What it is made from.
    pub(super) source: String,
    /// Its id; without one, it is made from the time.
    pub(super) id: Option<String>,
    pub(super) created: Timestamp,
    pub(super) message: String,
    pub(super) one_moment: bool,
}

impl Work<'_> {
    /// Makes a snapshot, unless there is one of this time and these cuts.
    pub(super) fn take(&mut self, about: About, incoming: Vec<Incoming>) -> Result<()> {
        let mut databases: Vec<ImportedDatabase> = incoming
            .iter()
            .map(|one| ImportedDatabase {
                name: one.database.name.clone(),
                cut: one.cut.offset,
                tid: one.cut.tid.to_string(),
                time: (one.cut.tid.0 > 0).then(|| one.cut.tid.time()),
                blobs: one.blobs.as_ref().map(IncomingBlobs::report),
                left_out: one.cut.left_out.map(|left_out| left_out.to_string()),
                warnings: one.blobs.iter().filter_map(IncomingBlobs::skipped).collect(),
            })
            .collect();
        for blobs in incoming.iter().filter_map(Incoming::taken_blobs) {
            blobs.check_stored(self.repository, self.monitor)?;
        }
        if let Some(id) = self.already(about.created, &incoming)? {
            self.report.present.push(Present { source: about.source, id });
            return Ok(());
        }
        let id = self.free_id(&about)?;
        let mut stored_bytes = 0;
        if !self.options.dry_run {
            let options = SaveOptions::new(None, about.message, self.options.zone.clone());
            let is_there = |other: &Database| incoming.iter().any(|one| one.database.row == other.row);
            let all = self.repository.catalog.databases()?.into_iter();
            let others = all.filter(|other| other.tracked && !is_there(other)).map(|other| other.name);
            let new = New {
                id: id.clone(),
                kind: IMPORTED,
                created: about.created,
                options: &options,
                not_saved: others.collect(),
            };
            let mut sources = Vec::new();
            for one in incoming {
                let life = self.life_of(&one)?;
                if let Some(life) = &life {
                    keep_base(self.repository, &one, life, self.monitor)?;
                }
                sources.push(saving(self.repository, one, life, self.monitor)?);
            }
            let report = store(self.repository, &new, &sources, about.one_moment, self.monitor)?;
            let report = report.ok_or_else(|| Error::failed("a file that nobody knows was replaced"))?;
            stored_bytes = report.stored_bytes;
            for (database, saved) in databases.iter_mut().zip(report.databases) {
                database.warnings.extend(saved.warnings);
                let missing = saved.blobs.map(|blobs| blobs.missing);
                if let Some(missing) = missing.filter(|missing| *missing > 0) {
                    database.warnings.push(format!("{missing} of its current blobs have no file"));
                }
                database.blobs = database.blobs.take().map(|blobs| ImportedBlobs { missing, ..blobs });
            }
        }
        let (source, created) = (about.source, about.created);
        self.report.imported.push(Imported { id, source, created, databases, stored_bytes });
        Ok(())
    }

    /// The snapshot of this time that has all of it, if there is one.
    fn already(&self, created: Timestamp, incoming: &[Incoming]) -> Result<Option<String>> {
        let catalog = &self.repository.catalog;
        for snapshot in catalog.snapshots()? {
            if snapshot.created != created.as_microsecond() || snapshot.kind == DAMAGED {
                continue;
            }
            let streams = catalog.streams_of(snapshot.row)?;
            let mut has_all = true;
            for one in incoming {
                let stream = streams.iter().find(|stream| stream.database == one.database.row);
                has_all &= stream.map_or(Ok(false), |stream| self.is_same(one, stream))?;
            }
            if has_all {
                return Ok(Some(snapshot.name));
            }
        }
        Ok(None)
    }

    /// Whether a snapshot has a database just so, and can be restored.
    fn is_same(&self, one: &Incoming, stream: &Stream) -> Result<bool> {
        let has_blobs = match one.taken_blobs() {
            None => true,
            Some(blobs) => stream.blobs.is_some() && blobs.agree(self.repository, stream)?,
        };
        Ok(has_blobs
            && (stream.cut.offset, stream.cut.tid) == (one.cut.offset, one.cut.tid.0)
            && one.begins_with(self.repository, stream, self.monitor)?)
    }

    /// The life of the tracked file that it is of.
    fn life_of(&self, one: &Incoming) -> Result<Option<GenerationRow>> {
        let life = known_life_of(&self.repository.catalog, &one.database, &one.file)?;
        let is_its =
            life.as_ref().map_or(Ok(false), |life| one.has_base(self.repository, &life.known, self.monitor))?;
        Ok(life.filter(|_| is_its))
    }

    /// The id that is wished for, with a number if another snapshot has it; or one of the time.
    fn free_id(&self, about: &About) -> Result<String> {
        let planned = &self.report.imported;
        let taken = |id: &str| -> Result<bool> {
            Ok(self.repository.catalog.snapshot(id)?.is_some() || planned.iter().any(|other| other.id == id))
        };
        let Some(wish) = about.id.as_deref().filter(|id| id::check_new(id).is_ok()) else {
            return id::from_time(about.created, &self.options.zone, taken);
        };
        if !taken(wish)? {
            return Ok(wish.into());
        }
        // Ids are ASCII.
        let wish = &wish[..wish.len().min(id::LONGEST - 10)];
        for number in 2.. {
            let id = format!("{wish}+{number}");
            if !taken(&id)? {
                return Ok(id);
            }
        }
        Err(Error::failed(format!("no free id like {wish}")))
    }
}

/// Stores the base of the life that a file is of, if the tracked file isn't: nobody else may have it for long.
fn keep_base(repository: &mut Repository, one: &Incoming, life: &GenerationRow, monitor: &dyn Monitor) -> Result<()> {
    let begins = |file: DataFile| begins_any(&file, &[&life.known]);
    let is_there = DataFile::open(repository.path_of(&one.database)).and_then(begins).unwrap_or(false);
    if is_there || !needs_base(&repository.catalog, &life.known)? {
        return Ok(());
    }
    let path = one.file.path();
    let again = one.file.file().try_clone().at("open again", path)?;
    store_base(repository, &one.database, life, DataFile::checked(again, path)?, monitor).map(|_| ())
}

/// A file as save takes it: in the life that it is of, after the furthest snapshot all of whose bytes it begins with.
fn saving(
    repository: &Repository,
    one: Incoming,
    life: Option<GenerationRow>,
    monitor: &dyn Monitor,
) -> Result<Saving> {
    let catalog = &repository.catalog;
    let generation = match life {
        Some(known) => known,
        None => from_elsewhere(repository, &one.database, &one.file)?,
    };
    let blobs = one.blobs.as_ref().and_then(IncomingBlobs::place);
    let size = one.cut.offset;
    let accept = |stream: &Stream| {
        Ok(begins_with(&one.file, size, catalog, stream)?
            && one.has_tail(repository, stream, monitor)?
            && match one.taken_blobs() {
                None => true,
                Some(blobs) => !hides_blobs(catalog, stream)? && blobs.agree(repository, stream)?,
            })
    };
    let parent = nearest_of(&one.file, size, catalog, generation.row, accept)?;
    let Incoming { database, file, mut cut, .. } = one;
    let mut source = Saving::after(parent, Database { generation, ..database }, file, blobs);
    // As it is seen from there.
    cut.last_length = find_cut(&source.file, source.from, size, &Silent)?.last_length;
    source.cut = cut;
    Ok(source)
}

/// The generation for files from elsewhere that begin like nothing known.
fn from_elsewhere(repository: &Repository, database: &Database, file: &DataFile) -> Result<GenerationRow> {
    let magic = file.magic().to_string();
    let mut others: Vec<GenerationRow> = repository.catalog.generations(database.row)?;
    others.retain(|other| other.known.is_from_elsewhere());
    if let Some(known) = others.iter().find(|other| other.known.magic == magic) {
        return Ok(known.clone());
    }
    let count = u32::try_from(others.len()).unwrap_or(u32::MAX);
    let known = Generation::from_elsewhere(Uid::random()?, count, Timestamp::now().as_microsecond(), magic);
    // It gets its row with the snapshot.
    Ok(GenerationRow { row: 0, known })
}
