//! What restore does and says.

use snapbox::{assert_data_eq, str};

use crate::site::Site;

#[test]
fn restore_goes_back_forward_and_sideways() {
    let site = Site::with_snapshots();
    let two = (site.data(), site.index());
    assert_data_eq!(
        site.shown(&["restore", "one", "--dry-run"]),
        str![[r#"
restoring one would do this:
data Data.fs
  now 2.44 kB (2,435 bytes), begins with snapshot two
  kept 1.51 kB (1,513 bytes)
  cut off 922 bytes
  written 0 bytes
  then 1.51 kB (1,513 bytes), up to 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888)
stderr: nothing was changed
exit code 0

"#]]
    );
    assert_eq!((site.data(), site.index()), two);
    assert_data_eq!(
        site.shown(&["restore", "one"]),
        str![[r#"
restored one
  data (Data.fs): kept 1.51 kB, cut off 922 bytes, wrote 0 bytes; now up to 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888)
stderr: hint: znap undo takes it back
stderr: warning: if ZEO clients use this database, stop every one and delete its persistent cache (*.zec) on every host:
stderr: one that saw the transactions that are gone now can serve them, or commit on top of them, without a word
exit code 0

"#]]
    );
    site.grow("other", 1);
    site.znap_ok(&["save", "three"]);
    assert_data_eq!(
        site.shown(&["restore", "tw", "--verify"]),
        str![[r#"
restored two
  data (Data.fs): kept 1.53 kB, cut off 467 bytes, wrote 907 bytes; now up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
checked 1.53 kB against their hashes
stderr: hint: znap undo takes it back
stderr: warning: if ZEO clients use this database, stop every one and delete its persistent cache (*.zec) on every host:
stderr: one that saw the transactions that are gone now can serve them, or commit on top of them, without a word
exit code 0

"#]]
    );
    assert_eq!((site.data(), site.index()), two);
    // Nothing to do, and nothing to tell about ZEO.
    assert_data_eq!(
        site.shown(&["restore", "two", "-v"]),
        str![[r#"
restored two
  data (Data.fs): kept 2.44 kB, cut off 0 bytes, wrote 0 bytes; now up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
stderr: hint: znap undo takes it back
stderr: cost: 9.79 kB read from databases, 40 bytes written to databases; 12 bytes read from the repository, 0 bytes written to it; 0 rows and 0 commits in the catalog; 12 syncs
exit code 0

"#]]
    );
}

#[test]
fn restore_keeps_what_no_snapshot_holds() {
    let site = Site::with_snapshots();
    let two = site.data();
    site.grow("new", 12);
    let grown = site.data();
    assert_data_eq!(
        site.shown(&["restore", "two"]),
        str![[r#"
restored two
  data (Data.fs): kept 2.44 kB, cut off 5.34 kB, wrote 0 bytes; now up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
what no snapshot held is kept as undo-[TIME]
stderr: hint: znap undo takes it back
stderr: warning: if ZEO clients use this database, stop every one and delete its persistent cache (*.zec) on every host:
stderr: one that saw the transactions that are gone now can serve them, or commit on top of them, without a word
exit code 0

"#]]
    );
    assert_eq!(site.data(), two);
    site.znap_ok(&["undo"]);
    assert_eq!(site.data(), grown);
    assert_data_eq!(
        site.shown(&["restore", "two", "--dry-run"]),
        str![[r#"
restoring two would do this:
data Data.fs
  now 7.78 kB (7,778 bytes), begins with snapshot undo-[TIME]
  kept 2.44 kB (2,435 bytes)
  cut off 5.34 kB (5,343 bytes)
  written 0 bytes
  then 2.44 kB (2,435 bytes), up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
stderr: nothing was changed
exit code 0

"#]]
    );
    assert_eq!(site.data(), grown);
    assert_data_eq!(
        site.shown(&["restore", "two", "--discard"]),
        str![[r#"
restored two
  data (Data.fs): kept 2.44 kB, cut off 5.34 kB, wrote 0 bytes; now up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
stderr: hint: znap undo takes it back
stderr: warning: if ZEO clients use this database, stop every one and delete its persistent cache (*.zec) on every host:
stderr: one that saw the transactions that are gone now can serve them, or commit on top of them, without a word
exit code 0

"#]]
    );
    assert_eq!(site.data(), two);
}

#[test]
fn restore_writes_elsewhere() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["restore", "latest", "--to", "copies/of two"]),
        str![[r#"
wrote snapshot two
  data: copies/of two/data/Data.fs, 2.44 kB, with its index
exit code 0

"#]]
    );
    let copy = site.sandbox.file("copies/of two/data/Data.fs");
    assert_eq!(std::fs::read(&copy).unwrap(), site.data());
    assert_eq!(std::fs::read(znap::filestorage::index_path(&copy)).unwrap(), site.index());
    // Not among other things, either; nor behind a link to nowhere.
    site.refuses(&["restore", "one", "--to", "copies/of two"], 1, "isn't empty");
    site.refuses(&["restore", "one", "--to", "copies"], 1, "copies isn't empty");
    site.refuses(&["restore", "one", "--to", "copies/of two/data/Data.fs"], 1, "is no folder");
    std::os::unix::fs::symlink("nowhere", site.sandbox.file("link")).unwrap();
    site.refuses(&["restore", "one", "--to", "link"], 1, "is no folder");
    assert!(!site.sandbox.file("copies/data").exists() && !site.sandbox.file("nowhere").exists());
    // What an interrupted one leaves is in nobody's way.
    std::fs::create_dir_all(site.sandbox.file("half/data")).unwrap();
    site.znap_ok(&["restore", "one", "--to", "half"]);
}
