//! The databases' own files.

use std::fs;

use znap::filestorage::{Oid, Tid, Writer};
use znap::snapshot::Subject;

use crate::common::Bench;
use crate::{DATABASES, assert_clean, data_file_of_save, grow_later, run};

#[test]
fn databases_are_compared_with_the_snapshots_that_they_go_on_from() {
    let bench = Bench::new();
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.grow(seed, 300_000);
        bench.save(id);
    }
    bench.grow(4, 1000);
    let look = |bench: &Bench| {
        let report = run(bench, &DATABASES);
        let database = report.databases.clone().unwrap().remove(0);
        (report, database)
    };
    let (report, database) = look(&bench);
    assert!(!report.is_damaged());
    assert_eq!((database.transactions, database.records, database.last_good.as_deref()), (4, 4, Some("c")));
    let whole = bench.bytes();
    let cut = |id: &str| -> usize {
        bench.sql().query_row("SELECT offset FROM cuts WHERE snapshot = ?1", [id], |row| row.get(0)).unwrap()
    };
    let (a, b, c) = (cut("a"), cut("b"), cut("c"));
    // In the data of the second transaction, of the third, in the last byte of a chunk list, and of the last transaction.
    for (at, good, damaged) in
        [(a + 1000, "a", true), (b + 200_000, "b", true), (c - 20, "b", true), (c + 200, "c", false)]
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(bench.data_fs(), &bytes).unwrap();
        let (report, database) = look(&bench);
        assert_eq!(report.is_damaged(), damaged, "{at}: {:#?}", report.findings);
        assert_eq!(database.last_good.as_deref(), Some(good), "{at}");
        assert_eq!(database.differs_at, damaged.then_some(at as u64));
        assert_eq!(database.damage, None, "the structure is as it was");
        assert!(report.findings.iter().all(|finding| finding.subject == Subject::Database));
        assert_eq!(report.last_whole.as_deref(), Some("c"), "no snapshot is affected");
    }
    // A length that is wrong.
    let mut bytes = whole.clone();
    bytes[b + 15] ^= 1;
    fs::write(bench.data_fs(), &bytes).unwrap();
    let (report, database) = look(&bench);
    assert!(report.is_damaged() && database.damage.unwrap().contains("offset"));
    assert_eq!((database.damaged_at, database.last_good.as_deref()), (Some(b as u64), Some("b")));

    // A status that is none: of the transactions before nothing is wrong.
    let mut bytes = whole.clone();
    bytes[b + 16] |= 0x80;
    fs::write(bench.data_fs(), &bytes).unwrap();
    let (report, database) = look(&bench);
    assert!(report.is_damaged() && database.damage.unwrap().contains("status"));
    assert_eq!((database.damaged_at, database.last_good.as_deref()), (Some(b as u64), Some("b")));
    // What ZODB would cut off, and snapshots have.
    for (at, first, good) in [(b + 8, b, "b"), (a + 8, a, "a"), (c + 8, c, "c")] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(bench.data_fs(), &bytes).unwrap();
        let (report, database) = look(&bench);
        assert_eq!(database.left_out.as_deref().map(|left| left.contains("incomplete")), Some(true));
        assert_eq!(report.is_damaged(), good != "c", "what no snapshot has may be just being written");
        assert_eq!(database.damaged_at, (good != "c").then_some(first as u64));
        assert_eq!(database.last_good.as_deref(), Some(good));
    }

    // Back, and on another way: that is no damage.
    fs::write(bench.data_fs(), &whole[..c]).unwrap();
    bench.restore("a");
    let (report, database) = look(&bench);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert_eq!(database.last_good.as_deref(), Some("a"));
    let mut writer = Writer::open(bench.data_fs()).unwrap();
    // As late as it would be: Bench's own clock gives the same ids again.
    let tid = Tid(writer.end().tid.0 + (77 << 32));
    writer.transaction().tid(tid).data(Oid(9), vec![9; 10_000]).vote().unwrap();
    let (report, database) = look(&bench);
    assert!(!report.is_damaged() && database.left_out.is_some(), "{:#?}", report.findings);
    writer.transaction().tid(tid).data(Oid(9), vec![9; 400_000]).commit().unwrap();
    let (report, database) = look(&bench);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert_eq!(database.last_good.as_deref(), Some("a"));
    // Gone: a snapshot needs nothing of it, but it was asked for.
    fs::remove_file(bench.data_fs()).unwrap();
    let (report, database) = look(&bench);
    assert!(report.is_damaged() && database.problem.is_some() && database.size.is_none());
    assert!(report.damaged_snapshots.is_empty());
}

#[test]
fn a_base_that_is_damaged_affects_the_snapshots_that_need_it() {
    let bench = Bench::with_base();
    bench.grow(30, 50_000);
    bench.save("a");
    assert_clean(&bench, "save with a base");
    let whole = bench.bytes();
    // The length of the first transaction.
    let mut bytes = whole.clone();
    bytes[4 + 15] ^= 1;
    fs::write(bench.data_fs(), &bytes).unwrap();
    let report = run(&bench, &DATABASES);
    let database = &report.databases.as_ref().unwrap()[0];
    assert_eq!((database.damaged_at, report.damaged_snapshots), (Some(4), vec!["a".to_string()]));
    assert_eq!(report.last_whole, None);
    // One that ZODB would cut everything off from.
    let mut bytes = whole.clone();
    bytes[4 + 8] ^= 1;
    fs::write(bench.data_fs(), &bytes).unwrap();
    let report = run(&bench, &DATABASES);
    let database = &report.databases.as_ref().unwrap()[0];
    assert!(database.damage.as_ref().unwrap().contains("cut off"), "{database:?}");
    assert_eq!((database.damaged_at, report.damaged_snapshots), (Some(4), vec!["a".to_string()]));
    // The first transaction behind the base: the snapshot has it.
    let mut bytes = whole.clone();
    let cut: usize = bench.sql().query_row("SELECT base_length FROM generation", [], |row| row.get(0)).unwrap();
    bytes[cut + 16] |= 0x80;
    fs::write(bench.data_fs(), &bytes).unwrap();
    let report = run(&bench, &DATABASES);
    assert_eq!(report.databases.as_ref().unwrap()[0].damaged_at, Some(cut as u64));
    assert!(report.is_damaged() && report.damaged_snapshots.is_empty());
    // Another file.
    fs::write(bench.data_fs(), &whole[..100_000]).unwrap();
    let report = run(&bench, &DATABASES);
    assert!(report.is_damaged());
    assert_eq!(report.damaged_snapshots, ["a"]);
    assert!(report.databases.unwrap()[0].problem.as_ref().unwrap().contains("shorter"));
    fs::write(bench.data_fs(), &whole).unwrap();
    assert_clean(&bench, "putting it back");
}

#[test]
fn a_database_that_went_back_past_many_snapshots_is_not_damaged() {
    let bench = Bench::new();
    bench.grow(1, 250_000);
    bench.save("first");
    // The later ones have a chunk that begins before where the first ends.
    bench.grow(2, 200_000);
    bench.saves(120, 500);
    bench.restore("first");
    grow_later(&bench, 9, 300_000);
    let report = run(&bench, &DATABASES);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert_eq!(report.databases.unwrap()[0].last_good.as_deref(), Some("first"));
}

#[test]
fn a_snapshot_that_cannot_be_compared_says_nothing_about_the_database() {
    let bench = Bench::new();
    bench.grow(1, 250_000);
    bench.save("a");
    // With a chunk that begins before where a ends.
    bench.grow(2, 300_000);
    let path = data_file_of_save(&bench, "b");
    let b = bench.bytes();
    bench.restore("a");
    grow_later(&bench, 9, 300_000);
    let stored = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let report = run(&bench, &DATABASES);
    assert!(report.findings.iter().all(|finding| finding.subject == Subject::Data), "{:#?}", report.findings);
    fs::write(&path, stored).unwrap();

    // Nor does one that is set aside, whatever it has.
    bench.sql().execute("UPDATE snapshot SET kind = 'damaged' WHERE name = 'b'", []).unwrap();
    for flip in [None, Some(400_000)] {
        let mut bytes = b.clone();
        if let Some(at) = flip {
            bytes[at] ^= 1;
        }
        fs::write(bench.data_fs(), &bytes).unwrap();
        let report = run(&bench, &DATABASES);
        assert!(report.findings.iter().all(|finding| finding.subject != Subject::Database), "{:#?}", report.findings);
        assert_eq!(report.databases.unwrap()[0].last_good.as_deref(), Some("a"));
    }
}
