//! The JSON documents: one each, exact, and with every field described in docs/json.md.

use serde_json::Value;

use crate::common::output;
use crate::site::{Site, vote};

/// Runs a command; its stdout is one document.
fn document(site: &Site, args: &[&str]) -> Value {
    let text = site.znap_ok(args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// All fields of a document, with those of the objects in it.
fn fields(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.push(name.clone());
                fields(value, found);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn every_field_is_described() {
    let site = Site::started();
    let page = include_str!("../../docs/json.md");
    let check = |section: &str, value: &Value| {
        let start = page.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("{section}"));
        let rest = &page[start + 4..];
        let text = &rest[..rest.find("\n## ").unwrap_or(rest.len())];
        let mut found = Vec::new();
        fields(value, &mut found);
        assert!(!found.is_empty(), "{section}");
        let general = |name: &str| -> String {
            let start = page.find(&format!("\n## {name}\n")).unwrap();
            let rest = &page[start + 4..];
            rest[..rest.find("\n## ").unwrap_or(rest.len())].into()
        };
        // Sections refer to these.
        let others = [general("Counts"), general("list"), general("log")].concat();
        for field in found {
            let name = format!("`{field}`");
            assert!(text.contains(&name) || others.contains(&name), "{field} of {section} is not described");
        }
    };
    vote(&site.sandbox.data_fs());
    check("save", &document(&site, &["save", "one", "--json"]));
    site.grow("more", 2);
    check("save", &document(&site, &["save", "--json", "two"]));
    site.grow("new", 1);
    check("list", &document(&site, &["list", "--json"]));
    check("show", &document(&site, &["show", "two", "--json"]));
    check("status", &document(&site, &["status", "--json"]));
    check("status", &document(&site, &["status", "--json", "--max-age", "1d"]));
    check("log", &document(&site, &["log", "--json"]));
    check("restore", &document(&site, &["restore", "one", "--dry-run", "--json"]));
    check("restore", &document(&site, &["restore", "one", "--discard", "--json"]));
    check("restore", &document(&site, &["restore", "two", "--to", "copy", "--json"]));
    check("export", &document(&site, &["export", "one", "one.tar.zst", "--json"]));
    check("import", &document(&site, &["import", "--from", "archive", "one.tar.zst", "--json"]));
    site.znap_ok(&["delete", "one"]);
    check("import", &document(&site, &["import", "--from", "archive", "one.tar.zst", "--json"]));
    check("gc", &document(&site, &["gc", "--dry-run", "--json"]));
    check("gc", &document(&site, &["gc", "--json"]));
    check("check", &document(&site, &["check", "--json", "--data", "--databases"]));
    for entry in std::fs::read_dir(site.sandbox.file(".znap/objects")).unwrap() {
        let path = entry.unwrap().path();
        if std::fs::read(&path).unwrap()[9] == 1 {
            std::fs::remove_file(path).unwrap();
        }
    }
    let output = site.znap(&["check", "--json", "--data"]);
    assert_eq!(output.code, 3);
    let damaged: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(damaged["findings"][0]["databases"][0]["ranges"][0]["start"].is_u64(), "{damaged}");
    check("check", &damaged);
    std::fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    for arguments in [&["repair", "--dry-run", "--json"][..], &["repair", "--json"]] {
        let output = site.znap(arguments);
        // Nobody has what was removed.
        assert_eq!(output.code, 6);
        check("repair", &serde_json::from_str(&output.stdout).unwrap());
    }
}

#[test]
fn numbers_are_exact_and_times_utc() {
    let site = Site::with_snapshots();
    let mut command = site.sandbox.znap_command();
    let output = output(command.env("TZ", "Europe/Berlin").args(["list", "--json"]));
    let list: Value = serde_json::from_str(&output.stdout).unwrap();
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["one", "two"]);
    let two = &list[1];
    assert_eq!(two["kind"], "save");
    assert_eq!(two["message"], "");
    assert_eq!(list[0]["message"], "the first");
    assert!(two["created"].as_str().unwrap().ends_with('Z'), "{two}");
    let cut = &two["databases"][0];
    assert_eq!(cut["cut"].as_u64(), Some(site.data().len() as u64));
    assert_eq!(cut["tail_bytes"].as_u64(), Some(site.data().len() as u64 - 4));
    assert_eq!(cut["time"], "2026-01-01T00:00:04Z");
    assert_eq!(cut["transactions"], 5);
    assert_eq!(two["complete"], true);
    assert!(two["sequence"].as_u64() > list[0]["sequence"].as_u64());
}

#[test]
fn people_see_local_times() {
    let site = Site::with_snapshots();
    let shown = |zone: &str| output(site.sandbox.znap_command().env("TZ", zone).args(["list"])).stdout;
    assert!(shown("CET-1").contains("2026-01-01 01:00 CET"), "{}", shown("CET-1"));
    assert!(shown("UTC").contains("2026-01-01 00:00 UTC"));
}
