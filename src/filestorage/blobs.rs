//! Blob directories: a file per revision of a blob, named by oid and tid (ZODB/blob.py).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};

/// The file in a blob directory that names its layout.
pub const LAYOUT_MARKER: &str = ".layout";

/// How a blob directory is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobLayout {
    /// A directory for each byte of the oid, in one another: what ZODB makes.
    Bushy,
    /// One directory per oid: what ZODB made before 3.9.
    Lawn,
}

impl BlobLayout {
    /// Both.
    pub const ALL: [BlobLayout; 2] = [BlobLayout::Bushy, BlobLayout::Lawn];

    /// Its name, as the marker has it.
    pub fn name(self) -> &'static str {
        match self {
            BlobLayout::Bushy => "bushy",
            BlobLayout::Lawn => "lawn",
        }
    }

    /// The layout of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        BlobLayout::ALL.into_iter().find(|layout| layout.name() == name)
    }

    /// The layout of a directory: as its marker says. Without one ZODB takes a directory that is empty, but for hidden files, for
    /// a new one, and any other for an old one, which is a lawn. `None` if it is new, or not there: then it may be either.
    pub fn of(directory: &Path) -> Result<Option<Self>> {
        let marker = directory.join(LAYOUT_MARKER);
        match fs::read_to_string(&marker) {
            Ok(text) => BlobLayout::from_name(text.trim()).map(Some).ok_or_else(|| {
                Error::failed(format!("{} names a layout of blobs that znap doesn't know", marker.display()))
                    .hint("ZODB knows bushy and lawn; look whether this is a blob directory of a FileStorage")
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let entries = match fs::read_dir(directory) {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    result => result.at("read", directory)?,
                };
                for entry in entries {
                    if !entry.at("read", directory)?.file_name().as_encoded_bytes().starts_with(b".") {
                        return Ok(Some(BlobLayout::Lawn));
                    }
                }
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                Err(Error::failed(format!("{} is no directory", directory.display())).hint("name the blob directory"))
            }
            Err(error) => Err(Error::io("read", &marker, error)),
        }
    }

    /// Where in a blob directory the revision of a blob is.
    pub fn path(self, oid: u64, tid: u64) -> PathBuf {
        let name = format!("{}.blob", repr(tid));
        match self {
            BlobLayout::Bushy => {
                let mut path: PathBuf = oid.to_be_bytes().iter().map(|byte| format!("0x{byte:02x}")).collect();
                path.push(name);
                path
            }
            BlobLayout::Lawn => Path::new(&repr(oid)).join(name),
        }
    }
}

/// The oid and tid of the revision of a blob whose file is there, seen from the blob directory; `None` of any other file.
pub fn revision_at(layout: BlobLayout, path: &Path) -> Option<(u64, u64)> {
    let hex = |name: &std::ffi::OsStr| Some(name.to_str()?.strip_prefix("0x")?.to_string());
    let tid = u64::from_str_radix(&hex(path.file_stem()?)?, 16).ok()?;
    let digits: Option<String> = path.parent()?.iter().map(hex).collect();
    let oid = u64::from_str_radix(&digits?, 16).ok()?;
    (layout.path(oid, tid) == path).then_some((oid, tid))
}

/// An oid or tid as ZODB's `oid_repr` and `tid_repr` write it: whole bytes, without those in front that are zero.
fn repr(id: u64) -> String {
    let digits = format!("{id:x}");
    let even = digits.len().div_ceil(2) * 2;
    format!("0x{digits:0>even$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_zodb() {
        let tid = 0x040d_2737_91b5_8566;
        assert_eq!(
            BlobLayout::Bushy.path(4, tid),
            Path::new("0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x04/0x040d273791b58566.blob")
        );
        assert_eq!(BlobLayout::Lawn.path(4, tid), Path::new("0x04/0x040d273791b58566.blob"));
        assert_eq!(BlobLayout::Lawn.path(0x123, tid), Path::new("0x0123/0x040d273791b58566.blob"));
        assert_eq!(BlobLayout::Lawn.path(0, tid), Path::new("0x00/0x040d273791b58566.blob"));
    }

    #[test]
    fn the_layout_is_the_markers_or_what_zodb_would_guess() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(BlobLayout::of(&dir.path().join("none")).unwrap(), None);
        assert_eq!(BlobLayout::of(dir.path()).unwrap(), None);
        fs::write(dir.path().join(".hidden"), "").unwrap();
        assert_eq!(BlobLayout::of(dir.path()).unwrap(), None);
        fs::create_dir(dir.path().join("tmp")).unwrap();
        assert_eq!(BlobLayout::of(dir.path()).unwrap(), Some(BlobLayout::Lawn));
        for layout in BlobLayout::ALL {
            fs::write(dir.path().join(LAYOUT_MARKER), layout.name()).unwrap();
            assert_eq!(BlobLayout::of(dir.path()).unwrap(), Some(layout));
        }
        fs::write(dir.path().join(LAYOUT_MARKER), "zeoclient").unwrap();
        assert!(BlobLayout::of(dir.path()).is_err());
        assert!(BlobLayout::of(&dir.path().join(".hidden")).is_err());
    }
}
