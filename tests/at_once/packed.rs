//! Beside a pack.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Output, Sandbox, ZodbProcess, assert_same_bytes};
use crate::{Crowd, End, assert_whole, elsewhere, ids, list};

/// ZODB packs while it commits, in the middle of everything. What was saved before stays what it was, or is refused; nothing is called
/// damaged that isn't.
fn packed_meanwhile(transactions: u32) {
    let sandbox = &Sandbox::with_database(6, transactions, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "first"]);
    let complete = list(sandbox)[0]["complete"] == true;
    // Small files are kept whole: their snapshots need nothing but the repository.
    assert_eq!(complete, transactions < 10);
    let mut writer = ZodbProcess::writer(&sandbox.data_fs(), &["--mode", "commit", "--packed"]);
    let [refused, tried] = &[const { AtomicUsize::new(0) }; 2];
    let crowd = &Crowd::default();
    // Done, or as `fine` has it; or refused because of the pack, in words.
    let fine_or_packed = |output: &Output, args: &[&str]| {
        let is_refused = output.code == 1 && output.stderr.contains(" was packed since znap first saw it");
        if !is_refused {
            crowd.fine(output, args);
        }
        is_refused
    };
    std::thread::scope(|scope| {
        crowd.add(scope, |number| {
            let output = sandbox.znap(&["save", &format!("s{number}")]);
            let is_refused = fine_or_packed(&output, &["save"]);
            // What doesn't begin with anything that is needed of it is saved whole.
            assert!(!complete || !is_refused, "{output:?}");
            refused.fetch_add(usize::from(is_refused), Ordering::Relaxed);
            assert!(output.code != 0 || refused.load(Ordering::Relaxed) == 0, "it is packed, and stays so: {output:?}");
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
            let is_refused = fine_or_packed(&copied, &["restore", "--to"]);
            assert!(!is_refused || (!complete && copied.stderr.contains("needs the first")), "{copied:?}");
            let _ = fs::remove_dir_all(sandbox.file(&to));
            fine_or_packed(&sandbox.znap(&["restore", "first", "--dry-run"]), &["restore", "--dry-run"]);
        });
        crowd.add(scope, |_| {
            let output = sandbox.znap(&["check", "--data", "--databases", "--json"]);
            if output.code != 3 {
                return crowd.fine(&output, &["check"]);
            }
            // What needs the beginning of the file can't be had without it.
            let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
            let findings = report["findings"].as_array().unwrap();
            assert!(!complete && !findings.is_empty(), "{output:?}");
            for finding in findings {
                let what = finding["what"].as_str().unwrap();
                assert!(what.contains("was packed since") && what.contains("snapshots need its first"), "{output:?}");
            }
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
    let (saved, refused) = (crowd.done_of("save"), refused.load(Ordering::Relaxed));
    println!("{} commands, {saved} saves, {refused} refused because of the pack", crowd.done());
    assert!(saved > 1 && complete == (refused == 0));

    let packed = fs::read(sandbox.data_fs()).unwrap();
    let old = fs::read(sandbox.file("Data.fs.old")).unwrap();
    let was_there = |id: &str| {
        let is_one = |copy: &[u8]| old.starts_with(copy) || packed.starts_with(copy);
        elsewhere(sandbox, id, |copy| assert!(is_one(copy), "P6: {id} was never there"));
    };
    if complete {
        sandbox.znap_ok(&["save", "after"]);
        ids(sandbox).iter().for_each(|id| was_there(id));
        assert_whole(sandbox);
        sandbox.znap_ok(&["restore", "first"]);
        assert!(old.starts_with(&fs::read(sandbox.data_fs()).unwrap()), "P6: from behind the pack to before it");
        sandbox.check();
        sandbox.znap_ok(&["undo"]);
        assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &packed, "P5: the packed file");
        sandbox.check();
        return assert_whole(sandbox);
    }
    for args in [&["save", "after"][..], &["restore", "first"], &["restore", "first", "--discard"]] {
        let output = sandbox.znap(args);
        assert!(fine_or_packed(&output, args) && output.stderr.contains("Data.fs.old"), "{output:?}");
    }
    assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &packed, "P5: the packed file");
    let all = ids(sandbox);
    for id in &all {
        let output = sandbox.znap(&["restore", id, "--to", "copy"]);
        assert!(fine_or_packed(&output, &["restore", "--to"]), "{id}: {output:?}");
        assert!(!sandbox.file("copy").exists());
    }
    assert_eq!(sandbox.znap(&["check", "--data", "--databases"]).code, 3);
    // As it is said: with the file before the pack everything is as before.
    fs::rename(sandbox.file("Data.fs.old"), sandbox.data_fs()).unwrap();
    all.iter().for_each(|id| was_there(id));
    assert_whole(sandbox);
    sandbox.znap_ok(&["restore", "first"]);
    sandbox.check();
    sandbox.znap_ok(&["undo"]);
    assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &old, "P5: the file before the pack");
}

#[test]
fn p6_a_pack_beside_everything_else_where_the_beginning_is_stored() {
    packed_meanwhile(4);
}

#[test]
fn p6_a_pack_beside_everything_else_where_the_beginning_is_in_the_file() {
    packed_meanwhile(60);
}
