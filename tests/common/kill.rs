//! A kill in the middle of a command, for its files at least.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use znap::disk::{Change, Watcher};

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
