//! A database, its repository, and commands given to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use znap::disk::Disk;
use znap::error::Result;
use znap::filestorage::{Oid, Writer, index_path};
use znap::monitor::Silent;
use znap::repository::chunk_writer::Compression;
use znap::snapshot::{
    CheckOptions, GcOptions, InitOptions, Place, RepairOptions, Repository, RestoreOptions, SaveOptions, Way, check,
    copy_out, delete, finish, gc, init_on, list, repair_on, restore, save, undo,
};

/// A database and its index, if it has one.
pub type State = (Vec<u8>, Option<Vec<u8>>);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Init,
    Save(&'static str),
    Delete(&'static str),
    Gc(bool),
    Restore(&'static str),
    Undo,
    Finish(Way),
    Repair,
}

/// A folder with a database, and perhaps its repository.
pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn empty() -> Self {
        World { folder: tempfile::tempdir().unwrap() }
    }

    pub fn new() -> Self {
        let world = Self::empty();
        Writer::create(world.data_fs()).unwrap();
        world
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_fs(&self) -> PathBuf {
        self.path().join("Data.fs")
    }

    pub fn place(&self) -> Place {
        Place { root: self.path().join(".znap"), trusted: Vec::new() }
    }

    /// The same in another folder.
    pub fn copy(&self) -> World {
        let copy = Self::empty();
        copy_all(self.path(), copy.path());
        copy
    }

    /// Commits transactions that don't compress, and writes the index as ZODB does.
    pub fn grow(&self, seed: u64, sizes: &[usize]) {
        let mut writer = Writer::open(self.data_fs()).unwrap();
        let mut state = seed | 1;
        for size in sizes {
            let data: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .take(*size)
            .collect();
            writer.transaction().user("u").data(Oid(seed % 50), data).commit().unwrap();
        }
        writer.save_index().unwrap();
    }

    pub fn state(&self) -> State {
        (fs::read(self.data_fs()).unwrap(), fs::read(index_path(&self.data_fs())).ok())
    }

    pub fn run(&self, command: Command, disk: &Disk) -> Result<()> {
        let place = self.place();
        let write = || Repository::open_to_write_on(disk, &place, &Silent);
        match command {
            Command::Init => {
                let options = InitOptions {
                    root: place.root.clone(),
                    databases: vec![PathBuf::from("Data.fs")],
                    current: self.path().to_path_buf(),
                    share_with_group: false,
                };
                init_on(disk, &options, &Silent).map(|_| ())
            }
            Command::Save(id) => {
                let mut options = SaveOptions::new(Some(id.into()), "", TimeZone::UTC);
                options.compression = Compression { level: 1, frame: 100_000, ..Compression::FAST };
                save(&mut write()?, &options, &Silent).map(|_| ())
            }
            Command::Delete(id) => delete(&mut write()?, &[id.to_string()], &Silent).map(|_| ()),
            Command::Gc(all) => gc(&mut write()?, GcOptions { all }, &Silent).map(|_| ()),
            Command::Restore(id) => restore(&mut write()?, id, &RestoreOptions::default(), &Silent).map(|_| ()),
            Command::Undo => undo(&mut write()?, &RestoreOptions::default(), &Silent).map(|_| ()),
            Command::Repair => repair_on(disk, &place, &RepairOptions::default(), &Silent).map(|_| ()),
            Command::Finish(way) => {
                let mut repository = Repository::open_to_finish_on(disk, &place, &Silent)?;
                finish(&mut repository, way, &Silent).map(|_| ())
            }
        }
    }

    pub fn read(&self) -> Repository {
        Repository::open(&self.place()).unwrap()
    }

    /// All snapshots but those that restores made, each written elsewhere.
    pub fn snapshots(&self) -> BTreeMap<String, State> {
        let ids: Vec<String> =
            list(&self.read()).unwrap().into_iter().filter(|info| info.kind == "save").map(|info| info.id).collect();
        ids.into_iter().map(|id| (id.clone(), self.elsewhere(&id))).collect()
    }

    /// What `check` finds in the repository, all data included.
    pub fn damage(&self) -> Vec<String> {
        let options = CheckOptions { data: true, ..CheckOptions::default() };
        check(&self.read(), &options, &Silent).unwrap().findings.into_iter().map(|finding| finding.what).collect()
    }

    /// A snapshot, written elsewhere.
    pub fn elsewhere(&self, id: &str) -> State {
        let to = tempfile::tempdir().unwrap();
        copy_out(&self.read(), id, &to.path().join("copy"), &Silent).unwrap();
        let path = to.path().join("copy/data/Data.fs");
        (fs::read(&path).unwrap(), fs::read(index_path(&path)).ok())
    }

    /// What is beside the database that belongs neither to it nor to a repository.
    pub fn litter(&self) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !["Data.fs", "Data.fs.index", "Data.fs.lock", ".znap"].contains(&name.as_str())).collect()
    }
}

pub fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}
