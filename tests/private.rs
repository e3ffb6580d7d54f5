//! A Data.fs holds password hashes: every file of a repository is its owner's alone, or its group's if that was asked for, at
//! every moment and whatever the umask. A test binary of its own: the umask is the process's.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::tz::TimeZone;
use rustix::fs::Mode;
use rustix::process::umask;
use znap::disk::{Change, Disk, Watcher};
use znap::filestorage::{Oid, Writer};
use znap::monitor::Silent;
use znap::snapshot::{
    CheckOptions, GcOptions, InitOptions, Place, RepairOptions, Repository, RestoreOptions, SaveOptions, Way, check,
    delete, finish, gc, init_on, repair_on, restore, save, undo,
};

/// Looks at the modes of everything in a folder before each change, and remembers what there was.
struct Look {
    folder: PathBuf,
    /// Of a directory, and of a file.
    modes: (u32, u32),
    /// The end of the path at whose next change everything fails.
    dead_at: Mutex<Option<&'static str>>,
    seen: Mutex<BTreeSet<String>>,
}

impl Look {
    fn at(&self, path: &Path) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(&self.folder).unwrap().to_str().unwrap().to_string();
            let is_dir = metadata.is_dir();
            if name.starts_with(".znap") {
                let mode = if is_dir { self.modes.0 } else { self.modes.1 };
                assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name} {mode:o}");
            }
            if is_dir {
                self.at(&path);
            }
            // A journal counts as long as SQLite would play it back.
            if metadata.len() > 0 || !name.ends_with("-journal") {
                self.seen.lock().unwrap().insert(name);
            }
        }
    }
}

impl Watcher for Look {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        let mut dead_at = self.dead_at.lock().unwrap();
        match (change, *dead_at) {
            (Change::SetLength { path, .. }, Some(end)) if path.ends_with(end) => *dead_at = Some(""),
            // Between its creation and its mode for the group a file is its owner's alone, and nothing else happens.
            _ => self.at(&self.folder),
        }
        if *dead_at == Some("") { Err(io::Error::other("killed")) } else { Ok(usize::MAX) }
    }
}

/// Everything that makes a file in a repository, once.
fn life(share_with_group: bool) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let data_fs = folder.path().join("Data.fs");
    Writer::create(&data_fs).unwrap();
    let grow = |seed: u8| {
        let data: Vec<u8> = (0..30_000_u64).map(|at| (at.wrapping_mul(at * 5 + u64::from(seed)) >> 5) as u8).collect();
        Writer::open(&data_fs).unwrap().transaction().data(Oid(1), data).commit().unwrap();
    };
    let modes = if share_with_group { (0o2770, 0o660) } else { (0o700, 0o600) };
    let (dead_at, seen) = Default::default();
    let look = Arc::new(Look { folder: folder.path().to_path_buf(), modes, dead_at, seen });
    let disk = Disk::watched(look.clone());
    let place = Place { root: folder.path().join(".znap"), trusted: Vec::new() };
    let options = InitOptions {
        root: place.root.clone(),
        databases: vec![PathBuf::from("Data.fs").into()],
        current: folder.path().to_path_buf(),
        share_with_group,
    };
    let write = || Repository::open_to_write_on(&disk, &place, &Silent).unwrap();
    let save = |id: &str| save(&mut write(), &SaveOptions::new(Some(id.into()), "", TimeZone::UTC), &Silent).unwrap();
    init_on(&disk, &options, &Silent).unwrap();
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        grow(seed);
        save(id);
    }
    let limited = CheckOptions { data: true, limit: Some(Duration::ZERO), databases: false };
    check(&Repository::open(&place).unwrap(), &limited, &Silent).unwrap();
    look.at(folder.path());
    // A restore that is killed, and finished; and one that saves something first.
    *look.dead_at.lock().unwrap() = Some("Data.fs");
    let options = RestoreOptions::default();
    restore(&mut write(), "a", &options, &Silent).unwrap_err();
    *look.dead_at.lock().unwrap() = None;
    look.at(folder.path());
    let mut repository = Repository::open_to_finish_on(&disk, &place, &Silent).unwrap();
    assert!(finish(&mut repository, Way::Forward, &Silent).unwrap().unwrap().restored);
    drop(repository);
    grow(4);
    restore(&mut write(), "c", &options, &Silent).unwrap();
    undo(&mut write(), &options, &Silent).unwrap();
    delete(&mut write(), &["b".to_string()], &Silent).unwrap();
    gc(&mut write(), GcOptions { all: true }, &Silent).unwrap();
    // A repair without a catalog, of an object file that is damaged.
    let objects = fs::read_dir(place.root.join("objects")).unwrap().map(|entry| entry.unwrap().path());
    let data = objects.into_iter().find(|path| fs::read(path).unwrap()[9] == 1).unwrap();
    let mut bytes = fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&data, bytes).unwrap();
    fs::write(place.root.join("catalog.db"), "no database").unwrap();
    repair_on(&disk, &place, &RepairOptions::default(), &Silent).unwrap();
    look.at(folder.path());
    look.seen.lock().unwrap().clone()
}

#[test]
fn every_file_of_a_repository_is_private_whatever_the_umask() {
    for mask in [0o000, 0o077] {
        for share_with_group in [false, true] {
            umask(Mode::from_raw_mode(mask));
            let seen = life(share_with_group);
            let expected = [
                "catalog.db",
                "catalog.db-journal",
                "catalog.db.new",
                "catalog.db.damaged-1",
                "check-progress",
                "damaged",
                "gate",
                "last-restore",
                "lock",
                "objects",
                "reserve",
                "restore-journal",
                "restore-journal.new",
                ".gitignore",
            ];
            let missing: Vec<&str> =
                expected.into_iter().filter(|name| !seen.contains(&format!(".znap/{name}"))).collect();
            assert!(missing.is_empty(), "{missing:?} of {seen:?}");
            assert!(seen.iter().any(|name| name.starts_with(".znap/objects/.tmp-")), "{seen:?}");
            assert!(seen.iter().any(|name| name.starts_with(".znap/damaged/")), "{seen:?}");
        }
    }
}
