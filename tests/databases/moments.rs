//! A snapshot of several databases is of one moment, or says that it isn't.

use serde_json::Value;

use crate::common::ZodbProcess;
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
    let writer = ZodbProcess::start("together-writer", &site.file("main.fs"), &[others.to_str().unwrap()]);
    let mut quiet = 0;
    for number in 0..12 {
        let id = format!("s{number}");
        let output = site.znap(&["save", &id, "--json"]);
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        let one_moment = report["one_moment"].as_bool().unwrap();
        assert_eq!(output.code, if one_moment { 0 } else { 6 }, "{output:?}");
        assert_eq!(site.json(&["show", &id])["one_moment"], one_moment);
        let counts = site.counts_in(&id);
        assert!(agree(&counts) || !one_moment, "{id} is torn: {counts:?}");
        quiet += u32::from(one_moment);
    }
    println!("{quiet} of 12 snapshots are of one moment");
    writer.stop();
    site.ok(&["save", "last"]);
    assert_eq!(site.json(&["show", "last"])["one_moment"], true);
    site.ok(&["restore", "s5"]);
    site.ok(&["restore", "last"]);
    assert!(agree(&site.counts()));
}
