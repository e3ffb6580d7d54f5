//! Looking for chunks that no whole data file has: in what can still be read of damaged ones, in the databases, and in
//! copies that the user names.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::source::open_plain;
use crate::monitor::Monitor;
use crate::repository::catalog::Catalog;
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::counters::Counters;
use crate::repository::data::{Content, table_at_end};
use crate::repository::frames::{FrameAt, FrameFiles, Location};
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;
use crate::repository::manifest::DatabaseEntry;
use crate::repository::object::open_regular;
use crate::snapshot::database::path_of_entry;
use crate::snapshot::repair::objects::{Objects, names_in};
use crate::snapshot::repair::picture::{Picture, own_chunks, parts};
use crate::snapshot::repair::possible::LARGEST_PIECE;

/// A chunk that is needed, and that no whole data file has.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) length: u32,
    pub(super) content: Content,
    /// Where in which databases it is, if it is of a tail.
    places: HashSet<(Uid, u64)>,
}

impl Wanted {
    /// One place, always the same.
    pub(super) fn first_place(&self) -> Option<(Uid, u64)> {
        self.places.iter().min().copied()
    }
}

/// Where a chunk can be read.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In a data file of the folder with this number.
    Folder(usize, Location),
    /// In a file with this number, at this offset.
    File(usize, u64),
    /// It was made again.
    Bytes(Arc<[u8]>),
}

/// How many chunks were found where.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Sources {
    /// In damaged object files, as far as they can be read.
    pub damaged_files: u64,
    /// In the databases as they are now.
    pub databases: u64,
    /// In copies that the user named.
    pub copies: u64,
    /// Parts of indexes that were made again from the databases' bytes.
    pub indexes: u64,
}

/// Where chunks are looked for, and those that were found.
pub(super) struct Search {
    folders: Vec<(PathBuf, ChunkReader)>,
    files: Vec<(PathBuf, File)>,
    pub(super) wanted: BTreeMap<Hash, Wanted>,
    pub(super) found: BTreeMap<Hash, Place>,
    pub(super) sources: Sources,
    counters: Arc<Counters>,
}

impl Search {
    /// For the chunks that the snapshots need and that are in no whole data file.
    pub(super) fn new(picture: &Picture, objects: &Objects, layout: &Layout, counters: &Arc<Counters>) -> Self {
        let mut search = Search {
            folders: Vec::new(),
            files: Vec::new(),
            wanted: BTreeMap::new(),
            found: BTreeMap::new(),
            sources: Sources::default(),
            counters: Arc::clone(counters),
        };
        // The repository's own is the first.
        search.folder(&layout.objects());
        for (_, _, entry, upto) in picture.entries() {
            for (offset, chunk) in own_chunks(entry).filter(|(offset, _)| *offset < upto) {
                if !objects.has(&chunk.hash) {
                    search.want(chunk.hash, chunk.length, Content::Tail).insert((entry.uid, offset));
                }
            }
            for (keyframe, part) in parts(entry) {
                let content = if keyframe { Content::Keyframe } else { Content::Delta };
                for chunk in part.chunks.iter().filter(|chunk| !objects.has(&chunk.hash)) {
                    search.want(chunk.hash, chunk.length, content);
                }
            }
            for chunk in entry.blobs.iter().flat_map(|blobs| &blobs.chunks).filter(|chunk| !objects.has(&chunk.hash)) {
                search.want(chunk.hash, chunk.length, Content::Blob);
            }
        }
        search
    }

    fn want(&mut self, hash: Hash, length: u32, content: Content) -> &mut HashSet<(Uid, u64)> {
        let wanted = Wanted { length, content, places: HashSet::new() };
        &mut self.wanted.entry(hash).or_insert(wanted).places
    }

    fn folder(&mut self, path: &Path) -> usize {
        let files = Arc::new(FrameFiles::in_folder(path, &self.counters));
        self.folders.push((path.to_path_buf(), ChunkReader::with_cache(files, 64 << 20)));
        self.folders.len() - 1
    }

    /// Whether everything was found.
    pub(super) fn is_done(&self) -> bool {
        self.found.len() == self.wanted.len()
    }

    /// Reads a wanted chunk where it is, and checks it; `None` if it isn't there. An error if the disk can't read it.
    fn read(&mut self, hash: &Hash, length: u32, place: &Place) -> Result<Option<Vec<u8>>> {
        // No chunk is longer: what says so made it up.
        if length > LARGEST_PIECE {
            return Ok(None);
        }
        let bytes = match place {
            Place::Folder(folder, location) => {
                let Some((_, reader)) = self.folders.get_mut(*folder) else { return Ok(None) };
                if_readable(reader.with_chunk(location, |bytes| Ok(bytes.to_vec())))?
            }
            Place::File(file, offset) => {
                let Some((path, file)) = self.files.get(*file) else { return Ok(None) };
                let mut bytes = vec![0; length as usize];
                match file.read_exact_at(&mut bytes, *offset) {
                    Ok(()) => Some(bytes),
                    // It is shorter than it was.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
                    Err(error) => return Err(Error::io("read", path, error)),
                }
            }
            Place::Bytes(bytes) => Some(bytes.to_vec()),
        };
        Ok(bytes.filter(|bytes| bytes.len() == length as usize && Hash::of(bytes) == *hash))
    }

    /// The bytes of a chunk that was found; an error if it can't be read any more.
    pub(super) fn bytes(&mut self, hash: &Hash) -> Result<Vec<u8>> {
        let (wanted, place) = (self.wanted.get(hash).cloned(), self.found.get(hash).cloned());
        let path = match &place {
            Some(Place::File(file, _)) => self.files.get(*file).map(|(path, _)| path.clone()),
            Some(Place::Folder(folder, _)) => self.folders.get(*folder).map(|(path, _)| path.clone()),
            _ => None,
        };
        let read = match wanted.zip(place) {
            Some((wanted, place)) => self.read(hash, wanted.length, &place)?,
            None => None,
        };
        read.ok_or_else(|| {
            let path = path.unwrap_or_default();
            let what = "a missing part was found there, and can't be read any more";
            Error::failed(format!("{} has changed meanwhile: {what}", path.display()))
                .hint("nothing was changed; try again")
        })
    }

    /// The bytes of a chunk that a whole data file has.
    pub(super) fn stored(&mut self, location: &Location) -> Result<Vec<u8>> {
        match self.folders.first_mut() {
            Some((_, reader)) => reader.with_chunk(location, |bytes| Ok(bytes.to_vec())),
            None => Err(Error::failed("there is no folder of object files")),
        }
    }

    /// Keeps a chunk that was made again, if it is wanted.
    pub(super) fn offer(&mut self, bytes: &[u8]) {
        let hash = Hash::of(bytes);
        if self.wanted.contains_key(&hash) && !self.found.contains_key(&hash) {
            self.found.insert(hash, Place::Bytes(bytes.into()));
            self.sources.indexes += 1;
        }
    }

    /// Adds a chunk that is to be written because nobody had it before.
    pub(super) fn add(&mut self, bytes: &[u8], content: Content) -> Hash {
        let hash = Hash::of(bytes);
        self.want(hash, bytes.len() as u32, content);
        self.offer(bytes);
        hash
    }

    /// Tries a place; true if the chunk is there.
    fn try_place(&mut self, hash: &Hash, place: Place) -> Result<bool> {
        let Some(length) = self.wanted.get(hash).map(|wanted| wanted.length) else { return Ok(false) };
        if self.found.contains_key(hash) || self.read(hash, length, &place)?.is_none() {
            return Ok(false);
        }
        self.found.insert(*hash, place);
        Ok(true)
    }

    /// Looks in the damaged files themselves; where one has lost its table, the catalog may know what is where.
    pub(super) fn in_damaged(
        &mut self,
        objects: &Objects,
        catalog: Option<&Catalog>,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        let known = match catalog {
            Some(catalog) if !self.is_done() => as_far_as_it_answers(catalog.object_files())?,
            _ => Vec::new(),
        };
        for damaged in &objects.damaged {
            let locations: Vec<Location> = match (&damaged.frames, catalog) {
                (Some(frames), _) => frames.iter().flat_map(|frame| Location::all_of(damaged.name, frame)).collect(),
                (None, Some(catalog)) => match known.iter().find(|file| file.name == damaged.name) {
                    Some(file) => {
                        let chunks = as_far_as_it_answers(catalog.chunks_of(file.row))?;
                        chunks.into_iter().map(|(_, location)| location).collect()
                    }
                    None => Vec::new(),
                },
                (None, None) => Vec::new(),
            };
            self.sources.damaged_files += self.try_locations(0, locations, monitor)?;
        }
        Ok(())
    }

    fn try_locations(&mut self, folder: usize, locations: Vec<Location>, monitor: &dyn Monitor) -> Result<u64> {
        let mut found = 0;
        // Chunks come frame by frame; one that can't be read is tried once.
        let mut last: Option<(FrameAt, bool)> = None;
        let mut unreadable = None;
        for location in locations {
            let hash = location.hash;
            if !self.wanted.contains_key(&hash) || self.found.contains_key(&hash) {
                continue;
            }
            monitor.check()?;
            let is_readable = match last {
                Some((frame, is_readable)) if frame == location.frame => is_readable,
                _ => {
                    match self.folders.get_mut(folder).map(|(_, reader)| if_readable(reader.try_frame(&location.frame)))
                    {
                        Some(Ok(frame)) => frame.is_some(),
                        Some(Err(error)) => {
                            unreadable = Some(error);
                            false
                        }
                        None => false,
                    }
                }
            };
            last = Some((location.frame, is_readable));
            if is_readable {
                match self.try_place(&hash, Place::Folder(folder, location)) {
                    Ok(is_there) => found += u64::from(is_there),
                    Err(error) => unreadable = Some(error),
                }
            }
        }
        tell(unreadable, monitor);
        Ok(found)
    }

    /// Looks in all data files of a folder of object files. Returns how many chunks were found.
    pub(super) fn in_folder(&mut self, path: &Path, monitor: &dyn Monitor) -> Result<u64> {
        let mut found = 0;
        if self.is_done() || !path.is_dir() {
            return Ok(0);
        }
        let folder = self.folder(path);
        for name in names_in(path)?.0 {
            let path = path.join(name.to_string());
            let table = open_regular(&path).at("open", &path).and_then(|file| match file {
                Some(file) => if_readable(table_at_end(&file, &path)),
                None => Ok(None),
            });
            let frames = match table {
                Ok(Some(frames)) => frames,
                Ok(None) => continue,
                Err(error) => {
                    tell(Some(error), monitor);
                    continue;
                }
            };
            let locations = frames.iter().flat_map(|frame| Location::all_of(name, frame)).collect();
            found += self.try_locations(folder, locations, monitor)?;
        }
        Ok(found)
    }

    /// Looks in a database or a copy of one, of this database or of any: at the offsets where the chunks were.
    /// Returns how many were found.
    pub(super) fn in_file(&mut self, path: &Path, of: Option<Uid>, monitor: &dyn Monitor) -> Result<u64> {
        if self.is_done() {
            return Ok(0);
        }
        let file = match open_plain(path, false) {
            Ok(file) => file,
            Err(error) => {
                tell(Some(error).filter(|error| error.kind() != Kind::NotFound), monitor);
                return Ok(0);
            }
        };
        self.files.push((path.to_path_buf(), file));
        let number = self.files.len() - 1;
        let mut candidates: Vec<(u64, Hash)> = Vec::new();
        for (hash, wanted) in self.wanted.iter().filter(|(hash, _)| !self.found.contains_key(*hash)) {
            let offsets = wanted.places.iter().filter(|(uid, _)| of.is_none_or(|of| of == *uid));
            candidates.extend(offsets.map(|(_, offset)| (*offset, *hash)));
        }
        candidates.sort();
        let (mut found, mut unreadable) = (0, None);
        for (offset, hash) in candidates {
            monitor.check()?;
            match self.try_place(&hash, Place::File(number, offset)) {
                Ok(is_there) => found += u64::from(is_there),
                // The rest of it may do.
                Err(error) => unreadable = Some(error),
            }
        }
        tell(unreadable, monitor);
        Ok(found)
    }

    /// Looks in the databases as they are now, and in what a pack left of them.
    pub(super) fn in_databases(&mut self, databases: &[(Uid, PathBuf)], monitor: &dyn Monitor) -> Result<()> {
        for (uid, path) in databases {
            let mut old = path.as_os_str().to_owned();
            old.push(".old");
            for path in [path.clone(), PathBuf::from(old)] {
                self.sources.databases += self.in_file(&path, Some(*uid), monitor)?;
            }
        }
        Ok(())
    }
}

/// Says which file the disk couldn't read: what is missing may be in it.
fn tell(unreadable: Option<Error>, monitor: &dyn Monitor) {
    if let Some(error) = unreadable {
        monitor.notice(&error.to_string());
    }
}

/// `None` where something is damaged; an error only if the disk can't read it.
fn if_readable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.io_error().is_some_and(|error| error.kind() != ErrorKind::UnexpectedEof) => Err(error),
        result => Ok(result.ok()),
    }
}

/// What a catalog that may be damaged answers; nothing if it can't.
fn as_far_as_it_answers<T: Default>(answer: Result<T>) -> Result<T> {
    match answer {
        Err(error) if !matches!(error.kind(), Kind::Busy | Kind::Interrupted(_)) => Ok(T::default()),
        answer => answer,
    }
}

/// The databases of all snapshots, each with the path that the newest one has, seen from the present directory.
pub(super) fn databases(picture: &Picture, layout: &Layout) -> Vec<(Uid, PathBuf)> {
    let mut databases: Vec<(Uid, PathBuf)> = Vec::new();
    for entry in newest_entries(picture) {
        let path = path_of_entry(entry);
        let home = layout.home();
        databases.push((entry.uid, if home == Path::new(".") { path } else { home.join(path) }));
    }
    databases
}

/// The newest entry of each database, in the order in which they are in snapshots.
pub(super) fn newest_entries(picture: &Picture) -> Vec<&DatabaseEntry> {
    let mut newest: Vec<&DatabaseEntry> = Vec::new();
    for chosen in picture.snapshots.iter().rev() {
        for entry in &chosen.manifest.databases {
            if !newest.iter().any(|other| other.uid == entry.uid) {
                newest.push(entry);
            }
        }
    }
    newest
}
