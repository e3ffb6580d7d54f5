//! An open repository: what every operation works on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Database, Snapshot};
use crate::repository::counters::{Counters, Counts};
use crate::repository::hash::Uid;
use crate::repository::layout::Layout;
use crate::repository::lock::WriterLock;
use crate::repository::manifest::STORED_BASE;
use crate::snapshot::id;
use crate::snapshot::journal::Journal;

/// Which repository, and on what terms.
#[derive(Debug, Clone)]
pub struct Place {
    /// The repository's directory.
    pub root: PathBuf,
    /// Repositories of other users that are trusted all the same.
    pub trusted: Vec<PathBuf>,
}

/// How long a command waits for another one that is writing, before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An open repository.
pub struct Repository {
    pub(crate) layout: Layout,
    pub(crate) catalog: Catalog,
    pub(crate) counters: Arc<Counters>,
    pub(crate) uid: Uid,
    lock: Option<WriterLock>,
}

impl Repository {
    /// Opens it for reading. Any number of readers may be there while one command writes.
    pub fn open(place: &Place) -> Result<Self> {
        let (layout, counters) = Self::look(place)?;
        let catalog = Catalog::open_read_only(&layout, &counters)?;
        Self::with(layout, catalog, counters, None)
    }

    /// Opens it for writing: takes the writer's lock, waiting for it up to [`PATIENCE`], and clears away
    /// what a killed save announced but didn't commit. Refuses while a restore is unfinished.
    pub fn open_to_write(place: &Place, monitor: &dyn Monitor) -> Result<Self> {
        Self::open_to_write_on(&Disk::default(), place, monitor)
    }

    /// The same, changed through this disk.
    pub fn open_to_write_on(disk: &Disk, place: &Place, monitor: &dyn Monitor) -> Result<Self> {
        let repository = Self::open_to_finish_on(disk, place, monitor)?;
        match repository.unfinished_restore()? {
            None => Ok(repository),
            Some(id) => Err(Error::failed(format!("the restore of {id} is unfinished"))
                .hint("znap restore --resume finishes it, --abort goes back")),
        }
    }

    /// Like [`Repository::open_to_write`], also while a restore is unfinished: to finish it.
    pub fn open_to_finish(place: &Place, monitor: &dyn Monitor) -> Result<Self> {
        Self::open_to_finish_on(&Disk::default(), place, monitor)
    }

    /// The same, changed through this disk.
    pub fn open_to_finish_on(disk: &Disk, place: &Place, monitor: &dyn Monitor) -> Result<Self> {
        let (layout, counters) = Self::look(place)?;
        let layout = layout.on(disk);
        // Before the lock file is touched: a repository without a catalog is to be left as it is.
        drop(Catalog::open_read_only(&layout, &counters)?);
        let lock = WriterLock::acquire(&layout, PATIENCE, monitor)?;
        let mut repository = Self::holding(layout, counters, lock)?;
        repository.clear_left_over()?;
        Ok(repository)
    }

    /// Goes on with one whose writer's lock is held.
    pub(crate) fn holding(layout: Layout, counters: Arc<Counters>, lock: WriterLock) -> Result<Self> {
        let catalog = Catalog::open(&layout, &counters)?;
        Self::with(layout, catalog, counters, Some(lock))
    }

    /// Where it is, without opening its catalog.
    pub(crate) fn look(place: &Place) -> Result<(Layout, Arc<Counters>)> {
        let layout = Layout::open(&place.root)?;
        layout.check_owner(&place.trusted)?;
        Ok((layout, Arc::new(Counters::default())))
    }

    fn with(layout: Layout, catalog: Catalog, counters: Arc<Counters>, lock: Option<WriterLock>) -> Result<Self> {
        let (uid, _) = catalog.repository()?;
        Ok(Repository { layout, catalog, counters, uid, lock })
    }

    /// The snapshot whose restore is unfinished, if there is one.
    pub fn unfinished_restore(&self) -> Result<Option<String>> {
        Ok(Journal::unfinished(&self.layout, self.uid)?.map(|journal| journal.target.id))
    }

    fn clear_left_over(&mut self) -> Result<()> {
        // What an import was unpacking when it was killed.
        if self.layout.import().is_dir() {
            self.layout.disk().remove_tree(&self.layout.import())?;
        }
        let Some(name) = self.lock.as_ref().and_then(WriterLock::left_over) else {
            return Ok(());
        };
        let committed = self.catalog.object_files()?.iter().any(|file| file.name == name);
        if !committed {
            let path = self.layout.object(&name);
            self.layout.disk().remove_if_there(&path)?;
            self.layout.disk().sync_directory(&self.layout.objects())?;
        }
        self.writer_lock()?.settle()
    }

    /// The writer's lock; an error if the repository was opened for reading.
    pub(crate) fn writer_lock(&mut self) -> Result<&mut WriterLock> {
        self.lock.as_mut().ok_or_else(|| Error::failed("the repository was opened for reading only"))
    }

    /// What files are changed through.
    pub(crate) fn disk(&self) -> &Disk {
        self.layout.disk()
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Where a database's file is: its stored path, seen from the present directory.
    pub fn path_of(&self, database: &Database) -> PathBuf {
        self.seen(&database.path)
    }

    /// A stored path, seen from the present directory.
    pub fn seen(&self, path: &Path) -> PathBuf {
        let home = self.layout.home();
        if home == Path::new(".") { path.to_path_buf() } else { home.join(path) }
    }

    /// What was counted since it was opened; bytes of databases are counted by the operations.
    pub fn counts(&self) -> Counts {
        Counts { rows: self.catalog.rows_changed(), ..self.counters.counts() }
    }

    /// The snapshot that `word` means: `latest`, an id, or the unique beginning of one.
    pub fn resolve(&self, word: &str) -> Result<Snapshot> {
        if word == id::LATEST {
            if let Some(latest) = self.catalog.latest()? {
                return Ok(latest);
            }
            return Err(match self.catalog.snapshots()?.is_empty() {
                true => Error::not_found("there is no snapshot yet").hint("znap save makes one"),
                false => Error::not_found("latest means none of the snapshots: it is never one of some databases, nor one that a restore made")
                    .hint("znap list shows those there are"),
            });
        }
        id::check(word, "a snapshot's id")?;
        if let Some(snapshot) = self.snapshot(word)? {
            return Ok(snapshot);
        }
        let ids = self.catalog.ids_beginning(word, 6)?;
        match ids.as_slice() {
            [] => Err(Error::not_found(format!("there is no snapshot {word}")).hint("znap list shows those there are")),
            [only] => self.exactly(only),
            several => Err(Error::usage(format!(
                "{word} could be any of several snapshots: {}{}",
                several.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", "),
                if several.len() > 5 { ", …" } else { "" }
            ))
            .hint("give more of the id")),
        }
    }

    /// The snapshot with exactly this id.
    pub fn exactly(&self, word: &str) -> Result<Snapshot> {
        id::check(word, "a snapshot's id")?;
        self.snapshot(word)?.ok_or_else(|| {
            Error::not_found(format!("there is no snapshot {word}")).hint("znap list shows those there are")
        })
    }

    /// The snapshot with exactly this id, unless it is a stored base: those are no snapshots to users.
    fn snapshot(&self, id: &str) -> Result<Option<Snapshot>> {
        Ok(self.catalog.snapshot(id)?.filter(|snapshot| snapshot.kind != STORED_BASE))
    }
}
