//! A repository of which everything is known.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use rusqlite::Connection;
use znap::filestorage::{Oid, Writer, index_path};
use znap::monitor::Silent;
use znap::repository::chunk_writer::Compression;
use znap::snapshot::{InitOptions, Place, Repository, RestoreOptions, SaveOptions, init, restore, save};

/// A repository with snapshots, and what they hold.
pub struct Known {
    pub folder: tempfile::TempDir,
    pub place: Place,
    pub catalog: Vec<u8>,
    pub snapshots: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    /// Tables and their columns.
    pub columns: Vec<(String, Vec<String>)>,
}

impl Known {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_fs = folder.path().join("Data.fs");
        Writer::create(&data_fs).unwrap();
        let place = Place { root: folder.path().join(".znap"), trusted: Vec::new() };
        let options = InitOptions {
            root: place.root.clone(),
            databases: vec![PathBuf::from("Data.fs").into()],
            current: folder.path().to_path_buf(),
            share_with_group: false,
        };
        init(&options, &Silent).unwrap();
        let mut known = Known { folder, place, catalog: Vec::new(), snapshots: BTreeMap::new(), columns: Vec::new() };
        // Small ones, of which each is one chunk that isn't final; then larger ones; and a fork.
        for (seed, name, sizes) in [
            (1, "a", &[10, 3000][..]),
            (2, "b", &[2000]),
            (3, "c", &[900, 10]),
            (4, "d", &[60_000, 60_000, 40_000]),
            (5, "e", &[30_000]),
        ] {
            known.grow(seed, sizes);
            known.save(name);
        }
        restore(&mut known.write(), "b", &RestoreOptions::default(), &Silent).unwrap();
        known.grow(6, &[4000]);
        known.save("fork");
        known.grow(7, &[500]);
        known.catalog = fs::read(known.place.root.join("catalog.db")).unwrap();
        let catalog = Connection::open(known.place.root.join("catalog.db")).unwrap();
        let strings = |sql: &str| -> Vec<String> {
            catalog.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        for table in strings("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'") {
            let mut columns = strings(&format!("SELECT name FROM pragma_table_info('{table}')"));
            // A path that leads nowhere is waited for.
            columns.retain(|column| column != "path");
            known.columns.push((table, columns));
        }
        known
    }

    pub fn data_fs(&self) -> PathBuf {
        self.folder.path().join("Data.fs")
    }

    pub fn write(&self) -> Repository {
        Repository::open_to_write(&self.place, &Silent).unwrap()
    }

    fn grow(&self, seed: u64, sizes: &[usize]) {
        let mut writer = Writer::open(self.data_fs()).unwrap();
        let mut state = seed;
        for (number, size) in sizes.iter().enumerate() {
            let data: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .take(*size)
            .collect();
            writer.transaction().user("u").data(Oid(seed * 3 + number as u64), data).commit().unwrap();
        }
        writer.save_index().unwrap();
    }

    pub fn save(&mut self, name: &str) {
        let mut options = SaveOptions::new(Some(name.into()), "", TimeZone::UTC);
        options.compression = Compression { level: 1, frame: 100_000, ..Compression::FAST };
        save(&mut self.write(), &options, &Silent).unwrap();
        self.snapshots.insert(name.into(), read_both(&self.data_fs()));
    }
}

/// A database and its index.
pub fn read_both(data_fs: &Path) -> (Vec<u8>, Vec<u8>) {
    (fs::read(data_fs).unwrap(), fs::read(index_path(data_fs)).unwrap_or_default())
}
