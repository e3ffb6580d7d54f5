//! What is, and what isn't, a blob directory of a FileStorage, and where Zope and Plone put one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::blobs::LAYOUT_MARKER as LAYOUT;
use crate::error::{Error, IoContext, Result};

/// Refuses what is no blob directory of a FileStorage: it is laid out in no way that ZODB makes one.
pub fn check_blob_directory(path: &Path) -> Result<()> {
    let hint = "name the directory that has the blobs of the FileStorage, such as var/blobstorage";
    let is_none = |why: &str| Err(Error::failed(format!("{} is no blob directory: {why}", path.display())).hint(hint));
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::not_found(format!("there is no directory {}", path.display())).hint(hint));
        }
        Err(error) => return Err(Error::io("look at", path, error)),
        Ok(metadata) if !metadata.is_dir() => return is_none("it is no directory"),
        Ok(_) => {}
    }
    let marker = path.join(LAYOUT);
    match fs::read(&marker) {
        Ok(layout) => match String::from_utf8_lossy(&layout).trim() {
            "bushy" | "lawn" => Ok(()),
            "zeocache" => is_none("it is a cache, of a ZEO client or of RelStorage"),
            _ => is_none("its .layout is neither bushy nor lawn"),
        },
        // Without a marker it is a new one, or one that is older than markers are.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            for entry in fs::read_dir(path).at("read", path)? {
                let name = entry.at("read", path)?.file_name();
                let name = name.to_string_lossy();
                if !name.starts_with('.') && !name.starts_with("0x") && name != "tmp" {
                    return is_none(match name.parse::<u32>() {
                        Ok(_) => "it looks like a cache, of a ZEO client or of RelStorage",
                        Err(_) => "it has no .layout, and has other files in it",
                    });
                }
            }
            Ok(())
        }
        Err(error) => Err(Error::io("read", &marker, error)),
    }
}

/// A blob directory where Zope and Plone put it, seen from a database's file: both as typed, seen from `current`.
pub fn blob_directory_near(file: &Path, current: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    let above = match folder.components().next_back() {
        Some(Component::Normal(_)) => folder.parent()?.to_path_buf(),
        _ => folder.join(".."),
    };
    let places = [above.join("blobstorage"), above.join("blobs"), folder.join("blobstorage"), folder.join("blobs")];
    places.into_iter().find(|place| {
        let place = current.join(place);
        place.join(LAYOUT).is_file() && check_blob_directory(&place).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_zodb_lays_out_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, marker: Option<&str>, entry: Option<&str>| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            marker.iter().for_each(|text| fs::write(path.join(LAYOUT), text).unwrap());
            entry.iter().for_each(|name| fs::create_dir(path.join(name)).unwrap());
            check_blob_directory(&path).map_err(|error| error.to_string())
        };
        assert!(make("bushy", Some("bushy"), Some("0x00")).is_ok());
        assert!(make("lawn", Some("lawn\n"), None).is_ok());
        assert!(make("new", None, Some(".removed")).is_ok());
        assert!(make("old", None, Some("0x01")).is_ok());
        assert!(make("cache", Some("zeocache"), None).unwrap_err().contains("it is a cache"));
        assert!(make("relstorage", None, Some("17")).unwrap_err().contains("it looks like a cache"));
        assert!(make("documents", None, Some("letters")).unwrap_err().contains("it has no .layout"));
        assert!(make("odd", Some("garden"), None).unwrap_err().contains("neither bushy nor lawn"));
        assert!(
            check_blob_directory(&dir.path().join("none")).unwrap_err().to_string().contains("there is no directory")
        );
        assert!(
            check_blob_directory(&dir.path().join("lawn/.layout"))
                .unwrap_err()
                .to_string()
                .contains("it is no directory")
        );
    }

    #[test]
    fn it_lies_beside_the_file_or_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let near = |file: &str| blob_directory_near(Path::new(file), dir.path());
        fs::create_dir_all(dir.path().join("var/filestorage")).unwrap();
        fs::create_dir(dir.path().join("var/blobstorage")).unwrap();
        assert_eq!(near("var/filestorage/Data.fs"), None);
        fs::write(dir.path().join("var/blobstorage/.layout"), "bushy").unwrap();
        assert_eq!(near("var/filestorage/Data.fs"), Some("var/blobstorage".into()));
        assert_eq!(near("var/Data.fs"), Some("var/blobstorage".into()));
        assert_eq!(near("Data.fs"), None);
        assert_eq!(
            blob_directory_near(Path::new("Data.fs"), &dir.path().join("var/filestorage")),
            Some("../blobstorage".into())
        );
    }
}
