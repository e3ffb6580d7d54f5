//! How fast the loops are that all of a database's bytes, or all of its objects, go through, beside `memcpy` and reading
//! a file that is in memory. `cargo bench --bench hot_loops`, or with `-- NAME` those whose name contains it.
//!
//! The database is made anew: pages that are edited, and a catalog's buckets that are written again each time.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use tempfile::TempDir;
use znap::filestorage::pickles::{Content as Item, mapping};
use znap::filestorage::{DataFile, Oid, Position, Source, Writer};
use znap::repository::chunk_reader::ChunkReader;
use znap::repository::chunk_writer::{ChunkWriter, Compression};
use znap::repository::chunker;
use znap::repository::counters::Counters;
use znap::repository::data::{Content, Frame};
use znap::repository::hash::Hash;
use znap::repository::layout::{Access, Layout};

/// How many bytes the database has, about.
const SIZE: u64 = 48_000_000;

fn main() {
    LazyLock::force(&SITE);
    divan::main();
}

/// The database, and its bytes.
struct Site {
    folder: TempDir,
    bytes: Vec<u8>,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Data.fs");
    pages(&path);
    Site { bytes: std::fs::read(&path).unwrap(), folder }
});

impl Site {
    fn open(&self) -> DataFile {
        DataFile::open(self.folder.path().join("Data.fs")).unwrap()
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Chunks, as the chunker cuts them; the last is what remains.
    fn chunks(&self) -> Vec<(Hash, &[u8])> {
        let mut chunks = Vec::new();
        let mut rest = &self.bytes[..];
        while !rest.is_empty() {
            let chunk;
            (chunk, rest) = rest.split_at(chunker::first_cut(rest).unwrap_or(rest.len()));
            chunks.push((Hash::of(chunk), chunk));
        }
        chunks
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn text(&mut self, words: usize) -> String {
        let mut text = String::new();
        for _ in 0..words {
            // Few words are most of a text.
            let limit = 1 + self.below(3000);
            let word = self.below(limit) as usize;
            for letter in 0..3 + word % 7 {
                text.push(char::from(b"etaoinshrdlucmfw"[((word * 2_654_435_761) >> (letter * 4)) % 16]));
            }
            text.push(' ');
        }
        text
    }
}

fn pages(path: &Path) {
    let mut random = Random(1);
    let mut writer = Writer::create(path).unwrap();
    let mut buckets: Vec<Vec<(String, String)>> =
        (0..200).map(|_| (0..30).map(|row| (format!("row-{row}"), random.text(12))).collect()).collect();
    while writer.end().offset < SIZE {
        let mut transaction = writer.transaction().user("editor").description("/news/page/edit");
        for _ in 0..8 {
            let state = mapping([("title", Item::Text(random.text(5))), ("text", Item::Text(random.text(80)))]);
            transaction = transaction.data(Oid(1000 + random.below(20_000)), state);
        }
        for _ in 0..3 {
            let number = random.below(200);
            let row = random.below(30) as usize;
            let bucket = &mut buckets[number as usize];
            bucket[row].1 = random.text(12);
            let items = bucket.iter().map(|(key, value)| (key.as_str(), Item::Text(value.clone())));
            transaction = transaction.data(Oid(1 + number), mapping(items));
        }
        transaction.commit().unwrap();
    }
}

/// What nothing can be faster than.
#[divan::bench_group(max_time = 1)]
mod yardstick {
    use super::*;

    #[divan::bench]
    fn memcpy(bencher: Bencher<'_, '_>) {
        let mut copy = vec![1; SITE.bytes.len()];
        bencher.counter(BytesCount::new(SITE.length())).bench_local(|| {
            copy.copy_from_slice(divan::black_box(&SITE.bytes));
            divan::black_box(&copy);
        });
    }

    #[divan::bench]
    fn read_a_warm_file(bencher: Bencher<'_, '_>) {
        let file = SITE.open();
        let mut buffer = vec![1; 1 << 20];
        bencher.counter(BytesCount::new(SITE.length())).bench_local(|| {
            let mut offset = 0;
            while offset < SITE.length() {
                let length = buffer.len().min((SITE.length() - offset) as usize);
                file.read_exact_at(&mut buffer[..length], offset).unwrap();
                offset += length as u64;
            }
        });
    }
}

/// What a save reads a database with.
#[divan::bench_group(max_time = 1)]
mod filestorage {
    use znap::filestorage::{Changes, Forwards, Record, Scanner, Sink, find_cut, scan};
    use znap::monitor::Silent;

    use super::*;

    struct Count(u64);

    impl Sink for Count {
        fn record(&mut self, record: &Record) {
            self.0 ^= record.oid.0;
        }
    }

    #[divan::bench]
    fn find_the_cut(bencher: Bencher<'_, '_>) {
        let file = SITE.open();
        bencher
            .counter(BytesCount::new(SITE.length()))
            .bench(|| find_cut(&file, Position::START, SITE.length(), &Silent).unwrap().offset);
    }

    #[divan::bench]
    fn walk_headers(bencher: Bencher<'_, '_>) {
        let file = SITE.open();
        bencher
            .counter(BytesCount::new(SITE.length()))
            .bench(|| Forwards::new(&file, Position::START.offset, SITE.length()).map(Result::unwrap).count());
    }

    #[divan::bench]
    fn walk_records(bencher: Bencher<'_, '_>) {
        let file = SITE.open();
        bencher.counter(BytesCount::new(SITE.length())).bench(|| {
            let mut count = Count(0);
            scan(&file, Position::START, SITE.length(), &mut count, &Silent).unwrap();
            count.0
        });
    }

    /// Without the reading.
    #[divan::bench]
    fn parse_records(bencher: Bencher<'_, '_>) {
        bencher.counter(BytesCount::new(SITE.length())).bench(|| {
            let mut count = Count(0);
            let mut scanner = Scanner::new("Data.fs", Position::START);
            for piece in SITE.bytes[4..].chunks(64 << 10) {
                scanner.feed(piece, &mut count).unwrap();
            }
            scanner.finish().unwrap();
            count.0
        });
    }

    #[divan::bench]
    fn walk_records_into_changes(bencher: Bencher<'_, '_>) {
        let file = SITE.open();
        bencher.counter(BytesCount::new(SITE.length())).bench(|| {
            let mut changes = Changes::new(Position::START.offset);
            scan(&file, Position::START, SITE.length(), &mut changes, &Silent).unwrap();
            changes.into_pairs().len()
        });
    }
}

/// Where chunks end, and what they are called. The alternative beside it, both on bytes that are random.
#[divan::bench_group(max_time = 1)]
mod chunks {
    use super::*;

    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut random = Random(42);
        (0..SIZE).map(|_| random.next() as u8).collect()
    });

    fn cut(bytes: &[u8]) -> usize {
        let mut rest = bytes;
        let mut count = 0;
        while let Some(length) = chunker::first_cut(rest) {
            rest = &rest[length..];
            count += 1;
        }
        count
    }

    #[divan::bench]
    fn mincdc_as_used(bencher: Bencher<'_, '_>) {
        bencher.counter(BytesCount::new(NOISE.len())).bench(|| cut(&NOISE));
    }

    #[divan::bench]
    fn mincdc_of_a_database(bencher: Bencher<'_, '_>) {
        bencher.counter(BytesCount::new(SITE.length())).bench(|| cut(&SITE.bytes));
    }

    #[divan::bench]
    fn fastcdc_64_kib(bencher: Bencher<'_, '_>) {
        bencher
            .counter(BytesCount::new(NOISE.len()))
            .bench(|| fastcdc::v2020::FastCDC::new(&NOISE, 16 << 10, 64 << 10, 256 << 10).count());
    }

    #[divan::bench]
    fn hash_64_kib(bencher: Bencher<'_, '_>) {
        bencher
            .counter(BytesCount::new(SITE.length()))
            .bench(|| SITE.bytes.chunks(64 << 10).map(|chunk| Hash::of(chunk).0[0]).fold(0, u8::wrapping_add));
    }

    #[divan::bench]
    fn cut_and_hash(bencher: Bencher<'_, '_>) {
        bencher.counter(BytesCount::new(SITE.length())).bench(|| SITE.chunks().len());
    }
}

/// Frames, as saves and gc write and as restores read them: with the file, and its sync.
#[divan::bench_group(max_time = 3)]
mod frames {
    use znap::repository::data_writer::NewDataFile;
    use znap::repository::frames::Location;
    use znap::repository::object::publish;

    use super::*;

    struct Store {
        _folder: TempDir,
        layout: Layout,
        counters: Arc<Counters>,
    }

    fn store() -> Store {
        let folder = tempfile::tempdir().unwrap();
        let layout =
            Layout::create(&folder.path().join(".znap"), Access::Private, &znap::disk::Disk::default()).unwrap();
        // Made with the catalog, which isn't needed here.
        std::fs::create_dir_all(layout.objects()).unwrap();
        Store { _folder: folder, layout, counters: Arc::default() }
    }

    impl Store {
        fn write(&self, chunks: &[(Hash, &[u8])], compression: Compression) -> Vec<NewDataFile> {
            let mut writer = ChunkWriter::new(&self.layout, &self.counters, compression);
            for (hash, bytes) in chunks {
                writer.append(Content::Tail, *hash, bytes).unwrap();
            }
            writer.finish().unwrap()
        }
    }

    fn compress(bencher: Bencher<'_, '_>, compression: Compression) {
        let (store, chunks) = (store(), SITE.chunks());
        bencher.counter(BytesCount::new(SITE.length())).bench(|| store.write(&chunks, compression).len());
    }

    #[divan::bench]
    fn write_as_saves(bencher: Bencher<'_, '_>) {
        compress(bencher, Compression::FAST);
    }

    #[divan::bench]
    fn write_as_gc_all(bencher: Bencher<'_, '_>) {
        compress(bencher, Compression::SMALL);
    }

    /// Decompressed, and each chunk checked.
    #[divan::bench]
    fn read(bencher: Bencher<'_, '_>) {
        let store = store();
        let files = store.write(&SITE.chunks(), Compression::FAST);
        let locations: Vec<Location> = files
            .iter()
            .flat_map(|data| data.frames.iter().flat_map(|frame| Location::all_of(data.file.name, frame)))
            .collect();
        publish(&store.layout, files.into_iter().map(|data| data.file).collect(), &store.counters).unwrap();
        bencher.counter(BytesCount::new(SITE.length())).bench(|| {
            let mut reader = ChunkReader::new(&store.layout, &store.counters);
            let mut length = 0;
            for location in &locations {
                length += reader.with_chunk(location, |bytes| Ok(bytes.len())).unwrap();
            }
            length
        });
    }
}

/// `Data.fs.index`: of half a million objects, eight bytes each in the file.
#[divan::bench_group(max_time = 1)]
mod index {
    use znap::error::Result;
    use znap::filestorage::{IndexFile, IndexWriter, merge};

    use super::*;

    const OBJECTS: u64 = 500_000;
    const BYTES: u64 = OBJECTS * 8;

    fn whole() -> Vec<(u64, u64)> {
        (0..OBJECTS).map(|oid| (oid, 4 + oid * 700)).collect()
    }

    /// What 16 saves changed: two in a hundred objects each.
    fn deltas() -> Vec<Vec<(u64, u64)>> {
        let mut random = Random(3);
        let mut delta = |number: u64| {
            let mut pairs: Vec<_> = (0..OBJECTS / 50).map(|_| (random.below(OBJECTS), 400_000_000 + number)).collect();
            pairs.sort_unstable();
            pairs.dedup_by_key(|pair| pair.0);
            pairs
        };
        (0..16).map(&mut delta).collect()
    }

    fn written(pairs: impl Iterator<Item = Result<(u64, u64)>>) -> Vec<u8> {
        let mut writer = IndexWriter::new(Vec::with_capacity(BYTES as usize * 2), 1 << 40).unwrap();
        for pair in pairs {
            let (oid, offset) = pair.unwrap();
            writer.push(oid, offset).unwrap();
        }
        writer.finish().unwrap()
    }

    fn layers<'a>(
        whole: &'a [(u64, u64)],
        deltas: &'a [Vec<(u64, u64)>],
    ) -> Vec<impl Iterator<Item = Result<(u64, u64)>> + 'a> {
        std::iter::once(whole)
            .chain(deltas.iter().map(Vec::as_slice))
            .map(|layer| layer.iter().copied().map(Ok))
            .collect()
    }

    #[divan::bench]
    fn write(bencher: Bencher<'_, '_>) {
        let whole = whole();
        bencher
            .counter(BytesCount::new(BYTES))
            .counter(ItemsCount::new(OBJECTS))
            .bench(|| written(whole.iter().copied().map(Ok)).len());
    }

    #[divan::bench]
    fn merge_17_layers(bencher: Bencher<'_, '_>) {
        let (whole, deltas) = (whole(), deltas());
        bencher
            .counter(BytesCount::new(BYTES))
            .counter(ItemsCount::new(OBJECTS))
            .bench(|| merge(layers(&whole, &deltas)).map(Result::unwrap).fold(0, |sum, (_, offset)| sum ^ offset));
    }

    #[divan::bench]
    fn merge_and_write(bencher: Bencher<'_, '_>) {
        let (whole, deltas) = (whole(), deltas());
        bencher
            .counter(BytesCount::new(BYTES))
            .counter(ItemsCount::new(OBJECTS))
            .bench(|| written(merge(layers(&whole, &deltas))).len());
    }

    #[divan::bench]
    fn read(bencher: Bencher<'_, '_>) {
        let bytes = written(whole().into_iter().map(Ok));
        bencher
            .counter(BytesCount::new(BYTES))
            .counter(ItemsCount::new(OBJECTS))
            .with_inputs(|| bytes.clone())
            .bench_values(|bytes| IndexFile::parse(bytes).unwrap().iter().fold(0, |sum, (_, offset)| sum ^ offset));
    }
}

/// Rows. The bytes are those that the chunks stand for.
#[divan::bench_group(max_time = 2)]
mod catalog {
    use std::cell::RefCell;

    use znap::repository::catalog::{Catalog, PreparedSnapshot, Registration};
    use znap::repository::data::Codec;
    use znap::repository::hash::{ListHash, Uid};
    use znap::repository::manifest::{
        ChunkName, CutEntry, DatabaseEntry, FinalPoint, Generation, IndexEntry, Manifest, StreamEntry,
    };

    use super::*;

    const LENGTH: u32 = 64 << 10;
    /// How many chunks a frame has.
    const FRAME: usize = 1024;

    struct Filled {
        _folder: TempDir,
        catalog: Catalog,
        generation: Generation,
        snapshots: u64,
        random: Random,
        hashes: Vec<Hash>,
    }

    const UID: Uid = Uid([1; 16]);

    /// A catalog without snapshots.
    fn empty() -> Filled {
        let folder = tempfile::tempdir().unwrap();
        let layout =
            Layout::create(&folder.path().join(".znap"), Access::Private, &znap::disk::Disk::default()).unwrap();
        let mut catalog = Catalog::create(&layout, &Arc::default()).unwrap();
        let generation = Generation {
            uid: UID,
            number: 1,
            began: 0,
            magic: "FS30".into(),
            base_length: 4,
            base_tid: 0,
            base_last_length: 0,
            base_check_length: 4,
            base_check: Hash::of(b"FS30"),
        };
        let database = Registration {
            uid: UID,
            name: "Data".into(),
            path: "Data.fs".into(),
            generation: generation.clone(),
            keep_base: false,
            tracked: true,
            blobs: None,
        };
        catalog.register(&UID, 0, (Hash::of(b"config"), 100), &[database]).unwrap();
        Filled { _folder: folder, catalog, generation, snapshots: 0, random: Random(5), hashes: Vec::new() }
    }

    impl Filled {
        fn hash(&mut self) -> Hash {
            Hash::of(&self.random.next().to_le_bytes())
        }

        /// A snapshot of so many chunks that nothing has had before.
        fn snapshot(&mut self, chunks: usize) -> PreparedSnapshot {
            self.snapshots += 1;
            let names: Vec<ChunkName> = (0..chunks).map(|_| ChunkName { hash: self.hash(), length: LENGTH }).collect();
            self.hashes.extend(names.iter().map(|name| name.hash));
            let frames = names
                .chunks(FRAME)
                .enumerate()
                .map(|(number, part)| Frame {
                    content: Content::Tail,
                    codec: Codec::Zstd,
                    offset: 16 + number as u64 * 1_000_000,
                    stored: 1_000_000,
                    raw: part.len() as u32 * LENGTH,
                    chunks: part.iter().map(|name| (name.hash, name.length)).collect(),
                })
                .collect();
            let length = chunks as u64 * u64::from(LENGTH);
            let entry = DatabaseEntry {
                uid: UID,
                name: "Data".into(),
                path: "Data.fs".into(),
                path_hex: None,
                keep_base: false,
                blob_directory: None,
                blobs: None,
                generation: self.generation.clone(),
                cut: CutEntry {
                    offset: 4 + length,
                    tid: 1,
                    last_length: 100,
                    time: 0,
                    transactions: 1,
                    new_bytes: length,
                },
                stream: StreamEntry {
                    parent: None,
                    kept: 0,
                    kept_length: 4,
                    list_hash: ListHash::default(),
                    last_final: FinalPoint { count: chunks as u64, length: 4 + length, hash: ListHash::default() },
                    chunks: names,
                },
                index: IndexEntry::new(None, None, Vec::new()),
            };
            let manifest = Manifest {
                repository: UID,
                uid: Uid::random().unwrap(),
                sequence: self.snapshots,
                revision: 0,
                id: format!("snapshot-{}", self.snapshots),
                kind: "save".into(),
                kind_before: None,
                created: 0,
                message: String::new(),
                one_moment: true,
                partial: false,
                stored_bytes: 0,
                databases: vec![entry],
            };
            PreparedSnapshot {
                manifest,
                manifest_file: (self.hash(), 1000),
                data_files: vec![(self.hash(), 1_000_000, frames)],
            }
        }
    }

    /// The catalog has as many chunks already as 10 GB have.
    #[divan::bench(args = [1, 16, 256, 4096], max_time = 1)]
    fn insert_chunks(bencher: Bencher<'_, '_>, chunks: usize) {
        let mut filled = empty();
        for _ in 0..10 {
            let prepared = filled.snapshot(16_384);
            filled.catalog.record_snapshot(&prepared).unwrap();
        }
        let filled = RefCell::new(filled);
        bencher
            .counter(ItemsCount::new(chunks))
            .counter(BytesCount::new(chunks * LENGTH as usize))
            .with_inputs(|| filled.borrow_mut().snapshot(chunks))
            .bench_local_values(|prepared| filled.borrow_mut().catalog.record_snapshot(&prepared).unwrap());
    }

    #[divan::bench(args = [true, false])]
    fn look_up(bencher: Bencher<'_, '_>, known: bool) {
        const LOOK_UPS: usize = 1000;
        let mut filled = empty();
        for _ in 0..10 {
            let prepared = filled.snapshot(16_384);
            filled.catalog.record_snapshot(&prepared).unwrap();
        }
        let wanted: Vec<Hash> =
            (0..LOOK_UPS).map(|number| if known { filled.hashes[number * 163] } else { filled.hash() }).collect();
        bencher
            .counter(ItemsCount::new(LOOK_UPS))
            .counter(BytesCount::new(LOOK_UPS * LENGTH as usize))
            .bench_local(|| wanted.iter().filter(|hash| filled.catalog.has_chunk(hash).unwrap()).count());
    }
}
