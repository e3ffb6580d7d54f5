//! What lies in a repository.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rusqlite::Connection;
use rusqlite::types::Value;
use znap::disk::Disk;
use znap::error::Kind;
use znap::monitor::Silent;
use znap::repository::counters::Counters;
use znap::repository::data::read_table;
use znap::repository::frames::{FrameAt, FrameFiles, Location};
use znap::repository::hash::{Hash, Uid};
use znap::repository::layout::{Access, Layout};
use znap::repository::manifest::{Config, Manifest, Tombstone};
use znap::repository::object::{ObjectKind, kind_of};
use znap::repository::run_reader::RunReader;
use znap::snapshot::{Repository, copy_out, dry_run, id, list, shell_word, show};

use super::known::{Known, read_both};

/// An object file under the name that it should have; data files also with the hash that their table should have.
pub fn object_file(data: &[u8]) {
    read_as_object(data);
    if let Some(other) = with_right_hash(data) {
        read_as_object(&other);
    }
}

static OBJECTS: LazyLock<(tempfile::TempDir, Layout)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(&folder.path().join(".znap"), Access::Private, &Disk::default()).unwrap();
    (folder, layout)
});

fn read_as_object(bytes: &[u8]) {
    let layout = &OBJECTS.1;
    let name = Hash::of(bytes);
    let path = layout.object(&name);
    fs::write(&path, bytes).unwrap();
    let kind = kind_of(&path).ok();
    let read = [
        (Manifest::read(layout, &name).is_ok(), ObjectKind::Manifest),
        (Tombstone::read(layout, &name).is_ok(), ObjectKind::Tombstone),
        (Config::read(layout, &name).is_ok(), ObjectKind::Config),
    ];
    assert!(read.iter().all(|(is_one, its_kind)| !is_one || kind == Some(*its_kind)));
    if let Ok(frames) = read_table(layout, &name) {
        assert_eq!(kind, Some(ObjectKind::Data));
        let files = FrameFiles::new(layout, &Arc::new(Counters::default()));
        let mut right = Vec::new();
        for frame in &frames {
            let (offset, stored, raw) = (frame.offset, frame.stored, frame.raw);
            let at = FrameAt { object: name, offset, stored, raw, codec: frame.codec };
            let loaded = files.load(&at, &mut Vec::new());
            for location in Location::all_of(name, frame) {
                if let Ok(loaded) = &loaded
                    && let Ok(chunk) = files.check(&location, loaded)
                {
                    assert!(chunk.len() == location.length as usize && Hash::of(chunk) == location.hash, "P6");
                    right.push(location);
                }
            }
        }
        RunReader::new(&files, &right)
            .each(|places, bytes| {
                let expected: u64 = right[places].iter().map(|location| u64::from(location.length)).sum();
                assert_eq!(bytes.len() as u64, expected);
                Ok(())
            })
            .unwrap();
    }
    fs::remove_file(&path).unwrap();
}

/// Puts the hash of what is where the table should be into the footer.
fn with_right_hash(data: &[u8]) -> Option<Vec<u8>> {
    let footer = data.len().checked_sub(64)?;
    let start = usize::try_from(u64::from_le_bytes(data[footer..footer + 8].try_into().ok()?)).ok()?;
    let hash = Hash::of(data.get(start..footer)?);
    let mut data = data.to_vec();
    data[footer + 16..footer + 48].copy_from_slice(&hash.0);
    Some(data)
}

static KNOWN: LazyLock<Known> = LazyLock::new(Known::new);

/// A catalog: the good one with some bytes changed (the first byte is 0, then four for the place and one for the value), with rows
/// changed (1, then 12 bytes a change), or any bytes at all. Every snapshot is an error, or what one of them was.
pub fn plan(data: &[u8]) {
    let known = &*KNOWN;
    let path = known.place.root.join("catalog.db");
    let _ = fs::remove_file(known.place.root.join("catalog.db-journal"));
    match data.split_first() {
        Some((0, changes)) => {
            let mut catalog = known.catalog.clone();
            for change in changes.chunks_exact(5) {
                let at = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize % catalog.len();
                catalog[at] = change[4];
            }
            fs::write(&path, catalog).unwrap();
        }
        Some((1, changes)) => {
            fs::write(&path, &known.catalog).unwrap();
            change_rows(known, &path, changes);
        }
        _ => fs::write(&path, data).unwrap(),
    }
    let Ok(repository) = Repository::open(&known.place) else { return };
    let _ = list(&repository);
    for name in known.snapshots.keys() {
        let _ = show(&repository, name);
        if let Ok(plan) = dry_run(&repository, name, &Silent) {
            for database in plan.databases {
                assert_eq!(database.keep + database.write, database.target);
                assert_eq!(database.keep + database.cut_off, database.size);
            }
        }
        let to = known.folder.path().join("copy");
        if let Ok(report) = copy_out(&repository, name, &to, &Silent) {
            for database in report.databases {
                assert!(database.path.starts_with(&to));
                let state = read_both(&database.path);
                assert!(known.snapshots.values().any(|other| *other == state), "P6: {name} came back wrong");
            }
        }
        let _ = fs::remove_dir_all(&to);
    }
}

/// Changes values of rows, whatever the constraints say.
fn change_rows(known: &Known, path: &Path, changes: &[u8]) {
    let catalog = Connection::open(path).unwrap();
    catalog
        .execute_batch("PRAGMA ignore_check_constraints = 1; PRAGMA foreign_keys = 0; PRAGMA synchronous = 0")
        .unwrap();
    for change in changes.chunks_exact(12) {
        let (table, columns) = &known.columns[change[0] as usize % known.columns.len()];
        let column = &columns[change[1] as usize % columns.len()];
        let number = i64::from_le_bytes(change[4..].try_into().unwrap());
        let row = |skip: i64| {
            format!("(SELECT {column} FROM {table} LIMIT 1 OFFSET {skip} % max(1, (SELECT count(*) FROM {table})))")
        };
        let first = row(change[2].into());
        let old: Value = catalog.query_row(&format!("SELECT {first}"), [], |row| row.get(0)).unwrap_or(Value::Null);
        let new = match (change[3] % 6, old.clone()) {
            (0, _) => Value::Integer(number),
            (1, _) => Value::Null,
            (2, Value::Integer(old)) => Value::Integer(old.wrapping_add((number as i8).into())),
            (3, _) => {
                let other = row((number as u8).into());
                catalog.query_row(&format!("SELECT {other}"), [], |row| row.get(0)).unwrap_or(Value::Null)
            }
            (4, _) => {
                let _ = catalog.execute(&format!("DELETE FROM {table} WHERE {column} IS ?1"), [old]);
                continue;
            }
            (_, Value::Blob(mut old)) if !old.is_empty() => {
                let at = number as u32 as usize % old.len();
                old[at] ^= (number >> 32) as u8 | 1;
                Value::Blob(old)
            }
            (_, Value::Text(old)) => Value::Text(format!("{old}{number}")),
            _ => Value::Integer(number),
        };
        // The first row that has it. What SQLite refuses even so can't get there.
        let _ = catalog.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE {column} IS ?2"), [new, old]);
    }
}

/// A word that should be a snapshot's id: taken, or refused by a readable message; and nothing else is found by it.
pub fn ids(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let word: &str = &text;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    let plain = (1..=128).contains(&word.len()) && word.chars().all(allowed) && !word.starts_with(['-', '.']);
    assert_eq!(id::check(word, "an id").is_ok(), plain);
    assert_eq!(id::check_new(word).is_ok(), plain && word != id::LATEST && !word.starts_with(id::UNDO));
    for error in [id::check(word, "an id"), id::check_new(word)].into_iter().filter_map(Result::err) {
        let message = error.to_string();
        assert!(error.kind() == Kind::Usage && message.len() < 700, "{message}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    assert!(Hash::from_hex(word).is_none_or(|hash| hash.to_string() == word));
    assert!(Uid::from_hex(word).is_none_or(|uid| uid.to_string() == word));
    let quoted = shell_word(Path::new(word));
    assert!(quoted == word || quoted.starts_with('\'') && quoted.ends_with('\''));

    static REPOSITORY: LazyLock<Known> = LazyLock::new(Known::new);
    let found = Repository::open(&REPOSITORY.place).unwrap().resolve(word);
    match found {
        Ok(snapshot) => assert!(word == id::LATEST || plain && snapshot.name.starts_with(word)),
        Err(error) if plain => assert!(matches!(error.kind(), Kind::NotFound | Kind::Usage), "{error}"),
        Err(error) => assert_eq!(error.kind(), Kind::Usage),
    }
}
