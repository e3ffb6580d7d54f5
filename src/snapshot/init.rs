//! Init: start a repository that tracks some databases. Immediate, whatever their size.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::filestorage::{DataFile, FIRST_TRANSACTION, FileIdentity, Source};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Registration};
use crate::repository::counters::Counters;
use crate::repository::hash::Uid;
use crate::repository::layout::{Access, Layout, already_there};
use crate::repository::manifest::{ChunkerConfig, Config, Generation};
use crate::repository::object::{VERSION, publish};
use crate::snapshot::database;
use crate::snapshot::generations::{self, Beginning};
use crate::snapshot::links;

/// What to start.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The repository's directory, to be made.
    pub root: PathBuf,
    /// The databases' files as typed, seen from `current`.
    pub databases: Vec<PathBuf>,
    /// The directory that relative paths are seen from.
    pub current: PathBuf,
    /// Whether the group of the first database may use the repository too.
    pub share_with_group: bool,
}

/// What was started.
#[derive(Debug, Clone, Serialize)]
pub struct InitReport {
    /// The repository's directory.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub root: PathBuf,
    /// The databases.
    pub databases: Vec<TrackedDatabase>,
}

/// A database that is now tracked.
#[derive(Debug, Clone, Serialize)]
pub struct TrackedDatabase {
    /// Its name in the repository.
    pub name: String,
    /// Its path as stored.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
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

/// Starts a repository: all of it, or nothing.
pub fn init(options: &InitOptions, monitor: &dyn Monitor) -> Result<InitReport> {
    init_on(&Disk::default(), options, monitor)
}

/// The same, its files made through this disk.
pub fn init_on(disk: &Disk, options: &InitOptions, monitor: &dyn Monitor) -> Result<InitReport> {
    if options.databases.is_empty() {
        return Err(Error::usage("no database was named").hint("znap init var/filestorage/Data.fs"));
    }
    if std::fs::symlink_metadata(&options.root).is_ok() {
        return Err(already_there(&options.root));
    }
    let home = match options.root.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => options.current.join(parent),
        _ => options.current.clone(),
    };
    let now = Timestamp::now().as_microsecond();
    let mut registrations = Vec::new();
    let mut tracked = Vec::new();
    let mut seen: Vec<(FileIdentity, &Path)> = Vec::new();
    let mut group = None;
    for (typed, name) in options.databases.iter().zip(database::names(&options.databases)?) {
        let file = DataFile::open(options.current.join(typed)).map_err(|error| error.context("init"))?;
        if let Some((_, other)) = seen.iter().find(|(identity, _)| *identity == file.identity()) {
            return Err(Error::usage(format!("{} and {} are the same file", other.display(), typed.display()))
                .hint("name each database once"));
        }
        seen.push((file.identity(), typed));
        if group.is_none() {
            use std::os::unix::fs::MetadataExt;
            group = Some(file.metadata()?.gid());
        }
        let path = database::stored_path(typed, &options.current, &home);
        let (generation, report) = begin(&file, &name, &path, monitor)?;
        registrations.push(Registration {
            uid: Uid::random()?,
            name,
            path,
            generation,
            keep_base: false,
            tracked: true,
            blobs: None,
        });
        tracked.push(report);
    }
    let access = match group {
        Some(group) if options.share_with_group => Access::Group(group),
        _ => Access::Private,
    };
    create(disk, options, access, now, &registrations)?;
    Ok(InitReport { root: options.root.clone(), databases: tracked })
}

/// Finds the end of a file's last transaction and records how to recognise it.
fn begin(file: &DataFile, name: &str, path: &Path, monitor: &dyn Monitor) -> Result<(Generation, TrackedDatabase)> {
    let Beginning { generation, cut, warnings, index } = generations::begin(file, 1, monitor)?;
    let report = TrackedDatabase {
        name: name.to_string(),
        path: path.to_path_buf(),
        size: file.size()?,
        base_length: generation.base_length,
        complete: generation.base_length == FIRST_TRANSACTION,
        index,
        left_out: cut.left_out.map(|left| left.to_string()),
        warnings,
    };
    Ok((generation, report))
}

/// Makes the repository under another name and renames it, so that there is never half of one.
fn create(disk: &Disk, options: &InitOptions, access: Access, now: i64, registrations: &[Registration]) -> Result<()> {
    let root = &options.root;
    let parent = match root.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = parent.join(format!(".znap-init-{}", Uid::random()?));
    let fill = || -> Result<()> {
        let layout = Layout::create(&temporary, access, disk)?;
        let counters = std::sync::Arc::new(Counters::default());
        let config =
            Config { repository: Uid::random()?, created: now, format: VERSION, chunker: ChunkerConfig::current() };
        let file = config.write(&layout)?.finish(&counters)?;
        let (name, bytes) = (file.name, file.bytes);
        publish(&layout, vec![file], &counters)?;
        let mut catalog = Catalog::create(&layout, &counters)?;
        catalog.register(&config.repository, now, (name, bytes), registrations)?;
        for (typed, Registration { generation, .. }) in options.databases.iter().zip(registrations) {
            if generation.base_length > FIRST_TRANSACTION {
                links::make(&layout, &options.current.join(typed), None, &generation.uid)?;
            }
        }
        crate::snapshot::reserve::replenish(&layout)?;
        disk.sync_directory(&temporary)
    };
    let result = fill().and_then(|()| {
        // Never over anything that has appeared there meanwhile.
        match disk.rename_new(&temporary, root) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(already_there(root)),
            result => result.at("rename to its place", &temporary)?,
        }
        disk.sync_directory(parent)
    });
    if result.is_err() {
        let _ = disk.remove_tree(&temporary);
    }
    result
}
