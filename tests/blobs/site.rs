//! A site with blobs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Sandbox, zodb};

/// Files, with their modes.
pub type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Everything that a site is made of.
#[derive(PartialEq, Eq)]
pub struct State {
    pub file: Vec<u8>,
    pub index: Vec<u8>,
    pub blobs: Tree,
}

/// A site with blobs, and what each of its snapshots holds.
pub struct Site {
    pub sandbox: Sandbox,
    pub held: BTreeMap<String, State>,
    seed: u32,
}

pub fn tree(folder: &Path) -> Tree {
    let mut files = Tree::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap().map(|entry| entry.unwrap()) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_path_buf();
                files.insert(name, (entry.metadata().unwrap().mode() & 0o7777, fs::read(&path).unwrap()));
            }
        }
    }
    files
}

pub fn state(folder: &Path) -> State {
    State {
        file: fs::read(folder.join("Data.fs")).unwrap(),
        index: fs::read(folder.join("Data.fs.index")).unwrap(),
        blobs: tree(&folder.join("blobstorage")),
    }
}

impl Site {
    pub fn new(layout: &str, mode: &str) -> Self {
        Site::of(40, layout, mode)
    }

    /// One of a few blobs.
    pub fn small(layout: &str, mode: &str) -> Self {
        Site::of(6, layout, mode)
    }

    fn of(transactions: u32, layout: &str, mode: &str) -> Self {
        let mut site = Site { sandbox: Sandbox::new(), held: BTreeMap::new(), seed: 0 };
        site.grow_with(transactions, &["--layout", layout]);
        site.sandbox.znap_ok(&["init", "Data.fs", "--blobs", "blobstorage", "--blobs-mode", mode]);
        site
    }

    pub fn set_mode(&self, mode: &str) {
        self.sandbox.znap_ok(&["track", "data", "--blobs-mode", mode]);
    }

    pub fn data(&self) -> String {
        self.sandbox.data_fs().to_str().unwrap().to_string()
    }

    pub fn grow(&mut self, transactions: u32) {
        self.grow_with(transactions, &["--undo"]);
    }

    pub fn grow_with(&mut self, transactions: u32, more: &[&str]) {
        self.seed += 1;
        let (seed, transactions, data) = (self.seed.to_string(), transactions.to_string(), self.data());
        let args = ["blobs", &data, "--seed", &seed, "--transactions", &transactions, "--size", "30000"];
        zodb(&[&args[..], more].concat());
    }

    pub fn pack(&self) {
        zodb(&["blobs-pack", &self.data()]);
        let _ = fs::remove_dir_all(self.sandbox.file("blobstorage.old"));
    }

    pub fn save(&mut self, id: &str) -> Value {
        let report = serde_json::from_str(&self.sandbox.znap_ok(&["save", id, "--json"])).unwrap();
        self.held.insert(id.into(), state(self.sandbox.path()));
        report
    }

    pub fn restores(&self, id: &str) {
        self.sandbox.znap_ok(&["restore", id]);
        self.is(id);
    }

    /// As [`Site::restores`], where blobs of other snapshots may have to stay.
    pub fn restores_but_for_blobs(&self, id: &str) {
        self.sandbox.znap_ok(&["restore", id]);
        let (now, then) = (state(self.sandbox.path()), &self.held[id]);
        assert!(now.file == then.file && now.index == then.index, "{id}");
        assert!(then.blobs.iter().all(|(name, held)| now.blobs.get(name) == Some(held)), "{id}");
        zodb(&["blobs-check", &self.data()]);
    }

    pub fn is(&self, id: &str) {
        let (now, then) = (state(self.sandbox.path()), &self.held[id]);
        assert!(now.file == then.file, "P6: the file isn't as {id} was");
        assert!(now.index == then.index, "P4: the index isn't as {id} had it");
        assert_eq!(now.blobs.keys().collect::<Vec<_>>(), then.blobs.keys().collect::<Vec<_>>(), "P4: {id}");
        assert!(now.blobs == then.blobs, "P6: the blobs aren't as in {id}");
        zodb(&["blobs-check", &self.data()]);
        // ZODB writes nothing that it needn't.
        assert!(state(self.sandbox.path()).file == then.file);
    }
}
