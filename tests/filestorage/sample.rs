//! A small file with a bit of everything, and shorthands.

use super::*;

/// A file with one transaction of each sort; returns the writer.
pub fn sample(path: &Path) -> Writer {
    let mut writer = Writer::create(path).unwrap();
    let root = mapping([("child", Content::Mapping(Oid(1)))]);
    let first = writer
        .transaction()
        .description("initial database creation")
        .data(Oid(0), root)
        .data(Oid(1), mapping([("title", Content::Text("one".into()))]))
        .commit()
        .unwrap();
    let one = writer.index()[&1];
    writer
        .transaction()
        .user(" admin")
        .description("/news/edit")
        .extension(b"\x80\x03}.")
        .data(Oid(1), mapping([("body", Content::Bytes(vec![7; 20_000]))]))
        .data(Oid(0x10_0000), mapping([]))
        .commit()
        .unwrap();
    writer.transaction().commit().unwrap();
    writer.transaction().status(b'u').data(Oid(99), "skipped").commit().unwrap();
    writer.transaction().status(b'p').back(Oid(1), one).delete(Oid(0x10_0000)).commit().unwrap();
    // An undo of several transactions at once writes an object twice.
    writer.transaction().back(Oid(1), one).data(Oid(1), "later").commit().unwrap();
    assert_eq!(first.position, 4);
    writer
}

pub fn cut(path: &Path, from: Position) -> Result<Cut> {
    let data = DataFile::open(path).unwrap();
    find_cut(&data, from, data.size().unwrap(), &Silent)
}

pub fn whole(path: &Path) -> (ScanSummary, Vec<(u64, u64)>) {
    let data = DataFile::open(path).unwrap();
    let end = cut(path, Position::START).unwrap().offset;
    let mut changes = Changes::new(4);
    let summary = scan(&data, Position::START, end, &mut changes, &Silent).unwrap();
    assert!(changes.warnings().is_empty(), "{:?}", changes.warnings());
    (summary, changes.into_pairs())
}

pub fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}
