//! A kill in the middle of a command, for its files at least.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use znap::disk::{Change, Disk, Watcher};
use znap::error::Result;
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, RestoreOptions, Way, finish, restore};

use super::sandbox::{Sandbox, undisturbed};

/// From one change on, nothing is changed any more: not by what clears up after an error, either.
pub struct Kill {
    at: usize,
    seen: AtomicUsize,
}

impl Kill {
    /// One before this change; none before `usize::MAX`.
    pub fn at(change: usize) -> Arc<Self> {
        Arc::new(Kill { at: change, seen: AtomicUsize::new(0) })
    }

    /// How many changes there were, or would have been.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    pub fn fired(&self) -> bool {
        self.seen() > self.at
    }
}

impl Watcher for Kill {
    fn before(&self, _: &Change<'_>) -> io::Result<usize> {
        if self.seen.fetch_add(1, Ordering::Relaxed) >= self.at {
            return Err(io::Error::other("killed"));
        }
        Ok(usize::MAX)
    }
}

/// Restores a snapshot of the sandbox's own repository, with every change of a file going through `disk`.
pub fn restore_on(disk: &Disk, world: &Sandbox, id: &str) -> Result<()> {
    let place = Place { root: world.file(".znap"), trusted: Vec::new() };
    let mut repository = Repository::open_to_write_on(disk, &place, &Silent)?;
    undisturbed(|| restore(&mut repository, id, &RestoreOptions::default(), &Silent)).map(drop)
}

/// Finishes what a killed restore left, likewise.
pub fn finish_on(disk: &Disk, world: &Sandbox, way: Way) -> Result<()> {
    let place = Place { root: world.file(".znap"), trusted: Vec::new() };
    let mut repository = Repository::open_to_finish_on(disk, &place, &Silent)?;
    undisturbed(|| finish(&mut repository, way, &Silent)).map(drop)
}
