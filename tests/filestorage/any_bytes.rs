//! The scanner and slices; nothing panics on any bytes.

use super::sample::*;
use super::*;

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

fn events(bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> (Log, Result<ScanSummary, String>) {
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
        assert_eq!(events(&bytes[4..], std::iter::repeat(size)), expected, "{size}");
    }
    for end in 5..bytes.len().min(1000) {
        let (_, result) = events(&bytes[4..end], std::iter::repeat(64));
        let boundary = expected.0.headers.iter().any(|header| header.end() == end as u64);
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
        writer.transaction().status(b'u').data(Oid(9), "gone").commit().unwrap();
        writer.transaction().delete(Oid(1)).data(Oid(0x2_0000), "far").commit().unwrap();
        writer.transaction().commit().unwrap();
        writer.save_index().unwrap();
        (fs::read(&path).unwrap(), fs::read(index_path(&path)).unwrap())
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
        if let Ok(cut) = find_cut(&data, Position::START, size, &Silent) {
            let scanned = scan(&data, Position::START, cut.offset, &mut Changes::new(4), &Silent);
            assert!(scanned.is_err() || scanned.unwrap().end == cut.position());
        }
        for header in Forwards::new(&data, 4, size).chain(Backwards::new(&data, size)).flatten() {
            let _ = read_transaction(&data, &header);
        }
        let _ = usable_index(&data, &index_path(&path)).unwrap();
    }

    fn mutated(bytes: &[u8], changes: &[(prop::sample::Index, u8)], cut: prop::sample::Index) -> Vec<u8> {
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
