//! P9: the object files alone say what the catalog says, and repair makes the same catalog of them again. After any order of saves, restores, deletions and
//! (interrupted) gcs with two databases, every snapshot is rebuilt from manifests and data files as
//! docs/format.md describes, and compared with the catalog and with what was saved.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{file_views, names_all, views};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::sample::Index;
use rusqlite::{Connection, OptionalExtension, params};
use znap::error::{Error, Kind, Result};
use znap::filestorage::{Oid, write::Writer};
use znap::monitor::{Monitor, Silent};
use znap::repository::chunk_writer::Compression;
use znap::repository::data::{Codec, Frame, read_table};
use znap::repository::hash::{Hash, ListHash, Uid};
use znap::repository::layout::Layout;
use znap::repository::manifest::{ChunkName, DatabaseEntry, Manifest, Tombstone};
use znap::repository::object::{ObjectKind, kind_of};
use znap::snapshot::{
    GcOptions, InitOptions, Place, RepairOptions, Repository, RestoreOptions, SaveOptions, delete, gc, init, repair,
    restore, save,
};

/// `PROPTEST_CASES=500 cargo test --test manifests` for a long run.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16)
}

/// The files, which are also the databases' names with `.fs`: all of the first is stored, the second has a base.
const NAMES: [&str; 2] = ["first", "second"];

#[derive(Clone, Debug)]
enum Step {
    Grow {
        database: usize,
        transactions: u8,
        size: usize,
        seed: u64,
    },
    Save,
    Restore(Index),
    Delete(Index),
    Gc {
        all: bool,
    },
    /// Interrupted at the n-th look at the monitor.
    InterruptedGc(u32),
    LoseCatalog,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![2 => 1..3000usize, 1 => 30_000..120_000usize];
    prop_oneof![
        6 => (0..2usize, 1..4u8, size, any::<u64>())
            .prop_map(|(database, transactions, size, seed)| Step::Grow { database, transactions, size, seed }),
        6 => Just(Step::Save),
        3 => any::<Index>().prop_map(Step::Restore),
        3 => any::<Index>().prop_map(Step::Delete),
        2 => any::<bool>().prop_map(|all| Step::Gc { all }),
        1 => (1..12u32).prop_map(Step::InterruptedGc),
        2 => Just(Step::LoseCatalog),
    ]
}

/// A database as it was saved.
#[derive(Clone)]
struct State {
    bytes: Vec<u8>,
    index: BTreeMap<u64, u64>,
}

struct Bench {
    folder: tempfile::TempDir,
    place: Place,
    saved: BTreeMap<String, Vec<State>>,
    made: usize,
    clock: u64,
}

struct Interrupting(AtomicU32);

impl Monitor for Interrupting {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn notice(&self, _: &str) {}
    fn check(&self) -> Result<()> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            1 => Err(Error::new(Kind::Interrupted(2), "interrupted")),
            _ => Ok(()),
        }
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, count) in NAMES.iter().zip([2, 24]) {
            let mut writer = Writer::create(folder.path().join(format!("{name}.fs"))).unwrap();
            for number in 0..count {
                writer.transaction().data(Oid(number % 5), noise(number, 50_000)).commit().unwrap();
            }
            writer.save_index().unwrap();
        }
        let place = Place { root: folder.path().join(".znap"), trusted: Vec::new() };
        let options = InitOptions {
            root: place.root.clone(),
            databases: NAMES.iter().map(|name| PathBuf::from(format!("{name}.fs")).into()).collect(),
            current: folder.path().to_path_buf(),
            share_with_group: false,
        };
        let complete: Vec<bool> = init(&options, &Silent).unwrap().databases.iter().map(|d| d.complete).collect();
        assert_eq!(complete, [true, false]);
        Bench { folder, place, saved: BTreeMap::new(), made: 0, clock: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.fs"))
    }

    fn write(&self) -> Repository {
        Repository::open_to_write(&self.place, &Silent).unwrap()
    }

    fn pick(&self, which: &Index) -> Option<String> {
        let ids: Vec<&String> = self.saved.keys().collect();
        (!ids.is_empty()).then(|| (*which.get(&ids)).clone())
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Grow { database, transactions, size, seed } => {
                let mut writer = Writer::open(self.path(NAMES[*database])).unwrap();
                for number in 0..u64::from(*transactions) {
                    self.clock += 1;
                    let data = noise(seed ^ self.clock, *size);
                    writer.transaction().data(Oid((seed ^ number) % 9), data).commit().unwrap();
                }
            }
            Step::Save => {
                let id = format!("s{:03}", self.made);
                self.made += 1;
                let mut options = SaveOptions::new(Some(id.clone()), "words", TimeZone::UTC);
                options.compression = Compression { level: 1, frame: 200_000, ..Compression::FAST };
                save(&mut self.write(), &options, &Silent).unwrap();
                let state = |name: &&str| State {
                    bytes: fs::read(self.path(name)).unwrap(),
                    index: Writer::open(self.path(name)).unwrap().index().clone(),
                };
                self.saved.insert(id, NAMES.iter().map(state).collect());
            }
            Step::Restore(which) => {
                let Some(id) = self.pick(which) else { return };
                let options = RestoreOptions { discard: true, ..RestoreOptions::default() };
                restore(&mut self.write(), &id, &options, &Silent).unwrap();
                for (name, state) in NAMES.iter().zip(&self.saved[&id]) {
                    assert!(fs::read(self.path(name)).unwrap() == state.bytes, "{name} of {id} came back wrong");
                }
            }
            Step::Delete(which) => {
                let Some(id) = self.pick(which) else { return };
                self.saved.remove(&id);
                delete(&mut self.write(), &[id], &Silent).unwrap();
            }
            Step::Gc { all } => {
                gc(&mut self.write(), GcOptions { all: *all }, &Silent).unwrap();
            }
            Step::LoseCatalog => self.lose_catalog(),
            Step::InterruptedGc(after) => {
                let monitor = Interrupting(AtomicU32::new(*after));
                if let Err(error) = gc(&mut self.write(), GcOptions { all: true }, &monitor) {
                    assert_eq!(error.kind(), Kind::Interrupted(2), "{error}");
                }
            }
        }
    }

    /// Loses the catalog, and has it made again: with the same in it.
    fn lose_catalog(&self) {
        let root = &self.place.root;
        let (before, before_files) = (views(root), names_all(root).then(|| file_views(root)));
        let (catalog, away) = (root.join("catalog.db"), root.join("away"));
        fs::rename(&catalog, &away).unwrap();
        match repair(&self.place, &RepairOptions::default(), &Silent) {
            Ok(report) => {
                assert!(report.catalog_rebuilt && report.is_whole(), "P9: {report:?}");
                assert_eq!(views(root), before, "P9: the catalog says something else");
                if let Some(files) = before_files {
                    assert_eq!(file_views(root), files, "P9: the catalog says something else");
                }
                fs::remove_file(away).unwrap();
                let again = repair(&self.place, &RepairOptions::default(), &Silent).unwrap();
                assert!(!again.catalog_rebuilt, "P9: {again:?}");
            }
            // Then nothing says what the databases are.
            Err(error) => {
                assert!(self.saved.is_empty() && error.kind() == Kind::Damaged, "P9: {error}");
                fs::rename(away, catalog).unwrap();
            }
        }
    }

    fn check(&self) {
        let objects = Objects::read(&Layout::open(&self.place.root).unwrap());
        let catalog = Connection::open(self.place.root.join("catalog.db")).unwrap();
        let uids: Vec<Uid> = {
            let mut select =
                catalog.prepare("SELECT uid FROM snapshot WHERE tombstone IS NULL ORDER BY sequence").unwrap();
            let rows = select.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let mut live: Vec<&Manifest> = objects.snapshots().collect();
        live.sort_by_key(|manifest| manifest.sequence);
        assert_eq!(live.iter().map(|manifest| manifest.uid).collect::<Vec<_>>(), uids, "P9: other snapshots");
        assert!(live.iter().map(|manifest| &manifest.id).eq(self.saved.keys()), "P9: other ids");
        for manifest in live {
            compare_snapshot(&catalog, manifest);
            assert_eq!(manifest.databases.len(), NAMES.len());
            for entry in &manifest.databases {
                let number = NAMES.iter().position(|name| *name == entry.name).unwrap();
                objects.compare(&catalog, manifest, entry, &self.saved[&manifest.id][number]);
            }
        }
    }
}

/// What the object files say, read as docs/format.md says under "Reading every snapshot".
struct Objects {
    layout: Layout,
    /// Of each snapshot the manifest with the highest revision.
    manifests: HashMap<Uid, Manifest>,
    deleted: HashSet<Uid>,
    /// For each chunk a file, a frame, and where in the frame it begins.
    chunks: HashMap<Hash, (Hash, Frame, usize)>,
}

impl Objects {
    fn read(layout: &Layout) -> Self {
        let mut objects = Objects {
            layout: layout.clone(),
            manifests: HashMap::new(),
            deleted: HashSet::new(),
            chunks: HashMap::new(),
        };
        for entry in fs::read_dir(layout.objects()).unwrap() {
            let path = entry.unwrap().path();
            let Some(name) = Hash::from_hex(path.file_name().unwrap().to_str().unwrap()) else { continue };
            match kind_of(&path).unwrap() {
                ObjectKind::Plain => panic!("it has no header that says so"),
                ObjectKind::Data => {
                    for frame in read_table(layout, &name).unwrap() {
                        let mut start = 0;
                        for (hash, length) in frame.chunks.clone() {
                            objects.chunks.insert(hash, (name, frame.clone(), start));
                            start += length as usize;
                        }
                    }
                }
                ObjectKind::Manifest => {
                    let manifest = Manifest::read(layout, &name).unwrap();
                    let older = objects.manifests.get(&manifest.uid);
                    if older.is_none_or(|older| older.revision < manifest.revision) {
                        objects.manifests.insert(manifest.uid, manifest);
                    }
                }
                ObjectKind::Tombstone => {
                    objects.deleted.insert(Tombstone::read(layout, &name).unwrap().snapshot);
                }
                ObjectKind::Config => {}
            }
        }
        objects
    }

    fn snapshots(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests.values().filter(|manifest| !self.deleted.contains(&manifest.uid))
    }

    /// The entry whose list this one keeps a part of.
    fn parent(&self, entry: &DatabaseEntry) -> Option<&DatabaseEntry> {
        let parent = &self.manifests[&entry.stream.parent?];
        Some(parent.databases.iter().find(|other| other.uid == entry.uid).expect("the parent has the database"))
    }

    fn chunk_list(&self, entry: &DatabaseEntry) -> Vec<ChunkName> {
        let kept = entry.stream.kept as usize;
        let mut list = match self.parent(entry) {
            Some(parent) => self.chunk_list(parent),
            None => Vec::new(),
        };
        assert!(list.len() >= kept, "the parent's list is shorter than what is kept of it");
        list.truncate(kept);
        let length: u64 = list.iter().map(|chunk| u64::from(chunk.length)).sum();
        assert_eq!(entry.stream.kept_length, entry.generation.base_length + length);
        list.extend(&entry.stream.chunks);
        list
    }

    /// (is a keyframe, entries, bytes, chunks) of all parts of an index, oldest first.
    fn index_parts(&self, entry: &DatabaseEntry) -> Vec<(bool, u64, u64, Vec<ChunkName>)> {
        let mut parts = match &entry.index.keyframe {
            Some(part) => vec![(true, part.entries, part.bytes, part.chunks.clone())],
            None => self.index_parts(self.parent(entry).expect("a snapshot without a parent has a keyframe")),
        };
        parts.extend(entry.index.deltas.iter().map(|part| (false, part.entries, part.bytes, part.chunks.clone())));
        parts
    }

    fn bytes(&self, chunks: &[ChunkName]) -> Vec<u8> {
        let mut frames: HashMap<(Hash, u64), Vec<u8>> = HashMap::new();
        let mut bytes = Vec::new();
        for chunk in chunks {
            let (file, frame, start) = &self.chunks[&chunk.hash];
            let raw = frames.entry((*file, frame.offset)).or_insert_with(|| {
                let content = fs::read(self.layout.object(file)).unwrap();
                assert_eq!(Hash::of(&content), *file);
                let stored = &content[frame.offset as usize..][..frame.stored as usize];
                match frame.codec {
                    Codec::Raw => stored.to_vec(),
                    Codec::Zstd => zstd::bulk::decompress(stored, frame.raw as usize).unwrap(),
                }
            });
            let part = &raw[*start..][..chunk.length as usize];
            assert_eq!(Hash::of(part), chunk.hash);
            bytes.extend(part);
        }
        bytes
    }

    /// Compares what the objects say of a snapshot's database with the catalog, and with what was saved.
    fn compare(&self, catalog: &Connection, manifest: &Manifest, entry: &DatabaseEntry, saved: &State) {
        let what = format!("{} of {}", entry.name, manifest.id);
        let row = compare_stream(catalog, manifest, entry, &what);

        let list = self.chunk_list(entry);
        let mut select = catalog
            .prepare(
                "SELECT offset, length, hash FROM snapshot_chunks WHERE snapshot = ?1 AND database = ?2 ORDER BY offset",
            )
            .unwrap();
        let rows = select
            .query_map([&manifest.id, &entry.name], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))
            .unwrap();
        let in_catalog: Vec<(u64, u32, String)> = rows.map(Result::unwrap).collect();
        let mut offset = entry.generation.base_length;
        let mut hash = ListHash::default();
        let mut in_objects = Vec::new();
        for (number, chunk) in list.iter().enumerate() {
            if number as u64 == entry.stream.last_final.count {
                assert_eq!((offset, hash), (entry.stream.last_final.length, entry.stream.last_final.hash), "{what}");
            }
            in_objects.push((offset, chunk.length, chunk.hash.to_string()));
            offset += u64::from(chunk.length);
            hash = hash.extended(chunk.length, &chunk.hash);
        }
        assert_eq!(in_objects, in_catalog, "P9: the chunk list of {what}");
        assert_eq!((offset, hash), (entry.cut.offset, entry.stream.list_hash), "P9: the list hash of {what}");
        assert!(entry.stream.last_final.count <= list.len() as u64, "{what}");

        let base = entry.generation.base_length as usize;
        assert!(self.bytes(&list) == saved.bytes[base..], "P9: the tail of {what}");

        let parts = self.index_parts(entry);
        assert_eq!(parts, index_in_catalog(catalog, row), "P9: the index parts of {what}");
        let mut index = BTreeMap::new();
        for (_, entries, bytes, chunks) in parts {
            let coded = self.bytes(&chunks);
            assert_eq!(coded.len() as u64, bytes, "{what}");
            let pairs = pairs(&coded);
            assert_eq!(pairs.len() as u64, entries, "{what}");
            index.extend(pairs);
        }
        assert!(index == saved.index, "P9: the index of {what}");
    }
}

/// The pairs of an index part.
fn pairs(bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut numbers = Vec::new();
    let (mut number, mut shift) = (0, 0);
    for byte in bytes {
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            numbers.push(number);
            (number, shift) = (0, 0);
        }
    }
    let (mut oid, mut offset) = (0_u64, 0_u64);
    let mut pairs = Vec::new();
    for pair in numbers.chunks(2) {
        oid = oid.wrapping_add(pair[0]);
        offset = offset.wrapping_add((pair[1] >> 1) ^ (pair[1] & 1).wrapping_neg());
        pairs.push((oid, offset));
    }
    pairs
}

fn compare_snapshot(catalog: &Connection, manifest: &Manifest) {
    let same: Option<i64> = catalog
        .query_row(
            "SELECT 1 FROM snapshot s JOIN object_file o ON o.id = s.manifest
             WHERE s.uid = ?1 AND s.sequence = ?2 AND s.name = ?3 AND s.kind = ?4 AND s.created = ?5 AND s.message = ?6
             AND s.one_moment = ?7 AND s.stored_bytes = ?8 AND s.revision = ?9",
            params![
                manifest.uid,
                manifest.sequence,
                manifest.id,
                manifest.kind,
                manifest.created,
                manifest.message,
                manifest.one_moment,
                manifest.stored_bytes,
                manifest.revision,
            ],
            |row| row.get(0),
        )
        .optional()
        .unwrap();
    assert!(same.is_some(), "P9: the catalog says something else about {}", manifest.id);
}

/// Compares all columns that come from the manifest; returns the stream's row.
fn compare_stream(catalog: &Connection, manifest: &Manifest, entry: &DatabaseEntry, what: &str) -> i64 {
    let (stream, cut, generation) = (&entry.stream, &entry.cut, &entry.generation);
    let row: Option<i64> = catalog
        .query_row(
            "SELECT t.id FROM stream t JOIN snapshot s ON s.id = t.snapshot JOIN database d ON d.id = t.database
             JOIN generation g ON g.id = t.generation
             WHERE s.uid = ?1 AND d.uid = ?2 AND g.uid = ?3 AND t.kept_count = ?4 AND t.kept_length = ?5
             AND t.offset = ?6 AND t.tid = ?7 AND t.last_length = ?8 AND t.time = ?9 AND t.transactions = ?10
             AND t.count = ?11 AND t.list_hash = ?12 AND t.final_count = ?13 AND t.final_length = ?14
             AND t.final_hash = ?15 AND (SELECT p.uid FROM stream q JOIN snapshot p ON p.id = q.snapshot
                                         WHERE q.id = t.parent) IS ?16",
            params![
                manifest.uid,
                entry.uid,
                generation.uid,
                stream.kept,
                stream.kept_length,
                cut.offset,
                cut.tid,
                cut.last_length,
                cut.time,
                cut.transactions,
                stream.kept + stream.chunks.len() as u64,
                stream.list_hash,
                stream.last_final.count,
                stream.last_final.length,
                stream.last_final.hash,
                stream.parent,
            ],
            |row| row.get(0),
        )
        .optional()
        .unwrap();
    row.unwrap_or_else(|| panic!("P9: the catalog says something else about {what}"))
}

/// The parts of a stream's index as the catalog has them, in the form of [`Objects::index_parts`].
fn index_in_catalog(catalog: &Connection, stream: i64) -> Vec<(bool, u64, u64, Vec<ChunkName>)> {
    let mut select = catalog
        .prepare("SELECT id, keyframe, entries, bytes FROM index_part WHERE stream = ?1 ORDER BY position")
        .unwrap();
    let mut parts = Vec::new();
    for row in select.query_map([stream], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap() {
        let (part, keyframe, entries, bytes): (i64, bool, u64, u64) = row.unwrap();
        let mut chunks = catalog
            .prepare(
                "SELECT k.hash, k.length FROM index_chunk c JOIN chunk k ON k.id = c.chunk WHERE c.part = ?1
                 ORDER BY c.position",
            )
            .unwrap();
        let names = chunks.query_map([part], |r| Ok(ChunkName { hash: r.get(0)?, length: r.get(1)? })).unwrap();
        parts.push((keyframe, entries, bytes, names.map(Result::unwrap).collect()));
    }
    if !parts.iter().any(|part| part.0) {
        let parent: i64 =
            catalog.query_row("SELECT parent FROM stream WHERE id = ?1", [stream], |row| row.get(0)).unwrap();
        let mut all = index_in_catalog(catalog, parent);
        all.append(&mut parts);
        return all;
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p9_manifests_always_say_what_the_catalog_says(steps in prop::collection::vec(step(), 10..60)) {
        let mut bench = Bench::new();
        for step in &steps {
            bench.take(step);
            bench.check();
        }
        bench.take(&Step::Gc { all: true });
        bench.check();
    }
}
