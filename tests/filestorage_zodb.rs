//! The FileStorage format, with real ZODB as the judge.

// Helpers outside test functions fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{Sandbox, Zodb, ZodbProcess, assert_same_bytes, boundaries};
use znap::error::{Kind, Result};
use znap::filestorage::pickles::{Content, mapping};
use znap::filestorage::{
    Backwards, Changes, DataFile, FileIdentity, Forwards, IndexFile, IndexWriter, Oid, Position, ScanSummary, Source,
    StorageLock, Tid, Unusable, Writer, find_cut, index_path, merge, openers, scan, usable_index,
};
use znap::monitor::Silent;

type Pairs = Vec<(u64, u64)>;
type Layer = Box<dyn Iterator<Item = Result<(u64, u64)>>>;

/// What is in a file from a boundary on, and where its complete transactions end.
fn read(path: &Path, from: Position) -> Result<(ScanSummary, Pairs, bool)> {
    let data = DataFile::open(path)?;
    let cut = find_cut(&data, from, data.size()?, &Silent)?;
    let mut changes = Changes::new(from.offset);
    let summary = scan(&data, from, cut.offset, &mut changes, &Silent)?;
    assert_eq!((summary.end, summary.transactions), (cut.position(), cut.transactions));
    let (pairs, warnings) = changes.into_parts();
    let odd = !summary.warnings.is_empty() || !warnings.is_empty();
    Ok((summary, pairs, odd))
}

/// The index of these objects, as bytes.
fn index_of(position: u64, pairs: impl Iterator<Item = Result<(u64, u64)>>) -> Vec<u8> {
    let mut writer = IndexWriter::new(Vec::new(), position).unwrap();
    for pair in pairs {
        let (oid, offset) = pair.unwrap();
        writer.push(oid, offset).unwrap();
    }
    writer.finish().unwrap()
}

/// Our index of the whole file has the bytes of the one that ZODB has just written.
fn assert_index(sandbox: &Sandbox) -> (ScanSummary, Pairs) {
    let (summary, pairs, odd) = read(&sandbox.data_fs(), Position::START).unwrap();
    assert!(!odd);
    let index = index_of(summary.end.offset, pairs.iter().copied().map(Ok));
    assert_same_bytes(&index, &fs::read(sandbox.index()).unwrap(), "our index and ZODB's");
    let file = IndexFile::read(sandbox.index()).unwrap().unwrap();
    assert!(file.iter().eq(pairs.iter().copied()));
    (summary, pairs)
}

/// P4: the index that we make of a database is, byte for byte, the one that ZODB makes.
#[test]
fn p4_indexes_are_those_of_zodb() {
    for seed in 1..4 {
        let sandbox = Sandbox::with_database(seed, 150, "mixed");
        let path = sandbox.data_fs();
        let (before, old) = assert_index(&sandbox);
        let ends = boundaries(&path);
        let data = DataFile::open(&path).unwrap();
        let size = data.size().unwrap();
        let forwards: Vec<(u64, u64)> =
            Forwards::new(&data, 4, size).map(Result::unwrap).map(|header| (header.end(), header.tid.0)).collect();
        assert_eq!(forwards, ends);
        assert_eq!(Backwards::new(&data, size).map(Result::unwrap).count(), ends.len());
        assert_eq!(before.end, Position { offset: size, tid: Tid(ends.last().unwrap().1) });

        // The old index with the changes since is the new one.
        let behind = fs::read(sandbox.index()).unwrap();
        sandbox.grow(seed + 100, 40, "mixed");
        let (since, new, _) = read(&path, before.end).unwrap();
        let layers: [Layer; 2] = [Box::new(old.into_iter().map(Ok)), Box::new(new.into_iter().map(Ok))];
        let index = fs::read(sandbox.index()).unwrap();
        assert_same_bytes(&index_of(since.end.offset, merge(layers.into())), &index, "the merged index and ZODB's");

        let judge = |bytes: &[u8]| {
            fs::write(sandbox.index(), bytes).unwrap();
            usable_index(&DataFile::open(&path).unwrap(), &sandbox.index()).unwrap()
        };
        assert_eq!(judge(&behind).unwrap().position(), before.end.offset);
        assert_eq!(judge(&index).unwrap().position(), since.end.offset);
        sandbox.zodb("pack", &[]);
        let (packed, _) = assert_index(&sandbox);
        assert!(packed.end.offset < since.end.offset);
        assert!(matches!(judge(&index), Err(Unusable::Ahead { .. })));
        sandbox.grow(seed + 200, 300, "mixed");
        assert_index(&sandbox);
        assert!(judge(&behind).is_err() && judge(&index).is_err());
    }
}

/// P3: after every sort of crash we stop where ZODB stops, and refuse what it refuses.
#[test]
fn p3_ends_and_damage_as_zodb_sees_them() {
    let made = Sandbox::with_database(7, 60, "mixed");
    let mut zodb = Zodb::start();
    for (kind, opens) in [
        ("garbage10", true),
        ("partial100", true),
        ("voted", true),
        ("zeros4096", true),
        ("reduction", true),
        ("middlec", true),
        ("oddstatus", true),
        ("undone", true),
        ("wrongprev", true),
        ("wrongtloc", false),
        ("wronglength", false),
        ("zerohole", false),
        ("version", false),
    ] {
        let sandbox = Sandbox::new();
        let path = sandbox.data_fs();
        let name = path.to_str().unwrap();
        fs::copy(made.data_fs(), &path).unwrap();
        zodb.run(&["torn", kind, name]);
        let ours = read(&path, Position::START);
        let theirs = zodb.run(&["open", name]);
        assert_eq!(theirs["ok"], opens, "{kind}: {theirs}");
        match ours {
            Ok((summary, pairs, odd)) => {
                assert!(opens, "{kind}: {theirs}");
                assert_eq!(theirs["position"], summary.end.offset, "{kind}");
                let index = index_of(summary.end.offset, pairs.into_iter().map(Ok));
                assert_same_bytes(&index, &fs::read(sandbox.index()).unwrap(), kind);
                let expected = matches!(kind, "reduction" | "oddstatus" | "undone" | "wrongprev");
                assert_eq!(odd, expected, "{kind}");
            }
            Err(error) => assert!(!opens, "{kind}: {error}"),
        }
    }
}

/// P3 and P7: beside a server that commits and aborts without pause, every cut is a boundary.
#[test]
fn p3_beside_a_live_writer() {
    let sandbox = Sandbox::with_database(11, 10, "small");
    let path = sandbox.data_fs();
    let writer = ZodbProcess::writer(&path, &["--mode", "mixed"]);
    let mut cuts = vec![Position::START];
    let start = std::time::Instant::now();
    while start.elapsed().as_secs_f64() < 2.0 {
        let from = *cuts.last().unwrap();
        let (summary, _, _) = read(&path, from).unwrap();
        assert!(summary.end.offset >= from.offset);
        cuts.push(summary.end);
    }
    writer.stop();
    let ends = boundaries(&path);
    cuts.dedup();
    assert!(cuts.len() > 3, "it wrote meanwhile");
    for cut in &cuts[1..] {
        assert!(ends.contains(&(cut.offset, cut.tid.0)), "{cut:?}");
    }
    assert_index(&sandbox);
}

/// P7: real ZODB and our lock exclude each other, and a holder is named.
#[test]
fn p7_the_lock_is_that_of_zodb() {
    let sandbox = Sandbox::with_database(12, 5, "small");
    let path = sandbox.data_fs();
    let identity = FileIdentity::of(&fs::metadata(&path).unwrap());
    let server = ZodbProcess::hold(&path, false);
    let error = StorageLock::acquire(&path).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.to_string().contains(&format!("process {}", server.id())), "{error}");
    let found = openers(identity);
    if cfg!(target_os = "linux") {
        assert!(error.to_string().contains("zodb_tool.py"), "{error}");
        assert!(found.iter().any(|opener| opener.pid == server.id() && opener.writable));
    }
    server.stop();

    let lock = StorageLock::acquire(&path).unwrap();
    let opened = sandbox.zodb("open", &[]);
    assert_eq!((&opened["ok"], &opened["error"]), (&false.into(), &"LockError".into()));
    // Who only reads takes no lock, but is found.
    let reader = ZodbProcess::hold(&path, true);
    if cfg!(target_os = "linux") {
        assert!(openers(identity).iter().any(|opener| opener.pid == reader.id() && !opener.writable));
    }
    reader.stop();
    drop(lock);
    sandbox.check();
}

/// What our writer writes is a database for ZODB.
#[test]
fn zodb_opens_what_we_write() {
    let sandbox = Sandbox::new();
    let path = sandbox.data_fs();
    let mut writer = Writer::create(&path).unwrap();
    writer
        .transaction()
        .description("initial database creation")
        .data(Oid(0), mapping([("child", Content::Mapping(Oid(1))), ("other", Content::Mapping(Oid(2)))]))
        .data(Oid(1), mapping([("title", Content::Text("été".into())), ("body", Content::Bytes(vec![0; 999]))]))
        .data(Oid(2), mapping([]))
        .commit()
        .unwrap();
    let first = writer.index()[&1];
    writer.transaction().user(" admin").data(Oid(1), mapping([])).data(Oid(3), mapping([])).commit().unwrap();
    writer.transaction().back(Oid(1), first).delete(Oid(3)).commit().unwrap();
    writer.save_index().unwrap();
    let found = sandbox.check();
    assert_eq!(found["used_index"], 1);
    assert_eq!((&found["objects"], &found["reachable"], &found["deleted"]), (&3.into(), &3.into(), &1.into()));
    assert_eq!(index_path(&path), sandbox.index());
    fs::remove_file(sandbox.index()).unwrap();
    sandbox.zodb("open", &[]);
    assert_index(&sandbox);
}
