//! The tour itself: what is told, run and checked, in order.

use std::path::Path;

use znap::error::Result;

use super::site::{Site, read};
use super::stage::Stage;
use crate::cli::words;

const SAME: &str = "Data.fs and Data.fs.index are, byte for byte, what they were";

pub(super) fn tour(stage: &Stage) -> Result<()> {
    let site = Site::create(stage.directory().join("Data.fs"))?;
    stage.text(&format!(
        "This is a tour of znap, on a small ZODB FileStorage made for it: Data.fs, {}.\n",
        words::size(site.files()?.length())
    ))?;
    stage.run(&["init", "Data.fs"], 0)?;

    site.edit("editor", "edit", 31..=36)?;
    stage.text("\nPeople edit pages; one of them hasn't finished yet. A snapshot before the upgrade:")?;
    site.begin()?;
    stage.run(&["save", "before-upgrade", "-m", "all add-ons still old"], 0)?;
    let before = site.files()?;

    stage.text("\nThe upgrade changes every page, and goes wrong. What happened, and what is new?")?;
    site.change_all("/upgrade-step-1", 100)?;
    site.edit("admin", "repair", 101..=102)?;
    let broken = site.files()?;
    stage.run(&["log", "-n", "4"], 0)?;
    stage.run(&["status"], 0)?;

    stage.text("\nBack! What no snapshot holds is kept:")?;
    stage.run(&["restore", "before-upgrade", "--dry-run"], 0)?;
    stage.run(&["restore", "before-upgrade"], 0)?;
    stage.check(SAME, read(site.path())? == before)?;
    stage.text("\nToo early: that should be looked into later, and have a name.")?;
    stage.run(&["undo"], 0)?;
    stage.check(SAME, read(site.path())? == broken)?;
    stage.run(&["save", "broken"], 0)?;
    stage.run(&["restore", "before-upgrade"], 0)?;
    stage.check(SAME, read(site.path())? == before)?;

    stage.text("\nA second try goes well:")?;
    site.change_all("/upgrade-step-1", 200)?;
    site.edit("admin", "check", 201..=203)?;
    let upgraded = site.files()?;
    stage.run(&["save", "upgraded", "-m", "second try"], 0)?;
    stage.run(&["show", "latest"], 0)?;

    stage.text(
        "\nWhat went wrong? To the first try (the beginning of its id will do), for experiments that nobody keeps:",
    )?;
    stage.run(&["restore", "bro"], 0)?;
    stage.check(SAME, read(site.path())? == broken)?;
    site.edit("admin", "experiment", 301..=305)?;
    stage.run(&["restore", "upgraded", "--discard"], 0)?;
    stage.check(SAME, read(site.path())? == upgraded)?;

    stage.text("\nWhat isn't needed any more goes, and gives back its space:")?;
    stage.run(&["list"], 0)?;
    stage.run(&["delete", "broken"], 0)?;
    stage.run(&["gc"], 0)?;
    stage.check("the others are still there", saved(stage)? == ["before-upgrade", "upgraded"])?;

    stage.text("\nAn older state can be written beside, while the server runs:")?;
    stage.run(&["restore", "before-upgrade", "--to", "copy"], 0)?;
    let copy = stage.directory().join("copy/data/Data.fs");
    stage.check("the copy and its index are, byte for byte, the database of then", read(&copy)? == before)?;

    stage.text("\nAnd this is for cron:")?;
    stage.run(&["status", "--max-age", "26h"], 0)?;
    stage.check("znap left nothing beside Data.fs but its index and lock", beside(site.path())?)
}

/// The ids of what was saved that `list` names, as JSON has them.
fn saved(stage: &Stage) -> Result<Vec<String>> {
    let (_, text) = stage.znap(&["list", "--json"])?;
    let list: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let entries = list.as_array().cloned().unwrap_or_default();
    let entries = entries.iter().filter(|entry| entry["kind"] == "save");
    Ok(entries.filter_map(|entry| entry["id"].as_str().map(str::to_owned)).collect())
}

/// Whether there is nothing in the folder that shouldn't be.
fn beside(path: &Path) -> Result<bool> {
    use znap::error::IoContext;
    let folder = path.parent().unwrap_or(path);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).at("read", folder)? {
        names.push(entry.at("read", folder)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names == [".znap", "Data.fs", "Data.fs.index", "Data.fs.lock", "copy"])
}
