//! The journal of a restore: what makes it possible to go on, or back, after it was interrupted anywhere.
//!
//! It is the file `restore-journal` in the repository: a line of JSON and a line with its BLAKE3 hash, only ever replaced as
//! a whole. It is written, durably, before the first database is changed, and says how each was and what it is to become.
//! Then, in this order: every database is fenced; each is changed; [`Stage::Restored`] is recorded; every
//! database is un-fenced; and the journal becomes `last-restore`, which `znap undo` reads.
//!
//! Until `Restored` is recorded it can go either way, and after that only forward: a database without its fence may
//! be in use again.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Result};
use crate::repository::counters::Counters;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;

/// The version of this format.
const FORMAT: u32 = 1;
/// No journal is as long as this.
const LONGEST: u64 = 16 << 20;

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// Databases are being changed.
    Writing,
    /// All of them are as they are to be, and some may still be fenced.
    Restored,
    /// All of them are as they were before, and some may still be fenced.
    TakenBack,
}

/// A snapshot, by its identity and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) uid: Uid,
    pub(crate) id: String,
}

/// What a restore does, and how things were before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    format: u32,
    /// The repository it belongs to.
    pub(crate) repository: Uid,
    /// When it began: microseconds since 1970, UTC.
    pub(crate) started: i64,
    /// What is restored.
    pub(crate) target: Named,
    /// The snapshot that holds all databases as they were, unless what none held was dropped.
    pub(crate) before: Option<Named>,
    /// How far it has come.
    pub(crate) stage: Stage,
    /// One entry per database.
    pub(crate) databases: Vec<Entry>,
}

/// One database in a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The database's identity.
    pub(crate) uid: Uid,
    /// Its name.
    pub(crate) name: String,
    /// Its own first four bytes, as text.
    pub(crate) magic: String,
    /// How long its file was.
    pub(crate) size: u64,
    /// How many bytes of it never change, whichever way it goes.
    pub(crate) keep: u64,
    /// The snapshot that it began with and goes back to; without one, to what it was at init.
    pub(crate) back: Option<Named>,
    /// What lay behind its last complete transaction, and is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_out: Option<LeftOutAt>,
}

/// What is cut off behind the last complete transaction of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOutAt {
    /// How many bytes.
    pub(crate) bytes: u64,
    /// The number of the `Data.fs.trN` that they are kept in, unless they are dropped.
    pub(crate) kept: Option<u32>,
}

impl Journal {
    /// One for a restore that is about to begin.
    pub(crate) fn new(
        repository: Uid,
        started: i64,
        target: Named,
        before: Option<Named>,
        databases: Vec<Entry>,
    ) -> Self {
        Journal { format: FORMAT, repository, started, target, before, stage: Stage::Writing, databases }
    }

    /// Whether anything behind the last complete transaction of a database is dropped, and not kept.
    pub(crate) fn drops_left_out(&self) -> bool {
        let mut left_out = self.databases.iter().filter_map(|entry| entry.left_out);
        left_out.any(|left_out| left_out.kept.is_none())
    }

    /// Writes it, durably, in place of what is there.
    pub(crate) fn write(&self, layout: &Layout, counters: &Counters) -> Result<()> {
        let path = layout.restore_journal();
        let json = serde_json::to_string(self)
            .map_err(|error| Error::failed(format!("cannot write {}: {error}", path.display())))?;
        let text = format!("{json}\n{}\n", Hash::of(json.as_bytes()));
        let temporary = path.with_extension("new");
        let disk = layout.disk();
        disk.remove_if_there(&temporary)?;
        let file = layout.create_file(&temporary)?;
        disk.write_at(&file, &temporary, text.as_bytes(), 0)?;
        disk.sync(&file, &temporary)?;
        counters.fsync();
        disk.rename(&temporary, &path)?;
        sync(layout, counters)
    }

    /// Records how far it has come, durably.
    pub(crate) fn record(&mut self, stage: Stage, layout: &Layout, counters: &Counters) -> Result<()> {
        self.stage = stage;
        self.write(layout, counters)
    }

    /// Ends it: from now on it is the last restore, which can be undone.
    pub(crate) fn finish(&self, layout: &Layout, counters: &Counters) -> Result<()> {
        layout.disk().rename(&layout.restore_journal(), &layout.last_restore())?;
        sync(layout, counters)
    }

    /// Ends it without a trace: nothing was restored.
    pub(crate) fn discard(&self, layout: &Layout, counters: &Counters) -> Result<()> {
        layout.disk().remove_if_there(&layout.restore_journal())?;
        sync(layout, counters)
    }

    /// The journal of the unfinished restore, if there is one.
    pub(crate) fn unfinished(layout: &Layout, repository: Uid) -> Result<Option<Journal>> {
        read(&layout.restore_journal(), repository)
    }

    /// What the last restore did, if it is known.
    pub(crate) fn last(layout: &Layout, repository: Uid) -> Result<Option<Journal>> {
        read(&layout.last_restore(), repository)
    }
}

fn sync(layout: &Layout, counters: &Counters) -> Result<()> {
    layout.disk().sync_directory(layout.root())?;
    counters.fsync();
    Ok(())
}

fn read(path: &Path, repository: Uid) -> Result<Option<Journal>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.at("open", path)?,
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).at("read", path)?;
    let journal = parse(&bytes).map_err(|reason| damaged(path.to_path_buf(), &reason))?;
    if journal.repository != repository {
        return Err(damaged(path.to_path_buf(), "it belongs to another repository"));
    }
    Ok(Some(journal))
}

fn parse(bytes: &[u8]) -> Result<Journal, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_string())?;
    let (json, hash) = text.split_once('\n').ok_or("it is incomplete")?;
    if hash.strip_suffix('\n').and_then(Hash::from_hex) != Some(Hash::of(json.as_bytes())) {
        return Err("its content does not match its hash".into());
    }
    let journal: Journal = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if journal.format != FORMAT {
        return Err(format!("it has version {}, and this znap knows version {FORMAT}", journal.format));
    }
    Ok(journal)
}

fn damaged(path: PathBuf, reason: &str) -> Error {
    Error::damaged(format!("{}, which says what a restore was doing, is damaged: {reason}", path.display())).hint(
        "put it back from a copy; docs/reliability.md says how to write a snapshot elsewhere and what to remove without one",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::Disk;
    use crate::error::Kind;
    use crate::repository::layout::Access;

    #[test]
    fn p5_a_journal_is_read_as_it_was_written_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join(".znap"), Access::Private, &Disk::default()).unwrap();
        let counters = Counters::default();
        let repository = Uid::random().unwrap();
        assert!(Journal::unfinished(&layout, repository).unwrap().is_none());
        let named = |id: &str| Named { uid: Uid([7; 16]), id: id.into() };
        let entry = Entry {
            uid: Uid([1; 16]),
            name: "main".into(),
            magic: "FS30".into(),
            size: 1000,
            keep: 500,
            back: Some(named("before")),
            left_out: Some(LeftOutAt { bytes: 30, kept: Some(0) }),
        };
        let mut journal = Journal::new(repository, 5, named("target"), Some(named("before")), vec![entry]);
        journal.write(&layout, &counters).unwrap();
        assert_eq!(Journal::unfinished(&layout, repository).unwrap().unwrap(), journal);
        journal.record(Stage::Restored, &layout, &counters).unwrap();
        assert_eq!(Journal::unfinished(&layout, repository).unwrap().unwrap().stage, Stage::Restored);
        assert!(Journal::unfinished(&layout, Uid([9; 16])).is_err());
        let path = layout.restore_journal();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(Journal::unfinished(&layout, repository).unwrap_err().kind(), Kind::Damaged, "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(Journal::unfinished(&layout, repository).unwrap_err().kind(), Kind::Damaged, "cut at {at}");
        }
        fs::write(&path, &good).unwrap();
        journal.finish(&layout, &counters).unwrap();
        assert!(Journal::unfinished(&layout, repository).unwrap().is_none());
        assert_eq!(Journal::last(&layout, repository).unwrap().unwrap(), journal);
    }
}
