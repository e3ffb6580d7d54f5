//! A limited check goes on where it stopped.

use std::fs;

use crate::common::Bench;
use crate::{BIT_BY_BIT, QUICK, assert_clean, data_files, run};

#[test]
fn a_limited_check_goes_on_and_reads_everything_once() {
    let bench = Bench::new();
    for seed in 1..8 {
        bench.grow(seed, 50_000);
        bench.save(&format!("s{seed}"));
    }
    let files = data_files(&bench);
    let bytes: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let progress = bench.place.root.join("check-progress");
    for round in 0..2 {
        let (mut read, mut read_bytes, mut left) = (0, 0, files.len() as u64);
        for turn in 0.. {
            let report = run(&bench, &BIT_BY_BIT);
            assert!(!report.is_damaged());
            let data = report.data.unwrap();
            assert_eq!(data.went_on, turn > 0, "round {round}, turn {turn}");
            assert_eq!((data.files, data.files_left), (1, left - 1));
            read += data.files;
            read_bytes += data.bytes;
            left = data.files_left;
            assert_eq!(read_bytes + data.bytes_left, bytes);
            assert_eq!(progress.exists(), left > 0);
            if left == 0 {
                break;
            }
        }
        assert_eq!((read, read_bytes), (files.len() as u64, bytes), "each once");
    }
    // Files come and go meanwhile.
    run(&bench, &BIT_BY_BIT);
    bench.grow(20, 50_000);
    bench.save("new");
    bench.delete("s3");
    bench.gc(true);
    while run(&bench, &BIT_BY_BIT).data.unwrap().files_left > 0 {}
    // What can't be read is forgotten.
    fs::write(&progress, "nonsense").unwrap();
    assert!(!run(&bench, &BIT_BY_BIT).data.unwrap().went_on);
    // A whole check reads everything, wherever a limited one has stopped.
    assert_clean(&bench, "limited checks");
    assert!(!progress.exists());
}

#[test]
fn p6_damage_is_not_forgotten_by_the_rest_of_a_limited_check() {
    let bench = Bench::new();
    for seed in 1..6 {
        bench.grow(seed, 50_000);
        bench.save(&format!("s{seed}"));
    }
    let first = data_files(&bench).remove(0);
    let whole = fs::read(&first).unwrap();
    let mut bytes = whole.clone();
    bytes[100] ^= 1;
    fs::write(&first, &bytes).unwrap();
    for turn in 0..5 {
        let report = run(&bench, &BIT_BY_BIT);
        assert_eq!(report.findings.len(), 1, "turn {turn}");
        assert_eq!(report.data.unwrap().files_left, 4 - turn);
    }
    run(&bench, &BIT_BY_BIT);
    fs::write(&first, &whole).unwrap();
    assert!(!run(&bench, &BIT_BY_BIT).is_damaged(), "it was put back");
}

#[test]
fn p6_damage_behind_where_a_limited_check_stops_is_followed_too() {
    let bench = Bench::new();
    for seed in 1..6 {
        bench.grow(seed, 50_000);
        bench.save(&format!("s{seed}"));
    }
    let last = data_files(&bench).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    for length in [None, Some(whole.len() / 2)] {
        match length {
            None => fs::remove_file(&last).unwrap(),
            Some(length) => fs::write(&last, &whole[..length]).unwrap(),
        }
        let quick = run(&bench, &QUICK);
        assert!(!quick.findings[0].snapshots.is_empty(), "{:#?}", quick.findings);
        let limited = run(&bench, &BIT_BY_BIT);
        assert_eq!(limited.data.unwrap().files_left, 4, "it wasn't its turn");
        assert_eq!(limited.findings.len(), 1);
        assert_eq!(limited.findings[0].snapshots, quick.findings[0].snapshots);
        assert_eq!((limited.damaged_snapshots, limited.last_whole), (quick.damaged_snapshots, quick.last_whole));
        fs::write(&last, &whole).unwrap();
        while run(&bench, &BIT_BY_BIT).data.unwrap().files_left > 0 {}
    }
}

#[test]
fn what_a_killed_check_left_is_replaced() {
    let bench = Bench::new();
    bench.saves(3, 50_000);
    let left_over = bench.place.root.join("check-progress.new");
    fs::write(&left_over, "half").unwrap();
    assert!(!run(&bench, &BIT_BY_BIT).data.unwrap().went_on);
    assert!(!left_over.exists() && run(&bench, &BIT_BY_BIT).data.unwrap().went_on);
}
