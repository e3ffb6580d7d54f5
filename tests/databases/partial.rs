//! Snapshots and restores of some of the databases.

use crate::Site;

#[test]
fn a_partial_snapshot_is_marked_and_never_the_latest() {
    let site = Site::started(3);
    site.ok(&["save", "all"]);
    site.count(2);
    let said = site.ok(&["save", "some", "--only", "catalog,index"]);
    assert!(said.contains("some: 2 databases") && said.contains("not saved: main"), "{said}");
    let list = site.json(&["list"]);
    assert_eq!(list[0]["partial"], false);
    assert_eq!(list[1]["partial"], true);
    assert_eq!(list[1]["databases"].as_array().unwrap().len(), 2);
    assert!(site.ok(&["list"]).contains("complete, partial: only catalog and index"));
    assert_eq!(site.json(&["show", "latest"])["id"], "all");
    // Naming all of them is no restriction.
    assert_eq!(
        site.json(&["save", "every", "--only", "main", "--only", "catalog", "--only", "index"])["partial"],
        false
    );
    assert_eq!(site.json(&["show", "latest"])["id"], "every");
    site.refuses(&["save", "--only", "nothing"], 5, "there is no database nothing");
    assert_eq!(site.json(&["save", "more", "--only", "main"])["not_saved"], serde_json::json!(["catalog", "index"]));
    // The catalog made anew says the same.
    let before = site.json(&["list"]);
    std::fs::remove_file(site.file(".znap/catalog.db")).unwrap();
    site.ok(&["repair"]);
    assert_eq!(site.json(&["list"]), before);
    assert_eq!(site.json(&["show", "latest"])["id"], "every");
    site.ok(&["check", "--data", "--databases"]);
}

#[test]
fn what_a_snapshot_does_not_have_stays_untouched_and_is_named() {
    let site = Site::started(3);
    site.ok(&["save", "some", "--only", "main,index"]);
    site.refuses(&["restore", "latest"], 5, "latest means none of the snapshots");
    let some = site.states();
    site.count(3);
    let after = site.states();
    let plan = site.json(&["restore", "some", "--dry-run"]);
    assert_eq!(plan["untouched"], serde_json::json!(["catalog"]));
    assert!(site.ok(&["restore", "some", "--dry-run"]).contains("left as they are: catalog"));
    assert!(site.ok(&["restore", "some"]).contains("left as they are: catalog"));
    assert!(site.states() == [some[0].clone(), after[1].clone(), some[2].clone()]);
    assert!(site.ok(&["restore", "some", "--to", "copy"]).contains("not written: catalog"));
    assert!(site.file("copy/main/main.fs").exists() && !site.file("copy/catalog").exists());
    site.refuses(&["restore", "some", "--only", "catalog"], 5, "snapshot some doesn't have database catalog");
    site.refuses(&["restore", "some", "--only", "nothing"], 5, "there is no database nothing");
    site.ok(&["undo"]);
    assert!(site.states() == after);
    for name in &site.names {
        crate::zodb(&["check", site.file(name).to_str().unwrap(), "--expect-index"]);
    }
}

#[test]
fn p5_a_restore_of_one_database_and_its_undo_change_no_other() {
    let site = Site::started(2);
    site.ok(&["save", "a"]);
    let a = site.states();
    site.count(2);
    site.ok(&["save", "b"]);
    let b = site.states();
    assert!(site.ok(&["restore", "a", "--only", "catalog"]).contains("left as they are: main"));
    assert!(site.states() == [b[0].clone(), a[1].clone()]);
    // The snapshot that holds what was there before holds both; what happens to the other one meanwhile is not undone.
    site.grow("main.fs");
    let grown = site.state("main.fs");
    let plan = site.json(&["undo", "--dry-run"]);
    assert_eq!(plan["untouched"], serde_json::json!(["main"]));
    site.ok(&["undo"]);
    assert!(site.states() == [grown.clone(), b[1].clone()]);
    site.ok(&["undo"]);
    assert!(site.states() == [grown.clone(), a[1].clone()]);
    // What no snapshot holds of that one is kept, in a snapshot of it alone.
    site.grow("catalog.fs");
    let alone = site.state("catalog.fs");
    let report = site.json(&["restore", "b", "--only", "catalog"]);
    let kept = report["kept"].as_str().unwrap();
    assert_eq!(site.json(&["show", kept])["partial"], true);
    assert!(site.states() == [grown.clone(), b[1].clone()]);
    site.ok(&["undo"]);
    assert!(site.states() == [grown.clone(), alone]);
    // And the other one's part of the old snapshot is still there.
    site.ok(&["restore", "a", "--only", "main"]);
    assert!(site.state("main.fs") == a[0]);
    site.ok(&["restore", "a", "--only", "main", "--to", "copy"]);
    assert!(std::fs::read(site.file("copy/main/main.fs")).unwrap() == a[0].0 && !site.file("copy/catalog").exists());
}

#[test]
fn p6_a_catalog_that_lost_a_part_of_a_snapshot_restores_nothing_of_it() {
    for only in [&[][..], &["--only", "main,catalog"]] {
        let site = Site::started(3);
        site.ok(&[&["save", "a"], only].concat());
        site.count(1);
        let before = site.states();
        let sql = rusqlite::Connection::open(site.file(".znap/catalog.db")).unwrap();
        let lost = "DELETE FROM stream WHERE id = (SELECT max(id) FROM stream)";
        sql.execute_batch(&format!("PRAGMA foreign_keys = OFF; {lost};")).unwrap();
        drop(sql);
        for args in [&["restore", "a"][..], &["restore", "a", "--only", "main"], &["restore", "a", "--to", "copy"]] {
            let output = site.znap(args);
            assert_eq!(output.code, 3, "{output:?}");
            assert!(output.stderr.contains("lacks a chunk list of the snapshot"), "{output:?}");
        }
        assert!(site.states() == before && !site.file("copy").exists());
        assert_eq!(site.znap(&["check"]).code, 3);
        site.ok(&["repair"]);
        site.ok(&["restore", "a"]);
    }
    // What says how much there is, is compared with the manifest.
    for change in ["partial = 1", "databases = 2"] {
        let site = Site::started(3);
        site.ok(&["save", "a"]);
        let sql = rusqlite::Connection::open(site.file(".znap/catalog.db")).unwrap();
        sql.execute_batch(&format!("UPDATE snapshot SET {change}")).unwrap();
        drop(sql);
        assert_eq!(site.znap(&["check"]).code, 3, "{change}");
        site.ok(&["repair"]);
        site.ok(&["check"]);
    }
}
