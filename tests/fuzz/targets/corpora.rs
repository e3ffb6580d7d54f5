//! Small inputs to begin with, and those that found something.

use std::fs;

use znap::filestorage::{Oid, Writer, index_path};
use znap::monitor::Silent;
use znap::snapshot::delete;

use super::formats::sample;
use super::known::Known;

type Inputs = Vec<(String, Vec<u8>)>;

/// The corpus of each target.
pub fn corpora() -> [(&'static str, Inputs); 5] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Data.fs");
    sample(&path);
    let data = fs::read(&path).unwrap();
    let index = fs::read(index_path(&path)).unwrap();
    let mut voted = data.clone();
    Writer::open(&path).unwrap().transaction().data(Oid(5), "more").vote().unwrap();
    voted.extend(&fs::read(&path).unwrap()[data.len()..]);
    let older = b"I4\n.(U\x06\0\0\0\0\0\0q\x01U\x10\0\0\0\x01\0\0\0\0\0\x1b\0\0\0\0\0\x99q\x02tq\x03.N.";
    let ids = ["a", "latest", "undo-1", "-x", "../x", "2026-11-20_14-03-59", "a b", "\u{e4}\n", "a%_*?[", "d\0"];
    [
        ("transactions", named([("whole", data), ("voted", voted), ("empty", b"FS30".to_vec())])),
        (
            "index",
            named([("whole", index), ("older", older.to_vec()), ("nothing", b"\x80\x03K\x04.\x80\x03N.".to_vec())]),
        ),
        ("object_file", object_files()),
        ("plan", plans()),
        ("ids", ids.iter().enumerate().map(|(number, id)| (format!("{number}"), id.as_bytes().to_vec())).collect()),
    ]
}

fn named<const N: usize>(inputs: [(&str, Vec<u8>); N]) -> Inputs {
    inputs.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect()
}

/// One of each kind, as small as can be.
fn object_files() -> Inputs {
    let mut known = Known::new();
    let text = "Some text that can be compressed. ".repeat(4000);
    Writer::open(known.data_fs()).unwrap().transaction().data(Oid(70), text).commit().unwrap();
    known.save("text");
    delete(&mut known.write(), &["e".to_string()], &Silent).unwrap();
    let mut found: Inputs = Vec::new();
    for entry in fs::read_dir(known.place.root.join("objects")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        if bytes.len() < 4000 {
            found.push((format!("{}-{}", bytes[9], bytes.len()), bytes));
        }
    }
    found
}

/// Changes of rows and bytes of the catalog.
fn plans() -> Inputs {
    let known = Known::new();
    let change = |table: &str, column: &str, row: u8, kind: u8, number: i64| {
        let table_at = known.columns.iter().position(|(name, _)| name == table).unwrap();
        let column_at = known.columns[table_at].1.iter().position(|name| name == column).unwrap();
        let bytes = [&[1, table_at as u8, column_at as u8, row, kind][..], &number.to_le_bytes()].concat();
        (format!("{table}-{column}-{row}-{kind}-{number}"), bytes)
    };
    let mut found = vec![
        // Going round in circles.
        change("stream", "parent", 4, 0, 5),
        change("stream", "parent", 1, 0, 2),
        // Another parent, another place, another length.
        change("stream", "parent", 2, 0, 1),
        change("stream", "parent", 5, 0, 1),
        change("stream", "parent", 2, 1, 0),
        change("stream", "offset", 3, 2, -1),
        change("stream", "kept_length", 3, 0, i64::MAX),
        change("stream", "snapshot", 1, 3, 3),
        change("stream", "last_length", 1, 0, i64::MIN),
        change("stream", "list_hash", 1, 5, 3),
        change("stream", "index_hash", 1, 3, 2),
        change("generation", "magic", 0, 5, 1),
        change("generation", "base_length", 0, 0, 1 << 40),
        change("generation", "base_check", 0, 5, 1),
        change("chunk", "start", 0, 2, 1),
        change("chunk", "length", 1, 0, i64::from(u32::MAX)),
        change("chunk", "hash", 1, 3, 2),
        change("chunk", "frame", 1, 3, 2),
        change("frame", "raw", 0, 0, i64::from(u32::MAX)),
        change("frame", "stored", 0, 0, -1),
        change("frame", "codec", 0, 0, 1),
        change("frame", "offset", 0, 2, 1),
        change("object_file", "name", 3, 3, 4),
        change("stream_chunk", "offset", 1, 2, 1),
        change("stream_chunk", "chunk", 1, 3, 2),
        change("index_part", "entries", 1, 2, 1),
        change("index_part", "keyframe", 1, 0, 1),
        change("index_part", "stream", 1, 4, 0),
        change("index_chunk", "chunk", 1, 3, 2),
        change("database", "name", 0, 5, 1),
        change("snapshot", "created", 0, 0, i64::MAX),
        change("snapshot", "tombstone", 0, 0, 1),
    ];
    found.push(("bytes".into(), [&[0][..], &5000_u32.to_le_bytes(), &[1], &4097_u32.to_le_bytes(), &[200]].concat()));
    let magic = known.catalog.windows(4).position(|bytes| bytes == b"FS30").unwrap() as u32;
    found.push(("magic".into(), [&[0][..], &(magic + 2).to_le_bytes(), b"2"].concat()));
    found.push(("header".into(), known.catalog[..100].to_vec()));
    found
}
