//! Making a snapshot of files that were put together from elsewhere.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Imported, ImportedDatabase, Present, Work};
use crate::disk::Disk;
use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::{Cut, DataFile, Position, Source, find_cut, scan};
use crate::monitor::{Monitor, Silent};
use crate::repository::blob_list::BlobMode;
use crate::repository::catalog::{Database, GenerationRow, Stream};
use crate::repository::hash::Uid;
use crate::repository::manifest::{DAMAGED, Generation, IMPORTED};
use crate::snapshot::anchor::begins_any;
use crate::snapshot::base::{needs_base, source_of, store_base};
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
}

impl Assembled {
    pub(super) fn new(repository: &Repository) -> Result<Self> {
        let file = tempfile::tempfile_in(repository.root()).at("make a temporary file in", repository.root())?;
        let place = repository.root().join("a temporary file");
        Ok(Assembled { disk: repository.disk().clone(), file, place, length: 0 })
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

    /// As a database's file, of this path in messages. Fails if it doesn't begin as one.
    pub(super) fn data_file(&self, path: &Path) -> Result<DataFile> {
        let file = self.file.try_clone().at("open again", &self.place)?;
        DataFile::checked(file, path)
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
    /// Where its blobs are, and how they are stored, if there are any.
    pub(super) blobs: Option<(PathBuf, BlobMode)>,
}

impl Incoming {
    /// Finds the end of the last complete transaction, and parses everything behind `from`, a boundary.
    pub(super) fn parse(
        database: Database,
        file: DataFile,
        from: Position,
        size: u64,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let cut = find_cut(&file, from, size, monitor)?;
        scan(&file, from, cut.offset, &mut (), monitor)?;
        check_tid(file.path(), cut.tid)?;
        Ok(Incoming { database, file, cut, blobs: None })
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
                left_out: one.cut.left_out.map(|left_out| left_out.to_string()),
                warnings: Vec::new(),
            })
            .collect();
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
            for one in &incoming {
                keep_base(self.repository, one, self.monitor)?;
            }
            let sources: Vec<Saving> =
                incoming.into_iter().map(|one| saving(self.repository, one)).collect::<Result<_>>()?;
            let report = store(self.repository, &new, &sources, about.one_moment, self.monitor)?;
            let report = report.ok_or_else(|| Error::failed("a file that nobody knows was replaced"))?;
            stored_bytes = report.stored_bytes;
            for (database, saved) in databases.iter_mut().zip(report.databases) {
                database.warnings = saved.warnings;
                let missing = saved.blobs.map_or(0, |blobs| blobs.missing);
                if missing > 0 {
                    database.warnings.push(format!("{missing} of its current blobs have no file"));
                }
            }
        }
        let (source, created) = (about.source, about.created);
        self.report.imported.push(Imported { id, source, created, databases, stored_bytes });
        Ok(())
    }

    /// The snapshot of this time with these cuts, if there is one.
    fn already(&self, created: Timestamp, incoming: &[Incoming]) -> Result<Option<String>> {
        let catalog = &self.repository.catalog;
        for snapshot in catalog.snapshots()? {
            if snapshot.created != created.as_microsecond() || snapshot.kind == DAMAGED {
                continue;
            }
            let streams = catalog.streams_of(snapshot.row)?;
            if !incoming.iter().all(|one| self.can_be_had(one, &streams).unwrap_or(false)) {
                continue;
            }
            let is_there = |one: &Incoming| {
                streams.iter().any(|stream| {
                    stream.database == one.database.row
                        && (stream.blobs.is_some() || one.blobs.is_none())
                        && (stream.cut.offset, stream.cut.tid) == (one.cut.offset, one.cut.tid.0)
                })
            };
            if incoming.iter().all(is_there) {
                return Ok(Some(snapshot.name));
            }
        }
        Ok(None)
    }

    /// Whether the base is somewhere that a snapshot's cut of a database needs.
    fn can_be_had(&self, one: &Incoming, streams: &[Stream]) -> Result<bool> {
        for stream in streams.iter().filter(|stream| stream.database == one.database.row) {
            let known = self.repository.catalog.generation(stream.generation)?.known;
            let path = self.repository.path_of(&one.database);
            if needs_base(&self.repository.catalog, &known)?
                && source_of(&self.repository.layout, &path, &known)?.is_none()
            {
                return Ok(false);
            }
        }
        Ok(true)
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

/// Stores the base of the life that a file is in, if the tracked file isn't in it: nobody else may have it for long.
fn keep_base(repository: &mut Repository, one: &Incoming, monitor: &dyn Monitor) -> Result<()> {
    let Some(life) = known_life_of(&repository.catalog, &one.database, &one.file)? else { return Ok(()) };
    let begins = |file: DataFile| begins_any(&file, &[&life.known]);
    let is_there = DataFile::open(repository.path_of(&one.database)).ok().map(begins).transpose()?;
    if is_there == Some(true) || !needs_base(&repository.catalog, &life.known)? {
        return Ok(());
    }
    let path = one.file.path();
    let again = one.file.file().try_clone().at("open again", path)?;
    store_base(repository, &one.database, &life, DataFile::checked(again, path)?, monitor).map(|_| ())
}

/// A file as save takes it: in the life that it is in, after the snapshot that it begins with.
fn saving(repository: &Repository, one: Incoming) -> Result<Saving> {
    let Incoming { database, file, mut cut, blobs } = one;
    let catalog = &repository.catalog;
    let generation = match known_life_of(catalog, &database, &file)? {
        Some(known) => known,
        None => from_elsewhere(repository, &database, &file)?,
    };
    let database = Database { generation, ..database };
    let mut source = Saving::after_nearest(repository, database, file, cut.offset, blobs)?;
    // As it is seen from there.
    cut.last_length = find_cut(&source.file, source.from, cut.offset, &Silent)?.last_length;
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
