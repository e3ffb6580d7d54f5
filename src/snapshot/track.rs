//! Track and untrack: which databases are saved, and where their blobs are.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::configuration::ConfiguredDatabase;
use crate::filestorage::{
    DataFile, FIRST_TRANSACTION, FileIdentity, Source, blob_directory_near, check_blob_directory,
};
use crate::monitor::Monitor;
use crate::repository::blob_list::{BlobDirectory, BlobMode};
use crate::repository::catalog::{Database, Registration};
use crate::repository::hash::Uid;
use crate::snapshot::choice::unknown;
use crate::snapshot::database;
use crate::snapshot::generations::{self, Beginning, life_of};
use crate::snapshot::handle::Repository;
use crate::snapshot::links;

/// A database that is to be tracked.
#[derive(Debug, Clone)]
pub struct NewDatabase {
    /// What it is to be called; without that, like its file.
    pub name: Option<String>,
    /// Its file as typed.
    pub path: PathBuf,
    /// The directory of its blobs as typed.
    pub blobs: Option<PathBuf>,
    /// How they are saved; without that, as links where the file system allows.
    pub mode: Option<BlobMode>,
    /// Where a configuration names it.
    pub place: Option<String>,
}

impl From<PathBuf> for NewDatabase {
    fn from(path: PathBuf) -> Self {
        NewDatabase { name: None, path, blobs: None, mode: None, place: None }
    }
}

impl From<ConfiguredDatabase> for NewDatabase {
    fn from(found: ConfiguredDatabase) -> Self {
        let place = Some(found.place.to_string());
        NewDatabase { name: found.name, path: found.file, blobs: found.blobs, mode: None, place }
    }
}

impl NewDatabase {
    /// Says where a configuration names what couldn't be found.
    fn explain(&self, error: Error, path: &Path) -> Error {
        match &self.place {
            Some(place) if error.kind() == Kind::NotFound && path.is_relative() => error.context(place).hint(
                "relative paths in it are seen from here, as the server sees them from where it is started: go there",
            ),
            Some(place) => error.context(place),
            None => error,
        }
    }
}

/// A database that is now tracked.
#[derive(Debug, Clone, Serialize)]
pub struct TrackedDatabase {
    /// Its name in the repository.
    pub name: String,
    /// Its path as stored.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// The directory of its blobs as stored.
    #[serde(serialize_with = "crate::snapshot::database::maybe_as_text")]
    pub blobs: Option<PathBuf>,
    /// How they are saved: `link`, `copy` or `skip`.
    pub blobs_mode: Option<&'static str>,
    /// A blob directory that lies where Zope and Plone put one, if it was tracked without any.
    #[serde(serialize_with = "crate::snapshot::database::maybe_as_text")]
    pub blobs_near: Option<PathBuf>,
    /// Its size.
    pub size: u64,
    /// The length of the base: what znap takes for granted from now on.
    pub base_length: u64,
    /// Whether its snapshots need nothing but the repository.
    pub complete: bool,
    /// Whether its index was used; otherwise why the whole file was read.
    pub index: Option<String>,
    /// What lies behind the last complete transaction, in words.
    pub left_out: Option<String>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// Adds databases: none may be a file, or have a blob directory, that another one has.
pub(crate) struct Adding<'a> {
    /// The directory that typed paths are seen from.
    pub(crate) current: &'a Path,
    /// The directory that holds the repository.
    pub(crate) home: &'a Path,
    pub(crate) files: Vec<(FileIdentity, PathBuf)>,
    pub(crate) blobs: Vec<(FileIdentity, PathBuf)>,
}

impl Adding<'_> {
    /// Finds the end of a file's last transaction and records how to recognise it.
    pub(crate) fn add(
        &mut self,
        new: &NewDatabase,
        name: String,
        monitor: &dyn Monitor,
    ) -> Result<(DataFile, Registration, TrackedDatabase)> {
        let typed = new.path.as_path();
        let file = DataFile::open(self.current.join(typed)).map_err(|error| new.explain(error, typed))?;
        if let Some((_, other)) = self.files.iter().find(|(identity, _)| *identity == file.identity()) {
            return Err(Error::usage(format!("{} and {} are the same file", other.display(), typed.display()))
                .hint("name each database once"));
        }
        self.files.push((file.identity(), typed.to_path_buf()));
        let blobs = match &new.blobs {
            Some(typed) => Some(self.blob_directory(typed, new.mode).map_err(|error| new.explain(error, typed))?),
            None => None,
        };
        let path = database::stored_path(typed, self.current, self.home);
        let Beginning { generation, cut, warnings, index } = generations::begin(&file, 1, monitor)?;
        let report = TrackedDatabase {
            name: name.clone(),
            path: path.clone(),
            blobs: blobs.as_ref().map(|blobs| blobs.path.clone()),
            blobs_mode: blobs.as_ref().map(|blobs| blobs.mode.word()),
            blobs_near: None,
            size: file.size()?,
            base_length: generation.base_length,
            complete: generation.base_length == FIRST_TRANSACTION,
            index,
            left_out: cut.left_out.map(|left| left.to_string()),
            warnings,
        };
        let uid = Uid::random()?;
        let registration = Registration { uid, name, path, generation, keep_base: false, tracked: true, blobs };
        Ok((file, registration, report))
    }

    /// A directory of blobs as it is stored; how, if that isn't said, depends on whether it is on the repository's file system.
    fn blob_directory(&mut self, typed: &Path, mode: Option<BlobMode>) -> Result<BlobDirectory> {
        let path = self.current.join(typed);
        check_blob_directory(&path)?;
        let metadata = std::fs::metadata(&path).at("look at", &path)?;
        let identity = FileIdentity::of(&metadata);
        if let Some((_, other)) = self.blobs.iter().find(|(other, _)| *other == identity) {
            return Err(Error::usage(format!(
                "the blob directory {} is that of another database, as {}",
                typed.display(),
                other.display()
            ))
            .hint("give each database its own"));
        }
        self.blobs.push((identity, typed.to_path_buf()));
        let here = std::fs::metadata(self.home).at("look at", self.home)?.dev();
        let usual = if here == metadata.dev() { BlobMode::Link } else { BlobMode::Copy };
        let path = database::stored_path(typed, self.current, self.home);
        Ok(BlobDirectory { path, mode: mode.unwrap_or(usual) })
    }

    /// Finds blob directories that lie where they usually do, and that no database has; each for the first that it may be of.
    pub(crate) fn look_for_blobs(&mut self, databases: &[NewDatabase], tracked: &mut [TrackedDatabase]) {
        for (new, report) in databases.iter().zip(tracked) {
            if new.blobs.is_none()
                && let Some(near) = blob_directory_near(&new.path, self.current)
                && self.blob_directory(&near, None).is_ok()
            {
                report.blobs_near = Some(near);
            }
        }
    }
}

/// What to track.
#[derive(Debug, Clone)]
pub struct TrackOptions {
    /// A database's name; or the file of one, as typed, that may be new.
    pub database: PathBuf,
    /// What a new one is to be called.
    pub name: Option<String>,
    /// The directory of its blobs, as typed.
    pub blobs: Option<PathBuf>,
    /// How they are saved.
    pub mode: Option<BlobMode>,
    /// The directory that relative paths are seen from.
    pub current: PathBuf,
}

/// What is tracked now.
#[derive(Debug, Clone, Serialize)]
pub struct TrackReport {
    /// The database's name.
    pub name: String,
    /// All about it, if it is new.
    pub added: Option<TrackedDatabase>,
    /// Whether it was not tracked any more.
    pub again: bool,
    /// The directory of its blobs as stored.
    #[serde(serialize_with = "crate::snapshot::database::maybe_as_text")]
    pub blobs: Option<PathBuf>,
    /// How they are saved: `link`, `copy` or `skip`.
    pub blobs_mode: Option<&'static str>,
}

/// Adds a database, or changes what is saved of one.
pub fn track(repository: &mut Repository, options: &TrackOptions, monitor: &dyn Monitor) -> Result<TrackReport> {
    repository.writer_lock()?;
    let home = options.current.join(repository.layout.home());
    let all = repository.catalog.databases()?;
    let mut adding = Adding { current: &options.current, home: &home, files: Vec::new(), blobs: Vec::new() };
    let known = find_known(repository, options, &all);
    for database in all.iter().filter(|other| known.is_none_or(|known| known.row != other.row)) {
        let path = repository.path_of(database);
        adding.files.extend(DataFile::open(&path).ok().map(|file| (file.identity(), path)));
        let blobs = database.blobs.iter().map(|blobs| repository.seen(&blobs.path));
        adding.blobs.extend(blobs.filter_map(|path| Some((FileIdentity::of(&std::fs::metadata(&path).ok()?), path))));
    }
    match known {
        Some(known) => change(repository, known, options, adding),
        None => add(repository, &all, options, adding, monitor),
    }
}

/// The database that is meant, if it is known: by its name, or by its file.
fn find_known<'a>(repository: &Repository, options: &TrackOptions, all: &'a [Database]) -> Option<&'a Database> {
    let by_name = all.iter().find(|database| options.database == Path::new(&database.name));
    by_name.or_else(|| {
        let identity = DataFile::open(options.current.join(&options.database)).ok()?.identity();
        all.iter()
            .find(|database| DataFile::open(repository.path_of(database)).is_ok_and(|file| file.identity() == identity))
    })
}

fn change(
    repository: &mut Repository,
    known: &Database,
    options: &TrackOptions,
    mut adding: Adding<'_>,
) -> Result<TrackReport> {
    let name = &known.name;
    if options.name.as_ref().is_some_and(|wanted| wanted != name) {
        return Err(Error::usage(format!("that database is tracked already, as {name}")).hint("it keeps its name"));
    }
    if known.tracked && options.blobs.is_none() && options.mode.is_none() {
        return Err(Error::usage(format!("database {name} is tracked already"))
            .hint(format!("znap track {name} --blobs DIR says where its blobs are")));
    }
    if !known.tracked {
        let file = DataFile::open(repository.path_of(known))?;
        life_of(repository, known, &file)?;
    }
    let blobs = match (&options.blobs, &known.blobs, options.mode) {
        (Some(typed), before, mode) => {
            Some(adding.blob_directory(typed, mode.or(before.as_ref().map(|before| before.mode)))?)
        }
        (None, Some(blobs), mode) => Some(BlobDirectory { mode: mode.unwrap_or(blobs.mode), ..blobs.clone() }),
        (None, None, None) => None,
        (None, None, Some(_)) => {
            return Err(Error::usage(format!("database {name} has no blob directory"))
                .hint(format!("znap track {name} --blobs DIR says where it is")));
        }
    };
    repository.catalog.set_database(known.row, true, blobs.as_ref())?;
    Ok(TrackReport {
        name: name.clone(),
        added: None,
        again: !known.tracked,
        blobs_mode: blobs.as_ref().map(|blobs| blobs.mode.word()),
        blobs: blobs.map(|blobs| blobs.path),
    })
}

fn add(
    repository: &mut Repository,
    all: &[Database],
    options: &TrackOptions,
    mut adding: Adding<'_>,
    monitor: &dyn Monitor,
) -> Result<TrackReport> {
    let new = NewDatabase {
        name: options.name.clone(),
        path: options.database.clone(),
        blobs: options.blobs.clone(),
        mode: options.mode,
        place: None,
    };
    let taken: Vec<String> = all.iter().map(|database| database.name.clone()).collect();
    let name = database::names(&[(new.name.as_deref(), &new.path)], &taken)?.swap_remove(0);
    if let Some(wanted) = options.name.as_ref().filter(|wanted| **wanted != name) {
        let why = if taken.contains(wanted) { "is that of another database" } else { "can't be a database's name" };
        return Err(Error::usage(format!("{wanted:?} {why}"))
            .hint(format!("names have lower-case ASCII letters, digits, . _ and -; such as {name}")));
    }
    let (_, registration, mut report) = adding.add(&new, name, monitor)?;
    adding.look_for_blobs(&[new], std::slice::from_mut(&mut report));
    repository.catalog.add_database(&registration)?;
    // So that no pack takes away what its snapshots will need. It is tracked either way.
    let _ = links::refresh(repository, false);
    Ok(TrackReport {
        name: report.name.clone(),
        again: false,
        blobs: report.blobs.clone(),
        blobs_mode: report.blobs_mode,
        added: Some(report),
    })
}

/// Stops saving databases, by their names. Their snapshots stay, and can be restored.
pub fn untrack(repository: &mut Repository, names: &[String]) -> Result<()> {
    repository.writer_lock()?;
    let all = repository.catalog.databases()?;
    let mut chosen = Vec::new();
    for name in names {
        let database = all.iter().find(|database| database.name == *name).ok_or_else(|| unknown(name, &all))?;
        if !database.tracked {
            return Err(
                Error::failed(format!("database {name} is not tracked any more")).hint("there is nothing to do")
            );
        }
        chosen.push(database);
    }
    for database in chosen {
        repository.catalog.set_database(database.row, false, database.blobs.as_ref())?;
    }
    Ok(())
}
