//! A database's second name, which keeps its file when a pack takes it away.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::tz::TimeZone;
use znap::disk::{Change, Disk, Watcher};
use znap::error::{Error, Kind, Result};
use znap::monitor::{Monitor, Silent};
use znap::snapshot::{Place, Repository, SaveOptions, save, store_bases};

use super::{Site, inode, two_lives};

#[test]
fn p5_any_number_of_packs_between_two_saves_loses_nothing() {
    let mut site = Site::new(79);
    site.has_its_second_name();
    site.save("a");
    site.sandbox.grow(80, 10, "mixed");
    site.save("b");
    let length = site.held["b"].0.len();
    for seed in [81, 82] {
        site.pack();
        site.sandbox.grow(seed, 5, "mixed");
    }
    // What the last pack has left is something that znap never saw.
    assert!(!fs::read(site.sandbox.file("Data.fs.old")).unwrap().starts_with(&site.held["a"].0));
    let status = site.json(&["status", "--json"]);
    assert_eq!(status["databases"][0]["held_bytes"], length, "{status}");
    let said = site.save("packed");
    assert!(said.contains(".znap keeps the file from before the pack (") && said.contains("are stored now"), "{said}");
    site.has_its_second_name();
    assert!(!site.save("again").contains("keeps"));
    site.all_come_back();
    for id in ["a", "packed", "b"] {
        site.restores(id);
    }
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
    // All bases are stored: no second name is needed.
    assert!(site.second_names().is_empty());
}

#[test]
fn p2_a_second_name_of_znap_is_no_reason_to_build_a_file_beside() {
    let mut site = Site::new(83);
    site.save("a");
    site.sandbox.grow(84, 10, "mixed");
    site.save("b");
    let before = inode(&site.sandbox.data_fs());
    let beside = |site: &Site| {
        let plan = site.json(&["restore", "a", "--dry-run", "--json"]);
        plan["databases"][0]["beside"].as_bool().unwrap()
    };
    assert!(!beside(&site));
    site.restores("a");
    site.restores("b");
    assert_eq!(inode(&site.sandbox.data_fs()), before);
    site.has_its_second_name();
    // Another name, which keeps what it has.
    let other = site.sandbox.file("other-name");
    fs::hard_link(site.sandbox.data_fs(), &other).unwrap();
    assert!(beside(&site));
    site.restores("a");
    assert!(fs::read(&other).unwrap() == site.held["b"].0, "P5: another name's file was changed");
    site.has_its_second_name();
    assert_ne!(inode(&site.sandbox.data_fs()), before);
    fs::remove_file(&other).unwrap();
    assert!(!beside(&site));
    site.restores("b");
}

#[test]
fn p5_a_second_name_may_be_lost_copied_or_wrong() {
    let mut site = Site::new(85);
    site.save("a");
    let (name, _) = site.second_names().pop().unwrap();
    // Lost, as in a backup without it: the next save makes it again.
    site.without_second_names();
    site.save("b");
    site.has_its_second_name();
    // A copy, as in a repository that was copied: not kept while the database is there.
    let copy = |site: &Site| {
        fs::copy(site.sandbox.data_fs(), site.sandbox.file("copy")).unwrap();
        fs::rename(site.sandbox.file("copy"), &name).unwrap();
    };
    copy(&site);
    site.sandbox.znap_ok(&["gc"]);
    site.has_its_second_name();
    // But it serves when that is packed.
    copy(&site);
    site.sandbox.grow(86, 5, "mixed");
    site.save("c");
    copy(&site);
    site.pack();
    fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
    let packed = site.sandbox.copy();
    site.save("packed");
    site.has_its_second_name();
    site.all_come_back();
    // One that leads to something else is of no use, and does no harm.
    fs::write(packed.file(".znap/bases").join(name.file_name().unwrap()), "FS30 something else").unwrap();
    packed.znap_ok(&["save", "packed"]);
    assert!(packed.znap_ok(&["list"]).contains("needs "));
    let refused = packed.znap(&["restore", "a"]);
    assert!(refused.code == 1 && refused.stderr.contains("--base-from"), "{refused:?}");
    // What the catalog knows nothing of goes with gc.
    let unknown = packed.file(".znap/bases/0123456789abcdef0123456789abcdef");
    fs::hard_link(packed.data_fs(), &unknown).unwrap();
    packed.znap_ok(&["delete", "a", "b", "c"]);
    packed.znap_ok(&["gc"]);
    assert!(!unknown.exists());
    assert_eq!(fs::read_dir(packed.file(".znap/bases")).unwrap().count(), 1);
}

#[test]
fn p10_second_names_outlive_gc_and_repair() {
    let mut site = Site::new(87);
    site.save("a");
    site.sandbox.grow(88, 10, "mixed");
    site.save("b");
    site.sandbox.znap_ok(&["gc", "--all"]);
    site.has_its_second_name();
    site.pack();
    fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
    site.sandbox.znap_ok(&["gc", "--all"]);
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.sandbox.znap_ok(&["repair"]);
    site.sandbox.znap_ok(&["gc", "--all"]);
    site.sandbox.znap_ok(&["restore", "a", "--to", "copy"]);
    assert!(fs::read(site.sandbox.file("copy/data/Data.fs")).unwrap() == site.held["a"].0, "P6");
    fs::remove_dir_all(site.sandbox.file("copy")).unwrap();
    // Deleted snapshots need nothing; the file goes.
    let world = site.sandbox.copy();
    world.znap_ok(&["delete", "a", "b"]);
    world.znap_ok(&["gc"]);
    assert_eq!(fs::read_dir(world.file(".znap/bases")).unwrap().count(), 0);
    site.restores("b");
    site.restores("a");
}

/// Ctrl-C after so many questions whether to go on.
struct Impatient(AtomicUsize);

impl Monitor for Impatient {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn notice(&self, _: &str) {}
    fn check(&self) -> Result<()> {
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(Kind::Interrupted(2), "interrupted")),
        }
    }
}

#[test]
fn p5_storing_what_a_pack_left_may_be_interrupted() {
    let mut site = two_lives();
    fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
    let place = Place { root: site.sandbox.file(".znap"), trusted: Vec::new() };
    let mut repository = Repository::open_to_write(&place, &Silent).unwrap();
    save(&mut repository, &SaveOptions::new(Some("packed".into()), "", TimeZone::UTC), &Silent).unwrap();
    site.held.insert("packed".into(), site.state());
    let mut interrupted = 0;
    for questions in (0..).step_by(2) {
        match store_bases(&mut repository, &Impatient(questions.into())) {
            Ok(stored) => {
                assert_eq!(stored.len(), 1);
                break;
            }
            Err(error) => assert_eq!(error.kind(), Kind::Interrupted(2), "{error}"),
        }
        interrupted += 1;
        assert_eq!(site.second_names().len(), 2, "the one that was there is kept, and so is the new one");
    }
    drop(repository);
    assert!(interrupted > 1, "{interrupted}");
    site.has_its_second_name();
    site.all_come_back();
    site.sandbox.znap_ok(&["gc"]);
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
}

/// A file system that knows no second names.
struct NoLinks;

impl Watcher for NoLinks {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        match change {
            Change::Link { .. } => Err(io::ErrorKind::Unsupported.into()),
            _ => Ok(usize::MAX),
        }
    }
}

#[test]
fn p1_a_file_system_without_links_costs_nothing_more() {
    let mut site = Site::new(89);
    site.without_second_names();
    let place = Place { root: site.sandbox.file(".znap"), trusted: Vec::new() };
    let disk = Disk::watched(Arc::new(NoLinks));
    for id in ["a", "b"] {
        let mut repository = Repository::open_to_write_on(&disk, &place, &Silent).unwrap();
        save(&mut repository, &SaveOptions::new(Some(id.into()), "", TimeZone::UTC), &Silent).unwrap();
        site.held.insert(id.into(), site.state());
        let before = repository.counts().fsyncs;
        assert!(store_bases(&mut repository, &Silent).unwrap().is_empty());
        assert_eq!(repository.counts().fsyncs, before, "{id}");
    }
    assert!(site.second_names().is_empty());
    site.all_come_back();
}
