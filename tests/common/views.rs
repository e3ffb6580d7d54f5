//! The documented views of a catalog as values, to be compared.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;

/// The rows of all documented views, in an order of their own. Without what no snapshot needs: chunks and files that the next
/// gc frees.
pub fn views(root: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let catalog = Connection::open(root.join("catalog.db")).unwrap();
    let queries = [
        ("snapshots", "SELECT * FROM snapshots"),
        ("databases", "SELECT * FROM databases"),
        ("cuts", "SELECT * FROM cuts"),
        ("snapshot_chunks", "SELECT snapshot, database, offset, length, hash FROM snapshot_chunks"),
        ("chunks", "SELECT hash, length, \"references\" FROM chunks WHERE \"references\" > 0"),
        ("indexes", "SELECT snapshot, database, bytes, keyframe, deltas FROM indexes"),
        ("snapshot_own", "SELECT snapshot, chunks, bytes FROM snapshot_own"),
    ];
    queries.into_iter().map(|(name, sql)| (name, rows(&catalog, sql))).collect()
}

/// The same of the views that say which object file has what. They may differ where something is stored twice.
pub fn file_views(root: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let catalog = Connection::open(root.join("catalog.db")).unwrap();
    let queries = [
        ("snapshot_chunks", "SELECT * FROM snapshot_chunks"),
        ("chunks", "SELECT * FROM chunks WHERE \"references\" > 0"),
        ("object_files", "SELECT * FROM object_files WHERE live_bytes > 0 AND kind <> 'tombstone'"),
        ("indexes", "SELECT * FROM indexes"),
        ("snapshot_files", "SELECT * FROM snapshot_files"),
        ("snapshot_own", "SELECT * FROM snapshot_own"),
    ];
    queries.into_iter().map(|(name, sql)| (name, rows(&catalog, sql))).collect()
}

/// Whether the catalog names every file among the object files.
pub fn names_all(root: &Path) -> bool {
    let catalog = Connection::open(root.join("catalog.db")).unwrap();
    let named = rows(&catalog, "SELECT name FROM object_files");
    std::fs::read_dir(root.join("objects"))
        .unwrap()
        .all(|entry| named.contains(&format!("{:?}", [Value::Text(entry.unwrap().file_name().into_string().unwrap())])))
}

fn rows(catalog: &Connection, sql: &str) -> Vec<String> {
    let mut statement = catalog.prepare(sql).unwrap();
    let columns = statement.column_count();
    let read = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>());
    let mut rows: Vec<String> = read.unwrap().map(|row| format!("{:?}", row.unwrap())).collect();
    rows.sort();
    rows
}
