//! A database and its repository, driven through the library; what is in the database doesn't matter.

use std::fs;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use znap::filestorage::{Oid, write::Writer};
use znap::monitor::Silent;
use znap::repository::chunk_writer::Compression;
use znap::snapshot::{
    GcOptions, GcReport, InitOptions, Place, Repository, RestoreOptions, SaveOptions, delete, gc, init, restore, save,
};

use super::sandbox::{simulated_disk, undisturbed};

/// A database and its repository, through the library.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub place: Place,
}

impl Bench {
    /// A repository of an empty database.
    pub fn new() -> Self {
        Self::over(&["Data.fs"], |_| ())
    }

    /// A repository of these databases, filled with something first.
    pub fn over(names: &[&str], fill: impl Fn(&mut Writer)) -> Self {
        let folder = simulated_disk();
        for name in names {
            let mut writer = Writer::create(folder.path().join(name)).unwrap();
            fill(&mut writer);
        }
        let place = Place { root: folder.path().join(".znap"), trusted: Vec::new() };
        let options = InitOptions {
            root: place.root.clone(),
            databases: names.iter().map(|name| PathBuf::from(name).into()).collect(),
            current: folder.path().to_path_buf(),
            share_with_group: false,
        };
        init(&options, &Silent).unwrap();
        Bench { folder, place }
    }

    /// A repository of a database that had two megabytes before: its snapshots need them.
    pub fn with_base() -> Self {
        let bench = Self::over(&["Data.fs"], |writer| {
            for number in 0..20 {
                writer.transaction().data(Oid(number), vec![number as u8; 100_000]).commit().unwrap();
            }
            writer.save_index().unwrap();
        });
        let base: usize = bench.sql().query_row("SELECT base_length FROM generation", [], |row| row.get(0)).unwrap();
        assert_eq!(base, bench.bytes().len());
        bench
    }

    pub fn data_fs(&self) -> PathBuf {
        self.folder.path().join("Data.fs")
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.data_fs()).unwrap()
    }

    pub fn grow(&self, seed: u64, size: usize) {
        let mut state = seed | 1;
        let data: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .take(size)
        .collect();
        let mut writer = Writer::open(self.data_fs()).unwrap();
        writer.transaction().user("u").data(Oid(seed % 50), data).commit().unwrap();
    }

    pub fn write(&self) -> Repository {
        Repository::open_to_write(&self.place, &Silent).unwrap()
    }

    pub fn save(&self, id: &str) {
        let mut options = SaveOptions::new(Some(id.into()), "", TimeZone::UTC);
        options.compression = Compression { level: 1, frame: 200_000, ..Compression::FAST };
        save(&mut self.write(), &options, &Silent).unwrap();
    }

    /// So many saves, `s0` and on, each of about so many bytes.
    pub fn saves(&self, count: u64, size: usize) {
        for number in 0..count {
            self.grow(number, size);
            self.save(&format!("s{number}"));
        }
    }

    /// Leaves things as they are if a save is killed between writing its object files and committing. Returns its manifest.
    pub fn save_killed_before_its_commit(&self, id: &str) -> PathBuf {
        let catalog = self.place.root.join("catalog.db");
        let before = fs::read(&catalog).unwrap();
        let objects = self.objects();
        self.save(id);
        fs::write(&catalog, &before).unwrap();
        let is_new_manifest = |path: &PathBuf| !objects.contains(path) && fs::read(path).unwrap()[9] == 2;
        let manifest = self.objects().into_iter().find(is_new_manifest).unwrap();
        let name = manifest.file_name().unwrap().to_str().unwrap();
        fs::write(self.place.root.join("lock"), format!("znap (pid 1, user nobody)\nmanifest {name}\n")).unwrap();
        manifest
    }

    pub fn restore(&self, id: &str) {
        let options = RestoreOptions { discard: true, verify: true, ..RestoreOptions::default() };
        undisturbed(|| restore(&mut self.write(), id, &options, &Silent)).unwrap();
    }

    pub fn delete(&self, id: &str) {
        delete(&mut self.write(), &[id.to_string()], &Silent).unwrap();
    }

    pub fn gc(&self, all: bool) -> GcReport {
        gc(&mut self.write(), GcOptions { all }, &Silent).unwrap()
    }

    pub fn objects(&self) -> Vec<PathBuf> {
        let mut objects: Vec<PathBuf> =
            fs::read_dir(self.place.root.join("objects")).unwrap().map(|entry| entry.unwrap().path()).collect();
        objects.sort();
        objects
    }

    pub fn object_bytes(&self) -> u64 {
        self.objects().iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    pub fn read(&self) -> Repository {
        Repository::open(&self.place).unwrap()
    }

    pub fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.place.root.join("catalog.db")).unwrap()
    }
}

/// Fails from the first change of a database's bytes on.
struct StopAtDatabase(std::sync::atomic::AtomicBool);

impl znap::disk::Watcher for StopAtDatabase {
    fn before(&self, change: &znap::disk::Change<'_>) -> std::io::Result<usize> {
        use std::sync::atomic::Ordering;
        if let znap::disk::Change::SetLength { path, .. } = change
            && path.ends_with("Data.fs")
        {
            self.0.store(true, Ordering::Relaxed);
        }
        if self.0.load(Ordering::Relaxed) { Err(std::io::Error::other("killed")) } else { Ok(usize::MAX) }
    }
}

/// Restores a snapshot, and is killed when the database is about to be cut. Returns whether that was so.
pub fn stop_in_restore(bench: &Bench, id: &str) -> bool {
    let disk = znap::disk::Disk::watched(std::sync::Arc::new(StopAtDatabase(Default::default())));
    let mut repository = Repository::open_to_write_on(&disk, &bench.place, &Silent).unwrap();
    restore(&mut repository, id, &RestoreOptions::default(), &Silent).is_err()
}
