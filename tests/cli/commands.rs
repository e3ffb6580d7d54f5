//! Every command once, as a user would see it.

use snapbox::{assert_data_eq, str};

use crate::site::{Site, vote};

#[test]
fn init_says_what_it_tracks() {
    let site = Site::new();
    assert_data_eq!(
        site.shown(&["init", "Data.fs"]),
        str![[r#"
started the repository .znap with 1 database
  data: Data.fs, 1.51 kB; snapshots will need nothing but the repository
stderr: hint: znap save ID takes the first snapshot, such as: znap save before-upgrade
exit code 0

"#]]
    );
}

#[test]
fn init_of_a_large_file_says_what_snapshots_need() {
    let site = Site::new();
    site.grow(&"large ".repeat(100), 150);
    assert_data_eq!(
        site.shown(&["init", "Data.fs", "--group"]),
        str![[r#"
started the repository .znap with 1 database
  data: Data.fs, 1.95 MB; snapshots will need its first 1.95 MB
stderr: hint: znap save ID takes the first snapshot, such as: znap save before-upgrade
exit code 0

"#]]
    );
    site.znap_ok(&["save", "a"]);
    assert_data_eq!(
        site.shown(&["list"]),
        str![[r#"
id when up to tail added state message
a [DATE] [TIME] UTC 2026-01-01 00:02 UTC 0 bytes 148 bytes needs Data.fs
exit code 0

"#]]
    );
}

#[test]
fn save_says_what_is_new() {
    let site = Site::started();
    assert_data_eq!(
        site.shown(&["save", "one", "-m", "the first"]),
        str![[r#"
one: up to 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888), 3 new transactions, 1.51 kB; stored [SIZE] kB
exit code 0

"#]]
    );
    site.grow("edit", 1);
    assert_data_eq!(
        site.shown(&["save", "two"]),
        str![[r#"
two: up to 2026-01-01 00:00:03 UTC (tid 0x0405e7000ccccccc), 1 new transaction since one, 461 bytes; stored [SIZE] kB
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["save", "three"]),
        str![[r#"
three: up to 2026-01-01 00:00:03 UTC (tid 0x0405e7000ccccccc), nothing new since two; stored [SIZE] kB
exit code 0

"#]]
    );
    vote(&site.sandbox.data_fs());
    assert_data_eq!(
        site.shown(&["save", "four"]),
        str![[r#"
four: up to 2026-01-01 00:00:03 UTC (tid 0x0405e7000ccccccc), nothing new since three; stored [SIZE] kB
left out: a transaction that was voted but not finished (131 bytes)
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["-q", "save", "five"]),
        str![[r#"
exit code 0

"#]]
    );
}

#[test]
fn save_makes_ids_that_sort() {
    let site = Site::started();
    for _ in 0..3 {
        site.znap_ok(&["save"]);
    }
    let list: serde_json::Value = serde_json::from_str(&site.znap_ok(&["list", "--json"])).unwrap();
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.is_sorted() && ids.iter().all(|id| id.starts_with("20")), "{ids:?}");
}

#[test]
fn list_has_a_line_per_snapshot() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["list"]),
        str![[r#"
id when up to tail added state message
one [DATE] [TIME] UTC 2026-01-01 00:00 UTC 1.51 kB 478 bytes complete the first
two [DATE] [TIME] UTC 2026-01-01 00:00 UTC 2.43 kB 417 bytes complete
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
  added 478 bytes
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
  added 417 bytes
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
  new since 1 transaction, 461 bytes
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
  data: kept 1.51 kB, cut off 922 bytes, wrote 0 bytes; now up to 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888)
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
  data: kept 1.51 kB, cut off 482 bytes, wrote 922 bytes; now up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
checked the 1.51 kB that stayed
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
  data: kept 2.44 kB, cut off 0 bytes, wrote 0 bytes; now up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
stderr: cost: 9.74 kB read from databases, 0 bytes written to databases; 12 bytes read from the repository, 0 bytes written to it; 0 rows and 0 commits in the catalog; 4 syncs
exit code 0

"#]]
    );
}

#[test]
fn restore_refuses_to_lose_transactions() {
    let site = Site::with_snapshots();
    let two = site.data();
    site.grow("new", 12);
    let grown = site.data();
    assert_data_eq!(
        site.shown(&["restore", "two"]),
        str![[r#"
stderr: znap: error: restoring two would lose 12 transactions that no snapshot holds:
stderr:   data: 2026-01-01 00:00:05 UTC, admin, /page/new-1 (tid 0x0405e70015555554, 440 bytes)
stderr:   data: 2026-01-01 00:00:06 UTC, admin, /page/new-2 (tid 0x0405e70019999998, 440 bytes)
stderr:   data: 2026-01-01 00:00:07 UTC, admin, /page/new-3 (tid 0x0405e7001ddddddc, 440 bytes)
stderr:   data: 2026-01-01 00:00:08 UTC, admin, /page/new-4 (tid 0x0405e70022222220, 440 bytes)
stderr:   data: 2026-01-01 00:00:09 UTC, admin, /page/new-5 (tid 0x0405e70026666664, 440 bytes)
stderr:   data: 2026-01-01 00:00:10 UTC, admin, /page/new-6 (tid 0x0405e7002aaaaaa8, 440 bytes)
stderr:   data: 2026-01-01 00:00:11 UTC, admin, /page/new-7 (tid 0x0405e7002eeeeeec, 440 bytes)
stderr:   data: 2026-01-01 00:00:12 UTC, admin, /page/new-8 (tid 0x0405e70033333330, 440 bytes)
stderr:   data: 2026-01-01 00:00:13 UTC, admin, /page/new-9 (tid 0x0405e70037777774, 440 bytes)
stderr:   data: 2026-01-01 00:00:14 UTC, admin, /page/new-10 (tid 0x0405e7003bbbbbb8, 461 bytes)
stderr:   data: and 2 more
stderr: hint: znap save keeps them; znap restore --discard two drops them
exit code 1

"#]]
    );
    assert_eq!(site.data(), grown);
    assert_data_eq!(
        site.shown(&["restore", "two", "--dry-run"]),
        str![[r#"
restoring two would do this:
data Data.fs
  now 7.78 kB (7,778 bytes), begins with snapshot two
  kept 2.44 kB (2,435 bytes)
  cut off 5.34 kB (5,343 bytes)
  written 0 bytes
  then 2.44 kB (2,435 bytes), up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
  lost, because no snapshot holds them: 12 transactions
    2026-01-01 00:00:05 UTC, admin, /page/new-1 (tid 0x0405e70015555554, 440 bytes)
    2026-01-01 00:00:06 UTC, admin, /page/new-2 (tid 0x0405e70019999998, 440 bytes)
    2026-01-01 00:00:07 UTC, admin, /page/new-3 (tid 0x0405e7001ddddddc, 440 bytes)
    2026-01-01 00:00:08 UTC, admin, /page/new-4 (tid 0x0405e70022222220, 440 bytes)
    2026-01-01 00:00:09 UTC, admin, /page/new-5 (tid 0x0405e70026666664, 440 bytes)
    2026-01-01 00:00:10 UTC, admin, /page/new-6 (tid 0x0405e7002aaaaaa8, 440 bytes)
    2026-01-01 00:00:11 UTC, admin, /page/new-7 (tid 0x0405e7002eeeeeec, 440 bytes)
    2026-01-01 00:00:12 UTC, admin, /page/new-8 (tid 0x0405e70033333330, 440 bytes)
    2026-01-01 00:00:13 UTC, admin, /page/new-9 (tid 0x0405e70037777774, 440 bytes)
    2026-01-01 00:00:14 UTC, admin, /page/new-10 (tid 0x0405e7003bbbbbb8, 461 bytes)
    2026-01-01 00:00:15 UTC, admin, /page/new-11 (tid 0x0405e7003ffffffc, 461 bytes)
    2026-01-01 00:00:16 UTC, admin, /page/new-12 (tid 0x0405e70044444440, 461 bytes)
stderr: nothing was changed
stderr: hint: as it is, this would be refused: znap save keeps what would be lost; znap restore --discard two drops it
exit code 0

"#]]
    );
    assert_eq!(site.data(), grown);
    assert_data_eq!(
        site.shown(&["restore", "two", "--discard"]),
        str![[r#"
restored two
  data: kept 2.44 kB, cut off 5.34 kB, wrote 0 bytes; now up to 2026-01-01 00:00:04 UTC (tid 0x0405e70011111110)
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
    site.refuses(&["restore", "one", "--to", "copies/of two"], 1, "isn't empty");
}

#[test]
fn delete_and_gc_give_back_space() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["gc", "--dry-run"]),
        str![[r#"
would free about 0 bytes: 0 files would be removed, 2 files written anew
the rest: [SIZE] MB for 2 snapshots
stderr: nothing was changed
stderr: hint: znap delete ID forgets a snapshot; znap list shows those there are
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["delete", "one"]),
        str![[r#"
deleted one
stderr: hint: znap gc gives back the space
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["gc"]),
        str![[r#"
freed [SIZE] kB: 3 files removed, 2 files written anew
the rest: [SIZE] MB for 1 snapshot
exit code 0

"#]]
    );
    site.znap_ok(&["restore", "two"]);
    assert_data_eq!(
        site.shown(&["gc", "--all"]),
        str![[r#"
freed 0 bytes: 0 files removed, 0 files written anew
the rest: [SIZE] MB for 1 snapshot
stderr: hint: znap delete ID forgets a snapshot; znap list shows those there are
exit code 0

"#]]
    );
    site.znap_ok(&["-q", "delete", "two"]);
    std::fs::write(site.sandbox.file(".znap/objects/notes.txt"), "mine").unwrap();
    assert_data_eq!(
        site.shown(&["gc", "-v"]),
        str![[r#"
freed [SIZE] kB: 3 files removed, 0 files written anew
the rest: [SIZE] MB for 0 snapshots
stderr: warning: left alone, because znap knows nothing of it: objects/notes.txt
stderr: cost: 0 bytes read from databases, 0 bytes written to databases; 0 bytes read from the repository, 0 bytes written to it; 18 rows and 6 commits in the catalog; 2 syncs
exit code 0

"#]]
    );
}

#[test]
fn quiet_says_only_what_was_asked_for() {
    let site = Site::new();
    for args in [&["-q", "init", "Data.fs"][..], &["-q", "save", "a"], &["-q", "save", "b"], &["-q", "restore", "a"]] {
        let output = site.znap(args);
        assert_eq!((output.code, &output.stdout[..], &output.stderr[..]), (0, "", ""), "{args:?}");
    }
    for args in [&["-q", "delete", "a"][..], &["-q", "gc"]] {
        let output = site.znap(args);
        assert_eq!((output.code, &output.stdout[..], &output.stderr[..]), (0, "", ""), "{args:?}");
    }
    assert!(site.znap_ok(&["-q", "list"]).contains('b'));
    assert!(!site.znap_ok(&["-q", "save", "--json"]).is_empty());
}
