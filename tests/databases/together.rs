//! Databases are restored together or not at all, wherever that is interrupted.

use znap::disk::Disk;
use znap::error::Result;
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, RestoreOptions, Way, finish, restore};

use crate::common::{Kill, Zodb, ZodbProcess, undisturbed};
use crate::{Site, agree};

fn place(site: &Site) -> Place {
    Place { root: site.file(".znap"), trusted: Vec::new() }
}

fn copy(site: &Site) -> Site {
    Site { sandbox: site.sandbox.copy(), names: site.names.clone() }
}

/// Restores, and is killed before this change of a file.
fn killed(site: &Site, id: &str, only: &[String], kill: &std::sync::Arc<Kill>) -> Result<()> {
    let disk = Disk::watched(std::sync::Arc::clone(kill) as _);
    let options = RestoreOptions { only: only.to_vec(), ..RestoreOptions::default() };
    undisturbed(|| {
        let mut repository = Repository::open_to_write_on(&disk, &place(site), &Silent)?;
        restore(&mut repository, id, &options, &Silent).map(|_| ())
    })
}

#[test]
fn p5_three_databases_are_restored_together_or_not_at_all() {
    let site = Site::started(3);
    site.ok(&["save", "a"]);
    let a = (site.counts()[0], site.states());
    site.count(4);
    site.ok(&["save", "b"]);
    let b = (site.counts()[0], site.states());
    assert!(a.0 < b.0);
    let mut oracle = Zodb::start();
    let (mut unfinished, mut change) = (0, 0);
    loop {
        let torn = copy(&site);
        let kill = Kill::at(change);
        let result = killed(&torn, "a", &[], &kill);
        if !kill.fired() {
            result.unwrap();
            break;
        }
        let paths = torn.paths_in(torn.sandbox.path());
        let args: Vec<&str> = ["together-counts"].into_iter().chain(paths.iter().map(String::as_str)).collect();
        // Whatever ZODB opens now is of one snapshot.
        if let Ok(counts) = oracle.try_run(&args) {
            let counts: Vec<u64> = serde_json::from_value(counts).unwrap();
            assert!(agree(&counts), "killed before change {change}: {counts:?}");
        }
        let way = if change % 2 == 0 { Way::Forward } else { Way::Back };
        let finished = undisturbed(|| {
            let mut repository = Repository::open_to_finish(&place(&torn), &Silent).unwrap();
            match finish(&mut repository, way, &Silent) {
                // Too late to go back.
                Err(_) if way == Way::Back => finish(&mut repository, Way::Forward, &Silent).unwrap(),
                finished => finished.unwrap(),
            }
        });
        unfinished += u32::from(finished.is_some());
        let counts: Vec<u64> = serde_json::from_value(oracle.run(&args)).unwrap();
        assert!(agree(&counts), "finished after change {change}: {counts:?}");
        let expected = if counts[0] == a.0 { &a } else { &b };
        assert!(torn.states() == expected.1 && counts[0] == expected.0, "finished after change {change}");
        change += 1;
    }
    println!("{change} kills");
    assert!(unfinished > 10, "{unfinished} of {change} kills left something to finish");
}

#[test]
fn p7_an_interrupted_restore_of_one_database_needs_only_that_one() {
    let site = Site::started(2);
    site.ok(&["save", "a"]);
    let a = site.states();
    site.count(3);
    let after = site.states();
    // The other one is in use all the time.
    let _holder = ZodbProcess::hold(&site.file("main.fs"), false);
    site.refuses(&["restore", "a"], 4, "main.fs");
    let all = Kill::at(usize::MAX);
    killed(&copy(&site), "a", &["catalog".into()], &all).unwrap();
    let is_unfinished = |site: &Site, change: usize| {
        let _ = killed(site, "a", &["catalog".into()], &Kill::at(change));
        Repository::open(&place(site)).unwrap().unfinished_restore().unwrap().is_some()
    };
    let last = (0..all.seen()).rev().find(|change| is_unfinished(&copy(&site), *change)).unwrap();
    assert!(is_unfinished(&site, last));
    site.ok(&["restore", "--resume"]);
    assert!(site.state("catalog.fs") == a[1]);
    assert!(site.state("main.fs").0 == after[0].0);
    site.ok(&["undo"]);
    assert!(site.state("catalog.fs") == after[1]);
}
