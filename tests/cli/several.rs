//! Several databases in one repository.

use std::fs;

use snapbox::{assert_data_eq, str};

use crate::common::undisturbed;
use crate::site::{Site, grow, vote};

fn two() -> Site {
    let site = Site::new();
    grow(&site.sandbox.file("catalog.fs"), "index", 1);
    site.znap_ok(&["init", "Data.fs", "catalog.fs"]);
    site
}

#[test]
fn they_are_saved_and_restored_together() {
    let site = two();
    assert_data_eq!(
        site.shown(&["save", "a"]),
        str![[r#"
a: 2 databases; stored 609 bytes
  data (Data.fs): up to 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888), 3 new transactions, 1.51 kB
  catalog (catalog.fs): up to 2026-01-01 00:00:00 UTC (tid 0x0405e70000000000), 1 new transaction, 482 bytes
exit code 0

"#]]
    );
    let before = (site.data(), undisturbed(|| fs::read(site.sandbox.file("catalog.fs")).unwrap()));
    site.grow("more", 1);
    grow(&site.sandbox.file("catalog.fs"), "more", 2);
    assert_data_eq!(
        site.shown(&["log", "-n", "3"]),
        str![[r#"
database time tid user description objects bytes
data 2026-01-01 00:00:03 UTC 0x0405e7000ccccccc admin /page/more-1 2 461
data 2026-01-01 00:00:02 UTC 0x0405e70008888888 admin /page/create-3 2 503
catalog 2026-01-01 00:00:02 UTC 0x0405e70008888888 admin /page/more-2 2 461
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["restore", "a"]),
        str![[r#"
restored a
  data (Data.fs): kept 1.51 kB, cut off 461 bytes, wrote 0 bytes; now up to 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888)
  catalog (catalog.fs): kept 486 bytes, cut off 922 bytes, wrote 0 bytes; now up to 2026-01-01 00:00:00 UTC (tid 0x0405e70000000000)
what no snapshot held is kept as undo-[TIME]
stderr: hint: znap undo takes it back
stderr: warning: if ZEO clients use this database, stop every one and delete its persistent cache (*.zec) on every host:
stderr: one that saw the transactions that are gone now can serve them, or commit on top of them, without a word
exit code 0

"#]]
    );
    site.znap_ok(&["save", "b"]);
    assert_data_eq!(
        site.shown(&["list"]),
        str![[r#"
id when up to tail added state message
a [DATE] [TIME] UTC 2026-01-01 00:00 UTC 1.99 kB 609 bytes complete
undo-[TIME] [DATE] [TIME] UTC 2026-01-01 00:00 UTC 3.37 kB 544 bytes complete before the restore of a
b [DATE] [TIME] UTC 2026-01-01 00:00 UTC 1.99 kB 0 bytes complete
exit code 0

"#]]
    );
    site.znap_ok(&["restore", "a"]);
    assert!(before == (site.data(), undisturbed(|| fs::read(site.sandbox.file("catalog.fs")).unwrap())));
    site.znap_ok(&["restore", "b", "--to", "copy"]);
    assert!(site.sandbox.file("copy/data/Data.fs").exists());
    assert!(site.sandbox.file("copy/catalog/catalog.fs").exists());
}

#[test]
fn without_a_quiet_moment_there_is_a_warning_that_matters() {
    let site = two();
    vote(&site.sandbox.data_fs());
    assert_data_eq!(
        site.shown(&["save", "a"]),
        str![[r#"
a: 2 databases; stored 609 bytes
  data (Data.fs): up to 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888), 3 new transactions, 1.51 kB
  catalog (catalog.fs): up to 2026-01-01 00:00:00 UTC (tid 0x0405e70000000000), 1 new transaction, 482 bytes
left out of data: a transaction that was voted but not finished (131 bytes)
stderr: warning: the databases are not of one moment: transactions were being written all the time
stderr: hint: save again when less is going on, or with the server stopped
exit code 6

"#]]
    );
    assert!(site.znap_ok(&["list"]).contains("not of one moment"));
    let json = site.znap(&["save", "b", "--json"]);
    assert_eq!(json.code, 6);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["one_moment"], false);
}
