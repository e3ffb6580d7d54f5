//! What repair says.

use std::fs;
use std::path::PathBuf;

use snapbox::{assert_data_eq, str};

use crate::site::Site;

fn objects(site: &Site, kind: u8) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.sandbox.file(".znap/objects")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| fs::read(path).unwrap()[9] == kind).collect()
}

#[test]
fn repair_of_what_is_whole() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["repair"]),
        str![[r#"
nothing to repair: 2 snapshots, and all that they need is there
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["repair", "--dry-run"]),
        str![[r#"
nothing to repair: 2 snapshots, and all that they need is there
stderr: nothing was changed
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["-q", "repair"]),
        str![[r#"
exit code 0

"#]]
    );
}

#[test]
fn repair_without_a_catalog() {
    let site = Site::with_snapshots();
    let list = site.shown(&["list"]);
    let catalog = site.sandbox.file(".znap/catalog.db");
    fs::remove_file(&catalog).unwrap();
    assert_data_eq!(
        site.shown(&["repair", "--dry-run"]),
        str![[r#"
the catalog would be made anew, with 2 snapshots: it is missing
2 snapshots can be restored
stderr: nothing was changed
exit code 0

"#]]
    );
    assert!(!catalog.exists());
    assert_data_eq!(
        site.shown(&["repair"]),
        str![[r#"
the catalog was made anew, with 2 snapshots: it is missing
2 snapshots can be restored
exit code 0

"#]]
    );
    assert_eq!(site.shown(&["list"]), list);
    fs::write(&catalog, "no database at all, but long enough to be taken for one".repeat(100)).unwrap();
    assert_data_eq!(
        site.shown(&["repair"]),
        str![[r#"
the catalog was made anew, with 2 snapshots: cannot open what is in the catalog .znap/catalog.db: file is not a database
the one before it is kept as catalog.db.damaged-1
2 snapshots can be restored
exit code 0

"#]]
    );
    let site = Site::started();
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.refuses(&["repair"], 3, "name no database");
    site.refuses(&["repair", "--from", "none"], 5, "there is no file or directory none");
}

#[test]
fn repair_sets_aside_what_nobody_has_and_brings_it_back() {
    let site = Site::with_snapshots();
    let list = site.shown(&["list"]);
    fs::copy(site.sandbox.data_fs(), site.sandbox.file("copy.fs")).unwrap();
    site.znap_ok(&["restore", "one"]);
    for path in objects(&site, 1) {
        fs::remove_file(path).unwrap();
    }
    let said = |stored: &str, set_aside: &str, end: &str| {
        format!(
            "object file c64f86a12b51… (data): it is missing; not all of it could be had again\n\
             object file 88c8fd2e14b7… (data): it is missing; not all of it could be had again\n\
             {stored} stored again: 1 chunk out of the databases, 1 chunk made again from the transactions\n\
             {set_aside} set aside as damaged: two\n\
             1 snapshot can be restored\n\
             {end}stderr: warning: snapshot two is damaged: nobody has bytes 1513 to 2435 of data, the index of data\n\
             stderr: hint: znap repair --from PATH looks in a copy of a database or of .znap, too; znap delete ID forgets a snapshot\n\
             exit code 6\n"
        )
    };
    let would = said("would be", "would be", "stderr: nothing was changed\n");
    assert_data_eq!(site.shown(&["repair", "--dry-run"]), would);
    assert_data_eq!(site.shown(&["repair"]), said("were", "was", ""));
    assert_eq!(site.shown(&["list"]), list.replace("442 bytes complete", "442 bytes damaged"));
    site.refuses(&["restore", "two"], 3, "snapshot two is damaged: nobody has");
    site.refuses(&["restore", "two", "--to", "x"], 3, "snapshot two is damaged: nobody has");
    assert_eq!(site.znap(&["-q", "repair"]).code, 6);
    assert_data_eq!(
        site.shown(&["repair", "--from", "copy.fs"]),
        str![[r#"
were stored again: 1 chunk out of copies, 1 chunk made again from the transactions
was brought back: two
2 snapshots can be restored
exit code 0

"#]]
    );
    site.znap_ok(&["restore", "two"]);
}

#[test]
fn p9_repair_says_which_database_it_could_not_look_into() {
    let site = Site::with_snapshots();
    for path in objects(&site, 1) {
        fs::remove_file(path).unwrap();
    }
    // As a disk that gives errors.
    fs::remove_file(site.sandbox.file("Data.fs")).unwrap();
    std::os::unix::fs::symlink("Data.fs", site.sandbox.file("Data.fs")).unwrap();
    let output = site.znap(&["repair"]);
    assert_eq!(output.code, 6, "{output:?}");
    assert!(output.stderr.contains("cannot open Data.fs"), "{output:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn p9_repair_says_which_database_it_could_not_read() {
    let site = Site::with_snapshots();
    for path in objects(&site, 1) {
        fs::remove_file(path).unwrap();
    }
    // It can be opened; reading it gives EIO, since nobody has memory at such low addresses.
    fs::remove_file(site.sandbox.file("Data.fs")).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", site.sandbox.file("Data.fs")).unwrap();
    let output = site.znap(&["repair"]);
    assert_eq!(output.code, 6, "{output:?}");
    assert!(output.stderr.contains("cannot read Data.fs: Input/output error"), "{output:?}");
}
