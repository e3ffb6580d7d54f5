//! The directory `.znap`: where things are in it, whose it is, and how its files are made.
//!
//! ```text
//! .znap/
//!   .gitignore        "*"
//!   catalog.db        the SQLite catalog (docs/catalog.md)
//!   lock              held by the one writing znap; says who and what it is about to commit
//!   gate              held shared while a reader opens object files, exclusively while gc removes some
//!   reserve           space that delete and gc may use on a full disk
//!   restore-journal   while a restore is unfinished: what it does, and how to go back
//!   last-restore      what the last restore did, for undo
//!   check-progress    where a check of the data that was limited goes on
//!   side-by-side      what gc has found to lie beside its past, or put there
//!   catalog.db.new    while repair is making a catalog anew; catalog.db.damaged-1 and on: those before it
//!   import/           blobs that an import is taking in
//!   damaged/          object files that repair found damaged, and marks of what is lost; nothing needs them
//!   bases/            hard links to databases, which a pack can't take away
//!   objects/          immutable object files, named by their hash (docs/format.md)
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::repository::hash::{Hash, Uid};
use crate::repository::object::ObjectKind;

/// The name of a repository's directory.
pub const DIRECTORY: &str = ".znap";
/// The directory of the plain object files, among the others.
pub const BLOBS: &str = "blobs";

/// The paths in one repository, and the mode and owner that its new files get.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    file_mode: u32,
    /// Owner and group for new files; set when root works in somebody's repository.
    owner: Option<(u32, u32)>,
    disk: Disk,
}

/// Who may use a new repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only its owner: directories 0700, files 0600. A Data.fs holds password hashes.
    Private,
    /// The members of this group too: directories 2770, files 0660.
    Group(u32),
}

impl Layout {
    /// Makes the directory `root` with all that a repository needs except its catalog and objects.
    /// Fails if anything is there already.
    pub fn create(root: &Path, access: Access, disk: &Disk) -> Result<Self> {
        let mode = match access {
            Access::Private => 0o700,
            Access::Group(_) => 0o2770,
        };
        match disk.create_directory(root, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(already_there(root));
            }
            result => result.at("create the repository", root)?,
        }
        if let Access::Group(group) = access {
            std::os::unix::fs::chown(root, None, Some(group)).at("give to the database's group", root)?;
        }
        // After the group: chown clears the set-group-id bit.
        set_mode(root, mode)?;
        let objects = root.join("objects");
        disk.create_directory(&objects, 0o700).at("create", &objects)?;
        if let Access::Group(group) = access {
            std::os::unix::fs::chown(&objects, None, Some(group)).at("give to the database's group", &objects)?;
        }
        set_mode(&objects, mode)?;
        let layout = Self::open(root)?.on(disk);
        let ignore = root.join(".gitignore");
        disk.write_at(&layout.create_file(&ignore)?, &ignore, b"*\n", 0)?;
        layout.create_file(&layout.lock())?;
        layout.create_file(&layout.gate())?;
        Ok(layout)
    }

    /// The repository whose directory is `root`. Looks at nothing inside it but whether it is one.
    pub fn open(root: &Path) -> Result<Self> {
        let metadata = match fs::metadata(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!("there is no repository at {}", root.display()))
                    .hint("znap init DATA.FS starts one; -R names another"));
            }
            result => result.map_err(|error| cannot_open(root, None, error))?,
        };
        if !metadata.is_dir() {
            return Err(Error::not_found(format!("{} is not a repository: it is no directory", root.display()))
                .hint("name the directory itself, such as -R var/.znap"));
        }
        let is_there = |name: &str| match fs::metadata(root.join(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(cannot_open(root, Some(metadata.uid()), error)),
        };
        if !is_there("objects")? {
            return Err(if is_there("catalog.db")? { without_objects(root) } else { no_repository(root) });
        }
        let root_user = rustix::process::geteuid().is_root();
        Ok(Layout {
            root: root.to_path_buf(),
            file_mode: if metadata.mode() & 0o070 == 0 { 0o600 } else { 0o660 },
            owner: root_user.then(|| (metadata.uid(), metadata.gid())),
            disk: Disk::default(),
        })
    }

    /// The same, changed through this disk.
    #[must_use]
    pub fn on(mut self, disk: &Disk) -> Self {
        self.disk = disk.clone();
        self
    }

    /// What its files are changed through.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The nearest `.znap` in `start` or a directory above it. One that the disk can't look at is the nearest, too: opening it
    /// says why, and another one above isn't taken instead.
    pub fn find(start: &Path) -> Option<PathBuf> {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        let may_be_one = |candidate: &PathBuf| match fs::metadata(candidate) {
            Ok(metadata) => metadata.is_dir(),
            Err(error) => !matches!(error.kind(), NotFound | NotADirectory | PermissionDenied),
        };
        start.ancestors().map(|directory| directory.join(DIRECTORY)).find(may_be_one)
    }

    /// Refuses a repository of another user: what it says could have been made up.
    /// `trusted` are the directories that the user trusts all the same.
    pub fn check_owner(&self, trusted: &[PathBuf]) -> Result<()> {
        let metadata = fs::metadata(&self.root).at("look at", &self.root)?;
        let me = rustix::process::geteuid().as_raw();
        if metadata.uid() == me {
            return Ok(());
        }
        let real = fs::canonicalize(&self.root).at("resolve", &self.root)?;
        let is_trusted = trusted.iter().any(|path| fs::canonicalize(path).is_ok_and(|path| path == real));
        if is_trusted {
            return Ok(());
        }
        Err(Error::failed(format!(
            "the repository {} belongs to another user ({})",
            self.root.display(),
            user_name(metadata.uid())
        ))
        .hint(format!("if you trust it, set ZNAP_TRUST={} and try again", real.display())))
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that holds `.znap`: database paths are relative to it.
    pub fn home(&self) -> &Path {
        match self.root.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// The catalog.
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog.db")
    }

    /// A catalog that repair is making.
    pub fn new_catalog(&self) -> PathBuf {
        self.root.join("catalog.db.new")
    }

    /// Object files that repair found damaged, and set aside.
    pub fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// The directory of the second names of databases.
    pub fn bases(&self) -> PathBuf {
        self.root.join("bases")
    }

    /// The second name of a database's file, as long as it begins with the base of the generation of this identity.
    pub fn base(&self, generation: &Uid) -> PathBuf {
        self.bases().join(generation.to_string())
    }

    /// Blobs that an import has unpacked, until it has saved them.
    pub fn import(&self) -> PathBuf {
        self.root.join("import")
    }

    /// The writer's lock file.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The lock file between readers and gc.
    pub fn gate(&self) -> PathBuf {
        self.root.join("gate")
    }

    /// The space kept for delete and gc on a full disk.
    pub fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// The journal of an unfinished restore.
    pub fn restore_journal(&self) -> PathBuf {
        self.root.join("restore-journal")
    }

    /// What the last restore did.
    pub fn last_restore(&self) -> PathBuf {
        self.root.join("last-restore")
    }

    /// Where a check of the data that was limited goes on.
    pub fn check_progress(&self) -> PathBuf {
        self.root.join("check-progress")
    }

    /// What gc has found to lie beside its past, or put there.
    pub fn side_by_side(&self) -> PathBuf {
        self.root.join("side-by-side")
    }

    /// The directory of the object files.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// The object file of this name.
    pub fn object(&self, name: &Hash) -> PathBuf {
        self.objects().join(name.to_string())
    }

    /// The object file of this kind and name.
    pub fn place(&self, kind: ObjectKind, name: &Hash) -> PathBuf {
        if kind == ObjectKind::Plain { self.plain(name) } else { self.object(name) }
    }

    /// The directory of the plain object files.
    pub fn blobs(&self) -> PathBuf {
        self.objects().join(BLOBS)
    }

    /// The plain object file of this name.
    pub fn plain(&self, name: &Hash) -> PathBuf {
        let name = name.to_string();
        self.blobs().join(&name[..2]).join(name)
    }

    /// Makes a directory in it, unless it is there, with the mode and owner of the repository's own.
    pub fn create_folder(&self, path: &Path) -> Result<()> {
        match self.disk.create_directory(path, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            result => result.at("create", path)?,
        }
        let model = fs::metadata(self.objects()).at("look at", self.objects())?;
        if model.gid() != fs::metadata(path).at("look at", path)?.gid() || self.owner.is_some() {
            let user = self.owner.map(|(user, _)| user);
            std::os::unix::fs::chown(path, user, Some(model.gid())).at("set the owner of", path)?;
        }
        // After the group: chown clears the set-group-id bit.
        set_mode(path, model.mode() & 0o7777)
    }

    /// Creates a file that isn't there yet, with the repository's mode and owner, whatever the umask.
    pub fn create_file(&self, path: &Path) -> Result<File> {
        let file = self.disk.create(path)?;
        self.adopt(&file, path)?;
        Ok(file)
    }

    /// Puts a small file in place of what is there, as a whole. Two at the same time may spoil each other's.
    pub fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        // Always the same, so that one that is killed leaves one at most.
        let temporary = path.with_extension("new");
        self.disk.remove_if_there(&temporary)?;
        let file = self.create_file(&temporary)?;
        let written = self
            .disk
            .write_at(&file, &temporary, bytes, 0)
            .and_then(|()| self.disk.sync(&file, &temporary))
            .and_then(|()| self.disk.rename(&temporary, path));
        if written.is_err() {
            let _ = self.disk.remove_if_there(&temporary);
        }
        written
    }

    /// Creates a directory in the repository, with the mode and owner of that of the object files.
    pub fn create_directory(&self, path: &Path) -> Result<()> {
        let model = fs::metadata(self.objects()).at("look at", self.objects())?;
        self.disk.create_directory(path, 0o700).at("create", path)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(model.uid()), Some(model.gid())).at("set the owner of", path)?;
        }
        fs::set_permissions(path, model.permissions()).at("set the mode of", path)?;
        self.disk.sync_directory(path.parent().unwrap_or(&self.root))
    }

    /// Gives a file that was just made the repository's mode and owner.
    pub fn adopt(&self, file: &File, path: &Path) -> Result<()> {
        if self.file_mode != 0o600 {
            file.set_permissions(fs::Permissions::from_mode(self.file_mode)).at("set the mode of", path)?;
        }
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::fchown(file, Some(user), Some(group)).at("set the owner of", path)?;
        }
        Ok(())
    }
}

/// The name of a user, or its number.
pub fn user_name(uid: u32) -> String {
    uzers::get_user_by_uid(uid).map_or_else(|| format!("uid {uid}"), |user| user.name().to_string_lossy().into_owned())
}

/// The error for a file or directory of a repository that can't be opened, and who could if that is the matter.
pub fn cannot_open(path: &Path, owner: Option<u32>, error: io::Error) -> Error {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let error = Error::io("open", path, error);
    match owner {
        _ if !denied => error,
        Some(uid) => error.hint(format!("run znap as {}, who owns it", user_name(uid))),
        None => error.hint("run znap as the owner of the repository"),
    }
}

fn without_objects(root: &Path) -> Error {
    Error::damaged(format!("the directory {} is missing; it held the snapshots", root.join("objects").display()))
        .hint("put it back from a copy of the repository; without one, the snapshots are lost")
}

fn no_repository(root: &Path) -> Error {
    let inside = root.join(DIRECTORY);
    let hint = if inside.is_dir() {
        format!("name the repository itself: -R {}", inside.display())
    } else if root.file_name().is_some_and(|name| name == DIRECTORY) {
        "if nothing in it matters (an init was interrupted), remove it; then znap init DATA.FS starts one".into()
    } else {
        "znap init DATA.FS starts one; -R names one elsewhere".into()
    };
    Error::not_found(format!("{} is not a repository", root.display())).hint(hint)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// The refusal to make a repository where something is already.
pub fn already_there(root: &Path) -> Error {
    if root.join("catalog.db").exists() {
        Error::failed(format!("there is a repository already: {}", root.display()))
            .hint("znap save uses it; -R DIR starts another one somewhere else")
    } else {
        Error::failed(format!("{} exists already, and is not a whole repository", root.display()))
            .hint("if nothing in it matters (an init was interrupted), remove it and try again")
    }
}
