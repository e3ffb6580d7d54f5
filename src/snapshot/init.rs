//! Init: start a repository that tracks some databases. Immediate, whatever their size.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::filestorage::FIRST_TRANSACTION;
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Registration};
use crate::repository::counters::Counters;
use crate::repository::hash::Uid;
use crate::repository::layout::{Access, Layout, already_there};
use crate::repository::manifest::{ChunkerConfig, Config};
use crate::repository::object::{VERSION, publish};
use crate::snapshot::database;
use crate::snapshot::links;
use crate::snapshot::track::{Adding, NewDatabase, TrackedDatabase};

/// What to start.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The repository's directory, to be made.
    pub root: PathBuf,
    /// The databases, seen from `current`.
    pub databases: Vec<NewDatabase>,
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
    let mut adding = Adding { current: &options.current, home: &home, files: Vec::new(), blobs: Vec::new() };
    let mut group = None;
    let wanted: Vec<_> = options.databases.iter().map(|new| (new.name.as_deref(), new.path.as_path())).collect();
    for (new, name) in options.databases.iter().zip(database::names(&wanted, &[])?) {
        let (file, registration, report) = adding.add(new, name, monitor)?;
        if group.is_none() {
            group = Some(file.metadata()?.gid());
        }
        registrations.push(registration);
        tracked.push(report);
    }
    adding.look_for_blobs(&options.databases, &mut tracked);
    let access = match group {
        Some(group) if options.share_with_group => Access::Group(group),
        _ => Access::Private,
    };
    create(disk, options, access, now, &registrations)?;
    Ok(InitReport { root: options.root.clone(), databases: tracked })
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
        return result;
    }
    // Only now: a name in a directory that a killed init left would be a stranger's for ever. If it is killed here, save makes them.
    let layout = Layout::open(root)?.on(disk);
    let mut made = false;
    for (new, Registration { generation, .. }) in options.databases.iter().zip(registrations) {
        if generation.base_length > FIRST_TRANSACTION {
            made |= links::make(&layout, &options.current.join(&new.path), None, &generation.uid)?;
        }
    }
    if made { disk.sync_directory(&layout.bases()) } else { Ok(()) }
}
