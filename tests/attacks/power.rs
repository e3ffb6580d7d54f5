//! The power is cut behind every change of every command. What was forced to the disk is there after that; of the
//! rest, anything may be, in any order: nothing, all, names without data, data without names, all but one change, half of
//! the last write and then what was in memory by chance, unless it is within a sector.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use znap::disk::{Change, Disk, Watcher};
use znap::snapshot::Way;

use crate::kills::killed;
use crate::script::{Step, script, sites};
use crate::world::{Command, World};

/// How many bytes a disk writes at once, at least; no write of fewer within them is torn.
const SECTOR: usize = 512;

/// A change, remembered.
#[derive(Debug, Clone)]
enum Op {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLength(PathBuf, u64),
    Sync(PathBuf),
    SyncDirectory(PathBuf),
    SyncFileSystem,
    CreateDirectory(PathBuf),
    RemoveDirectory(PathBuf),
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// The catalog is this now, and will be after a power cut, as SQLite promises.
    Catalog(PathBuf, Vec<u8>),
}

/// Remembers every change, and what SQLite has made of the catalog before it.
#[derive(Default)]
struct Recorder(Mutex<Recorded>);

#[derive(Default)]
struct Recorded {
    ops: Vec<Op>,
    catalog: Option<(PathBuf, Vec<u8>)>,
    /// How many changes are still made before all fail, if there is such a number.
    alive: Option<usize>,
}

impl Recorded {
    fn look_at_catalog(&mut self) {
        let Some((path, before)) = &mut self.catalog else { return };
        if let Ok(now) = fs::read(&*path)
            && now != *before
        {
            self.ops.push(Op::Catalog(path.clone(), now.clone()));
            *before = now;
        }
    }
}

impl Watcher for Recorder {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        let mut recorded = self.0.lock().unwrap();
        recorded.look_at_catalog();
        if let Some(alive) = &mut recorded.alive {
            *alive = alive.checked_sub(1).ok_or_else(|| io::Error::other("killed"))?;
        }
        match *change {
            // What SQLite has made of a new one is on the disk only now.
            Change::Sync { path } if path.ends_with("catalog.db.new") => {
                recorded.ops.push(Op::Write(path.into(), 0, fs::read(path)?));
            }
            Change::Rename { from, to } if from.ends_with("catalog.db.new") => {
                recorded.catalog = Some((to.into(), fs::read(from)?));
            }
            _ => {}
        }
        let op = match *change {
            Change::Create { path } => Op::Create(path.into()),
            Change::Write { path, offset, bytes } => Op::Write(path.into(), offset, bytes.into()),
            Change::SetLength { path, length } => Op::SetLength(path.into(), length),
            Change::Sync { path } => Op::Sync(path.into()),
            Change::SyncDirectory { path } => Op::SyncDirectory(path.into()),
            Change::SyncFileSystem { .. } => Op::SyncFileSystem,
            Change::CreateDirectory { path } => Op::CreateDirectory(path.into()),
            Change::RemoveDirectory { path } => Op::RemoveDirectory(path.into()),
            Change::Link { from, to } => Op::Link(from.into(), to.into()),
            Change::Rename { from, to } => Op::Rename(from.into(), to.into()),
            Change::Remove { path } => Op::Remove(path.into()),
            Change::Commit { .. } => return Ok(usize::MAX),
        };
        if let Op::Create(path) = &op
            && path.ends_with("catalog.db")
        {
            recorded.catalog = Some((path.clone(), Vec::new()));
        }
        recorded.ops.push(op);
        Ok(usize::MAX)
    }
}

/// A file or a folder: what is on the disk, and what was done since.
#[derive(Debug, Clone, Default)]
struct Node {
    durable: Vec<u8>,
    pending: Vec<Op>,
    mode: u32,
    is_folder: bool,
}

impl Node {
    fn with(&self, pending: impl IntoIterator<Item = Op>) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for op in pending {
            match op {
                Op::Write(_, offset, data) => {
                    let end = offset as usize + data.len();
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[offset as usize..end].copy_from_slice(&data);
                }
                Op::SetLength(_, length) => bytes.resize(length as usize, 0),
                _ => unreachable!(),
            }
        }
        bytes
    }

    fn now(&self) -> Vec<u8> {
        self.with(self.pending.iter().cloned())
    }

    fn sync(&mut self) {
        self.durable = self.now();
        self.pending.clear();
    }
}

/// A folder's number, and a name in it.
type Name = (usize, OsString);
/// What has these names: the number of a file, which several names may have, or of a folder.
type Names = BTreeMap<Name, usize>;
/// The same by paths seen from the root, with what is in files.
type Image = BTreeMap<PathBuf, (usize, Node)>;

/// A disk with a memory in front of it. A folder is a file of names: it may be there without its own name being so.
struct Sim {
    root: PathBuf,
    /// The first one is the root.
    nodes: Vec<Node>,
    names: Names,
    durable: Names,
}

impl Sim {
    fn of(world: &World) -> Self {
        let root = world.path().to_path_buf();
        let (nodes, names, durable) = Default::default();
        let mut sim = Sim { root, nodes, names, durable };
        sim.add(Node { is_folder: true, ..Node::default() });
        let mut numbers = HashMap::new();
        let mut folders = vec![(0, world.path().to_path_buf())];
        while let Some((number, folder)) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
                let (path, metadata) = (entry.path(), entry.metadata().unwrap());
                let found = *numbers.entry(metadata.ino()).or_insert(sim.nodes.len());
                if found == sim.nodes.len() {
                    let durable = if metadata.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
                    let (mode, is_folder) = (metadata.mode() & 0o7777, metadata.is_dir());
                    sim.add(Node { durable, pending: Vec::new(), mode, is_folder });
                }
                if metadata.is_dir() {
                    folders.push((found, path));
                }
                sim.names.insert((number, entry.file_name()), found);
            }
        }
        sim.durable = sim.names.clone();
        sim
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The number of what is there now.
    fn number(&self, path: &Path) -> usize {
        let inside = path.strip_prefix(&self.root).unwrap();
        inside.iter().fold(0, |folder, name| self.names[&(folder, name.to_owned())])
    }

    fn name(&self, path: &Path) -> Name {
        (self.number(path.parent().unwrap()), path.file_name().unwrap().to_owned())
    }

    fn node(&mut self, path: &Path) -> &mut Node {
        let number = self.number(path);
        &mut self.nodes[number]
    }

    fn give_name(&mut self, path: &Path, number: usize) {
        let name = self.name(path);
        assert!(self.names.insert(name, number).is_none(), "{}", path.display());
    }

    fn apply(&mut self, op: &Op) {
        match op {
            // It was there, and that is what it was made for.
            Op::CreateDirectory(path) if self.names.contains_key(&self.name(path)) => {}
            Op::Create(path) | Op::CreateDirectory(path) => {
                let is_folder = matches!(op, Op::CreateDirectory(_));
                let number = self.add(Node { mode: 0o600, is_folder, ..Node::default() });
                self.give_name(path, number);
            }
            Op::Write(path, ..) | Op::SetLength(path, _) => self.node(path).pending.push(op.clone()),
            Op::Sync(path) => self.node(path).sync(),
            Op::Catalog(path, bytes) => {
                let (number, name) = (self.number(path), self.name(path));
                self.nodes[number] = Node { durable: bytes.clone(), mode: 0o600, ..Node::default() };
                // SQLite syncs the directory.
                self.durable.insert(name, number);
            }
            Op::Link(from, to) => self.give_name(to, self.number(from)),
            Op::Rename(from, to) => {
                let (number, from, to) = (self.number(from), self.name(from), self.name(to));
                // Two names of one file stay.
                if self.names.get(&to) != Some(&number) {
                    self.names.remove(&from);
                    self.names.insert(to, number);
                }
            }
            Op::Remove(path) => drop(self.names.remove(&self.name(path))),
            Op::RemoveDirectory(path) => {
                let number = self.number(path);
                if !self.names.keys().any(|(folder, _)| *folder == number) {
                    self.names.remove(&self.name(path));
                }
            }
            Op::SyncDirectory(path) => {
                let number = self.number(path);
                self.durable.retain(|(folder, _), _| *folder != number);
                let here = self.names.iter().filter(|((folder, _), _)| *folder == number);
                self.durable.extend(here.map(|(name, number)| (name.clone(), *number)));
            }
            Op::SyncFileSystem => {
                self.nodes.iter_mut().for_each(Node::sync);
                self.durable = self.names.clone();
            }
        }
    }

    /// What can be reached by these names.
    fn image(&self, names: &Names, content: impl Fn(&Node) -> Vec<u8>) -> Image {
        let mut image = Image::new();
        let mut folders = vec![(0, PathBuf::new())];
        while let Some((number, path)) = folders.pop() {
            for ((_, name), found) in names.range((number, OsString::new())..(number + 1, OsString::new())) {
                let (node, path) = (&self.nodes[*found], path.join(name));
                if node.is_folder {
                    folders.push((*found, path.clone()));
                }
                let node = Node { durable: content(node), pending: Vec::new(), ..*node };
                image.insert(path, (*found, node));
            }
        }
        image
    }

    /// All, but for the bytes of one file.
    fn all_but(&self, number: usize, bytes: &[u8]) -> Image {
        let mut image = self.image(&self.names, Node::now);
        for (_, node) in image.values_mut().filter(|(other, _)| *other == number) {
            node.durable = bytes.to_vec();
        }
        image
    }

    /// What may be there after a power cut now.
    fn images(&self) -> Vec<(String, Image)> {
        let durable = |node: &Node| node.durable.clone();
        let mut images = vec![
            ("nothing more".to_string(), self.image(&self.durable, durable)),
            ("all".to_string(), self.image(&self.names, Node::now)),
            ("names without data".to_string(), self.image(&self.names, durable)),
            ("data without names".to_string(), self.image(&self.durable, Node::now)),
        ];
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(((_, name), _)) = self.names.iter().find(|(_, other)| **other == number) else { continue };
            for dropped in 0..node.pending.len().min(4) {
                let others = node.pending.iter().enumerate().filter(|(at, _)| *at != dropped);
                let image = self.all_but(number, &node.with(others.map(|(_, op)| op.clone())));
                images.push((format!("all but change {dropped} of {name:?}"), image));
            }
            // A disk writes a sector or doesn't.
            if let Some(Op::Write(path, offset, data)) = node.pending.last()
                && data.len() > SECTOR
            {
                for garbage in [0, 0xa5] {
                    let mut torn = data.clone();
                    let half = torn.len() / 2 / SECTOR * SECTOR;
                    torn[half..].fill(garbage);
                    let mut pending = node.pending.clone();
                    pending.pop();
                    pending.push(Op::Write(path.clone(), *offset, torn));
                    let image = self.all_but(number, &node.with(pending));
                    images.push((format!("half of the last write to {name:?}"), image));
                }
            }
        }
        // Each name by itself that isn't durable, or isn't durably gone.
        for (name, number) in &self.names {
            if self.durable.get(name) == Some(number) {
                continue;
            }
            let mut names = self.names.clone();
            names.remove(name);
            let has_name = |other: &Name| self.names.get(other) == Some(number);
            if let Some((old, _)) = self.durable.iter().find(|(old, other)| *other == number && !has_name(old)) {
                names.insert(old.clone(), *number);
            }
            if let Some(replaced) = self.durable.get(name) {
                names.insert(name.clone(), *replaced);
            }
            images.push((format!("all but the name {name:?}"), self.image(&names, Node::now)));
        }
        for (name, number) in &self.durable {
            if !self.names.contains_key(name) && !self.names.values().any(|other| other == number) {
                let mut names = self.names.clone();
                names.insert(name.clone(), *number);
                images.push((format!("all, and still the name {name:?}"), self.image(&names, Node::now)));
            }
        }
        images
    }
}

fn hash_of(command: Command, image: &Image) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{command:?}").as_bytes());
    for (path, (number, node)) in image {
        hasher.update(path.as_os_str().as_encoded_bytes());
        let same = image.values().position(|(other, _)| other == number).unwrap();
        hasher.update(&same.to_le_bytes());
        hasher.update(blake3::hash(&node.durable).as_bytes());
    }
    hasher.finalize()
}

/// A folder as the image has it.
fn world_of(image: &Image) -> World {
    let world = World::empty();
    let mut made: HashMap<usize, PathBuf> = HashMap::new();
    for (path, (number, node)) in image {
        let path = world.path().join(path);
        match made.get(number) {
            _ if node.is_folder => fs::create_dir(&path).unwrap(),
            Some(same) => fs::hard_link(same, &path).unwrap(),
            None => {
                fs::write(&path, &node.durable).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(node.mode)).unwrap();
                made.insert(*number, path);
            }
        }
    }
    world
}

/// The different images there were, and how many of them were tried.
#[derive(Debug, Default)]
pub struct Images {
    seen: HashSet<blake3::Hash>,
    pub tried: usize,
}

impl std::fmt::Display for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} different images", self.tried, self.seen.len())
    }
}

impl Images {
    /// Whether this one is to be tried.
    fn add(&mut self, hash: blake3::Hash, one_in: usize) -> bool {
        let tries = self.seen.insert(hash) && crate::is_tried(self.seen.len(), one_in);
        self.tried += usize::from(tries);
        tries
    }
}

/// Runs a command, and gives to `check` all that may be there after a power cut behind one of its changes, and what that
/// was. Returns what is there, whatever happens, once it says it is done. `killed`, if there is one, is run before it, and killed
/// before that change: what it hadn't forced to the disk is in memory only, when the command begins. `None` if it ended before.
pub fn cut_power(
    before: &World,
    killed: Option<(Command, usize)>,
    command: Command,
    images: &mut Images,
    check: impl Fn(World, &str),
) -> Option<World> {
    let world = before.copy();
    let recorder = Arc::new(Recorder::default());
    let catalog = world.path().join(".znap/catalog.db");
    if catalog.exists() {
        recorder.0.lock().unwrap().catalog = Some((catalog.clone(), fs::read(&catalog).unwrap()));
    }
    let mut sim = Sim::of(&world);
    let disk = Disk::watched(recorder.clone());
    if let Some((first, change)) = killed {
        recorder.0.lock().unwrap().alive = Some(change);
        world.run(first, &disk).err()?;
        recorder.0.lock().unwrap().alive = None;
    }
    let earlier = recorder.0.lock().unwrap().ops.len();
    world.run(command, &disk).unwrap();
    let mut recorded = recorder.0.lock().unwrap();
    recorded.look_at_catalog();
    for (at, op) in recorded.ops.iter().enumerate() {
        sim.apply(op);
        for (what, image) in if at < earlier { Vec::new() } else { sim.images() } {
            // Of the commands that are killed first there are many.
            if images.add(hash_of(command, &image), if killed.is_some() { 10 } else { 5 } * before.rarity()) {
                let what = format!("{killed:?}, {command:?}, power cut after change {at}: {what}");
                check(world_of(&image), &what);
            }
        }
    }
    Some(world_of(&sim.image(&sim.durable, |node| node.durable.clone())))
}

#[test]
fn p5_the_power_may_be_cut_at_any_time() {
    let images = cut_in(script());
    assert!(images.tried > 180, "{images}");
}

#[test]
fn p5_so_may_it_on_a_site_with_blobs() {
    let images = cut_in(sites());
    assert!(images.tried > 40, "{images}");
}

fn cut_in(steps: Vec<Step>) -> Images {
    let mut images = Images::default();
    for step in steps {
        let end =
            cut_power(&step.before, None, step.command, &mut images, |world, what| step.check(world, what)).unwrap();
        // What it says is done is done.
        assert!(end.state() == step.after.state(), "{:?}", step.command);
        assert_eq!(end.second_names(), step.after.second_names(), "{:?}", step.command);
        step.check_snapshots(&end, &format!("{:?}, done", step.command));
    }
    println!("{images} tried");
    images
}

/// What finishes a restore must not rely on what that one had not yet forced to the disk.
#[test]
fn p5_the_power_may_be_cut_while_a_killed_restore_is_finished() {
    let (finished, images) = cut_in_finishing(script());
    assert!(finished > 26 && images.tried > 110, "{finished} {images}");
}

#[test]
fn p5_so_may_it_while_one_of_blobs_is_finished() {
    let (finished, images) = cut_in_finishing(sites());
    assert!(finished > 15 && images.tried > 6, "{finished} {images}");
}

fn cut_in_finishing(steps: Vec<Step>) -> (usize, Images) {
    let mut images = Images::default();
    let mut finished = 0;
    let restores = steps.into_iter().filter(|step| matches!(step.command, Command::Restore("a" | "c")));
    for step in restores {
        for change in (0..).step_by(if crate::is_tried(1, 2) { 1 } else { 7 }) {
            for way in [Way::Forward, Way::Back] {
                let copy = step.before.copy();
                let unfinished = killed(&copy, step.command, change);
                let begun = copy.read().unfinished_restore().unwrap().is_some();
                if unfinished
                    && begun
                    && !(way == Way::Back && copy.run(Command::Finish(way), &Disk::default()).is_err())
                {
                    let finish = Command::Finish(way);
                    let killed = Some((step.command, change));
                    let end =
                        cut_power(&step.before, killed, finish, &mut images, |world, what| step.check(world, what));
                    let end = end.unwrap();
                    let is_done = match way {
                        Way::Forward => end.state() == step.after.state(),
                        Way::Back => step.is_taken_back(&end),
                    };
                    assert!(is_done, "{:?} at {change}", step.command);
                    finished += 1;
                }
            }
            if !killed(&step.before.copy(), step.command, change) {
                break;
            }
        }
    }
    println!("{finished} killed restores finished, {images} tried");
    (finished, images)
}
