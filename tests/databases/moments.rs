//! A snapshot of several databases is of one moment, or says that it isn't.

use std::fs;

use jiff::tz::TimeZone;
use serde_json::Value;
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, SaveOptions, copy_out, list, save};

use crate::common::{Zodb, ZodbProcess};
use crate::{Site, agree};

#[test]
fn p3_a_commit_that_one_database_has_and_another_has_not_is_marked() {
    let site = Site::new(2);
    let others = site.file("catalog.fs");
    let half = ZodbProcess::start("together-half", &site.file("main.fs"), &[others.to_str().unwrap()]);
    site.ok(&["init", "main.fs", "catalog.fs"]);
    let output = site.znap(&["save", "torn", "--json"]);
    assert_eq!(output.code, 6, "{output:?}");
    assert!(output.stderr.contains("the databases are not of one moment"), "{output:?}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["one_moment"], false);
    assert!(site.ok(&["list"]).contains("not of one moment"));
    // It is torn indeed: that is what looking behind the cuts is for.
    let counts = site.counts_in("torn");
    assert!(!agree(&counts), "{counts:?}");
    // A single one of them is of one moment, whatever the others do.
    site.ok(&["save", "alone", "--only", "main"]);
    half.stop();
    site.ok(&["save", "whole"]);
    assert_eq!(site.json(&["show", "whole"])["one_moment"], true);
    assert!(agree(&site.counts_in("whole")));
    assert!(agree(&site.counts()));
}

#[test]
fn p3_while_an_application_writes_snapshots_are_torn_only_if_they_say_so() {
    let site = Site::started(2);
    let others = site.file("catalog.fs");
    let args = [others.to_str().unwrap(), "--pause-ms", "60"];
    let writer = ZodbProcess::start("together-writer", &site.file("main.fs"), &args);
    let place = Place { root: site.file(".znap"), trusted: Vec::new() };
    let mut made = Vec::new();
    for number in 0..60 {
        let options = SaveOptions::new(Some(format!("s{number}")), "", TimeZone::UTC);
        let report = save(&mut Repository::open_to_write(&place, &Silent).unwrap(), &options, &Silent).unwrap();
        made.push((report.id, report.one_moment));
    }
    writer.stop();
    site.ok(&["save", "last"]);
    made.push(("last".into(), site.json(&["show", "last"])["one_moment"].as_bool().unwrap()));
    assert!(made.last().unwrap().1, "nobody writes any more");
    let mut oracle = Zodb::start();
    for (id, one_moment) in &made {
        let to = site.file("copy");
        let repository = Repository::open(&place).unwrap();
        copy_out(&repository, id, &to, &Silent).unwrap();
        let paths = [to.join("main/main.fs"), to.join("catalog/catalog.fs")];
        let counts = oracle.run(&["together-counts", paths[0].to_str().unwrap(), paths[1].to_str().unwrap()]);
        let counts: Vec<u64> = serde_json::from_value(counts).unwrap();
        assert!(agree(&counts) || !one_moment, "{id} is torn: {counts:?}");
        let marked = list(&repository).unwrap().into_iter().find(|info| info.id == *id).unwrap();
        assert_eq!(marked.one_moment, *one_moment);
        fs::remove_dir_all(to).unwrap();
    }
    let quiet = made.iter().filter(|(_, one_moment)| *one_moment).count();
    println!("{quiet} of {} snapshots are of one moment", made.len());
}
