//! What a command leaves for the next one: damaged, it is refused or not believed, and changes nothing.

use std::fs;
use std::path::Path;

use znap::error::{Error, Kind};
use znap::monitor::Silent;
use znap::snapshot::{Finding, Repository, RestoreOptions, Subject, Way, finish, undo};

use crate::common::{Bench, stop_in_restore, undisturbed};
use crate::{ALL, BIT_BY_BIT, assert_clean, data_files, run};

/// A file in many ways damaged: one bit in every third byte, or cut.
fn damaged(path: &Path) -> Vec<(String, Vec<u8>)> {
    let whole = fs::read(path).unwrap();
    let flip = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        (format!("a bit at {at}"), bytes)
    };
    let cut = |length: usize| (format!("cut at {length}"), whole[..length].to_vec());
    (0..whole.len()).step_by(3).map(flip).chain((0..whole.len()).step_by(11).map(cut)).collect()
}

fn assert_refused(error: &Error, name: &str, what: &str) {
    assert_eq!(error.kind(), Kind::Damaged, "{what}: {error}");
    assert!(error.to_string().contains(name) && error.hint_text().is_some(), "{what}: {error:?}");
}

/// Two snapshots, of which the file is at `b`.
fn two() -> Bench {
    let bench = Bench::new();
    for (seed, id) in [(1, "a"), (2, "b")] {
        bench.grow(seed, 50_000);
        bench.save(id);
    }
    bench
}

#[test]
fn p6_a_damaged_journal_finishes_nothing() {
    let bench = two();
    let b = bench.bytes();
    assert!(undisturbed(|| stop_in_restore(&bench, "a")));
    let left = bench.bytes();
    let journal = bench.place.root.join("restore-journal");
    let whole = fs::read(&journal).unwrap();
    let to_finish = |way| {
        let mut repository = Repository::open_to_finish(&bench.place, &Silent).unwrap();
        undisturbed(|| finish(&mut repository, way, &Silent))
    };
    let tried = damaged(&journal);
    println!("{} damaged journals", tried.len());
    assert!(tried.len() > 180, "{}", tried.len());
    for (what, bytes) in tried {
        fs::write(&journal, &bytes).unwrap();
        for way in [Way::Forward, Way::Back] {
            assert_refused(&to_finish(way).unwrap_err(), "restore-journal", &what);
        }
        let error = Repository::open_to_write(&bench.place, &Silent).err().unwrap();
        assert_refused(&error, "restore-journal", &what);
        assert!(bench.bytes() == left, "{what}");
    }
    fs::write(&journal, whole).unwrap();
    assert!(!to_finish(Way::Back).unwrap().unwrap().restored);
    assert!(bench.bytes() == b);
    assert_clean(&bench, "putting the journal back");
}

#[test]
fn p6_a_damaged_last_restore_takes_nothing_back() {
    let bench = two();
    let b = bench.bytes();
    bench.restore("a");
    let a = bench.bytes();
    let last = bench.place.root.join("last-restore");
    let whole = fs::read(&last).unwrap();
    let take_back = || undisturbed(|| undo(&mut bench.write(), &RestoreOptions::default(), &Silent));
    let tried = damaged(&last);
    println!("{} damaged journals", tried.len());
    assert!(tried.len() > 180, "{}", tried.len());
    for (what, bytes) in tried {
        fs::write(&last, &bytes).unwrap();
        assert_refused(&take_back().unwrap_err(), "last-restore", &what);
        assert!(bench.bytes() == a, "{what}");
        let report = run(&bench, &ALL);
        let is_it = |finding: &Finding| finding.subject == Subject::Restore && !finding.prevents_restore;
        assert!(report.findings.len() == 1 && is_it(&report.findings[0]), "{what}: {:#?}", report.findings);
    }
    fs::write(&last, whole).unwrap();
    take_back().unwrap();
    assert!(bench.bytes() == b);
}

/// It isn't worth a hash: whatever it says, all is read in the end, and what is whole isn't called damaged.
#[test]
fn p6_a_damaged_progress_keeps_nothing_from_being_read() {
    let bench = Bench::new();
    bench.saves(3, 20_000);
    let first = data_files(&bench).remove(0);
    run(&bench, &BIT_BY_BIT);
    let progress = bench.place.root.join("check-progress");
    let left_over = damaged(&progress);
    println!("{} damaged files", left_over.len());
    assert!(left_over.len() > 55, "{}", left_over.len());
    for (what, bytes) in left_over {
        let whole = fs::read(&first).unwrap();
        fs::write(&progress, &bytes).unwrap();
        let rest = || -> u64 {
            let mut files = 0;
            for _ in 0..10 {
                let report = run(&bench, &BIT_BY_BIT);
                assert!(!report.is_damaged(), "{what}: {:#?}", report.findings);
                let data = report.data.unwrap();
                files += data.files;
                if data.files_left == 0 {
                    return files;
                }
            }
            panic!("{what}: it never ends");
        };
        rest();
        assert_eq!(rest(), 3, "{what}: the next time all are read");
        fs::write(&progress, &bytes).unwrap();
        crate::damage(&first);
        let found = (0..6).any(|_| run(&bench, &BIT_BY_BIT).is_damaged());
        assert!(found, "{what}: damage is found in the end");
        fs::write(&first, whole).unwrap();
    }
}
