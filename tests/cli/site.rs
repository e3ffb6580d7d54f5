//! A sandbox with small databases that this crate's own writer makes, quickly and always the same.

use std::fs;
use std::path::Path;

use znap::filestorage::pickles::{Content, mapping};
use znap::filestorage::{Oid, Writer, index_path};

use crate::common::{Output, Sandbox, undisturbed};

/// A sandbox with a `Data.fs` of three transactions, and znap to run in it.
pub struct Site {
    pub sandbox: Sandbox,
}

impl Site {
    /// With a database, without a repository.
    pub fn new() -> Site {
        let site = Site { sandbox: Sandbox::new() };
        grow(&site.sandbox.data_fs(), "create", 3);
        site
    }

    /// With a repository, too.
    pub fn started() -> Site {
        let site = Self::new();
        site.sandbox.znap_ok(&["init", "Data.fs"]);
        site
    }

    /// With two snapshots, `one` of three transactions and `two` of five.
    pub fn with_snapshots() -> Site {
        let site = Self::started();
        site.sandbox.znap_ok(&["save", "one", "-m", "the first"]);
        site.grow("edit", 2);
        site.sandbox.znap_ok(&["save", "two"]);
        site
    }

    /// So many more transactions.
    pub fn grow(&self, what: &str, transactions: u64) {
        grow(&self.sandbox.data_fs(), what, transactions);
    }

    /// The bytes of the database.
    pub fn data(&self) -> Vec<u8> {
        undisturbed(|| fs::read(self.sandbox.data_fs()).unwrap())
    }

    /// The bytes of its index.
    pub fn index(&self) -> Vec<u8> {
        undisturbed(|| fs::read(self.sandbox.index()).unwrap())
    }

    pub fn znap(&self, args: &[&str]) -> Output {
        self.sandbox.znap(args)
    }

    pub fn znap_ok(&self, args: &[&str]) -> String {
        self.sandbox.znap_ok(args)
    }

    /// What a command prints and how it ends, as it is compared.
    pub fn shown(&self, args: &[&str]) -> String {
        show(&self.sandbox, &self.znap(args))
    }

    /// The command fails with this code; its message has these words in it, and is followed by a hint.
    pub fn refuses(&self, args: &[&str], code: i32, words: &str) {
        assert_refused(&self.znap(args), code, words);
    }
}

/// It failed with this code, said so and what to do, and printed no result.
pub fn assert_refused(output: &Output, code: i32, words: &str) {
    assert_eq!(output.code, code, "{output:#?}");
    assert!(output.stdout.is_empty(), "{output:#?}");
    assert!(output.stderr.contains("znap: error: "), "{output:#?}");
    assert!(output.stderr.contains(words), "{words:?} is not in {output:#?}");
    assert!(output.stderr.contains("\nhint: "), "{output:#?}");
}

/// Appends transactions to a database, which is made if it isn't there, and saves its index.
pub fn grow(path: &Path, what: &str, transactions: u64) {
    undisturbed(|| append(path, what, transactions));
}

fn append(path: &Path, what: &str, transactions: u64) {
    let mut writer = if path.exists() { Writer::open(path).unwrap() } else { Writer::create(path).unwrap() };
    for number in 1..=transactions {
        let text = format!("{what} {number} ").repeat(20);
        let transaction = writer.transaction().user("admin").description(format!("/page/{what}-{number}"));
        let root = mapping([("page", Content::Mapping(Oid(1)))]);
        let page = mapping([("text", Content::Text(text))]);
        transaction.data(Oid(0), root).data(Oid(1), page).commit().unwrap();
    }
    writer.save_index().unwrap();
    assert!(index_path(path).exists());
}

/// A transaction at the end that is voted, but not finished.
pub fn vote(path: &Path) {
    undisturbed(|| {
        let mut writer = Writer::open(path).unwrap();
        writer.transaction().data(Oid(0), mapping([])).vote().unwrap();
    });
}

/// The output with what differs from run to run replaced.
pub fn show(sandbox: &Sandbox, output: &Output) -> String {
    let directory = sandbox.path().to_str().unwrap();
    let mut text = String::new();
    for (name, stream) in [("", &output.stdout), ("stderr: ", &output.stderr)] {
        for line in stream.replace(directory, "[DIR]").lines() {
            text.push_str(&format!("{name}{}\n", normal(line)));
        }
    }
    text.push_str(&format!("exit code {}\n", output.code));
    text
}

/// Replaces hashes, times of now, and sizes of what is compressed, and joins spaces.
fn normal(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let indent: String = line.chars().take_while(|c| *c == ' ').collect();
    for word in line.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_date = bare.len() == 10 && bare.starts_with("20") && bare.matches('-').count() == 2;
        let is_time = bare.contains(':') && bare.chars().all(|c| c.is_ascii_digit() || c == ':');
        let is_hash = bare.len() == 64 && bare.chars().all(|c| c.is_ascii_hexdigit());
        if bare.starts_with("undo-20") {
            words.push("undo-[TIME]".into());
        } else if is_hash {
            words.push("[HASH]".into());
        } else if is_date && !bare.starts_with("2026-01-01") {
            words.push("[DATE]".into());
        } else if is_time && words.last().is_some_and(|last| last == "[DATE]") {
            words.push("[TIME]".into());
        } else {
            words.push(word.into());
        }
    }
    for place in 0..words.len() {
        let unit = words[place].trim_matches(|c: char| !c.is_ascii_alphabetic());
        let compressed = |word: &str| ["stored", "freed", "rest:", "snapshot,", "snapshots,"].contains(&word);
        if place > 1 && ["kB", "MB"].contains(&unit) && compressed(&words[place - 2]) {
            words[place - 1] = "[SIZE]".into();
        }
    }
    format!("{indent}{}", words.join(" "))
}
