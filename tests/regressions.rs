//! Failures that reading the code for them brought to light, each as the test that showed it.
#![allow(missing_docs, dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Bench;
use std::fs;
use std::sync::Arc;

use jiff::tz::TimeZone;
use znap::filestorage::{DataFile, Oid, Position, Source, find_cut, write::Writer};
use znap::monitor::Silent;
use znap::repository::catalog::Catalog;
use znap::repository::counters::Counters;
use znap::repository::layout::Layout;
use znap::snapshot::*;

/// P10: chunks that only a deleted list's deleted child keeps are never freed.
#[test]
fn p10_a_list_is_trimmed_to_what_snapshots_reach_through_deleted_ones() {
    let bench = Bench::new();
    bench.grow(1, 10_000);
    bench.save("d"); // one unfinished chunk of 10 KB
    bench.grow(2, 5_000);
    bench.save("e"); // keeps d's unfinished chunk
    bench.grow(3, 300_000);
    bench.save("e1"); // cuts again from the start: keeps nothing of e
    bench.restore("e");
    bench.grow(4, 300_000);
    bench.save("e2");
    bench.restore("d");
    bench.grow(5, 300_000);
    bench.save("d2");
    bench.delete("d");
    bench.delete("e");
    let report = bench.gc(true);
    let again = bench.gc(true);
    let dead: i64 = bench
        .sql()
        .query_row(
            "SELECT coalesce(sum(length), 0) FROM chunk WHERE id NOT IN (SELECT chunk FROM live_chunk)",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!((dead, report.unused_bytes_left, again.unused_bytes_left, again.files_rewritten), (0, 0, 0, 0));
}

#[test]
fn p10_a_dry_run_after_a_killed_save_sees_no_damage() {
    let bench = Bench::new();
    bench.grow(1, 1000);
    bench.save("a");
    bench.grow(2, 1000);
    bench.save_killed_before_its_commit("b");
    let result = gc_dry_run(&mut bench.write(), GcOptions::default());
    assert!(result.is_ok(), "{}", result.unwrap_err());
}

/// A database whose new end is damaged, so that ZODB doesn't open it: the very case for going back.
#[test]
fn a_damaged_end_of_the_file_can_be_dropped() {
    let bench = Bench::new();
    bench.grow(1, 1000);
    bench.save("a");
    let a = bench.bytes();
    bench.grow(2, 1000);
    bench.grow(3, 1000);
    let mut bytes = bench.bytes();
    let at = a.len() + 1000;
    for byte in &mut bytes[at..at + 200] {
        *byte = 0xff; // over the end of the second transaction
    }
    fs::write(bench.data_fs(), &bytes).unwrap();
    let options = RestoreOptions { discard: true, ..RestoreOptions::default() };
    let result = restore(&mut bench.write(), "a", &options, &Silent);
    assert!(result.is_ok(), "{}", result.unwrap_err());
}

/// The same, with a damaged record that the snapshot has, too: restore what differs.
#[test]
fn p3_a_file_that_an_abort_cuts_short_while_it_is_recognised() {
    let bench = Bench::new();
    bench.grow(1, 1000);
    bench.save("base");
    let base = bench.bytes();
    bench.grow(2, 20_000);
    bench.save("long");
    bench.restore("base");
    // A vote reaches beyond the abandoned snapshot's cut; then it is aborted.
    let mut writer = Writer::open(bench.data_fs()).unwrap();
    writer.transaction().data(Oid(3), vec![5; 50_000]).vote().unwrap();
    let file = DataFile::open(bench.data_fs()).unwrap();
    let size = file.size().unwrap();
    fs::OpenOptions::new().write(true).open(bench.data_fs()).unwrap().set_len(base.len() as u64).unwrap();
    let layout = Layout::open(&bench.place.root).unwrap();
    let catalog = Catalog::open_read_only(&layout, &Arc::new(Counters::default())).unwrap();
    let generation = catalog.databases().unwrap()[0].generation.row;
    let found = anchor::nearest(&file, size, &catalog, generation);
    assert!(found.is_ok(), "P3: {}", found.unwrap_err());
}

#[test]
fn p6_a_copy_that_fails_leaves_nothing_that_looks_like_a_database() {
    let bench = Bench::new();
    for n in 1..20 {
        bench.grow(n, 40_000);
    }
    bench.save("a");
    bench.grow(30, 300_000);
    let first = bench.objects();
    bench.save("b");
    let damaged =
        bench.objects().into_iter().find(|path| !first.contains(path) && fs::read(path).unwrap()[9] == 1).unwrap();
    let mut bad = fs::read(&damaged).unwrap();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&damaged, &bad).unwrap();
    let to = bench.folder.path().join("copy");
    let error = copy_out(&bench.read(), "b", &to, &Silent).unwrap_err();
    let path = to.join("data/Data.fs");
    if path.exists() {
        let file = DataFile::open(&path).unwrap();
        let cut = find_cut(&file, Position::START, file.size().unwrap(), &Silent).unwrap();
        panic!("P6: after \"{error}\" there is a Data.fs that opens, with {} transactions", cut.transactions);
    }
}

#[test]
fn many_saves_need_few_open_files() {
    let bench = Bench::new();
    bench.saves(300, 100);
    // In a process of its own, since the limit is one of the process.
    for command in ["restore", "gc", "restore"] {
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_znap"), command])
            .args(if command == "restore" { &["--discard", "s299"][..] } else { &[] })
            .current_dir(bench.folder.path())
            .env_remove("ZNAP_DIR")
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn p6_verify_checks_up_to_the_last_byte_that_stays() {
    let bench = Bench::new();
    bench.grow(1, 50_000);
    bench.save("shared");
    bench.grow(2, 1_000_000);
    bench.save("now");
    bench.restore("shared");
    bench.grow(8, 1_000_000);
    bench.save("target");
    let target = bench.bytes();
    bench.restore("now");
    let mut bytes = bench.bytes();
    bytes[20_000] ^= 1;
    fs::write(bench.data_fs(), &bytes).unwrap();
    let options = RestoreOptions { discard: true, verify: true, ..RestoreOptions::default() };
    let result = restore(&mut bench.write(), "target", &options, &Silent);
    if let Ok(report) = result {
        assert!(bench.bytes() == target, "P6: --verify checked {} bytes, and what came back is wrong", report.verified);
    }
}

#[test]
fn p6_a_lost_row_of_an_index_is_noticed() {
    let bench = Bench::new();
    for (n, id) in ["a", "b", "c"].iter().enumerate() {
        bench.grow(n as u64, 1000);
        bench.save(id);
    }
    bench.restore("c");
    let good = fs::read(bench.folder.path().join("Data.fs.index")).unwrap();
    bench.sql().execute("DELETE FROM index_part WHERE NOT keyframe AND stream = 2", []).unwrap();
    bench.restore("a");
    let options = RestoreOptions { discard: true, verify: true, ..RestoreOptions::default() };
    if restore(&mut bench.write(), "c", &options, &Silent).is_ok() {
        let now = fs::read(bench.folder.path().join("Data.fs.index")).unwrap();
        assert!(now == good, "P4, P6: a wrong index, without a word");
    }
}

/// Copies of a snapshot while gc joins the lists that it is made from.
#[test]
fn p10_copies_beside_gc_are_right() {
    let bench = Bench::new();
    let count = 120;
    bench.saves(count, 100);
    let last = format!("s{}", count - 1);
    bench.restore(&last);
    let good = fs::read(bench.folder.path().join("Data.fs.index")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut problems = Vec::new();
    let mut copies = 0;
    std::thread::scope(|scope| {
        struct Done<'a>(&'a std::sync::atomic::AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        scope.spawn(|| {
            let _done = Done(&done);
            for n in 0..count - 1 {
                bench.delete(&format!("s{}", count - 2 - n));
                if n % 3 == 2 {
                    bench.gc(false);
                }
            }
        });
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let to = bench.folder.path().join("copy");
            match copy_out(&bench.read(), &last, &to, &Silent) {
                Err(error) => problems.push(error.to_string()),
                Ok(_) => {
                    copies += 1;
                    if fs::read(to.join("data/Data.fs.index")).unwrap() != good {
                        problems.push("A WRONG INDEX".into());
                    }
                }
            }
            let _ = fs::remove_dir_all(&to);
        }
    });
    problems.sort();
    let total = problems.len();
    problems.dedup();
    assert!(total == 0, "{total} of {} copies: {problems:#?}", total + copies);
}

/// A reader is stopped between its questions to the catalog by what another process does: many short gcs.
#[test]
fn p10_copies_beside_delete_and_gc_are_whole_or_refused() {
    let bench = Bench::new();
    bench.grow(1, 100);
    bench.save("keep");
    let mut empty = 0;
    let mut others = Vec::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        struct Done<'a>(&'a std::sync::atomic::AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        scope.spawn(|| {
            let _done = Done(&done);
            for n in 0..150 {
                bench.grow(n + 2, 100);
                bench.save("x");
                bench.delete("x");
                bench.gc(false);
            }
        });
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let to = bench.folder.path().join("copy");
            match copy_out(&bench.read(), "x", &to, &Silent) {
                Err(error) => others.push(error.to_string()),
                Ok(report) if report.databases.is_empty() => empty += 1,
                Ok(_) => {}
            }
            let _ = fs::remove_dir_all(&to);
        }
    });
    others.sort();
    others.dedup();
    others.retain(|error| !error.contains("there is no snapshot"));
    assert!(empty == 0 && others.is_empty(), "{empty} copies of nothing; {others:#?}");
}

/// A manifest of a few hundred bytes that claims 2^26 chunks, many times over.
#[test]
fn a_small_manifest_that_claims_many_chunks_allocates_little() {
    use znap::repository::hash::Hash;
    use znap::repository::manifest::Manifest;
    let bench = Bench::new();
    bench.grow(1, 100);
    bench.save("a");
    let manifest = bench.objects().into_iter().find(|path| fs::read(path).unwrap()[9] == 2).unwrap();
    let bytes = fs::read(&manifest).unwrap();
    let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
    let json = String::from_utf8(bytes[20..20 + length].to_vec()).unwrap();
    let json = json.replace("\"deltas\":[]", "\"deltas\":[{\"entries\":1,\"bytes\":1,\"chunks\":67108864}]");
    let mut bad = bytes[..16].to_vec();
    bad.extend((json.len() as u32).to_le_bytes());
    bad.extend(json.as_bytes());
    let name = Hash::of(&bad);
    let layout = Layout::open(&bench.place.root).unwrap();
    fs::write(layout.object(&name), &bad).unwrap();
    let error = Manifest::read(&layout, &name).unwrap_err();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak: u64 =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 500_000, "{peak} kB of memory to say: {error}");
}

#[test]
fn a_transaction_of_an_impossible_time_is_refused_with_words() {
    let bench = Bench::new();
    let mut writer = Writer::open(bench.data_fs()).unwrap();
    writer.transaction().tid(znap::filestorage::Tid(0xf000_0000_0000_0000)).data(Oid(1), vec![1]).commit().unwrap();
    let result = save(&mut bench.write(), &SaveOptions::new(Some("a".into()), "", TimeZone::UTC), &Silent);
    assert!(result.unwrap_err().to_string().contains("impossible time"));
}

/// Root writes a copy of somebody's database.
#[test]
fn p12_the_folders_of_a_copy_belong_to_the_databases_owner() {
    use std::os::unix::fs::{MetadataExt, chown};
    let bench = Bench::new();
    bench.grow(1, 100);
    bench.save("a");
    if chown(bench.data_fs(), Some(12345), Some(12345)).is_err() {
        return;
    }
    let to = bench.folder.path().join("copy");
    copy_out(&bench.read(), "a", &to, &Silent).unwrap();
    let owner = |path: &str| fs::metadata(to.join(path)).unwrap().uid();
    assert_eq!(owner("data/Data.fs"), 12345);
    assert_eq!(owner("data"), 12345, "P12: ZODB can't create Data.fs.lock there");
}

/// A row lost to bit rot: gc must not take its chunk for one that nothing needs.
#[test]
fn p6_p10_gc_drops_nothing_when_a_list_has_lost_a_row() {
    let bench = Bench::new();
    bench.grow(1, 300_000);
    bench.save("a");
    bench.grow(2, 300_000);
    bench.save("b");
    let path = bench.place.root.join("catalog.db");
    let (good, objects) = (fs::read(&path).unwrap(), bench.objects());
    for damage in [
        "DELETE FROM stream_chunk WHERE (stream, offset) = (SELECT stream, min(offset) FROM stream_chunk WHERE stream = 2)",
        "DELETE FROM stream_chunk WHERE (stream, offset) = (SELECT stream, max(offset) FROM stream_chunk WHERE stream = 1)",
        "DELETE FROM chunk WHERE id = 3",
        "DELETE FROM index_chunk WHERE part = 2",
        "UPDATE stream SET kept_length = kept_length + 1 WHERE id = 2",
    ] {
        let catalog = rusqlite::Connection::open(&path).unwrap();
        assert!(catalog.execute(damage, []).unwrap() > 0, "{damage}");
        drop(catalog);
        let error = gc(&mut bench.write(), GcOptions { all: true }, &Silent).expect_err(damage);
        assert_eq!(error.kind(), znap::error::Kind::Damaged, "{damage}: {error}");
        assert_eq!(bench.objects(), objects, "{damage}");
        fs::write(&path, &good).unwrap();
    }
    gc(&mut bench.write(), GcOptions { all: true }, &Silent).unwrap();
}

/// A crash cut off the last transactions of a file that was saved whole: all that is left is held by a snapshot.
#[test]
fn p2_a_file_that_is_the_beginning_of_a_snapshot_loses_nothing_and_is_only_completed() {
    let bench = Bench::new();
    bench.grow(1, 200_000);
    bench.save("a");
    let mut ends = Vec::new();
    for seed in 2..8 {
        bench.grow(seed, 150_000);
        ends.push(bench.bytes().len());
    }
    bench.save("b");
    let b = bench.bytes();
    for cut in [ends[4], ends[4] + 10_000, ends[1]] {
        fs::write(bench.data_fs(), &b[..cut]).unwrap();
        let report = restore(&mut bench.write(), "b", &RestoreOptions::default(), &Silent).unwrap();
        let plan = &report.plan.databases[0];
        assert_eq!((plan.unsaved, plan.keep, plan.cut_off), (0, cut as u64, 0));
        assert!(!plan.goes_back);
        assert!(bench.bytes() == b);
        // Going elsewhere loses nothing either: b has it.
        fs::write(bench.data_fs(), &b[..cut]).unwrap();
        restore(&mut bench.write(), "a", &RestoreOptions::default(), &Silent).unwrap();
    }
    // One transaction that b doesn't have, and all is kept.
    fs::write(bench.data_fs(), &b[..ends[2]]).unwrap();
    bench.grow(99, 10);
    let own = bench.bytes();
    let report = restore(&mut bench.write(), "b", &RestoreOptions::default(), &Silent).unwrap();
    assert!(bench.bytes() == b);
    restore(&mut bench.write(), &report.kept.unwrap(), &RestoreOptions::default(), &Silent).unwrap();
    assert!(bench.bytes() == own);
}

/// gc gives long lines of saves a keyframe now and then, so that a restore merges a bounded number of parts.
#[test]
fn gc_shortens_what_an_index_is_made_from() {
    let bench = Bench::new();
    bench.saves(150, 100);
    let deltas = |id: &str| show(&bench.read(), id).unwrap().details[0].index_deltas;
    assert_eq!(deltas("s149"), 149);
    let bytes = bench.bytes();
    gc(&mut bench.write(), GcOptions::default(), &Silent).unwrap();
    assert!(deltas("s149") <= 64 && deltas("s100") <= 64 && deltas("s64") == 64, "{}", deltas("s149"));
    bench.restore("s60");
    bench.restore("s149");
    assert!(bench.bytes() == bytes);
    let index = fs::read(bench.folder.path().join("Data.fs.index")).unwrap();
    Writer::open(bench.data_fs()).unwrap().save_index().unwrap();
    assert!(index == fs::read(bench.folder.path().join("Data.fs.index")).unwrap());
}

/// P10: frames that nothing needs were forgotten one by one, and then the file that they are in looked wholly used.
#[test]
fn p10_a_file_of_which_whole_frames_are_unused_gives_them_back() {
    let bench = Bench::new();
    for seed in [1, 3] {
        bench.grow(seed, 250_000);
    }
    let short = bench.bytes();
    for seed in [5, 7, 9, 11, 13] {
        bench.grow(seed, 250_000);
    }
    bench.save("long"); // one file of several frames
    fs::write(bench.data_fs(), &short).unwrap();
    bench.save("short");
    bench.delete("long");
    let before = bench.object_bytes();
    assert!(before > 1_700_000, "{before}");
    let planned = gc_dry_run(&mut bench.write(), GcOptions::default()).unwrap();
    let report = bench.gc(false);
    let after = bench.object_bytes();
    assert!(after < 600_000, "{after} bytes are left of {before}: {report:?}");
    // The one, and the small one of the second save that joins it.
    assert_eq!((planned.files_rewritten, report.files_rewritten, report.unused_bytes_left), (2, 2, 0));
    bench.restore("short");
    assert!(bench.bytes() == short);
}

/// P10: what an index's new keyframe makes useless went only with the next gc.
#[test]
fn p10_one_gc_is_enough_where_indexes_are_shortened() {
    let bench = Bench::new();
    bench.saves(70, 300);
    bench.gc(true);
    let again = bench.gc(true);
    assert_eq!((again.chunks_dropped, again.files_removed, again.files_rewritten), (0, 0, 0), "P10");
}
