//! The database of the tour: the pages of a small site, in a real FileStorage.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use znap::error::{Error, IoContext, Result};
use znap::filestorage::pickles::{Content, mapping};
use znap::filestorage::{Oid, Tid, Writer, index_path};

const FOLDERS: [&str; 4] = ["news", "events", "people", "about"];
const WORDS: [&str; 16] = [
    "the",
    "council",
    "meets",
    "on",
    "Monday",
    "in",
    "hall",
    "and",
    "everybody",
    "is",
    "welcome",
    "to",
    "bring",
    "new",
    "ideas",
    "along",
];
const PAGES: u64 = 400;
/// Pages that somebody edits at some time are among these.
const EDITED: u64 = 40;

/// Where the pages are.
pub(super) struct Site {
    path: PathBuf,
}

/// What a database's files have in them.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    data: Vec<u8>,
    index: Vec<u8>,
}

impl Site {
    /// Makes the database: a root object, and pages in it.
    pub(super) fn create(path: PathBuf) -> Result<Site> {
        let mut writer = Writer::create(&path)?;
        let start = Timestamp::now() - SignedDuration::from_hours(72);
        let items: Vec<(String, Content)> = (1..=PAGES).map(|page| (name(page), Content::Mapping(Oid(page)))).collect();
        let root = mapping(items.iter().map(|(name, content)| (name.as_str(), content.clone())));
        let mut first = writer.transaction().tid(Tid::from_time(start)).description("initial database creation");
        for page in 1..=PAGES {
            first = first.data(Oid(page), state(page, 0));
        }
        first.data(Oid(0), root).commit()?;
        let site = Site { path };
        drop(writer);
        site.edit("editor", "edit", 1..=30)?;
        Ok(site)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Somebody edits a page per revision, a transaction each; then the server is stopped, and saves its index.
    pub(super) fn edit(&self, user: &str, what: &str, revisions: impl Iterator<Item = u64>) -> Result<()> {
        let mut writer = Writer::open(&self.path)?;
        for revision in revisions {
            let page = 1 + revision * 7 % EDITED;
            let tid = next(&writer);
            writer
                .transaction()
                .tid(tid)
                .user(user)
                .description(format!("/{}/{what}", name(page)))
                .data(Oid(page), state(page, revision))
                .commit()?;
        }
        writer.save_index()
    }

    /// A big transaction: every page changes.
    pub(super) fn change_all(&self, description: &str, revision: u64) -> Result<()> {
        let mut writer = Writer::open(&self.path)?;
        let tid = next(&writer);
        let mut transaction = writer.transaction().tid(tid).user("admin").description(description);
        for page in 1..=PAGES {
            transaction = transaction.data(Oid(page), state(page, revision));
        }
        transaction.commit()?;
        writer.save_index()
    }

    /// Begins a transaction, and doesn't finish it.
    pub(super) fn begin(&self) -> Result<()> {
        let mut writer = Writer::open(&self.path)?;
        let tid = next(&writer);
        writer.transaction().tid(tid).user("editor").data(Oid(1), state(1, 99)).vote()?;
        Ok(())
    }

    /// What the files have in them now, without an unfinished transaction.
    pub(super) fn files(&self) -> Result<Files> {
        let end = Writer::open(&self.path)?.end().offset;
        let mut files = read(&self.path)?;
        files.data.truncate(usize::try_from(end).map_err(|_| Error::failed("the database is too large"))?);
        Ok(files)
    }
}

/// The data file and its index.
pub(super) fn read(path: &Path) -> Result<Files> {
    let index = index_path(path);
    Ok(Files { data: std::fs::read(path).at("read", path)?, index: std::fs::read(&index).at("read", &index)? })
}

impl Files {
    /// The length of the data file.
    pub(super) fn length(&self) -> u64 {
        self.data.len() as u64
    }
}

/// Half an hour after the last transaction.
fn next(writer: &Writer) -> Tid {
    Tid::from_time(writer.end().tid.time() + SignedDuration::from_mins(30))
}

fn name(page: u64) -> String {
    let folder = FOLDERS[(page % FOLDERS.len() as u64) as usize];
    format!("{folder}-{page}")
}

/// Some text, the same for the same numbers.
fn state(page: u64, revision: u64) -> Vec<u8> {
    let mut seed = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ revision.wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mut words = Vec::new();
    for _ in 0..700 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words.push(WORDS[(seed >> 60) as usize]);
    }
    mapping([
        ("title", Content::Text(format!("{} (revision {revision})", name(page)))),
        ("text", Content::Text(words.join(" "))),
    ])
}
