//! What list, show, status and log print.

use snapbox::{assert_data_eq, str};

use crate::site::{Site, vote};

#[test]
fn list_has_a_line_per_snapshot() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["list"]),
        str![[r#"
id when up to tail added state message
one [DATE] [TIME] UTC 2026-01-01 00:00 UTC 1.51 kB 477 bytes complete the first
two [DATE] [TIME] UTC 2026-01-01 00:00 UTC 2.43 kB 442 bytes complete
exit code 0

"#]]
    );
    let empty = Site::started();
    assert_data_eq!(
        empty.shown(&["list"]),
        str![[r#"
stderr: hint: there is no snapshot yet; znap save makes one
exit code 0

"#]]
    );
    assert_eq!(empty.znap_ok(&["list", "--json"]), "[]\n");
}

#[test]
fn show_says_what_a_snapshot_is_made_of() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["show", "one"]),
        str![[r#"
one
  message the first
  made [DATE] [TIME] UTC (save)
  added 477 bytes
  state complete
  manifest [HASH]
data Data.fs
  length 1.51 kB (1,513 bytes)
  last transaction 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888)
  needs nothing but the repository
  tail 1.51 kB (1,509 bytes), 3 transactions
  new in it 1.51 kB (1,509 bytes)
  chunks 1
  index made from 2 objects, 6 bytes
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["show", "latest"]),
        str![[r#"
two
  made [DATE] [TIME] UTC (save)
  added 442 bytes
  state complete
  manifest [HASH]
data Data.fs
  length 2.44 kB (2,435 bytes)
  last transaction 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
  needs nothing but the repository
  tail 2.43 kB (2,431 bytes), 5 transactions
  new in it 922 bytes
  chunks 2, 1 of them shared with one
  index made from 2 objects and 1 set of changes, 12 bytes
exit code 0

"#]]
    );
}

#[test]
fn status_says_what_is_new() {
    let site = Site::with_snapshots();
    site.grow("more", 1);
    vote(&site.sandbox.data_fs());
    let shown = site.shown(&["status"]);
    // How old it is depends on how busy the machine is.
    let shown: String =
        shown.lines().map(|line| line.split(" seconds old").next().unwrap().to_owned() + "\n").collect();
    assert_data_eq!(
        shown,
        str![[r#"
.znap: 2 snapshots, [SIZE] MB
data Data.fs
  size 3.03 kB (3,027 bytes)
  open in no process that can be seen
  snapshot two, 0
  new 1 transaction since then, 461 bytes
  unfinished a transaction that was voted but not finished (131 bytes)
exit code 0

"#]]
    );
}

#[test]
fn status_for_monitoring_is_one_line() {
    let site = Site::with_snapshots();
    let output = site.znap(&["status", "--max-age", "26h"]);
    assert_eq!((output.code, output.stdout.lines().count()), (0, 1), "{output:?}");
    assert!(output.stdout.starts_with("znap: ok: "), "{output:?}");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let output = site.znap(&["status", "--max-age", "10ms"]);
    assert_eq!((output.code, output.stdout.lines().count()), (1, 1), "{output:?}");
    assert!(output.stdout.starts_with("znap: not ok: the nearest snapshot of data is "), "{output:?}");

    // Without a snapshot, and with a problem.
    let site = Site::started();
    assert_data_eq!(
        site.shown(&["status", "--max-age", "1 day"]),
        str![[r#"
znap: not ok: data has no snapshot
exit code 1

"#]]
    );
    std::fs::rename(site.sandbox.data_fs(), site.sandbox.file("Away.fs")).unwrap();
    assert_data_eq!(
        site.shown(&["status", "--max-age", "1 day"]),
        str![[r#"
znap: not ok: data: there is no file Data.fs
exit code 1

"#]]
    );
    assert_data_eq!(
        site.shown(&["status"]),
        str![[r#"
.znap: 0 snapshots, [SIZE] MB
data Data.fs
  problem there is no file Data.fs
exit code 0

"#]]
    );
}

#[test]
fn log_lists_transactions_newest_first() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["log"]),
        str![[r#"
time tid user description objects bytes
2026-01-01 00:00:04 UTC 0x0405e70011111110 admin /page/edit-2 2 461
2026-01-01 00:00:03 UTC 0x0405e7000ccccccc admin /page/edit-1 2 461
2026-01-01 00:00:02 UTC 0x0405e70008888888 admin /page/create-3 2 503
2026-01-01 00:00:01 UTC 0x0405e70004444444 admin /page/create-2 2 503
2026-01-01 00:00:00 UTC 0x0405e70000000000 admin /page/create-1 2 503
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["log", "one", "-n", "2"]),
        str![[r#"
time tid user description objects bytes
2026-01-01 00:00:02 UTC 0x0405e70008888888 admin /page/create-3 2 503
2026-01-01 00:00:01 UTC 0x0405e70004444444 admin /page/create-2 2 503
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["log", "--grep", "EDIT-2"]),
        str![[r#"
time tid user description objects bytes
2026-01-01 00:00:04 UTC 0x0405e70011111110 admin /page/edit-2 2 461
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["log", "--since", "2026-01-01 00:00:04"]),
        str![[r#"
time tid user description objects bytes
2026-01-01 00:00:04 UTC 0x0405e70011111110 admin /page/edit-2 2 461
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["log", "--since", "2h"]),
        str![[r#"
stderr: hint: no transaction fits; znap log -n 20 lists the last ones
exit code 0

"#]]
    );
    // Out of the repository, when the database is gone.
    std::fs::remove_file(site.sandbox.data_fs()).unwrap();
    assert_data_eq!(
        site.shown(&["log", "two", "-n", "1"]),
        str![[r#"
time tid user description objects bytes
2026-01-01 00:00:04 UTC 0x0405e70011111110 admin /page/edit-2 2 461
exit code 0

"#]]
    );
}
