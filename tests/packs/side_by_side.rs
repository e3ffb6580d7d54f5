//! gc puts a packed file beside its past, where it takes next to nothing.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use znap::disk::{Change, Disk, Watcher};
use znap::monitor::Silent;
use znap::snapshot::{GcOptions, Place, Repository, gc};

use super::{Kill, Sandbox, Site, zodb};

/// A database of more than one of the largest frames, with its base kept.
fn large_site(seed: &str) -> Site {
    site_of(seed, "75")
}

fn site_of(seed: &str, mb: &str) -> Site {
    let sandbox = Sandbox::new();
    let path = sandbox.data_fs();
    zodb(&["make", path.to_str().unwrap(), "--seed", seed, "--profile", "plone", "--mb", mb]);
    sandbox.znap_ok(&["init", "Data.fs", "--base"]);
    Site { sandbox, held: Default::default() }
}

fn object_bytes(site: &Site) -> u64 {
    let files = fs::read_dir(site.sandbox.file(".znap/objects")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn p8_a_packed_file_beside_its_past_takes_next_to_nothing() {
    let mut site = large_site("101");
    site.save("a");
    site.sandbox.znap_ok(&["gc"]);
    let first = object_bytes(&site);
    for (seed, before, after) in [(102, "b", "c"), (103, "d", "e")] {
        site.sandbox.grow(seed, 10, "plone");
        site.save(before);
        site.pack();
        let earlier = object_bytes(&site);
        site.save(after);
        let alone = object_bytes(&site) - earlier;
        site.sandbox.znap_ok(&["gc"]);
        let packed = site.held[after].0.len() as u64;
        let beside = object_bytes(&site).saturating_sub(earlier);
        println!("{first} at first; packed: {packed} bytes, alone {alone}, beside its past {beside}");
        assert!(alone > packed / 20, "it isn't that small by itself: {alone}");
        assert!(beside < packed / 50, "P8: {beside} of {packed}");
        // Also if it isn't known that they lie so.
        fs::remove_file(site.sandbox.file(".znap/side-by-side")).unwrap();
        let again = site.json(&["gc", "--json"]);
        assert_eq!((&again["files_rewritten"], &again["files_removed"]), (&0.into(), &0.into()), "P10: {again:#}");
    }
    assert_eq!(site.bases(), 3);
    site.all_come_back();
    for id in ["c", "b", "e", "a", "d"] {
        site.restores(id);
    }
    // Nobody needs what was before the packs: the rest is whole.
    site.sandbox.znap_ok(&["delete", "a", "b", "c", "d"]);
    site.held.retain(|id, _| id == "e");
    site.sandbox.znap_ok(&["gc"]);
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
    site.all_come_back();
}

/// A disk that has no room for the first large write.
#[derive(Default)]
struct FullOnce(AtomicBool);

impl Watcher for FullOnce {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        match change {
            Change::Write { bytes, .. } if bytes.len() > 1 << 20 && !self.0.swap(true, Ordering::Relaxed) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(usize::MAX),
        }
    }
}

/// Each of these files is smaller than a frame, and all of them are larger.
#[test]
fn p8_p10_what_lies_beside_its_past_stays_so_and_is_not_read_again() {
    let mut site = site_of("106", "45");
    site.save("a");
    site.sandbox.zodb("grow", &["--seed", "107", "--profile", "plone", "--mb", "75"]);
    site.save("b");
    site.pack();
    let earlier = object_bytes(&site);
    site.save("packed");
    // Joined instead: there was no room to put them side by side.
    let mut world = Site { sandbox: site.sandbox.copy(), held: site.held.clone() };
    let place = Place { root: world.sandbox.file(".znap"), trusted: Vec::new() };
    let full = Arc::new(FullOnce::default());
    let mut repository = Repository::open_to_write_on(&Disk::watched(full.clone()), &place, &Silent).unwrap();
    assert!(gc(&mut repository, GcOptions::default(), &Silent).unwrap().files_rewritten > 0);
    assert!(full.0.load(Ordering::Relaxed));
    drop(repository);
    let joined = object_bytes(&world);
    let collect = |site: &Site, args: &[&str]| {
        let report = site.json(&[&["gc", "--json"], args].concat());
        let count = |name: &str| report["counts"][name].as_u64().unwrap();
        (report["files_rewritten"].as_u64().unwrap(), count("object_bytes_read"), count("object_bytes_written"))
    };
    let (rewritten, _, written) = collect(&site, &[]);
    let all = object_bytes(&site);
    assert!(written < all + all / 10, "P10: {written} bytes were written for {all}");
    let packed = site.held["packed"].0.len() as u64;
    let beside = object_bytes(&site).saturating_sub(earlier);
    println!("packed: {packed} bytes, beside its past {beside}");
    assert!(rewritten > 0 && beside < packed / 50, "P8: {beside} of {packed}");
    for args in [&[][..], &["--all"]] {
        assert_eq!(collect(&site, args), (0, 0, 0), "P10: {args:?}");
    }
    world.sandbox.znap_ok(&["gc"]);
    println!("joined {joined}, then {}, as against {all}", object_bytes(&world));
    assert!(joined > all + all / 4 && object_bytes(&world) < all + all / 50, "P8");
    // What is unused in between goes, and the rest stays as it lies, written once, and as small.
    let delete = |site: &mut Site| {
        site.sandbox.znap_ok(&["delete", "b"]);
        site.held.remove("b");
    };
    delete(&mut site);
    let (rewritten, _, written) = collect(&site, &[]);
    let after = object_bytes(&site);
    delete(&mut world);
    world.sandbox.znap_ok(&["gc", "--all"]);
    println!("{after} without what was deleted, {written} written; {} with --all", object_bytes(&world));
    assert!(rewritten > 0 && after * 10 < all * 9, "P10: {after} of {all}");
    assert!(written < after + after / 10, "P10: {written} bytes were written for {after}");
    assert!(after.abs_diff(object_bytes(&world)) < after / 50, "P8");
    for site in [&site, &world] {
        assert_eq!(collect(site, &["--all"]), (0, 0, 0), "P10");
    }
    // What is remembered can be lost, or say anything.
    let remembered = site.sandbox.file(".znap/side-by-side");
    let known = fs::read(&remembered).unwrap();
    assert_eq!(fs::metadata(&remembered).unwrap().permissions().mode() & 0o777, 0o600);
    for lost in [None, Some(&b"half"[..])] {
        fs::remove_file(&remembered).unwrap();
        if let Some(bytes) = lost {
            fs::write(&remembered, bytes).unwrap();
        }
        let (rewritten, read, _) = collect(&site, &[]);
        assert!(rewritten == 0 && read > after / 2, "P10: {rewritten} files, {read} bytes");
        assert!(fs::read(&remembered).unwrap() == known);
    }
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
    site.all_come_back();
}

#[test]
fn p10_a_gc_that_puts_files_side_by_side_may_be_killed_anywhere() {
    let mut site = large_site("104");
    site.save("a");
    site.sandbox.grow(105, 5, "plone");
    site.pack();
    site.save("b");
    let collect = |world: &Sandbox, change| {
        let place = Place { root: world.file(".znap"), trusted: Vec::new() };
        let mut repository = Repository::open_to_write_on(&Disk::watched(Kill::at(change)), &place, &Silent)?;
        gc(&mut repository, GcOptions::default(), &Silent).map(drop)
    };
    let whole = Kill::at(usize::MAX);
    let world = site.sandbox.copy();
    let place = Place { root: world.file(".znap"), trusted: Vec::new() };
    let mut repository = Repository::open_to_write_on(&Disk::watched(whole.clone()), &place, &Silent).unwrap();
    assert!(gc(&mut repository, GcOptions::default(), &Silent).unwrap().files_rewritten > 0);
    drop(repository);
    let changes = whole.seen();
    // The last ones: the first are those of any gc.
    for back in [1, 4, 7, 10, 14] {
        let world = site.sandbox.copy();
        collect(&world, changes - back).unwrap_err();
        world.znap_ok(&["check", "--data"]);
        world.znap_ok(&["gc"]);
        for id in ["a", "b"] {
            world.znap_ok(&["restore", id, "--to", "copy"]);
            assert!(fs::read(world.file("copy/data/Data.fs")).unwrap() == site.held[id].0, "P6: {back}, {id}");
            fs::remove_dir_all(world.file("copy")).unwrap();
        }
    }
}

#[test]
fn p10_two_copies_of_a_database_leave_each_other_alone() {
    let sandbox = Sandbox::new();
    let (path, copy) = (sandbox.data_fs(), sandbox.file("Copy.fs"));
    zodb(&["make", path.to_str().unwrap(), "--seed", "105", "--profile", "plone", "--mb", "75"]);
    fs::copy(&path, &copy).unwrap();
    sandbox.znap_ok(&["init", "Data.fs", "Copy.fs", "--base"]);
    sandbox.znap_ok(&["save", "a"]);
    for (seed, file) in [("1", &path), ("2", &copy)] {
        let file = file.to_str().unwrap();
        zodb(&["grow", file, "--seed", seed, "--transactions", "10", "--profile", "plone"]);
        zodb(&["pack", file]);
    }
    sandbox.znap_ok(&["save", "b"]);
    let files_rewritten = || {
        let report: serde_json::Value = serde_json::from_str(&sandbox.znap_ok(&["gc", "--json"])).unwrap();
        report["files_rewritten"].as_u64().unwrap()
    };
    assert!(files_rewritten() > 0);
    fs::remove_file(sandbox.file(".znap/side-by-side")).unwrap();
    assert_eq!(files_rewritten(), 0, "P10");
    sandbox.znap_ok(&["check", "--data", "--databases"]);
    for id in ["a", "b"] {
        sandbox.znap_ok(&["restore", id, "--to", id]);
        for name in ["data/Data.fs", "copy/Copy.fs"] {
            zodb(&["open", sandbox.file(id).join(name).to_str().unwrap()]);
        }
    }
}
