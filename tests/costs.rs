//! What commands cost, counted in bytes, rows and syncs, never in time (P1, P2, P8).

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use znap::filestorage::{Oid, write::Writer};
use znap::monitor::Silent;
use znap::repository::chunker::{MAX, MIN};
use znap::repository::counters::Counts;
use znap::snapshot::{
    InitOptions, Place, Repository, RestoreOptions, RestoreReport, SaveOptions, SaveReport, gc, init, restore, save,
};

struct Site {
    folder: tempfile::TempDir,
    place: Place,
    seed: u64,
}

impl Site {
    /// A database with about so many bytes before init.
    fn new(base: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Writer::create(folder.path().join("Data.fs")).unwrap();
        let place = Place { root: folder.path().join(".znap"), trusted: Vec::new() };
        let mut site = Site { folder, place, seed: 1 };
        site.grow(base, 500_000);
        Writer::open(site.data_fs()).unwrap().save_index().unwrap();
        let options = InitOptions {
            root: site.place.root.clone(),
            databases: vec![PathBuf::from("Data.fs").into()],
            current: site.folder.path().to_path_buf(),
            share_with_group: false,
        };
        init(&options, &Silent).unwrap();
        site
    }

    fn data_fs(&self) -> PathBuf {
        self.folder.path().join("Data.fs")
    }

    /// Appends about so many bytes that don't compress, in records of this size.
    fn grow(&mut self, bytes: usize, record: usize) {
        let mut writer = Writer::open(self.data_fs()).unwrap();
        let mut left = bytes;
        while left > 0 {
            let length = left.min(record);
            let data: Vec<u8> = (0..length)
                .map(|_| {
                    self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
                    (self.seed >> 33) as u8
                })
                .collect();
            writer.transaction().data(Oid(self.seed % 1000), data).commit().unwrap();
            left -= length;
        }
    }

    fn repository(&self) -> Repository {
        Repository::open_to_write(&self.place, &Silent).unwrap()
    }

    fn save(&self, id: &str) -> SaveReport {
        save(&mut self.repository(), &SaveOptions::new(Some(id.into()), "", TimeZone::UTC), &Silent).unwrap()
    }

    fn restore(&self, id: &str) -> RestoreReport {
        restore(&mut self.repository(), id, &RestoreOptions::default(), &Silent).unwrap()
    }

    fn catalog(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.place.root.join("catalog.db")).unwrap()
    }

    fn count(&self, sql: &str) -> u64 {
        self.catalog().query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

/// The cost of saving `new` bytes on a database of `base` bytes with `tail` bytes in `snapshots` snapshots.
fn save_cost(base: usize, tail: usize, snapshots: usize, new: usize) -> (Counts, u64) {
    let mut site = Site::new(base);
    for number in 0..snapshots {
        site.grow(tail / snapshots, 50_000);
        site.save(&format!("s{number}"));
    }
    site.grow(new, 50_000);
    let report = site.save("measured");
    assert_eq!(report.databases[0].parent, Some(format!("s{}", snapshots - 1)));
    (report.counts, report.databases[0].new_bytes)
}

#[test]
fn p1_save_costs_what_is_new_however_large_and_old_everything_is() {
    let (small, new_bytes) = save_cost(2_000_000, 100_000, 1, 1_000_000);
    for (what, (large, its_new_bytes)) in [
        ("a large base", save_cost(40_000_000, 100_000, 1, 1_000_000)),
        ("a long tail", save_cost(2_000_000, 20_000_000, 1, 1_000_000)),
        ("many snapshots", save_cost(2_000_000, 6_000_000, 120, 1_000_000)),
    ] {
        assert!(new_bytes.abs_diff(its_new_bytes) < 1000);
        // Two chunks to recognise the file, one that wasn't final, the base's check, some headers.
        let allowance = 4 * MAX as u64 + 200_000;
        for (name, one, other) in [
            ("database bytes read", small.database_bytes_read, large.database_bytes_read),
            ("object bytes written", small.object_bytes_written, large.object_bytes_written),
        ] {
            assert!(other <= one.max(new_bytes) + allowance, "P1, {what}: {name}: {other} next to {one}");
        }
        assert_eq!(large.object_bytes_read, 0, "P1, {what}: no object file is opened");
        let rows = 2 * (new_bytes / MIN as u64 + 2) + 12;
        assert!(large.rows <= rows, "P1, {what}: {} rows", large.rows);
        assert_eq!((large.fsyncs, large.commits), (4, 1), "P1, {what}");
    }
}

#[test]
fn p1_saving_nothing_new_costs_next_to_nothing() {
    let mut site = Site::new(5_000_000);
    site.grow(3_000_000, 100_000);
    site.save("a");
    let report = site.save("b");
    assert_eq!(report.databases[0].new_bytes, 0);
    assert!(report.counts.database_bytes_read < 3 * MAX as u64 + 100_000);
    assert!(report.counts.object_bytes_written < 2000, "{:?}", report.counts);
    assert!(report.counts.rows <= 6);
    assert_eq!(report.counts.fsyncs, 3);
    // A transaction of some bytes costs some bytes: the rest that isn't final isn't stored again.
    site.grow(300, 300);
    let report = site.save("c");
    assert!(report.counts.object_bytes_written < 4000, "{:?}", report.counts);
}

#[test]
fn p2_restore_costs_what_differs() {
    let mut site = Site::new(20_000_000);
    site.grow(2_000_000, 50_000);
    site.save("a");
    let a = fs::metadata(site.data_fs()).unwrap().len();
    site.grow(5_000_000, 50_000);
    site.save("b");
    let b = fs::metadata(site.data_fs()).unwrap().len();
    let constant = 4 * MAX as u64 + 200_000;

    let back = site.restore("a");
    assert_eq!(back.plan.databases[0].write, 0, "P2: going back writes no tail");
    assert!(back.counts.database_bytes_read < constant, "P2: {:?}", back.counts);
    // Of the object files only what the index is made from.
    assert!(back.counts.object_bytes_read < 50_000, "{:?}", back.counts);

    let stored = site.count("SELECT sum(bytes) FROM object_files WHERE kind = 'data'");
    let forward = site.restore("b");
    // Checked first and then written, but read and decompressed once.
    assert!(forward.counts.object_bytes_read <= stored + 50_000, "P2: {:?} of {stored}", forward.counts);
    assert_eq!(forward.plan.databases[0].write, b - a, "P2: going forward writes what is missing");
    assert!(forward.counts.database_bytes_read < constant);

    site.restore("a");
    site.grow(1_000_000, 50_000);
    site.save("c");
    let sideways = site.restore("b");
    // Even of the transactions behind a, the first bytes may be the same.
    assert!((b - a - 100..=b - a).contains(&sideways.plan.databases[0].write), "P2: only what differs");
    assert_eq!(sideways.plan.databases[0].keep + sideways.plan.databases[0].write, b);

    let same = site.restore("b");
    assert_eq!((same.plan.databases[0].write, same.plan.databases[0].cut_off), (0, 0));
    for report in [&back, &forward, &sideways, &same] {
        assert_eq!(report.counts.rows, 0);
        // The new index; the journal and its folder; the text beside, the fence; the folder without the old index, the file, the folder
        // with the new index; the journal and its folder; the file without the fence; the folder with the last journal.
        assert!(report.counts.fsyncs <= 12, "P2: {} syncs", report.counts.fsyncs);
    }
}

#[test]
fn p2_after_forks_deletions_and_gc_too() {
    let mut site = Site::new(4_000_000);
    let mut ends = Vec::new();
    for id in ["a", "b", "c", "d"] {
        site.grow(700_000, 50_000);
        site.save(id);
        ends.push(fs::metadata(site.data_fs()).unwrap().len());
    }
    site.restore("b");
    site.grow(700_000, 50_000);
    site.save("fork");
    znap::snapshot::delete(&mut site.repository(), &["a".into(), "c".into()], &Silent).unwrap();
    gc(&mut site.repository(), Default::default(), &Silent).unwrap();
    let report = site.restore("d");
    let plan = &report.plan.databases[0];
    assert!((ends[1]..ends[1] + 100).contains(&plan.keep), "P2: kept {} of {}", plan.keep, ends[1]);
    assert_eq!(plan.keep + plan.write, ends[3]);
    let report = site.restore("b");
    assert_eq!(report.plan.databases[0].write, 0);
    let report = site.restore("fork");
    assert!(report.plan.databases[0].keep >= ends[1]);
}

#[test]
fn p8_many_snapshots_of_a_growing_database_cost_one_tail_and_small_rows() {
    let mut site = Site::new(2_000_000);
    let before = fs::metadata(site.data_fs()).unwrap().len();
    let count = 150;
    for number in 0..count {
        site.grow(40_000, 8_000);
        site.save(&format!("s{number}"));
    }
    let tail = fs::metadata(site.data_fs()).unwrap().len() - before;
    let stored = site.count("SELECT sum(k.length) FROM chunk k JOIN frame f ON f.id = k.frame WHERE f.content = 1");
    // Each byte in a final chunk, and as it came in one that wasn't: twice, or a little more.
    assert!(stored <= 5 * tail / 2, "P8: {stored} bytes of chunks for a tail of {tail}");
    let chunks = site.count("SELECT count(*) FROM chunk");
    let catalog = fs::metadata(site.place.root.join("catalog.db")).unwrap().len();
    let empty = 150_000;
    assert!(catalog <= empty + 1000 * count + 100 * chunks, "P8: a catalog of {catalog} bytes for {chunks} chunks");
    // Saved again under other names, nothing is stored.
    let stored_again = site.save("again").counts.object_bytes_written;
    assert!(stored_again < 2000);
    // And in one save of all of it, the final chunks are the same ones.
    let listed = site.count("SELECT count(DISTINCT hash) FROM snapshot_chunks WHERE snapshot = 's149'");
    assert!(listed <= tail / MIN as u64 + 10);
    // gc puts the copies near each other, where the compressor finds them.
    gc(&mut site.repository(), Default::default(), &Silent).unwrap();
    let data = site.count("SELECT sum(bytes) FROM object_files WHERE kind = 'data'");
    assert!(data <= tail * 11 / 10, "P8: {data} bytes after gc for a tail of {tail} that does not compress");
}

/// A gc after every few saves must not write everything anew each time.
#[test]
fn gc_writes_each_byte_a_bounded_number_of_times() {
    let mut site = Site::new(1_200_000);
    let (mut saved, mut rewritten) = (0, 0);
    for number in 0..96 {
        site.grow(100_000, 20_000);
        saved += site.save(&format!("s{number}")).counts.object_bytes_written;
        if number % 3 == 2 {
            rewritten += gc(&mut site.repository(), Default::default(), &Silent).unwrap().counts.object_bytes_written;
        }
    }
    // 32 times: what doubles each time is written five times; once more for the first gc, less what is stored twice.
    assert!(rewritten <= 6 * saved, "{rewritten} bytes written anew for {saved} saved");
    assert!(rewritten >= saved, "small files are joined at all");
    let files = site.count("SELECT count(*) FROM object_files WHERE kind = 'data'");
    assert!(files <= 12, "{files} data files are left");
    let data = site.count("SELECT sum(bytes) FROM object_files WHERE kind = 'data'");
    assert!(data <= 96 * 100_000 * 11 / 10, "{data} bytes for 9.6 MB");
}

/// The chunks of two branches lie at the same offsets, so that they alternate where gc puts them together.
#[test]
fn gc_reads_each_block_once_and_what_it_wrote_once_more() {
    let mut site = Site::new(1_200_000);
    site.grow(200_000, 50_000);
    site.save("a");
    site.grow(6_000_000, 50_000);
    site.save("b");
    site.restore("a");
    site.grow(6_000_000, 50_000);
    site.save("c");
    let stored = site.count("SELECT sum(bytes) FROM object_files WHERE kind = 'data'");
    let report = gc(&mut site.repository(), Default::default(), &Silent).unwrap();
    assert!(report.files_rewritten >= 2, "{report:?}");
    let read = report.counts.object_bytes_read;
    assert!(read <= 2 * stored + 200_000, "{read} bytes read of {stored} stored");
}

#[test]
fn final_chunks_do_not_depend_on_how_often_was_saved() {
    let mut often = Site::new(3_000_000);
    // The same file at init, in a repository of its own that is saved once.
    let once = tempfile::tempdir().unwrap();
    for name in ["Data.fs", "Data.fs.index"] {
        fs::copy(often.folder.path().join(name), once.path().join(name)).unwrap();
    }
    let place = Place { root: once.path().join(".znap"), trusted: Vec::new() };
    let options = InitOptions {
        root: place.root.clone(),
        databases: vec![PathBuf::from("Data.fs").into()],
        current: once.path().to_path_buf(),
        share_with_group: false,
    };
    init(&options, &Silent).unwrap();
    for step in 0..40 {
        // From a few bytes, which leave a chunk unfinished, to several chunks at once.
        often.grow([100, 40_000, 7_000, 300_000][step % 4], 60_000);
        often.save(&format!("s{step}"));
    }
    let once = Site { folder: once, place, seed: 1 };
    fs::copy(often.data_fs(), once.data_fs()).unwrap();
    once.save("s39");
    let finals = |site: &Site| -> Vec<(i64, String)> {
        let catalog = site.catalog();
        let sql = "SELECT c.offset, c.hash FROM snapshot_chunks c WHERE c.snapshot = 's39' AND c.offset <
                   (SELECT t.final_length FROM stream t JOIN snapshot s ON s.id = t.snapshot WHERE s.name = 's39')
                   ORDER BY c.offset";
        let mut statement = catalog.prepare(sql).unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let (one, many) = (finals(&once), finals(&often));
    assert!(one.len() > 30);
    assert_eq!(one, many);
}
