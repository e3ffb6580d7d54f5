//! A site as its zope.conf names it: two databases with blobs, saved and restored together and each alone. Real ZODB makes and reads all of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use znap::disk::Disk;
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, RestoreOptions, Way, finish, restore};

use crate::common::{Kill, Sandbox, Zodb, undisturbed, zodb};

const ZOPE_CONF: &str = "\
%define VAR var
instancehome .
<zodb_db main>
    <blobstorage>
      blob-dir $VAR/blobstorage
      <filestorage>
        path $VAR/filestorage/Data.fs
      </filestorage>
    </blobstorage>
    mount-point /
</zodb_db>
<zodb_db Documents>
    <filestorage>
      path $VAR/filestorage/documents.fs
      blob-dir $VAR/documents
    </filestorage>
    mount-point /documents
</zodb_db>
<zodb_db temporary>
    <temporarystorage/>
    mount-point /temp_folder
</zodb_db>
";

/// The databases: name, file, blob directory, its layout.
const DATABASES: [(&str, &str, &str, &str); 2] = [
    ("main", "var/filestorage/Data.fs", "var/blobstorage", "bushy"),
    ("documents", "var/filestorage/documents.fs", "var/documents", "lawn"),
];

/// Files by their names.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn grow(sandbox: &Sandbox, which: usize, seed: u32) {
    let (_, file, blobs, layout) = DATABASES[which];
    let (file, blobs) = (sandbox.file(file), sandbox.file(blobs));
    let (seed, file, blobs) = (seed.to_string(), file.to_str().unwrap(), blobs.to_str().unwrap());
    let args = ["--blobs", blobs, "--layout", layout, "--seed", &seed, "--transactions", "6", "--size", "20000"];
    zodb(&[&["blobs", file], args.as_slice()].concat());
}

fn start() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.file("var/filestorage")).unwrap();
    fs::write(sandbox.file("zope.conf"), ZOPE_CONF).unwrap();
    grow(&sandbox, 0, 1);
    grow(&sandbox, 1, 2);
    let output = sandbox.znap(&["init", "--zope-conf", "zope.conf"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output.stdout.contains("main: var/filestorage/Data.fs, ")
            && output.stdout.contains("; blobs: var/blobstorage (link)")
    );
    assert!(output.stderr.contains("<zodb_db temporary> (zope.conf, line 19) is kept in memory"), "{output:?}");
    sandbox
}

/// A database's file, its index and its blobs.
fn files(root: &Path, which: usize) -> Files {
    let (_, file, blobs, _) = DATABASES[which];
    let mut found = Files::new();
    let mut open = vec![root.join(blobs)];
    let read = |path: &Path| undisturbed(|| fs::read(path).unwrap());
    for name in [file.to_string(), format!("{file}.index")] {
        found.insert(name.clone().into(), read(&root.join(name)));
    }
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                found.insert(entry.strip_prefix(root).unwrap().into(), read(&entry));
            }
        }
    }
    found
}

fn both(sandbox: &Sandbox) -> [Files; 2] {
    [files(sandbox.path(), 0), files(sandbox.path(), 1)]
}

fn check(sandbox: &Sandbox, oracle: &mut Zodb) {
    for (_, file, blobs, _) in DATABASES {
        let (file, blobs) = (sandbox.file(file), sandbox.file(blobs));
        oracle.run(&["blobs-check", file.to_str().unwrap(), "--blobs", blobs.to_str().unwrap(), "--read-only"]);
    }
}

#[test]
fn p4_a_site_comes_back_whole_and_in_part() {
    let sandbox = start();
    let mut oracle = Zodb::start();
    let mut held = BTreeMap::new();
    for stage in 0..4 {
        grow(&sandbox, 0, 10 + stage);
        grow(&sandbox, 1, 20 + stage);
        let id = format!("s{stage}");
        sandbox.znap_ok(&["save", &id]);
        held.insert(id, both(&sandbox));
    }
    for id in ["s0", "s3", "s1", "s2", "s0", "s3"] {
        sandbox.znap_ok(&["restore", id]);
        assert!(both(&sandbox) == held[id], "{id}");
        check(&sandbox, &mut oracle);
    }
    // One of them, and back: the other one's blobs stay, too.
    let now = &held["s3"];
    sandbox.znap_ok(&["restore", "s1", "--only", "documents"]);
    assert!(both(&sandbox) == [now[0].clone(), held["s1"][1].clone()]);
    check(&sandbox, &mut oracle);
    sandbox.znap_ok(&["undo"]);
    assert!(both(&sandbox) == *now);
    // A snapshot of one of them.
    grow(&sandbox, 0, 30);
    grow(&sandbox, 1, 31);
    let grown = both(&sandbox);
    sandbox.znap_ok(&["save", "some", "--only", "main"]);
    sandbox.znap_ok(&["restore", "s0"]);
    assert!(both(&sandbox) == held["s0"]);
    sandbox.znap_ok(&["restore", "some"]);
    assert!(both(&sandbox) == [grown[0].clone(), held["s0"][1].clone()]);
    // What was there before the restore of s0 is kept, of both.
    let kept = sandbox.znap_ok(&["list"]);
    let kept =
        kept.lines().filter_map(|line| line.split_whitespace().next()).find(|id| id.starts_with("undo-")).unwrap();
    sandbox.znap_ok(&["restore", kept, "--only", "documents"]);
    assert!(both(&sandbox) == grown);
    check(&sandbox, &mut oracle);
    // Elsewhere.
    sandbox.znap_ok(&["restore", "s2", "--to", "copy", "--only", "documents"]);
    assert!(!sandbox.file("copy/main").exists() && sandbox.file("copy/documents").exists());
    // One that isn't tracked any more comes back with its blobs.
    sandbox.znap_ok(&["untrack", "documents"]);
    sandbox.znap_ok(&["save", "alone"]);
    sandbox.znap_ok(&["restore", "s2"]);
    assert!(both(&sandbox) == held["s2"]);
    sandbox.znap_ok(&["undo"]);
    assert!(both(&sandbox) == grown);
    sandbox.znap_ok(&["check", "--data", "--databases"]);
}

#[test]
fn p5_two_databases_with_blobs_are_restored_together_or_not_at_all() {
    let sandbox = start();
    sandbox.znap_ok(&["save", "a"]);
    let a = both(&sandbox);
    grow(&sandbox, 0, 10);
    grow(&sandbox, 1, 11);
    sandbox.znap_ok(&["save", "b"]);
    let b = both(&sandbox);
    let mut oracle = Zodb::start();
    let (mut unfinished, mut change) = (0, 0);
    loop {
        let torn = sandbox.copy();
        let place = Place { root: torn.file(".znap"), trusted: Vec::new() };
        let kill = Kill::at(change);
        let disk = Disk::watched(Arc::clone(&kill) as _);
        let result = undisturbed(|| {
            let mut repository = Repository::open_to_write_on(&disk, &place, &Silent)?;
            restore(&mut repository, "a", &RestoreOptions::default(), &Silent)
        });
        if !kill.fired() {
            result.unwrap();
            break;
        }
        let way = if change % 2 == 0 { Way::Forward } else { Way::Back };
        let finished = undisturbed(|| {
            let mut repository = Repository::open_to_finish(&place, &Silent).unwrap();
            match finish(&mut repository, way, &Silent) {
                // Too late to go back.
                Err(_) if way == Way::Back => finish(&mut repository, Way::Forward, &Silent).unwrap(),
                finished => finished.unwrap(),
            }
        });
        unfinished += u32::from(finished.is_some());
        let now = both(&torn);
        assert!(now == a || now == b, "killed before change {change}");
        check(&torn, &mut oracle);
        change += 3;
    }
    println!("{} kills", change / 3);
    assert!(unfinished > 5, "{unfinished} of {} kills left something to finish", change / 3);
}
