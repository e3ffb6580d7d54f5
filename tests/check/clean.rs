//! Nothing that was done right is damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use znap::monitor::Silent;
use znap::snapshot::{RepairOptions, RestoreOptions, Subject, repair, undo};

use crate::common::Bench;
use crate::{
    ALL, BIT_BY_BIT, DATA, QUICK, assert_clean, damage, data_file_of_save, data_files, grow_later, run, small,
};

#[test]
fn p6_every_command_leaves_a_repository_that_is_whole() {
    let bench = Bench::new();
    assert_clean(&bench, "init");
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.grow(seed, 300_000);
        bench.grow(seed + 10, 3000);
        bench.save(id);
        assert_clean(&bench, "save");
    }
    bench.save("d");
    assert_clean(&bench, "save of nothing new");
    bench.restore("a");
    assert_clean(&bench, "restore");
    grow_later(&bench, 7, 200_000);
    bench.save("e");
    assert_clean(&bench, "save of a fork");
    bench.restore("c");
    grow_later(&bench, 8, 1000);
    grow_later(&bench, 9, 200_000);
    znap::snapshot::restore(&mut bench.write(), "e", &RestoreOptions::default(), &Silent).unwrap();
    assert_clean(&bench, "restore that keeps what was there");
    undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    assert_clean(&bench, "undo");
    for (id, all) in [("a", false), ("c", true), ("e", true)] {
        bench.delete(id);
        assert_clean(&bench, "delete");
        bench.gc(all);
        assert_clean(&bench, "gc");
    }
    grow_later(&bench, 20, 50_000);
    bench.save("f");
    assert_clean(&bench, "save after gc");
}

#[test]
fn p10_what_killed_commands_leave_is_no_damage() {
    let bench = Bench::new();
    bench.grow(1, 200_000);
    bench.save("a");
    bench.grow(2, 200_000);
    bench.save("b");
    let objects = bench.place.root.join("objects");
    fs::write(objects.join(".tmp-0123"), b"half").unwrap();
    fs::write(objects.join("notes.txt"), b"mine").unwrap();
    bench.grow(3, 100_000);
    // A manifest and a data file.
    let manifest = bench.save_killed_before_its_commit("c");
    let report = run(&bench, &ALL);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert_eq!((report.left_over_files, report.unknown_files), (3, vec!["notes.txt".to_string()]));
    // Announced, and not written to its end.
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    assert!(!run(&bench, &ALL).is_damaged());
    fs::write(&manifest, &whole).unwrap();

    // The same manifest that nobody has announced is a snapshot that the catalog doesn't know.
    let lock = bench.place.root.join("lock");
    let announcement = fs::read(&lock).unwrap();
    fs::write(&lock, "znap (pid 1, user nobody)\n").unwrap();
    let report = run(&bench, &QUICK);
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    assert!(report.findings[0].what.contains("older than the object files: it does not know snapshot c"));
    assert_eq!((report.findings[0].subject, report.last_whole), (Subject::Catalog, None));
    fs::write(&lock, announcement).unwrap();

    // A delete, and a gc, killed before their commits.
    drop(bench.write());
    let catalog = bench.place.root.join("catalog.db");
    let before = fs::read(&catalog).unwrap();
    bench.delete("a");
    fs::write(&catalog, &before).unwrap();
    assert!(!run(&bench, &ALL).is_damaged());
    bench.delete("a");
    let before = fs::read(&catalog).unwrap();
    let kept = tempfile::tempdir().unwrap();
    for path in bench.objects() {
        fs::copy(&path, kept.path().join(path.file_name().unwrap())).unwrap();
    }
    bench.gc(true);
    for entry in fs::read_dir(kept.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), objects.join(entry.file_name())).unwrap();
    }
    fs::write(&catalog, &before).unwrap();
    let report = run(&bench, &ALL);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert!(report.left_over_files > 0);
}

#[test]
fn nothing_is_changed_but_what_a_limited_check_remembers() {
    let bench = small();
    damage(&data_files(&bench)[0]);
    let state = || -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in [bench.folder.path().to_path_buf(), bench.place.root.clone(), bench.place.root.join("objects")] {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    files.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        files
    };
    let before = state();
    for options in [QUICK, DATA, ALL] {
        assert_eq!(run(&bench, &options).is_damaged(), options.data);
        assert!(state() == before);
    }
    run(&bench, &BIT_BY_BIT);
    let mut after = state();
    assert!(after.remove(&bench.place.root.join("check-progress")).is_some());
    assert!(after == before);
}

#[test]
fn what_a_deleted_snapshot_lacks_under_one_that_is_set_aside_is_no_damage() {
    let bench = Bench::new();
    bench.grow(1, 200_000);
    bench.save("a");
    bench.grow(2, 900_000);
    let path = data_file_of_save(&bench, "b");
    bench.grow(3, 200_000);
    bench.save("c");
    bench.delete("b");
    // Nobody has what was in its first frame.
    bench.restore("a");
    let mut bytes = fs::read(&path).unwrap();
    bytes[16..100_000].fill(0);
    fs::write(&path, bytes).unwrap();
    let report = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap();
    assert_eq!(report.set_aside.len(), 1);
    let report = run(&bench, &ALL);
    let subjects: Vec<Subject> = report.findings.iter().map(|finding| finding.subject).collect();
    assert_eq!(subjects, [Subject::Snapshot], "{:#?}", report.findings);
    assert_eq!((report.damaged_snapshots, report.last_whole), (vec!["c".to_string()], Some("a".into())));
}
