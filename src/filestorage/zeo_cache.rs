//! The persistent caches of ZEO clients (`*.zec`).
//!
//! Such a file begins with `ZEC3`, and remembers up to which transaction it was kept current (`ZEO/cache.py` of ZEO 5 and 6). If that
//! one is taken back by a restore, the client first refuses the server ("Server behind client"). But as soon as the server
//! has something later, the client takes its cache for good, and serves what isn't there any more.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

const MAGIC: [u8; 4] = *b"ZEC3";

/// The caches near a database: in its folder, and in the one above, where buildouts have them (`var/` above
/// `var/filestorage/`). Folders and files that can't be read are passed over.
pub fn zeo_caches(database: &Path) -> Vec<PathBuf> {
    let real = fs::canonicalize(database).unwrap_or_else(|_| database.to_path_buf());
    let mut found: Vec<PathBuf> = real
        .ancestors()
        .skip(1)
        .take(2)
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "zec") && is_cache(path))
        .collect();
    found.sort();
    found
}

fn is_cache(path: &Path) -> bool {
    // No link is followed, and nothing waited for.
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32;
    let Ok(mut file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return false };
    let mut magic = [0; 4];
    file.metadata().is_ok_and(|metadata| metadata.is_file()) && file.read_exact(&mut magic).is_ok() && magic == MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_found_in_both_folders_and_nothing_else_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("var/filestorage");
        fs::create_dir_all(&folder).unwrap();
        let database = folder.join("Data.fs");
        fs::write(&database, b"FS30").unwrap();
        let file = |path: &str, bytes: &[u8]| fs::write(dir.path().join(path), bytes).unwrap();
        file("var/one.zec", b"ZEC3\0\0\0\0\0\0\0\x01 and more");
        file("var/filestorage/two.zec", b"ZEC3\0\0\0\0\0\0\0\0");
        file("var/other.zec", b"ZEC9\0\0\0\0\0\0\0\0");
        file("var/three.zec.kept", b"ZEC3\0\0\0\0\0\0\0\0");
        file("far.zec", b"ZEC3\0\0\0\0\0\0\0\0");
        file("var/short.zec", b"ZEC");
        fs::create_dir(dir.path().join("var/folder.zec")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("far.zec"), dir.path().join("var/link.zec")).unwrap();
        let found = zeo_caches(&database);
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["two.zec", "one.zec"]);
        assert!(zeo_caches(&dir.path().join("nothing/at/all/Data.fs")).is_empty());
    }
}
