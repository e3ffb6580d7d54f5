//! The files of a FileStorage.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use znap::error::{Error, Result};
use znap::filestorage::{
    Backwards, Changes, DataFile, Forwards, IndexFile, IndexWriter, Oid, Position, ScanSummary, Scanner, Source,
    Writer, find_cut, index_path, read_transaction, scan, usable_index,
};
use znap::monitor::Silent;

/// Bytes as a database's file.
struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn path(&self) -> &Path {
        Path::new("Data.fs")
    }

    fn size(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.0.get(start..start.checked_add(buffer.len())?));
        let Some(bytes) = bytes else {
            return Err(Error::io("read", self.path(), io::ErrorKind::UnexpectedEof.into()));
        };
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// A database's file: its end is found, and what is complete has that same end; reading it in other slices gives the same.
pub fn transactions(data: &[u8]) {
    let source = Bytes(data);
    let size = data.len() as u64;
    if let Ok(cut) = find_cut(&source, Position::START, size, &Silent) {
        assert!(cut.offset <= size);
        let whole = find_cut(&Bytes(&data[..cut.offset as usize]), Position::START, cut.offset, &Silent).unwrap();
        assert_eq!((whole.position(), whole.left_out), (cut.position(), None));
        let mut changes = Changes::new(Position::START.offset);
        if let Ok(summary) = scan(&source, Position::START, cut.offset, &mut changes, &Silent) {
            assert_eq!(summary.end, cut.position());
            let pairs = changes.into_pairs();
            assert!(pairs.iter().all(|(_, offset)| *offset < cut.offset));
            assert!(pairs.is_sorted_by_key(|(oid, _)| *oid));
        }
    }
    for header in Forwards::new(&source, 4, size).chain(Backwards::new(&source, size)).flatten() {
        let _ = read_transaction(&source, &header);
    }
    if let Some(rest) = data.get(4..) {
        assert_eq!(scanned(rest, usize::MAX), scanned(rest, 7));
    }
}

fn scanned(data: &[u8], slice: usize) -> Result<ScanSummary, String> {
    let mut scanner = Scanner::new("Data.fs", Position::START);
    for part in data.chunks(slice) {
        scanner.feed(part, &mut ()).map_err(|error| error.to_string())?;
    }
    scanner.finish().map_err(|error| error.to_string())
}

/// A database, for which an index may be usable.
static DATABASE: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Data.fs");
    sample(&path);
    (folder, path)
});

/// A small file with a bit of everything, and its index.
pub fn sample(path: &Path) {
    let mut writer = Writer::create(path).unwrap();
    writer.transaction().user("u").description("d").data(Oid(0), "root").data(Oid(1), vec![1; 60]).commit().unwrap();
    let one = writer.index()[&1];
    writer.transaction().status(b'u').data(Oid(9), "gone").commit().unwrap();
    writer.transaction().extension(b"\x80\x03}.").back(Oid(1), one).data(Oid(1), "later").commit().unwrap();
    writer.transaction().delete(Oid(1)).data(Oid(0x2_0000), "far").commit().unwrap();
    writer.transaction().commit().unwrap();
    writer.transaction().data(Oid(3), "last").commit().unwrap();
    writer.save_index().unwrap();
}

/// An index: what it says it has, it has; and it is the same after being written again.
pub fn index(data: &[u8]) {
    if let Some(index) = IndexFile::parse(data.to_vec()) {
        let pairs: Vec<(u64, u64)> = index.iter().collect();
        assert_eq!(pairs.len() as u64, index.len());
        assert!(pairs.is_sorted_by(|one, other| one.0 < other.0));
        let mut writer = IndexWriter::new(Vec::new(), index.position()).unwrap();
        for &(oid, offset) in &pairs {
            assert_eq!(index.get(oid), Some(offset));
            writer.push(oid, offset).unwrap();
        }
        let again = IndexFile::parse(writer.finish().unwrap()).unwrap();
        assert_eq!(again.position(), index.position());
        assert_eq!(again.iter().collect::<Vec<_>>(), pairs);
    }
    let (_, path) = &*DATABASE;
    fs::write(index_path(path), data).unwrap();
    let file = DataFile::open(path).unwrap();
    if let Ok(index) = usable_index(&file, &index_path(path)).unwrap() {
        assert!(index.position() <= file.size().unwrap());
    }
}
