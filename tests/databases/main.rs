//! Several databases of one site: real ZODB writes to them in common transactions, and znap never tears those apart.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod moments;
mod partial;
mod together;
mod tracking;
mod whole_site;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Output, Sandbox, undisturbed, zodb};
use serde_json::Value;
use znap::filestorage::index_path;

/// The files of a site.
const NAMES: [&str; 3] = ["main.fs", "catalog.fs", "index.fs"];

/// A site of so many of them, with transactions that count in all.
struct Site {
    sandbox: Sandbox,
    names: Vec<&'static str>,
}

/// The bytes of a database and its index.
type State = (Vec<u8>, Option<Vec<u8>>);

impl Site {
    fn new(databases: usize) -> Self {
        let site = Site { sandbox: Sandbox::new(), names: NAMES[..databases].to_vec() };
        site.count(5);
        site
    }

    /// With a repository of them.
    fn started(databases: usize) -> Self {
        let site = Self::new(databases);
        site.ok(&[&["init"], site.names.as_slice()].concat());
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.file(name)
    }

    fn paths_in(&self, folder: &Path) -> Vec<String> {
        self.names.iter().map(|name| folder.join(name).to_str().unwrap().to_owned()).collect()
    }

    /// Counts on in all of them.
    fn count(&self, transactions: u32) {
        let number = transactions.to_string();
        let paths = self.paths_in(self.sandbox.path());
        let mut args: Vec<&str> = vec!["together"];
        args.extend(paths.iter().map(String::as_str));
        args.extend(["--seed", &number, "--transactions", &number]);
        zodb(&args);
    }

    /// What these files have counted to, as ZODB opens them.
    fn counts(&self) -> Vec<u64> {
        counts(&self.paths_in(self.sandbox.path()))
    }

    /// What a snapshot written elsewhere has counted to, in the order of the names.
    fn counts_in(&self, id: &str) -> Vec<u64> {
        let to = format!("copy-of-{id}");
        self.ok(&["restore", id, "--to", &to]);
        let copied = |name: &&str| {
            let path = self.file(&to).join(name.trim_end_matches(".fs")).join(name);
            path.exists().then(|| path.to_str().unwrap().to_owned())
        };
        counts(&self.names.iter().filter_map(copied).collect::<Vec<_>>())
    }

    fn state(&self, name: &str) -> State {
        let path = self.file(name);
        undisturbed(|| (fs::read(&path).unwrap(), fs::read(index_path(&path)).ok()))
    }

    fn states(&self) -> Vec<State> {
        self.names.iter().map(|name| self.state(name)).collect()
    }

    fn znap(&self, args: &[&str]) -> Output {
        self.sandbox.znap(args)
    }

    fn ok(&self, args: &[&str]) -> String {
        self.sandbox.znap_ok(args)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// It fails with this code, these words and a hint.
    fn refuses(&self, args: &[&str], code: i32, words: &str) {
        let output = self.znap(args);
        assert_eq!(output.code, code, "{output:?}");
        assert!(output.stderr.contains(words) && output.stderr.contains("\nhint: "), "{words:?}: {output:?}");
    }

    /// One of the files changes alone.
    fn grow(&self, name: &str) {
        zodb(&["together", self.file(name).to_str().unwrap(), "--transactions", "2", "--seed", "9"]);
    }
}

fn counts(paths: &[String]) -> Vec<u64> {
    let args: Vec<&str> = ["together-counts"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    serde_json::from_value(zodb(&args)).unwrap()
}

/// All the same, and something.
fn agree(counts: &[u64]) -> bool {
    counts.iter().all(|count| *count == counts[0] && *count > 0)
}
