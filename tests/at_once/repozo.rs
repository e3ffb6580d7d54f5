//! A series of repozo.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::assert_whole;
use crate::common::{Sandbox, assert_same_file, output, python};

/// With -Q repozo looks at nothing but the last piece of its series: a restore puts other bytes there, and undo the same again.
#[test]
fn a_quick_series_of_repozo_beside_it_stays_valid() {
    let sandbox = Sandbox::with_database(3, 20, "small");
    fs::create_dir(sandbox.file("backups")).unwrap();
    let repozo = python().parent().unwrap().join("repozo");
    let run = |args: &[&str]| {
        let output = output(sandbox.command_of(repozo.to_str().unwrap()).args(args));
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
    };
    let series = || -> usize {
        let files = fs::read_dir(sandbox.file("backups")).unwrap();
        let is_full = |path: &Path| path.extension().is_some_and(|extension| extension == "fs");
        files.filter(|file| is_full(&file.as_ref().unwrap().path())).count()
    };
    // Returns how many times all of it was backed up so far.
    let back_up = || {
        // repozo's names have seconds.
        std::thread::sleep(Duration::from_millis(1100));
        run(&["-BvQ", "-r", "backups", "-f", "Data.fs"]);
        run(&["-V", "-r", "backups"]);
        run(&["-Rv", "-r", "backups", "-o", "recovered.fs"]);
        assert_same_file(sandbox.file("recovered.fs"), sandbox.data_fs());
        series()
    };
    sandbox.znap_ok(&["init", "Data.fs"]);
    assert_eq!(back_up(), 1);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.grow(4, 5, "small");
    assert_eq!(back_up(), 1, "an increment");
    sandbox.znap_ok(&["save", "b"]);
    sandbox.grow(5, 3, "small");
    sandbox.znap_ok(&["restore", "a"]);
    // What repozo has is gone: it notices.
    assert_eq!(back_up(), 2);
    sandbox.znap_ok(&["undo"]);
    assert_eq!(back_up(), 2, "the same, and more");
    sandbox.znap_ok(&["restore", "a"]);
    // Other commits, that reach further than what repozo has.
    sandbox.grow(6, 12, "small");
    assert_eq!(back_up(), 3);
    sandbox.grow(7, 2, "small");
    assert_eq!(back_up(), 3, "an increment");
    assert_whole(&sandbox);
    sandbox.check();
}
