//! What init, save, delete and gc do and say.

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
stderr: hint: znap base keep stores that too, in about 97.6 kB to 195 kB for a site like Plone's
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
one: data (Data.fs) up to 2026-01-01 00:00:02 UTC (tid 0x0405e70008888888), 3 new transactions, 1.51 kB; stored 477 bytes
exit code 0

"#]]
    );
    site.grow("edit", 1);
    assert_data_eq!(
        site.shown(&["save", "two"]),
        str![[r#"
two: data (Data.fs) up to 2026-01-01 00:00:03 UTC (tid 0x0405e7000ccccccc), 1 new transaction since one, 461 bytes; stored 370 bytes
exit code 0

"#]]
    );
    assert_data_eq!(
        site.shown(&["save", "three"]),
        str![[r#"
three: data (Data.fs) up to 2026-01-01 00:00:03 UTC (tid 0x0405e7000ccccccc), nothing new since two; stored 0 bytes
exit code 0

"#]]
    );
    vote(&site.sandbox.data_fs());
    assert_data_eq!(
        site.shown(&["save", "four"]),
        str![[r#"
four: data (Data.fs) up to 2026-01-01 00:00:03 UTC (tid 0x0405e7000ccccccc), nothing new since three; stored 0 bytes
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
fn delete_and_gc_give_back_space() {
    let site = Site::with_snapshots();
    assert_data_eq!(
        site.shown(&["gc", "--dry-run"]),
        str![[r#"
would free about 0 bytes: 0 files would be removed, 0 files written anew
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
freed [SIZE] kB: 3 files removed, 0 files written anew
the rest: [SIZE] MB for 1 snapshot
exit code 0

"#]]
    );
    site.znap_ok(&["restore", "two"]);
    assert_data_eq!(
        site.shown(&["gc", "--all"]),
        str![[r#"
freed 300 bytes: 0 files removed, 2 files written anew
the rest: [SIZE] MB for 1 snapshot
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
