//! Beside a pack.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Output, Sandbox, ZodbProcess, assert_same_bytes};
use crate::{Crowd, End, assert_whole, elsewhere, ids, list};

/// ZODB packs while it commits, in the middle of everything. Saving goes on, what was saved before stays what it was, and nothing is
/// called damaged.
fn packed_meanwhile(transactions: u32) {
    let sandbox = &Sandbox::with_database(6, transactions, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "first"]);
    let complete = list(sandbox)[0]["complete"] == true;
    // Small files are kept whole: their snapshots need nothing but the repository.
    assert_eq!(complete, transactions < 10);
    let mut writer = ZodbProcess::writer(&sandbox.data_fs(), &["--mode", "commit", "--packed"]);
    let tried = &AtomicUsize::new(0);
    let crowd = &Crowd::default();
    // Done, or as `fine` has it; or refused in words, as long as the packed file isn't saved, or what others need of the old one.
    let fine_or_packed = |output: &Output, args: &[&str]| {
        if output.code != 1 || !output.stderr.contains(" was packed ") {
            crowd.fine(output, args);
        }
    };
    std::thread::scope(|scope| {
        crowd.add(scope, |number| {
            let output = sandbox.znap(&["save", &format!("s{number}")]);
            crowd.fine(&output, &["save"]);
            tried.fetch_add(1, Ordering::Relaxed);
        });
        crowd.add(scope, |number| {
            let readers: [&[&str]; 3] = [&["list"], &["status"], &["show", "latest"]];
            let args = readers[number % readers.len()];
            let output = sandbox.znap(args);
            assert_eq!(output.code, 0, "{args:?}: {output:?}");
            crowd.count(&output, args);
            let all = ids(sandbox);
            if all.len() > 5 {
                crowd.fine(&sandbox.znap(&["delete", &all[2]]), &["delete"]);
            }
            crowd.fine(&sandbox.znap(&["gc", "--all"]), &["gc"]);
        });
        crowd.add(scope, |number| {
            let all = ids(sandbox);
            let id = &all[number * 7 % all.len()];
            let to = format!("copy-{number}");
            let copied = sandbox.znap(&["restore", id, "--to", &to]);
            crowd.fine(&copied, &["restore", "--to"]);
            let _ = fs::remove_dir_all(sandbox.file(&to));
            fine_or_packed(&sandbox.znap(&["restore", "first", "--dry-run"]), &["restore", "--dry-run"]);
        });
        crowd.add(scope, |_| {
            crowd.fine(&sandbox.znap(&["check", "--data", "--databases"]), &["check"]);
        });
        let _end = End(crowd);
        crowd.wait_until(|| crowd.done_of("save") > 1 && crowd.done() > 10);
        writer.pack();
        crowd.wait_until(|| sandbox.file("Data.fs.old").exists());
        // Each of them some times more.
        let (done, saves) = (crowd.done(), tried.load(Ordering::Relaxed));
        crowd.wait_until(|| crowd.done() > done + 15 && tried.load(Ordering::Relaxed) > saves + 2);
    });
    let report = writer.stop();
    assert_eq!(report["packed"], 1, "{report}");
    let saved = crowd.done_of("save");
    println!("{} commands, {saved} saves", crowd.done());
    assert!(saved > 1);

    let packed = fs::read(sandbox.data_fs()).unwrap();
    let old = fs::read(sandbox.file("Data.fs.old")).unwrap();
    let was_there = |id: &str| {
        let is_one = |copy: &[u8]| old.starts_with(copy) || packed.starts_with(copy);
        elsewhere(sandbox, id, |copy| assert!(is_one(copy), "P6: {id} was never there"));
    };
    sandbox.znap_ok(&["save", "after"]);
    assert_eq!(list(sandbox)[0]["complete"], true, "what it needs of the file before the pack is stored");
    ids(sandbox).iter().for_each(|id| was_there(id));
    assert_whole(sandbox);
    sandbox.znap_ok(&["restore", "first"]);
    assert!(old.starts_with(&fs::read(sandbox.data_fs()).unwrap()), "P6: from behind the pack to before it");
    sandbox.check();
    sandbox.znap_ok(&["undo"]);
    assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &packed, "P5: the packed file");
    sandbox.check();
    assert_whole(sandbox);
}

#[test]
fn p6_a_pack_beside_everything_else_where_the_beginning_is_stored() {
    packed_meanwhile(4);
}

#[test]
fn p6_a_pack_beside_everything_else_where_the_beginning_is_in_the_file() {
    packed_meanwhile(60);
}
