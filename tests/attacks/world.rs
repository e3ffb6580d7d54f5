//! Databases, their repository, and commands given to them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use znap::disk::Disk;
use znap::error::Result;
use znap::filestorage::{Oid, Writer, index_path};
use znap::monitor::Silent;
use znap::repository::chunk_writer::Compression;
use znap::snapshot::{
    BlobMode, CheckOptions, GcOptions, InitOptions, KEPT_WHOLE, NewDatabase, Place, RepairOptions, Repository,
    RestoreOptions, SaveOptions, Way, check, copy_out, delete, finish, gc, init_on, list, repair_on, restore, save,
    undo,
};

use crate::common::{Zodb, simulated_disk};

/// A database, its index if it has one, and the files in its blob directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Database {
    pub file: Vec<u8>,
    pub index: Option<Vec<u8>>,
    pub blobs: BTreeMap<PathBuf, Vec<u8>>,
}

/// Databases by their files' names.
pub type State = BTreeMap<String, Database>;

/// The blob directory of `Data.fs`, if it has one.
const BLOBS: &str = "blobstorage";
/// Where a restore makes blobs; it is nobody's until the next one.
const PREPARED: &str = ".znap-restore";

/// What a database's file is also called, if it has another name: somebody's copy of yesterday, which nothing may change.
pub const OTHER_NAME: &str = "kept.fs";

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Init,
    Save(&'static str),
    Delete(&'static str),
    Gc(bool),
    Restore(&'static str),
    /// A restore that drops what no snapshot holds.
    Discard(&'static str),
    Undo,
    Finish(Way),
    Repair,
}

impl Command {
    pub fn is_restore(self) -> bool {
        matches!(self, Command::Restore(_) | Command::Discard(_) | Command::Undo)
    }
}

/// A folder with databases, and perhaps their repository.
pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn empty() -> Self {
        World { folder: simulated_disk() }
    }

    /// One with these databases, which are empty.
    pub fn with(names: &[&str]) -> Self {
        let world = Self::empty();
        for name in names {
            Writer::create(world.path().join(name)).unwrap();
        }
        world
    }

    /// One that ZODB is going to make a site with blobs in, of this layout.
    pub fn with_blobs(layout: &str) -> Self {
        let world = Self::empty();
        fs::create_dir(world.blobs()).unwrap();
        fs::write(world.blobs().join(".layout"), layout).unwrap();
        world
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn blobs(&self) -> PathBuf {
        self.path().join(BLOBS)
    }

    /// Real ZODB makes a database that is too large to be kept whole.
    pub fn make_large(&self, zodb: &mut Zodb) {
        let path = self.path().join("Data.fs");
        zodb.run(&["make", path.to_str().unwrap(), "--seed", "1", "--mb", "1.1", "--profile", "mixed"]);
        assert!(fs::metadata(path).unwrap().len() > KEPT_WHOLE);
    }

    /// Real ZODB makes blobs, changes, deletes and undoes some.
    pub fn grow_site(&self, zodb: &mut Zodb, seed: u64, transactions: u64) {
        let (path, seed, transactions) = (self.path().join("Data.fs"), seed.to_string(), transactions.to_string());
        let args = ["--seed", &seed, "--transactions", &transactions, "--size", "6000", "--undo"];
        zodb.run(&[&["blobs", path.to_str().unwrap()], &args[..]].concat());
    }

    /// Real ZODB packs it, and what it leaves of before is removed.
    pub fn pack(&self, zodb: &mut Zodb) {
        zodb.run(&["blobs-pack", self.path().join("Data.fs").to_str().unwrap()]);
        fs::remove_file(self.path().join("Data.fs.old")).unwrap();
        let _ = fs::remove_dir_all(self.path().join("blobstorage.old"));
    }

    /// Somebody removes the blob directory.
    pub fn lose_blobs(&self) {
        fs::remove_dir_all(self.blobs()).unwrap();
    }

    /// Real ZODB reads everything, all blobs included.
    pub fn read_by_zodb(&self, zodb: &mut Zodb) {
        let copy = self.copy();
        zodb.run(&["blobs-check", copy.path().join("Data.fs").to_str().unwrap()]);
        assert!(copy.state() == self.state());
    }

    pub fn has_blobs(&self) -> bool {
        self.blobs().exists()
    }

    /// How much more rarely it is attacked: a site with blobs has many more changes, and looking at it takes longer.
    pub fn rarity(&self) -> usize {
        if self.has_blobs() { 10 } else { 1 }
    }

    pub fn place(&self) -> Place {
        Place { root: self.path().join(".znap"), trusted: Vec::new() }
    }

    /// The same in another folder.
    pub fn copy(&self) -> World {
        let copy = Self::empty();
        copy_all(self.path(), copy.path(), &mut HashMap::new());
        copy
    }

    /// Commits transactions that don't compress to each database, and writes the indexes as ZODB does.
    pub fn grow(&self, seed: u64, sizes: &[usize]) {
        for (number, name) in databases_in(self.path()).into_iter().filter(|name| name != OTHER_NAME).enumerate() {
            self.grow_one(&name, seed + 100 * number as u64, sizes);
        }
    }

    fn grow_one(&self, name: &str, seed: u64, sizes: &[usize]) {
        let mut writer = Writer::open(self.path().join(name)).unwrap();
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

    /// Commits transactions to the one database, as a server that is killed before it writes an index, and breaks the length
    /// of the first. Returns their bytes.
    pub fn grow_broken(&self, seed: u64, sizes: &[usize]) -> Vec<u8> {
        let path = self.path().join("Data.fs");
        let (index, end) = (fs::read(index_path(&path)).unwrap(), fs::metadata(&path).unwrap().len() as usize);
        self.grow(seed, sizes);
        fs::write(index_path(&path), index).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        // Behind its id: the highest byte.
        bytes[end + 8] ^= 1;
        fs::write(&path, &bytes).unwrap();
        bytes.split_off(end)
    }

    pub fn state(&self) -> State {
        state_of(self.path())
    }

    /// The databases without their indexes.
    pub fn bytes(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().into_iter().map(|(name, database)| (name, database.file)).collect()
    }

    /// Gives the last database another name, as `cp -al` does.
    pub fn link(&self) {
        let last = databases_in(self.path()).pop().unwrap();
        fs::hard_link(self.path().join(last), self.path().join(OTHER_NAME)).unwrap();
    }

    pub fn run(&self, command: Command, disk: &Disk) -> Result<()> {
        let place = self.place();
        let write = || Repository::open_to_write_on(disk, &place, &Silent);
        match command {
            Command::Init => {
                let options = InitOptions {
                    root: place.root.clone(),
                    databases: databases_in(self.path()).into_iter().map(|name| self.new_database(name)).collect(),
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
            Command::Discard(id) => {
                let options = RestoreOptions { discard: true, ..RestoreOptions::default() };
                restore(&mut write()?, id, &options, &Silent).map(|_| ())
            }
            Command::Undo => undo(&mut write()?, &RestoreOptions::default(), &Silent).map(|_| ()),
            Command::Repair => repair_on(disk, &place, &RepairOptions::default(), &Silent).map(|_| ()),
            Command::Finish(way) => {
                let mut repository = Repository::open_to_finish_on(disk, &place, &Silent)?;
                finish(&mut repository, way, &Silent).map(|_| ())
            }
        }
    }

    /// The blobs of a bushy directory are linked, those of another one copied.
    fn new_database(&self, name: String) -> NewDatabase {
        let layout = fs::read_to_string(self.blobs().join(".layout")).ok();
        let copied = layout.as_ref().is_some_and(|layout| layout != "bushy");
        NewDatabase {
            blobs: layout.map(|_| BLOBS.into()),
            mode: copied.then_some(BlobMode::Copy),
            ..PathBuf::from(name).into()
        }
    }

    /// How many databases have a second name in the repository.
    pub fn second_names(&self) -> usize {
        fs::read_dir(self.path().join(".znap/bases")).map_or(0, Iterator::count)
    }

    pub fn read(&self) -> Repository {
        Repository::open(&self.place()).unwrap()
    }

    /// All snapshots, each written elsewhere.
    pub fn snapshots(&self) -> BTreeMap<String, State> {
        let repository = self.read();
        let infos = list(&repository).unwrap().into_iter();
        infos.map(|info| (info.id.clone(), elsewhere(&repository, &info.id).unwrap())).collect()
    }

    /// What `check` finds in the repository, all data included.
    pub fn damage(&self) -> Vec<String> {
        let options = CheckOptions { data: true, ..CheckOptions::default() };
        check(&self.read(), &options, &Silent).unwrap().findings.into_iter().map(|finding| finding.what).collect()
    }

    /// What is beside the databases that belongs neither to them nor to a repository.
    pub fn litter(&self) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let belongs = |name: &String| {
            [".znap", BLOBS].contains(&name.as_str())
                || [".fs", ".fs.index", ".fs.lock", ".fs.tmp"].iter().any(|end| name.ends_with(end))
        };
        let prepared = self.blobs().join(PREPARED).exists().then(|| PREPARED.to_string());
        names.filter(|name| !belongs(name) && !is_left_out(name)).chain(prepared).collect()
    }

    /// What restores have kept of what lay behind the last complete transactions: `Data.fs.tr0` and so on.
    pub fn left_out(&self) -> BTreeMap<String, Vec<u8>> {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let read = |name: String| (name.clone(), fs::read(self.path().join(name)).unwrap());
        names.filter(|name| is_left_out(name)).map(read).collect()
    }
}

fn is_left_out(name: &str) -> bool {
    let number = name.split_once(".fs.tr").map(|(_, number)| number);
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// A snapshot, written elsewhere.
pub fn elsewhere(repository: &Repository, id: &str) -> Result<State> {
    let to = simulated_disk();
    let copy = to.path().join("copy");
    copy_out(repository, id, &copy, &Silent)?;
    Ok(fs::read_dir(copy).unwrap().flat_map(|folder| state_of(&folder.unwrap().path())).collect())
}

fn state_of(folder: &Path) -> State {
    let state = |name: String| {
        let path = folder.join(&name);
        let blobs = if name == "Data.fs" { blobs_in(&folder.join(BLOBS)) } else { BTreeMap::new() };
        (name, Database { file: fs::read(&path).unwrap(), index: fs::read(index_path(&path)).ok(), blobs })
    };
    databases_in(folder).into_iter().map(state).collect()
}

/// The files in a blob directory, and what says how it is laid out if there are any.
fn blobs_in(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap();
            if path.is_dir() && name != Path::new(PREPARED) {
                folders.push(path);
            } else if path.is_file() && !name.to_str().unwrap().starts_with('.') {
                files.insert(name.to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    if !files.is_empty() {
        let layout = fs::read(directory.join(".layout")).expect("P4: ZODB would look for the blobs elsewhere");
        files.insert(".layout".into(), layout);
    }
    files
}

/// The names of the databases in a folder, in order.
fn databases_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".fs")).collect();
    names.sort();
    names
}

/// Copies a folder. Files with several names have them in the copy, too; `linked` knows their copies.
fn copy_all(from: &Path, to: &Path, linked: &mut HashMap<u64, PathBuf>) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target, linked);
        } else if let Some(same) = linked.get(&metadata.ino()) {
            fs::hard_link(same, &target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
            if metadata.nlink() > 1 {
                linked.insert(metadata.ino(), target);
            }
        }
    }
}
