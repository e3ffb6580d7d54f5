//! Who may do what at the same time.
//!
//! Kernel locks (flock) only: they end with the process that holds them, so none can be stale.
//! The writer's lock (`lock`) is held by any command that changes the repository or a database. The
//! gate (`gate`) is held shared, briefly, by whoever opens object files, and exclusively, briefly, by
//! gc while it commits and unlinks: an open file stays readable whatever gc removes afterwards.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::filestorage::lock::keeps_others_out;
use crate::monitor::Monitor;
use crate::repository::hash::Hash;
use crate::repository::layout::{Layout, user_name};

/// The writer's lock, held until it is dropped.
#[derive(Debug)]
pub struct WriterLock {
    disk: Disk,
    file: File,
    path: PathBuf,
    left_over: Option<Hash>,
}

/// The first word of the line that announces what a save is about to commit.
const INTENT: &str = "manifest";

impl WriterLock {
    /// Takes the lock; waits up to `patience` for another znap, telling the user who it is.
    pub fn acquire(layout: &Layout, patience: Duration, monitor: &dyn Monitor) -> Result<Self> {
        let path = layout.lock();
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match layout.create_file(&path) {
                    Ok(file) => file,
                    // If another process made it first, it is there.
                    Err(error) => OpenOptions::new().read(true).write(true).open(&path).map_err(|_| error)?,
                }
            }
            result => result.at("open", &path)?,
        };
        let deadline = Instant::now() + patience;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error).hint(NO_LOCKS)),
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = read_text(&mut file).lines().next().unwrap_or("another znap").to_string();
            if Instant::now() >= deadline {
                return Err(Error::busy(format!("the repository {} is in use by {holder}", layout.root().display()))
                    .hint("wait until it has finished, and try again"));
            }
            if !told {
                monitor.notice(&format!("waiting for {holder}"));
                told = true;
            }
            monitor.check()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        if !keeps_others_out(&path).map_err(|error| Error::io("lock", &path, error).hint(NO_LOCKS))? {
            let what = format!("the file system of {} says that it locks files, but does not", path.display());
            return Err(Error::failed(what).hint(NO_LOCKS));
        }
        let left_over = announced_in(&read_text(&mut file));
        let mut lock = WriterLock { disk: layout.disk().clone(), file, path, left_over };
        if lock.left_over.is_none() {
            lock.write(None, false)?;
        }
        Ok(lock)
    }

    /// The manifest that a killed save had announced and perhaps written, but not committed.
    /// Stays known until the next [`Self::announce`] or [`Self::settle`].
    pub fn left_over(&self) -> Option<Hash> {
        self.left_over
    }

    /// Says durably that this manifest is about to be written and committed, so that gc can tell
    /// what a killed save left from what an old catalog doesn't know.
    pub fn announce(&mut self, manifest: &Hash) -> Result<()> {
        self.write(Some(manifest), true)
    }

    /// Says that what was announced is committed, or gone.
    pub fn settle(&mut self) -> Result<()> {
        self.left_over = None;
        self.write(None, false)
    }

    fn write(&mut self, manifest: Option<&Hash>, durably: bool) -> Result<()> {
        let user = user_name(rustix::process::geteuid().as_raw());
        let mut text = format!("znap (pid {}, user {user})\n", std::process::id());
        if let Some(name) = manifest {
            text.push_str(&format!("{INTENT} {name}\n"));
        }
        self.disk.write_at(&self.file, &self.path, text.as_bytes(), 0)?;
        self.disk.set_length(&self.file, &self.path, text.len() as u64)?;
        if durably { self.disk.sync(&self.file, &self.path) } else { Ok(()) }
    }
}

/// The manifest that a save is about to commit, or that a killed one has left; without taking the lock.
pub fn announced(layout: &Layout) -> Option<Hash> {
    announced_in(&read_text(&mut File::open(layout.lock()).ok()?))
}

fn announced_in(text: &str) -> Option<Hash> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(word, _)| *word == INTENT).and_then(|(_, name)| Hash::from_hex(name))
}

const NO_LOCKS: &str = "without locks two commands at once would damage the repository: keep it on a local disk (-R DIR), or mount \
    this file system with locks";

fn read_text(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(1000).read_to_string(&mut text));
    match read {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

/// How long is waited for the gate.
const GATE_PATIENCE: Duration = Duration::from_secs(10);

/// The gate, held shared or exclusively until it is dropped.
#[derive(Debug)]
pub struct Gate {
    _file: File,
}

impl Gate {
    /// Waits until gc isn't removing files, and keeps it from doing so.
    pub fn shared(layout: &Layout, monitor: &dyn Monitor) -> Result<Self> {
        Self::acquire(layout, false, File::try_lock_shared, monitor)
    }

    /// Waits until nobody is about to open object files.
    pub fn exclusive(layout: &Layout, monitor: &dyn Monitor) -> Result<Self> {
        Self::acquire(layout, true, File::try_lock, monitor)
    }

    /// It is held for moments only: whoever has it for longer was stopped.
    fn acquire(
        layout: &Layout,
        writable: bool,
        lock: impl Fn(&File) -> Result<(), TryLockError>,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let path = layout.gate();
        // Some file systems grant an exclusive lock only to who may write.
        let file = OpenOptions::new().read(true).write(writable).open(&path).at("open", &path)?;
        let deadline = Instant::now() + GATE_PATIENCE;
        loop {
            match lock(&file) {
                Ok(()) => return Ok(Gate { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(Error::busy(format!(
                        "another znap that is at work in {} has stopped in the middle",
                        layout.root().display()
                    ))
                    .hint("let it go on (kill -CONT), or end it: nothing is lost by that"));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
                Err(TryLockError::WouldBlock) => monitor.check()?,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
