//! Indexes that fit their file, and that do not.

use super::sample::*;
use super::*;

#[test]
fn an_index_is_used_if_it_fits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let index = index_path(&path);
    let judge = || usable_index(&DataFile::open(&path).unwrap(), &index).unwrap();
    let mut writer = sample(&path);
    assert_eq!(judge().unwrap_err(), Unusable::Missing);
    fs::write(&index, "nonsense").unwrap();
    assert_eq!(judge().unwrap_err(), Unusable::Unreadable);
    writer.save_index().unwrap();
    // Its last transaction has an object twice, of which ZODB's own check makes too much.
    assert!(judge().is_ok());
    for oid in 0..2000 {
        writer.transaction().data(Oid(oid * 7), "state").commit().unwrap();
    }
    writer.save_index().unwrap();
    let found = judge().unwrap();
    assert_eq!((found.position(), found.len()), (writer.end().offset, writer.index().len() as u64));
    // Behind the file, as beside a running server.
    let behind = fs::read(&index).unwrap();
    writer.transaction().data(Oid(0), "more").commit().unwrap();
    assert!(judge().is_ok());
    // Ahead of it, as after something cut the file.
    writer.save_index().unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(writer.end().offset - 1).unwrap();
    assert!(matches!(judge().unwrap_err(), Unusable::Ahead { .. }));
    fs::write(&index, &behind).unwrap();
    assert!(judge().is_ok());
    // The right position, but entries that point elsewhere: ZODB would take it.
    let mut wrong = behind.clone();
    let start = wrong.windows(2).position(|two| two == b"B\x60").unwrap_or(20) + 5;
    let count = found.iter().filter(|(oid, _)| *oid < 0x1_0000).count();
    for entry in 20..count - 20 {
        wrong[start + count * 2 + entry * 6 + 5] ^= 1;
    }
    assert!(IndexFile::parse(wrong.clone()).is_some());
    fs::write(&index, &wrong).unwrap();
    assert!(matches!(judge().unwrap_err(), Unusable::WrongRecord { .. }));
    // Made for another place.
    let mut writer = Writer::create(dir.path().join("Other.fs")).unwrap();
    writer.transaction().data(Oid(0), vec![0; 300]).commit().unwrap();
    writer.save_index().unwrap();
    fs::copy(dir.path().join("Other.fs.index"), &index).unwrap();
    assert!(matches!(judge().unwrap_err(), Unusable::NoTransaction { .. }));
}
