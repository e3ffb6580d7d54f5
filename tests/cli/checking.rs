//! What check prints.

use std::fs;

use snapbox::{assert_data_eq, str};

use crate::site::Site;

#[test]
fn a_whole_repository() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["check"]),
        str![[r#"
checked the catalog, 2 snapshots and 5 object files
nothing is damaged
stderr: hint: znap check --data also reads all data
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["check", "--data", "--databases"]),
        str![[r#"
checked the catalog, 2 snapshots and 5 object files
read 919 bytes of data in 2 files
data Data.fs
  size 2.44 kB (2,435 bytes)
  read 5 transactions, 10 records
  same 2.43 kB as in snapshots
  goes on from two
nothing is damaged
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["check", "--data", "--for", "0s"]),
        str![[r#"
checked the catalog, 2 snapshots and 5 object files
read 442 bytes of data in 1 file
not finished: 477 bytes in 1 file are left
nothing is damaged
stderr: hint: the same command goes on there
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["check", "--data", "--for", "1h"]),
        str![[r#"
checked the catalog, 2 snapshots and 5 object files
read 477 bytes of data in 1 file, going on where the last check had stopped
nothing is damaged
exit code 0

"#]]
    );
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
    let shown = |args: &[&str]| site.shown(args).replace(name, "[FILE]").replace(&name[..8], "[NAME]");
    assert_data_eq!(
        shown(&["check", "--data"]),
        str![[r#"
object file [NAME]… in .znap/objects is damaged: the compressed block at offset 16 does not decompress; its content does not match its name
  file: objects/[FILE]
  needed by: one, two
  data: 1.51 kB affected
    offset 4 to 1513, 3 transactions, 6 records; the database still has it
    objects 0x00, 0x01
  put the file back from a copy of .znap, if there is one; or try znap repair

can't be restored whole: one, two
checked the catalog, 2 snapshots and 5 object files
read 919 bytes of data in 2 files
exit code 3

"#]]
    );
    // Also when it is to be quiet: it was asked for.
    assert!(site.znap(&["-q", "check", "--data"]).stdout.contains("is damaged"));
    assert_eq!(site.znap(&["check"]).code, 0, "what isn't read isn't found");
    fs::remove_file(path).unwrap();
    assert_data_eq!(
        shown(&["check"]),
        str![[r#"
object file [NAME]… in .znap/objects is damaged: it is missing
  file: objects/[FILE]
  needed by: one, two
  data: 1.51 kB affected
    offset 4 to 1513, 3 transactions, 6 records; the database still has it
    objects 0x00, 0x01
  data: its stored index is affected
  put the file back from a copy of .znap, if there is one; or try znap repair

can't be restored whole: one, two
checked the catalog, 2 snapshots and 5 object files
exit code 3

"#]]
    );
    fs::write(path, &whole).unwrap();

    let mut data = site.data();
    let end = data.len();
    data[end - 30] ^= 1;
    fs::write(site.sandbox.data_fs(), data).unwrap();
    assert_data_eq!(
        shown(&["check", "--databases"]),
        str![[r#"
data: Data.fs differs from snapshot two at offset 2405, in bytes that it should have in common with it
  the snapshot has what should be there: znap restore --to DIR two writes it elsewhere

the newest snapshot that is whole: two
checked the catalog, 2 snapshots and 5 object files
data Data.fs
  size 2.44 kB (2,435 bytes)
  read 5 transactions, 10 records
  same 1.51 kB as in snapshots
  goes on from one
  differs from two at offset 2405
exit code 3

"#]]
    );
}

#[test]
fn what_makes_no_sense() {
    let site = Site::with_snapshots();
    site.refuses(&["check", "--data", "--for", "soon"], 2, "\"soon\" is no time to check for");
    let output = site.znap(&["check", "--for", "5m"]);
    assert_eq!(output.code, 2, "{output:?}");
}
