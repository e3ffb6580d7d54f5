//! Unfinished ends, and damage.

use super::sample::*;
use super::*;

/// P3: whatever a server left unfinished at the end is left out, and is no error.
#[test]
fn p3_an_unfinished_end_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let mut writer = sample(&path);
    let end = writer.end();
    let check = |kind: Option<LeftOutKind>, bytes: u64| {
        for from in [Position::START, end] {
            let cut = cut(&path, from).unwrap();
            assert_eq!(cut.position(), end);
            assert_eq!(cut.left_out.map(|left| (left.kind, left.bytes)), kind.map(|kind| (kind, bytes)));
            assert!(cut.warnings.is_empty());
            assert_eq!(cut.last_length == 0, from == end);
        }
    };
    let length = writer.transaction().data(Oid(1), vec![1; 5000]).vote().unwrap();
    check(Some(LeftOutKind::Voted), length);
    for torn in [1, 22, 23, 100, length as usize - 1] {
        writer.transaction().data(Oid(1), vec![1; 5000]).tear(torn).unwrap();
        let kind = if torn < 23 { LeftOutKind::ShortHeader } else { LeftOutKind::ShortTransaction };
        check(Some(kind), torn as u64);
    }
    for zeros in [1, 22, 23, 31, 4096, 100_000] {
        writer.set_tail(&vec![0; zeros]).unwrap();
        let kind = if zeros < 31 { LeftOutKind::ShortHeader } else { LeftOutKind::BadTail };
        // Of 23 zeros there is a header, but of a transaction of 8 bytes, which fit.
        check(Some(if zeros == 23 { LeftOutKind::BadTail } else { kind }), zeros as u64);
    }
    // A length that would overflow, and one that just doesn't fit.
    for length in [u64::MAX, u64::MAX - 8, u64::MAX - end.offset, 24] {
        let mut head = [0x20; 31];
        head[8..16].copy_from_slice(&length.to_be_bytes());
        writer.set_tail(&head).unwrap();
        check(Some(LeftOutKind::ShortTransaction), 31);
    }
    writer.set_tail(&[]).unwrap();
    check(None, 0);
}

/// P3: a server may abort what it voted while we read, and vote something else.
#[test]
fn p3_the_file_may_shrink_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let mut writer = sample(&path);
    let end = writer.end();
    let data = DataFile::open(&path).unwrap();
    writer.transaction().data(Oid(1), vec![1; 50_000]).vote().unwrap();
    let voted = data.size().unwrap();
    writer.set_tail(&[]).unwrap();
    for from in [Position::START, end] {
        let cut = find_cut(&data, from, voted, &Silent).unwrap();
        assert_eq!((cut.position(), cut.left_out), (end, None));
    }
    writer.transaction().data(Oid(1), vec![1; 500]).vote().unwrap();
    let cut = find_cut(&data, Position::START, voted, &Silent).unwrap();
    assert_eq!(cut.position(), end);
    assert_eq!(cut.left_out.unwrap().kind, LeftOutKind::Voted);
    // Never below the start, though.
    writer.set_tail(&[]).unwrap();
    patch(&path, 0, b"FS30");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end.offset - 1).unwrap();
    assert!(find_cut(&data, end, voted, &Silent).is_err());
}

#[test]
fn a_voted_transaction_in_the_middle_ends_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let end = sample(&path).end().offset;
    let data = DataFile::open(&path).unwrap();
    let second = Forwards::new(&data, 4, end).nth(1).unwrap().unwrap();
    patch(&path, second.position + 16, b"c");
    let cut = cut(&path, Position::START).unwrap();
    assert_eq!((cut.offset, cut.transactions), (second.position, 1));
    let left = cut.left_out.unwrap();
    assert_eq!((left.kind, left.bytes), (LeftOutKind::Voted, end - second.position));
    assert!(left.to_string().starts_with("a transaction that was voted but not finished"));
}

#[test]
fn damage_that_zodb_refuses_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let end = sample(&path).end().offset;
    let sound = fs::read(&path).unwrap();
    let data = DataFile::open(&path).unwrap();
    let headers: Vec<Header> = Forwards::new(&data, 4, end).map(Result::unwrap).collect();
    let second = headers[1];
    let record = second.position + 23 + second.strings_length();
    for (offset, bytes, by_cut, words) in [
        (second.end() - 1, &b"\xff"[..], true, "two lengths"),
        (second.position + 8, &[0; 8], true, "too short"),
        (second.position + 16, &[0xff], true, "status"),
        (headers[3].end() - 1, &[0xff], true, "two lengths"),
        (record + 24, &[0, 0, 0, 0, 0, 0, 0, 9], false, "another transaction"),
        (record + 33, &[1], false, "version"),
        (record + 34, &[0xff; 8], false, "beyond the end"),
        (record + 34, &[0, 0, 0, 0, 0, 0, 0, 1], false, "is damaged"),
        (second.position + 18, &[0], false, "is damaged"),
    ] {
        fs::write(&path, &sound).unwrap();
        patch(&path, offset, bytes);
        let found = cut(&path, Position::START);
        let error = if by_cut {
            found.unwrap_err()
        } else {
            assert_eq!(found.unwrap().offset, end, "{words}");
            scan(&data, Position::START, end, &mut (), &Silent).unwrap_err()
        };
        assert_eq!(error.kind(), Kind::Failed);
        let text = error.to_string();
        assert!(text.contains(words), "{words}: {text}");
        assert!(text.contains("Data.fs") && text.contains("ZODB itself would not open this file"));
        assert!(error.hint_text().is_some_and(|hint| hint.contains("fsrecover")));
        // What find_cut refuses, the scan refuses too.
        assert!(scan(&data, Position::START, end, &mut (), &Silent).is_err());
    }
}

#[test]
fn oddities_are_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let end = sample(&path).end().offset;
    let data = DataFile::open(&path).unwrap();
    let headers: Vec<Header> = Forwards::new(&data, 4, end).map(Result::unwrap).collect();
    let record = headers[1].position + 23 + headers[1].strings_length();
    patch(&path, headers[1].position, &[0; 8]);
    patch(&path, headers[2].position + 16, b"x");
    patch(&path, record + 16, &[0x7f; 8]);
    let kinds = |warnings: &znap::filestorage::Warnings| {
        let mut kinds: Vec<_> = warnings.iter().map(|warning| warning.kind).collect();
        kinds.dedup();
        kinds
    };
    let cut = cut(&path, Position::START).unwrap();
    assert_eq!(kinds(&cut.warnings), [WarningKind::TimeWentBack, WarningKind::UnknownStatus]);
    let mut changes = Changes::new(4);
    let summary = scan(&data, Position::START, end, &mut changes, &Silent).unwrap();
    assert_eq!(
        kinds(&summary.warnings),
        [
            WarningKind::TimeWentBack,
            WarningKind::RecordTid,
            WarningKind::Previous,
            WarningKind::RecordTid,
            WarningKind::UnknownStatus
        ]
    );
    assert_eq!(kinds(changes.warnings()), [WarningKind::Previous]);
    assert_eq!(changes.warnings().total(), 1);
}

#[test]
fn a_start_beyond_the_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let end = sample(&path).end().offset;
    for offset in [0, end + 1, u64::MAX] {
        assert!(cut(&path, Position { offset, tid: Tid(0) }).is_err());
    }
}
