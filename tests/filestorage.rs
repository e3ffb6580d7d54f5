//! The FileStorage format, against files that the crate's own writer made and damaged copies of them.

// Helpers outside test functions fail by panicking, too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use znap::error::{Kind, Result};
use znap::filestorage::pickles::{Content, mapping};
use znap::filestorage::{
    Backwards, Changes, Cut, DataFile, Forwards, Header, IndexFile, LeftOutKind, Oid, Position,
    Record, ScanSummary, Scanner, Sink, Source, Tid, Unusable, WarningKind, Writer, find_cut,
    index_path, read_transaction, scan, transaction_ending_at, usable_index,
};
use znap::monitor::Silent;

/// A file with one transaction of each sort; returns the writer.
fn sample(path: &Path) -> Writer {
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
    writer
        .transaction()
        .status(b'u')
        .data(Oid(99), "skipped")
        .commit()
        .unwrap();
    writer
        .transaction()
        .status(b'p')
        .back(Oid(1), one)
        .delete(Oid(0x10_0000))
        .commit()
        .unwrap();
    // An undo of several transactions at once writes an object twice.
    writer
        .transaction()
        .back(Oid(1), one)
        .data(Oid(1), "later")
        .commit()
        .unwrap();
    assert_eq!(first.position, 4);
    writer
}

fn cut(path: &Path, from: Position) -> Result<Cut> {
    let data = DataFile::open(path).unwrap();
    find_cut(&data, from, data.size().unwrap())
}

fn whole(path: &Path) -> (ScanSummary, Vec<(u64, u64)>) {
    let data = DataFile::open(path).unwrap();
    let end = cut(path, Position::START).unwrap().offset;
    let mut changes = Changes::new(4);
    let summary = scan(&data, Position::START, end, &mut changes, &Silent).unwrap();
    assert!(changes.warnings().is_empty(), "{:?}", changes.warnings());
    (summary, changes.into_pairs())
}

fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(bytes, offset)
        .unwrap();
}

#[test]
fn a_sound_file_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let writer = sample(&path);
    let cut = cut(&path, Position::START).unwrap();
    assert_eq!(
        (cut.position(), cut.transactions, cut.left_out),
        (writer.end(), 6, None)
    );
    assert!(cut.warnings.is_empty());
    let (summary, pairs) = whole(&path);
    assert_eq!(
        (summary.end, summary.transactions, summary.records),
        (writer.end(), 6, 8)
    );
    assert!(summary.warnings.is_empty());
    assert!(
        pairs.iter().eq(writer
            .index()
            .iter()
            .map(|(oid, offset)| (*oid, *offset))
            .collect::<Vec<_>>()
            .iter())
    );

    let data = DataFile::open(&path).unwrap();
    let headers: Vec<Header> = Forwards::new(&data, 4, cut.offset)
        .map(Result::unwrap)
        .collect();
    let mut backwards: Vec<Header> = Backwards::new(&data, cut.offset)
        .map(Result::unwrap)
        .collect();
    backwards.reverse();
    assert_eq!(headers, backwards);
    assert_eq!(
        headers.last().unwrap().end() - headers.last().unwrap().position,
        cut.last_length
    );
    let objects: Vec<u64> = headers
        .iter()
        .map(|header| read_transaction(&data, header).unwrap().objects)
        .collect();
    assert_eq!(objects, [2, 2, 0, 0, 2, 2]);
    let second = read_transaction(&data, &headers[1]).unwrap();
    assert_eq!(
        (&second.user[..], &second.description[..]),
        (&b" admin"[..], &b"/news/edit"[..])
    );
    assert_eq!(second.extension, b"\x80\x03}.");
    assert_eq!(transaction_ending_at(&data, 4).unwrap(), None);
    assert_eq!(transaction_ending_at(&data, cut.offset - 1).unwrap(), None);
    // The writer goes on where it was.
    drop(writer);
    let again = Writer::open(&path).unwrap();
    assert_eq!(again.end(), cut.position());
    assert!(
        again
            .index()
            .iter()
            .map(|(oid, offset)| (*oid, *offset))
            .eq(pairs)
    );
}

#[test]
fn an_empty_storage_has_no_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    Writer::create(&path).unwrap();
    let cut = cut(&path, Position::START).unwrap();
    assert_eq!(
        (cut.position(), cut.transactions, cut.last_length),
        (Position::START, 0, 0)
    );
    assert_eq!(whole(&path).1, []);
}

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
            assert_eq!(
                cut.left_out.map(|left| (left.kind, left.bytes)),
                kind.map(|kind| (kind, bytes))
            );
            assert!(cut.warnings.is_empty());
            assert_eq!(cut.last_length == 0, from == end);
        }
    };
    let length = writer
        .transaction()
        .data(Oid(1), vec![1; 5000])
        .vote()
        .unwrap();
    check(Some(LeftOutKind::Voted), length);
    for torn in [1, 22, 23, 100, length as usize - 1] {
        writer
            .transaction()
            .data(Oid(1), vec![1; 5000])
            .tear(torn)
            .unwrap();
        let kind = if torn < 23 {
            LeftOutKind::ShortHeader
        } else {
            LeftOutKind::ShortTransaction
        };
        check(Some(kind), torn as u64);
    }
    for zeros in [1, 22, 23, 31, 4096, 100_000] {
        writer.set_tail(&vec![0; zeros]).unwrap();
        let kind = if zeros < 31 {
            LeftOutKind::ShortHeader
        } else {
            LeftOutKind::BadTail
        };
        // Of 23 zeros there is a header, but of a transaction of 8 bytes, which fit.
        check(
            Some(if zeros == 23 {
                LeftOutKind::BadTail
            } else {
                kind
            }),
            zeros as u64,
        );
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
    writer
        .transaction()
        .data(Oid(1), vec![1; 50_000])
        .vote()
        .unwrap();
    let voted = data.size().unwrap();
    writer.set_tail(&[]).unwrap();
    for from in [Position::START, end] {
        let cut = find_cut(&data, from, voted).unwrap();
        assert_eq!((cut.position(), cut.left_out), (end, None));
    }
    writer
        .transaction()
        .data(Oid(1), vec![1; 500])
        .vote()
        .unwrap();
    let cut = find_cut(&data, Position::START, voted).unwrap();
    assert_eq!(cut.position(), end);
    assert_eq!(cut.left_out.unwrap().kind, LeftOutKind::Voted);
    // Never below the start, though.
    writer.set_tail(&[]).unwrap();
    patch(&path, 0, b"FS30");
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(end.offset - 1)
        .unwrap();
    assert!(find_cut(&data, end, voted).is_err());
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
    assert_eq!(
        (left.kind, left.bytes),
        (LeftOutKind::Voted, end - second.position)
    );
    assert!(
        left.to_string()
            .starts_with("a transaction that was voted but not finished")
    );
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
        (
            record + 24,
            &[0, 0, 0, 0, 0, 0, 0, 9],
            false,
            "another transaction",
        ),
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
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("fsrecover"))
        );
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
    assert_eq!(
        kinds(&cut.warnings),
        [WarningKind::TimeWentBack, WarningKind::UnknownStatus]
    );
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
        assert!(
            cut(
                &path,
                Position {
                    offset,
                    tid: Tid(0)
                }
            )
            .is_err()
        );
    }
}

/// P1: what it costs to find the cut does not depend on how large the transactions are.
#[test]
fn p1_finding_the_cut_skips_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let mut writer = Writer::create(&path).unwrap();
    for oid in 0..10 {
        writer
            .transaction()
            .data(Oid(oid), vec![1; 1 << 20])
            .commit()
            .unwrap();
    }
    let middle = writer.end();
    for oid in 0..100 {
        writer
            .transaction()
            .data(Oid(oid), vec![1; 100])
            .commit()
            .unwrap();
    }
    let read_from = |from| {
        let data = DataFile::open(&path).unwrap();
        let before = data.bytes_read();
        find_cut(&data, from, data.size().unwrap()).unwrap();
        data.bytes_read() - before
    };
    assert!(
        read_from(middle) <= 3 * 8192 + 8192,
        "small transactions share a read"
    );
    assert!(read_from(Position::START) <= 16 * 8192);
    assert_eq!(read_from(writer.end()), 0);
}

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
        writer
            .transaction()
            .data(Oid(oid * 7), "state")
            .commit()
            .unwrap();
    }
    writer.save_index().unwrap();
    let found = judge().unwrap();
    assert_eq!(
        (found.position(), found.len()),
        (writer.end().offset, writer.index().len() as u64)
    );
    // Behind the file, as beside a running server.
    let behind = fs::read(&index).unwrap();
    writer.transaction().data(Oid(0), "more").commit().unwrap();
    assert!(judge().is_ok());
    // Ahead of it, as after something cut the file.
    writer.save_index().unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(writer.end().offset - 1)
        .unwrap();
    assert!(matches!(judge().unwrap_err(), Unusable::Ahead { .. }));
    fs::write(&index, &behind).unwrap();
    assert!(judge().is_ok());
    // The right position, but entries that point elsewhere: ZODB would take it.
    let mut wrong = behind.clone();
    let start = wrong
        .windows(2)
        .position(|two| two == b"B\x60")
        .unwrap_or(20)
        + 5;
    let count = found.iter().filter(|(oid, _)| *oid < 0x1_0000).count();
    for entry in 20..count - 20 {
        wrong[start + count * 2 + entry * 6 + 5] ^= 1;
    }
    assert!(IndexFile::parse(wrong.clone()).is_some());
    fs::write(&index, &wrong).unwrap();
    assert!(matches!(judge().unwrap_err(), Unusable::WrongRecord { .. }));
    // Made for another place.
    let mut writer = Writer::create(dir.path().join("Other.fs")).unwrap();
    writer
        .transaction()
        .data(Oid(0), vec![0; 300])
        .commit()
        .unwrap();
    writer.save_index().unwrap();
    fs::copy(dir.path().join("Other.fs.index"), &index).unwrap();
    assert!(matches!(
        judge().unwrap_err(),
        Unusable::NoTransaction { .. }
    ));
}

/// Writes down everything it hears.
#[derive(Default, PartialEq, Debug)]
struct Log {
    headers: Vec<Header>,
    records: Vec<Record>,
    data: Vec<u8>,
}

impl Sink for Log {
    fn transaction(&mut self, header: &Header) {
        self.headers.push(*header);
    }
    fn record(&mut self, record: &Record) {
        self.records.push(*record);
    }
    fn data(&mut self, part: &[u8]) {
        self.data.extend(part);
    }
}

fn events(
    bytes: &[u8],
    mut sizes: impl Iterator<Item = usize>,
) -> (Log, Result<ScanSummary, String>) {
    let mut log = Log::default();
    let mut scanner = Scanner::new("Data.fs", Position::START);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len()));
        if let Err(error) = scanner.feed(part, &mut log) {
            return (log, Err(error.to_string()));
        }
        rest = after;
    }
    (log, scanner.finish().map_err(|error| error.to_string()))
}

#[test]
fn slices_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    sample(&path);
    let bytes = fs::read(&path).unwrap();
    let expected = events(&bytes[4..], std::iter::empty());
    assert!(expected.1.is_ok() && expected.0.records.len() == 8 && expected.0.data.len() > 20_000);
    for size in [1, 2, 3, 7, 8, 22, 23, 41, 42, 43, 49, 50, 51, 1000] {
        assert_eq!(
            events(&bytes[4..], std::iter::repeat(size)),
            expected,
            "{size}"
        );
    }
    for end in 5..bytes.len().min(1000) {
        let (_, result) = events(&bytes[4..end], std::iter::repeat(64));
        let boundary = expected
            .0
            .headers
            .iter()
            .any(|header| header.end() == end as u64);
        assert_eq!(result.is_ok(), boundary, "{end}");
    }
}

mod nothing_panics {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static SAMPLE: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let mut writer = Writer::create(&path).unwrap();
        writer
            .transaction()
            .user("u")
            .description("d")
            .data(Oid(0), "root")
            .data(Oid(1), vec![1; 60])
            .commit()
            .unwrap();
        writer
            .transaction()
            .status(b'u')
            .data(Oid(9), "gone")
            .commit()
            .unwrap();
        writer
            .transaction()
            .delete(Oid(1))
            .data(Oid(0x2_0000), "far")
            .commit()
            .unwrap();
        writer.transaction().commit().unwrap();
        writer.save_index().unwrap();
        (
            fs::read(&path).unwrap(),
            fs::read(index_path(&path)).unwrap(),
        )
    });

    /// Everything that reads a file, on any bytes.
    fn read_all(dir: &Path, bytes: &[u8], index: &[u8]) {
        let path = dir.join("Data.fs");
        fs::write(&path, bytes).unwrap();
        fs::write(index_path(&path), index).unwrap();
        let Ok(data) = DataFile::open(&path) else {
            return;
        };
        let size = bytes.len() as u64;
        if let Ok(cut) = find_cut(&data, Position::START, size) {
            let scanned = scan(
                &data,
                Position::START,
                cut.offset,
                &mut Changes::new(4),
                &Silent,
            );
            assert!(scanned.is_err() || scanned.unwrap().end == cut.position());
        }
        for header in Forwards::new(&data, 4, size)
            .chain(Backwards::new(&data, size))
            .flatten()
        {
            let _ = read_transaction(&data, &header);
        }
        let _ = usable_index(&data, &index_path(&path)).unwrap();
    }

    fn mutated(
        bytes: &[u8],
        changes: &[(prop::sample::Index, u8)],
        cut: prop::sample::Index,
    ) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        bytes.truncate(cut.index(bytes.len() * 4));
        bytes
    }

    proptest! {
        #[test]
        fn on_damaged_files(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            entries in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cuts in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (data, index) = &*SAMPLE;
            read_all(dir.path(), &mutated(data, &changes, cuts.0), &mutated(index, &entries, cuts.1));
        }

        #[test]
        fn on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), index in prop::collection::vec(any::<u8>(), 0..100)) {
            let dir = tempfile::tempdir().unwrap();
            read_all(dir.path(), &[b"FS30", &bytes[..]].concat(), &index);
        }

        #[test]
        fn and_slices_never_matter(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            sizes in prop::collection::vec(1..80_usize, 1..40),
        ) {
            let mut bytes = SAMPLE.0.clone();
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            let (whole, parts) = (events(&bytes[4..], std::iter::empty()), events(&bytes[4..], sizes.into_iter().cycle()));
            prop_assert_eq!(&whole.1, &parts.1);
            if whole.1.is_ok() {
                prop_assert_eq!(whole, parts);
            }
        }
    }
}
