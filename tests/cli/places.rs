//! Which repository is meant, and where databases may be.

use std::fs;
use std::path::Path;

use crate::common::{Output, output, undisturbed};
use crate::site::{Site, grow};

/// Runs znap in a folder of the sandbox.
fn znap_in(site: &Site, folder: &str, args: &[&str], variable: Option<&Path>) -> Output {
    let mut command = site.sandbox.znap_command();
    command.current_dir(site.sandbox.file(folder)).args(args);
    if let Some(value) = variable {
        command.env("ZNAP_DIR", value);
    }
    output(&mut command)
}

#[test]
fn the_nearest_repository_upward() {
    let site = Site::with_snapshots();
    fs::create_dir_all(site.sandbox.file("a/b")).unwrap();
    let output = znap_in(&site, "a/b", &["status"], None);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.starts_with("../../.znap: 2 snapshots"), "{output:?}");
    assert!(output.stdout.contains("../../Data.fs") && output.stderr.is_empty(), "{output:?}");
    for args in [&["save", "b"][..], &["restore", "b", "--dry-run"], &["restore", "b"], &["delete", "b"], &["gc"]] {
        let output = znap_in(&site, "a/b", args, None);
        assert!(output.stderr.starts_with("using the repository ../../.znap\n"), "{output:?}");
    }
    for args in [&["-q", "save", "b"][..], &["-R", "../../.znap", "save", "c"]] {
        assert!(znap_in(&site, "a/b", args, None).stderr.is_empty(), "{args:?}");
    }
    for args in [&["save", "d"][..], &["delete", "b", "c", "d"]] {
        assert!(!site.znap(args).stderr.contains("using"), "{args:?}");
    }
    assert_eq!(znap_in(&site, "a/b", &["save", "three"], None).code, 0);
    let output = znap_in(&site, "a/b", &["restore", "one"], None);
    assert_eq!(output.code, 0, "{output:?}");
    // A nearer one goes first.
    grow(&site.sandbox.file("a/Other.fs"), "other", 1);
    assert_eq!(znap_in(&site, "a", &["init", "Other.fs"], None).code, 0);
    let output = znap_in(&site, "a/b", &["status"], None);
    assert!(output.stdout.starts_with("../.znap: 0 snapshots"), "{output:?}");
}

#[test]
fn p6_a_repository_that_cannot_be_looked_at_is_not_passed_over() {
    let site = Site::with_snapshots();
    fs::create_dir(site.sandbox.file("a")).unwrap();
    // As a disk that gives errors: what it leads to can't be told.
    std::os::unix::fs::symlink(".znap", site.sandbox.file("a/.znap")).unwrap();
    let output = znap_in(&site, "a", &["save", "x"], None);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("cannot open .znap"), "{output:?}");
    assert!(!site.znap_ok(&["list"]).contains('x'), "saved in another repository");
}

#[test]
fn a_named_repository() {
    let site = Site::with_snapshots();
    let root = site.sandbox.file(".znap");
    fs::create_dir(site.sandbox.file("elsewhere")).unwrap();
    let one = root.to_str().unwrap();
    for (folder, name) in [("elsewhere", one), ("elsewhere", "../.znap/"), (".znap", "."), (".znap/objects", "..")] {
        let output = znap_in(&site, folder, &["-R", name, "save"], None);
        assert_eq!(output.code, 0, "{folder} {name} {output:?}");
        let output = znap_in(&site, folder, &["restore", "two", "--repository", name], None);
        assert_eq!(output.code, 0, "{folder} {name} {output:?}");
    }
    // ZNAP_DIR does the same, and -R goes before it; an empty one is none.
    assert_eq!(znap_in(&site, "elsewhere", &["list"], Some(&root)).code, 0);
    assert_eq!(znap_in(&site, "elsewhere", &["list"], Some(Path::new("none"))).code, 5);
    assert_eq!(znap_in(&site, "elsewhere", &["list", "-R", one], Some(Path::new("none"))).code, 0);
    assert_eq!(znap_in(&site, "elsewhere", &["list"], Some(Path::new(""))).code, 0);
}

#[test]
fn a_repository_with_another_name_and_place() {
    let site = Site::new();
    fs::create_dir_all(site.sandbox.file("snap shots/of")).unwrap();
    site.znap_ok(&["init", "Data.fs", "-R", "snap shots/of/site"]);
    assert!(!site.sandbox.file(".znap").exists());
    let output = znap_in(&site, "snap shots", &["-R", "of/site", "save", "a"], None);
    assert_eq!(output.code, 0, "{output:?}");
    let before = site.data();
    site.grow("more", 1);
    let output = znap_in(&site, "snap shots/of", &["-R", "site", "restore", "a", "--discard"], None);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(site.data(), before);
    // The directory that holds it must be there.
    site.refuses_without_hint(&["init", "Data.fs", "-R", "no/such/place"], 1, "no/such");
}

impl Site {
    fn refuses_without_hint(&self, args: &[&str], code: i32, words: &str) {
        let output = self.znap(args);
        assert_eq!(output.code, code, "{output:?}");
        assert!(output.stderr.contains(words), "{output:?}");
    }
}

#[test]
fn databases_anywhere() {
    let site = Site::new();
    let absolute = site.sandbox.file("absolute/Data.fs");
    let absolute = absolute.to_str().unwrap();
    let paths = ["here/Data.fs", "with spaces/My Data.fs", "ünï/Dätä.fs", "here/../up/Data.fs", "-dash.fs", absolute];
    for path in paths {
        let path = site.sandbox.file("work").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.to_str().unwrap().contains("here/../up") {
            fs::create_dir_all(site.sandbox.file("work/up")).unwrap();
        }
        grow(&path, "first", 1);
    }
    let args: Vec<&str> = ["init", "--"].into_iter().chain(paths).chain(["../Data.fs"]).collect();
    let output = znap_in(&site, "work", &args, None);
    assert_eq!(output.code, 0, "{output:?}");
    for path in paths {
        assert!(output.stdout.contains(&format!(": {path}, ")), "{path} is not in {output:?}");
    }
    let json = znap_in(&site, "work", &["status", "--json"], None).stdout;
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut names: Vec<&str> =
        status["databases"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), paths.len() + 1, "{names:?}");

    let read = || -> Vec<Vec<u8>> {
        paths.iter().map(|path| undisturbed(|| fs::read(site.sandbox.file("work").join(path)).unwrap())).collect()
    };
    assert_eq!(znap_in(&site, "work", &["save", "a"], None).code, 0);
    let before = read();
    for path in paths {
        grow(&site.sandbox.file("work").join(path), "second", 1);
    }
    assert_eq!(znap_in(&site, "work", &["save", "b"], None).code, 0);
    let after = read();
    for (id, expected) in [("a", &before), ("b", &after)] {
        let output = znap_in(&site, "work/with spaces", &["restore", id], None);
        assert_eq!(output.code, 0, "{output:?}");
        assert!(read() == *expected);
    }
    let output = znap_in(&site, "work", &["restore", "a", "--to", "../copy"], None);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(site.sandbox.file("copy").join(names[0]).is_dir());
}
