//! What the object files say: every one is read whole, and compared with its name.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::monitor::Monitor;
use crate::repository::data::{Frame, table_at_end, table_of};
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::BLOBS;
use crate::repository::manifest::{Config, Manifest, Tombstone};
use crate::repository::object::{HEADER, LARGEST_RECORD, MAGIC, ObjectKind, TEMPORARY, VERSION, open_regular};
use crate::snapshot::repair::possible::{Agreed, LARGEST, impossible};

/// How many bytes are read at once.
const READ: usize = 1 << 20;
/// No tombstone or config is as long.
const LARGEST_SMALL: u64 = 1 << 20;
/// What the system says when a disk can't read a place.
const EIO: i32 = 5;

/// Something out of an object file, and the file: name and length.
#[derive(Debug, Clone)]
pub(super) struct Stored<T> {
    pub(super) file: (Hash, u64),
    pub(super) what: T,
}

/// An object file that isn't what its name says.
#[derive(Debug, Clone)]
pub(super) struct DamagedFile {
    pub(super) name: Hash,
    /// What it was, if that can still be told.
    pub(super) kind: Option<ObjectKind>,
    /// As the end of a sentence.
    pub(super) reason: String,
    /// Its table, if it is a data file that has it.
    pub(super) frames: Option<Vec<Frame>>,
}

/// What an object file turned out to be.
pub(super) enum Found {
    Data(Vec<Frame>),
    Manifest(Manifest),
    Tombstone(Tombstone),
    Config(Config),
    /// As it should be, but nothing of znap's; or no file at all.
    Unknown,
    Damaged(DamagedFile),
}

/// All object files.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) configs: Vec<Stored<Config>>,
    pub(super) manifests: Vec<Stored<Manifest>>,
    pub(super) tombstones: Vec<Stored<Tombstone>>,
    pub(super) data: Vec<Stored<Vec<Frame>>>,
    pub(super) damaged: Vec<DamagedFile>,
    /// Names of files that aren't znap's.
    pub(super) unknown: Vec<String>,
    /// Where each chunk is: the number of its data file, of its frame in there, and where in the frame it begins.
    pub(super) chunks: HashMap<Hash, Spot>,
}

/// Where a chunk is among the data files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) file: u32,
    pub(super) frame: u32,
    pub(super) start: u32,
}

/// The names that are those of object files in a folder, in order, and the other ones.
pub(super) fn names_in(folder: &Path) -> Result<(Vec<Hash>, Vec<String>)> {
    let (mut names, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).at("read", folder)? {
        let name = entry.at("read", folder)?.file_name().to_string_lossy().into_owned();
        match Hash::from_hex(&name) {
            Some(hash) => names.push(hash),
            None => others.push(name),
        }
    }
    names.sort();
    others.sort();
    Ok((names, others))
}

impl Objects {
    /// Reads all object files in a folder.
    pub(super) fn read(folder: &Path, monitor: &dyn Monitor) -> Result<Self> {
        let (names, mut unknown) = names_in(folder)?;
        unknown.retain(|name| !name.starts_with(TEMPORARY) && name != BLOBS);
        let paths: Vec<(Hash, PathBuf)> = names.into_iter().map(|name| (name, folder.join(name.to_string()))).collect();
        let lengths = paths.iter().map(|(_, path)| fs::symlink_metadata(path).map_or(0, |metadata| metadata.len()));
        monitor.begin("checking the object files", lengths.sum());
        let mut objects = Objects { unknown, ..Objects::default() };
        for (name, path) in paths {
            let (bytes, found) = examine(&path, &name, monitor)?;
            objects.add(name, bytes, found);
        }
        monitor.end();
        Ok(objects)
    }

    /// Adds what one object file turned out to be.
    pub(super) fn add(&mut self, name: Hash, bytes: u64, found: Found) {
        let file = (name, bytes);
        match found {
            Found::Data(what) => self.data.push(Stored { file, what }),
            Found::Manifest(what) => self.manifests.push(Stored { file, what }),
            Found::Tombstone(what) => self.tombstones.push(Stored { file, what }),
            Found::Config(what) => self.configs.push(Stored { file, what }),
            Found::Unknown => self.unknown.push(name.to_string()),
            Found::Damaged(damaged) => self.damaged.push(damaged),
        }
    }

    /// Finds out where each chunk is. Of those that are in several files the largest file counts: the small ones were
    /// about to be written anew, or were written by something that was interrupted.
    pub(super) fn locate_chunks(&mut self) {
        self.data.sort_by_key(|data| (std::cmp::Reverse(data.file.1), data.file.0));
        self.chunks.clear();
        for (file, data) in self.data.iter().enumerate() {
            for (number, frame) in data.what.iter().enumerate() {
                let mut start = 0;
                for (hash, length) in &frame.chunks {
                    let spot = Spot { file: file as u32, frame: number as u32, start };
                    self.chunks.entry(*hash).or_insert(spot);
                    start += length;
                }
            }
        }
    }

    /// Whether a whole data file has this chunk.
    pub(super) fn has(&self, chunk: &Hash) -> bool {
        self.chunks.contains_key(chunk)
    }

    /// All files that are whole: what they hold, and their length.
    pub(super) fn files(&self) -> HashMap<Hash, (ObjectKind, u64)> {
        fn all<T>(stored: &[Stored<T>], kind: ObjectKind) -> impl Iterator<Item = (Hash, (ObjectKind, u64))> {
            stored.iter().map(move |stored| (stored.file.0, (kind, stored.file.1)))
        }
        let records = all(&self.manifests, ObjectKind::Manifest).chain(all(&self.tombstones, ObjectKind::Tombstone));
        records.chain(all(&self.configs, ObjectKind::Config)).chain(all(&self.data, ObjectKind::Data)).collect()
    }

    /// Names of all files that are there, whole or not.
    pub(super) fn names(&self) -> HashSet<Hash> {
        self.files().into_keys().chain(self.damaged.iter().map(|file| file.name)).collect()
    }

    /// The identities of the snapshots that were deleted.
    pub(super) fn deleted(&self) -> HashSet<Uid> {
        self.tombstones.iter().map(|stored| stored.what.snapshot).collect()
    }

    /// Takes for damaged what belongs to another repository.
    pub(super) fn expel_others(&mut self, repository: Uid) {
        let mut others = Vec::new();
        let mut is_ours = |file: (Hash, u64), of: Uid, kind| {
            if of != repository {
                let reason = "it belongs to another repository".into();
                others.push(DamagedFile { name: file.0, kind: Some(kind), reason, frames: None });
            }
            of == repository
        };
        self.configs.retain(|stored| is_ours(stored.file, stored.what.repository, ObjectKind::Config));
        self.manifests.retain(|stored| is_ours(stored.file, stored.what.repository, ObjectKind::Manifest));
        self.tombstones.retain(|stored| is_ours(stored.file, stored.what.repository, ObjectKind::Tombstone));
        self.damaged.append(&mut others);
    }

    /// Takes for damaged the manifests that contradict others, older ones: no catalog can have both.
    pub(super) fn expel_contradictions(&mut self) {
        let (mut agreed, mut others) = (Agreed::default(), Vec::new());
        self.manifests.sort_by_key(|stored| (stored.what.sequence, stored.what.created, stored.file.0));
        self.manifests.retain(|stored| {
            let agrees = agreed.add(&stored.what);
            if !agrees {
                let reason = "it contradicts another snapshot".into();
                let kind = Some(ObjectKind::Manifest);
                others.push(DamagedFile { name: stored.file.0, kind, reason, frames: None });
            }
            agrees
        });
        self.damaged.append(&mut others);
    }
}

/// Reads an object file whole. Fails only if it can't be opened, or is of a newer version.
pub(super) fn examine(path: &Path, name: &Hash, monitor: &dyn Monitor) -> Result<(u64, Found)> {
    let damaged = |kind, reason: &str, frames| {
        Found::Damaged(DamagedFile { name: *name, kind, reason: reason.to_string(), frames })
    };
    let unreadable = "the disk cannot read it";
    let mut file = match open_regular(path) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok((0, Found::Unknown)),
        Err(error) if error.raw_os_error() == Some(EIO) => return Ok((0, damaged(None, unreadable, None))),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut header = Vec::new();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ];
    let (mut bytes, mut is_readable) = (0, true);
    loop {
        monitor.check()?;
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(EIO) => {
                is_readable = false;
                break;
            }
            Err(error) => return Err(Error::io("read", path, error)),
        };
        let part = &buffer[..read];
        if header.len() < HEADER {
            header.extend_from_slice(&part[..read.min(HEADER - header.len())]);
        }
        hasher.update(part);
        bytes += read as u64;
        monitor.advance(read as u64);
    }
    let kind = ObjectKind::from_header(&header);
    if !is_readable || Hash(*hasher.finalize().as_bytes()) != *name {
        let kind = kind.ok();
        // Of a file whose beginning is damaged the end may say that it is one.
        let frames = if matches!(kind, None | Some(ObjectKind::Data)) { table_at_end(&file, path).ok() } else { None };
        let kind = kind.or(frames.is_some().then_some(ObjectKind::Data));
        let reason = if is_readable { "its content does not match its name" } else { unreadable };
        return Ok((bytes, damaged(kind, reason, frames)));
    }
    let kind = match kind {
        Ok(kind) => kind,
        Err(_) if header.starts_with(&MAGIC) && header.get(8) != Some(&VERSION) => return Err(newer(path)),
        Err(_) => return Ok((bytes, Found::Unknown)),
    };
    let longest = match kind {
        ObjectKind::Data => return Ok((bytes, Found::Data(table_of(&file, path).map_err(|_| newer(path))?))),
        ObjectKind::Manifest => LARGEST_RECORD,
        ObjectKind::Tombstone | ObjectKind::Config | ObjectKind::Plain => LARGEST_SMALL,
    };
    if bytes > longest {
        return Ok((bytes, damaged(Some(kind), "it is too long", None)));
    }
    // Only now, when it is known to be what its name says, is it kept in memory.
    let mut record = vec![0; bytes as usize];
    file.read_exact_at(&mut record, 0).at("read", path)?;
    let bad = |reason: &str| damaged(Some(kind), reason, None);
    Ok((bytes, decode(kind, &record[HEADER..], bad).map_err(|_| newer(path))?))
}

/// What follows the header of a manifest, a tombstone or a config.
fn decode(kind: ObjectKind, body: &[u8], damaged: impl Fn(&str) -> Found) -> Result<Found, String> {
    Ok(match kind {
        ObjectKind::Data | ObjectKind::Plain => return Err("it is none".into()),
        ObjectKind::Manifest => {
            let manifest = Manifest::decode(body)?;
            match impossible(&manifest) {
                Some(reason) => damaged(reason),
                None => Found::Manifest(manifest),
            }
        }
        ObjectKind::Tombstone => {
            let tombstone = Tombstone::decode(body)?;
            match tombstone.sequence > LARGEST {
                true => damaged("a number in it is too large"),
                false => Found::Tombstone(tombstone),
            }
        }
        ObjectKind::Config => Found::Config(Config::decode(body)?),
    })
}

fn newer(path: &Path) -> Error {
    Error::failed(format!("object file {} was written by a newer znap", path.display())).hint("use that newer znap")
}
