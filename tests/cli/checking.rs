//! What check prints.

use std::fs;

use snapbox::{assert_data_eq, str};

use crate::site::Site;

#[test]
fn a_whole_repository() {
    let site = Site::with_snapshots();
    assert_data_eq!(site.shown(&["check"]), str![""]);
    assert_data_eq!(site.shown(&["check", "--data", "--databases"]), str![""]);
    assert_data_eq!(site.shown(&["check", "--data", "--for", "0s"]), str![""]);
    assert_data_eq!(site.shown(&["check", "--data", "--for", "1h"]), str![""]);
    let quiet = site.znap(&["-q", "check", "--data", "--databases"]);
    assert_eq!((quiet.code, &quiet.stdout[..], &quiet.stderr[..]), (0, "", ""));
}

/// The repository's data files, the largest first.
fn data_files(site: &Site) -> Vec<std::path::PathBuf> {
    let folder = site.sandbox.file(".znap/objects");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| fs::read(path).unwrap()[9] == 1).collect();
    paths.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    paths
}

#[test]
fn damage_is_named() {
    let site = Site::with_snapshots();
    let path = &data_files(&site)[0];
    let whole = fs::read(path).unwrap();
    let mut bytes = whole.clone();
    bytes[30] ^= 1;
    fs::write(path, &bytes).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let output = site.znap(&["check", "--data"]);
    assert_eq!(output.code, 3);
    assert!(output.stdout.contains(name), "{output:?}");
    let shown = |args: &[&str]| site.shown(args).replace(&name[..8], "[NAME]");
    assert_data_eq!(shown(&["check", "--data"]), str![""]);
    // Also when it is to be quiet: it was asked for.
    assert!(site.znap(&["-q", "check", "--data"]).stdout.contains("is damaged"));
    assert_eq!(site.znap(&["check"]).code, 0, "what isn't read isn't found");
    fs::remove_file(path).unwrap();
    assert_data_eq!(shown(&["check"]), str![""]);
    fs::write(path, &whole).unwrap();

    let mut data = site.data();
    let end = data.len();
    data[end - 30] ^= 1;
    fs::write(site.sandbox.data_fs(), data).unwrap();
    assert_data_eq!(shown(&["check", "--databases"]), str![""]);
}

#[test]
fn what_makes_no_sense() {
    let site = Site::with_snapshots();
    site.refuses(&["check", "--data", "--for", "soon"], 2, "\"soon\" is no time to check for");
    let output = site.znap(&["check", "--for", "5m"]);
    assert_eq!(output.code, 2, "{output:?}");
}
