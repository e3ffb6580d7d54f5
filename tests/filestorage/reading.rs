//! Sound files.

use super::sample::*;
use super::*;

#[test]
fn a_sound_file_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let writer = sample(&path);
    let cut = cut(&path, Position::START).unwrap();
    assert_eq!((cut.position(), cut.transactions, cut.left_out), (writer.end(), 6, None));
    assert!(cut.warnings.is_empty());
    let (summary, pairs) = whole(&path);
    assert_eq!((summary.end, summary.transactions, summary.records), (writer.end(), 6, 8));
    assert!(summary.warnings.is_empty());
    assert!(pairs.iter().eq(writer.index().iter().map(|(oid, offset)| (*oid, *offset)).collect::<Vec<_>>().iter()));

    let data = DataFile::open(&path).unwrap();
    let headers: Vec<Header> = Forwards::new(&data, 4, cut.offset).map(Result::unwrap).collect();
    let mut backwards: Vec<Header> = Backwards::new(&data, cut.offset).map(Result::unwrap).collect();
    backwards.reverse();
    assert_eq!(headers, backwards);
    assert_eq!(headers.last().unwrap().end() - headers.last().unwrap().position, cut.last_length);
    let objects: Vec<u64> = headers.iter().map(|header| read_transaction(&data, header).unwrap().objects).collect();
    assert_eq!(objects, [2, 2, 0, 0, 2, 2]);
    let second = read_transaction(&data, &headers[1]).unwrap();
    assert_eq!((&second.user[..], &second.description[..]), (&b" admin"[..], &b"/news/edit"[..]));
    assert_eq!(second.extension, b"\x80\x03}.");
    assert_eq!(transaction_ending_at(&data, 4).unwrap(), None);
    assert_eq!(transaction_ending_at(&data, cut.offset - 1).unwrap(), None);
    // The writer goes on where it was.
    drop(writer);
    let again = Writer::open(&path).unwrap();
    assert_eq!(again.end(), cut.position());
    assert!(again.index().iter().map(|(oid, offset)| (*oid, *offset)).eq(pairs));
}

#[test]
fn an_empty_storage_has_no_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    Writer::create(&path).unwrap();
    let cut = cut(&path, Position::START).unwrap();
    assert_eq!((cut.position(), cut.transactions, cut.last_length), (Position::START, 0, 0));
    assert_eq!(whole(&path).1, []);
}

/// P1: what it costs to find the cut does not depend on how large the transactions are.
#[test]
fn p1_finding_the_cut_skips_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let mut writer = Writer::create(&path).unwrap();
    for oid in 0..10 {
        writer.transaction().data(Oid(oid), vec![1; 1 << 20]).commit().unwrap();
    }
    let middle = writer.end();
    for oid in 0..100 {
        writer.transaction().data(Oid(oid), vec![1; 100]).commit().unwrap();
    }
    let read_from = |from| {
        let data = DataFile::open(&path).unwrap();
        let before = data.bytes_read();
        find_cut(&data, from, data.size().unwrap(), &Silent).unwrap();
        data.bytes_read() - before
    };
    assert!(read_from(middle) <= 3 * 8192 + 8192, "small transactions share a read");
    assert!(read_from(Position::START) <= 16 * 8192);
    assert_eq!(read_from(writer.end()), 0);
}
