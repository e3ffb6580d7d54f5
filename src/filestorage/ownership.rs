//! Giving new files the owner, group and mode that ZODB would have given them.

use std::fs::{File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};

/// Creates a file for reading and writing that must not exist yet, with owner, group and permissions of
/// the model, but never executable. Removes it again if that fails.
pub fn create_like(disk: &Disk, path: &Path, model: &Metadata) -> Result<File> {
    // Nobody else gets at it before it has its owner.
    let file = disk.create(path)?;
    if let Err(error) = apply_ownership(&file, path, model) {
        // It was created here a moment ago and holds nothing.
        let _ = disk.remove(path);
        return Err(error);
    }
    Ok(file)
}

/// Gives an open file owner, group and permissions of the model, but never makes it executable. Only root gives
/// it another owner: a file that somebody else makes is theirs, as it would be with ZODB. A group that this user
/// is no member of stays as it is. The path is for messages.
pub fn apply_ownership(file: &File, path: &Path, model: &Metadata) -> Result<()> {
    let now = file.metadata().at("look at", path)?;
    if now.gid() != model.gid() {
        match fchown(file, None, Some(Gid::from_raw(model.gid()))) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(Error::io("change the group of", path, error.into())),
        }
    }
    if now.uid() != model.uid() && rustix::process::geteuid().is_root() {
        fchown(file, Some(Uid::from_raw(model.uid())), None).at("change the owner of", path)?;
    }
    file.set_permissions(Permissions::from_mode(model.mode() & 0o666)).at("change the mode of", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_are_like_their_model() {
        let dir = tempfile::tempdir().unwrap();
        let (model, path) = (dir.path().join("model"), dir.path().join("new"));
        let file = File::create(&model).unwrap();
        file.set_permissions(Permissions::from_mode(0o765)).unwrap();
        // Only root can give files away.
        let given = fchown(&file, Some(Uid::from_raw(12345)), Some(Gid::from_raw(23456))).is_ok();
        let metadata = file.metadata().unwrap();
        let new = create_like(&Disk::default(), &path, &metadata).unwrap().metadata().unwrap();
        assert_eq!(new.mode() & 0o7777, 0o664);
        assert_eq!((new.uid(), new.gid()), (metadata.uid(), metadata.gid()));
        assert_eq!(new.uid() == 12345, given);
        assert!(create_like(&Disk::default(), &path, &metadata).is_err(), "it exists");
        assert!(path.exists());
    }

    #[test]
    fn files_of_somebody_else_are_models_too() {
        let dir = tempfile::tempdir().unwrap();
        // Root's, whoever runs this.
        let model = std::fs::metadata("/").unwrap();
        let new = create_like(&Disk::default(), &dir.path().join("new"), &model).unwrap().metadata().unwrap();
        assert_eq!(new.uid(), rustix::process::geteuid().as_raw());
        assert_eq!(new.mode() & 0o7777, model.mode() & 0o666);
    }
}
