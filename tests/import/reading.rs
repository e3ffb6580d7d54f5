//! What is found where backups are, and isn't one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{Output, Sandbox, output};
use crate::{Site, all_come_back, edit, sources};

/// An import that must end by itself.
fn import(sandbox: &Sandbox, args: &[&str]) -> Output {
    let znap = env!("CARGO_BIN_EXE_znap");
    output(sandbox.command_of("timeout").args(["-s", "KILL", "20", znap, "import", "--json", "--from"]).args(args))
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn p5_what_is_no_file_is_named_and_the_backups_are_taken() {
    let mut site = Site::new(1400, 10, "small");
    for (day, options) in [(1, "F"), (2, "Q")] {
        site.sandbox.grow(1400 + u64::from(day), 2, "small");
        site.back_up(day, options);
    }
    let list = site.backup("2026-04-01-12-00-00.dat");
    pipe(&list);
    fs::create_dir(site.backup("2026-04-02-12-00-00.dat")).unwrap();
    pipe(&site.backup("2026-04-03-12-00-00.fs"));
    let size = fs::File::create(site.backup("2026-04-04-12-00-00.dat")).unwrap();
    size.set_len(1 << 40).unwrap();
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let done = import(&site.sandbox, &["repozo", "backups"]);
    assert_eq!(done.code, 6, "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let refused =
        ["2026-04-01-12-00-00.dat", "2026-04-02-12-00-00.dat", "2026-04-03-12-00-00.fs", "2026-04-04-12-00-00.dat"];
    assert_eq!(sources(&report, "refused"), refused);
    let reason = |number: usize| report["refused"][number]["reason"].as_str().unwrap();
    assert!(reason(0).contains("a pipe") && reason(1).contains("a directory"), "{report}");
    assert!(reason(3).contains("too large"), "{report}");
    all_come_back(&site.sandbox, &report, &site.states);
}

#[test]
fn what_is_no_file_of_znap2_is_named() {
    let site = crate::znap2::of_znap2(1410, 10, "small");
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let index = site.sandbox.file(".znap2/b/Data.fs.index");
    fs::remove_file(&index).unwrap();
    fs::create_dir(&index).unwrap();
    fs::create_dir(site.sandbox.file(".znap2/old")).unwrap();
    let old = Command::new("touch").args(["-d", "1960-01-01"]).arg(site.sandbox.file(".znap2/old")).status();
    assert!(old.unwrap().success());
    let done = import(&site.sandbox, &["znap2"]);
    assert_eq!(done.code, 6, "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let mut refused = sources(&report, "refused");
    refused.sort();
    assert_eq!(refused, ["b", "old"], "{report}");
    let sound: Vec<_> = site.states.iter().filter(|(name, _)| name != "b").cloned().collect();
    all_come_back(&site.sandbox, &report, &sound);
    let config = site.sandbox.file(".znap2/config.ini");
    fs::remove_file(&config).unwrap();
    pipe(&config);
    let done = import(&site.sandbox, &["znap2"]);
    assert!(done.code == 1 && done.stderr.contains("a pipe"), "{done:?}");
}

/// Tapes and some copies fill up with zeros; Python's gzip takes that.
#[test]
fn p5_zeros_behind_a_gzip_stream_are_no_damage() {
    let mut site = Site::new(1420, 10, "small");
    let full = site.back_up(1, "Fz");
    site.sandbox.grow(1421, 2, "small");
    let increment = site.back_up(2, "Qz");
    for name in [&full, &increment] {
        edit(&site.backup(name), |bytes| bytes.resize(bytes.len().next_multiple_of(10_240) + 20_480, 0));
    }
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let report = site.import(0);
    all_come_back(&site.sandbox, &report, &site.states);
    // Nothing else may follow, behind zeros neither.
    let world = site.sandbox.copy();
    world.znap_ok(&["delete", "2026-05-02_12-00-00"]);
    edit(&world.file("backups").join(&increment), |bytes| bytes.push(1));
    let done = world.znap(&["import", "--from", "repozo", "backups"]);
    assert!(done.code == 6 && done.stderr.contains("follows the zeros"), "{done:?}");
}

#[test]
fn without_a_tracked_database_it_says_so() {
    let mut site = Site::new(1430, 3, "small");
    site.back_up(1, "F");
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    site.sandbox.znap_ok(&["untrack", "data"]);
    let done = site.sandbox.znap(&["import", "--from", "repozo", "backups"]);
    assert!(done.code == 2 && done.stderr.contains("no database is tracked"), "{done:?}");
    assert!(done.stderr.contains("hint: znap track DB"), "{done:?}");
    site.sandbox.znap_ok(&["import", "--from", "repozo", "backups", "--database", "data"]);
}
