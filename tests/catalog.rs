//! The catalog is an interface (P11): its views have the columns that are promised and say what is true, every query
//! of `docs/catalog.md` gives what it should, and it can be read at any moment, also from a read-only copy.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Sandbox, Zodb, assert_same_bytes, boundaries, zodb};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, StatementStatus};

/// A row by column name.
type Row = HashMap<String, Value>;

/// The databases of [`Site`], by name, and their files.
const DATABASES: [(&str, &str); 2] = [("copy", "parts/copy.fs"), ("data", "Data.fs")];

fn read_only(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(Duration::from_secs(1)).unwrap();
    // As strict as SQLite can be about what a view may do.
    connection.pragma_update(None, "trusted_schema", false).unwrap();
    connection
}

fn rows(connection: &Connection, sql: &str) -> Vec<Row> {
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    let names: Vec<String> = statement.column_names().iter().map(ToString::to_string).collect();
    let read = statement.query_map([], |row| {
        names.iter().enumerate().map(|(column, name)| Ok((name.clone(), row.get(column)?))).collect()
    });
    read.unwrap().collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {sql}"))
}

fn number(row: &Row, column: &str) -> u64 {
    match row.get(column) {
        Some(Value::Integer(number)) => u64::try_from(*number).unwrap(),
        other => panic!("{column} of {row:?} is {other:?}"),
    }
}

fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    match row.get(column) {
        Some(Value::Text(text)) => text,
        other => panic!("{column} of {row:?} is {other:?}"),
    }
}

/// The first column of the only row.
fn one(connection: &Connection, sql: &str) -> u64 {
    let number: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{error}: {sql}"));
    u64::try_from(number).unwrap()
}

/// The queries of the document, by heading.
fn recipes() -> BTreeMap<String, String> {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/catalog.md")).unwrap();
    let mut recipes = BTreeMap::new();
    let (mut heading, mut sql) = (String::new(), None::<String>);
    for line in document.lines() {
        match &mut sql {
            Some(_) if line == "```" => {
                assert!(recipes.insert(heading.clone(), sql.take().unwrap()).is_none(), "two queries: {heading}");
            }
            Some(sql) => *sql += &format!("{line}\n"),
            None if line == "```sql" => sql = Some(String::new()),
            None => {
                if let Some(found) = line.strip_prefix("### ") {
                    heading = found.to_owned();
                }
            }
        }
    }
    recipes
}

/// What the test knows about a snapshot from the files themselves, by database.
struct Saved {
    id: String,
    files: BTreeMap<&'static str, State>,
}

/// A database's file at a snapshot.
struct State {
    bytes: Vec<u8>,
    /// Where its transactions end, and their ids.
    ends: Vec<(u64, u64)>,
}

impl State {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn last_tid(&self) -> u64 {
        self.ends.last().unwrap().1
    }
}

/// Two databases with much in common, and their snapshots.
struct Site {
    sandbox: Sandbox,
    bases: BTreeMap<&'static str, u64>,
    saved: Vec<Saved>,
    recipes: BTreeMap<String, String>,
}

impl Site {
    /// `start` - `before-upgrade` - `monday` - `tuesday`, and, from `before-upgrade` too, `after-upgrade`.
    fn new() -> Self {
        let sandbox = Sandbox::with_database(31, 40, "large");
        fs::create_dir(sandbox.file("parts")).unwrap();
        sandbox.copy_data_fs();
        let bases = DATABASES.map(|(name, path)| (name, fs::metadata(sandbox.file(path)).unwrap().len()));
        let mut site = Site { sandbox, bases: BTreeMap::from(bases), saved: Vec::new(), recipes: recipes() };
        site.sandbox.znap_ok(&["init", "Data.fs", "parts/copy.fs"]);
        site.save("start");
        site.sandbox.grow(32, 20, "large");
        site.sandbox.copy_data_fs();
        site.save("before-upgrade");
        site.sandbox.grow(33, 12, "plone");
        site.save("monday");
        site.sandbox.grow(34, 12, "large");
        site.grow_copy(35, 10);
        site.save("tuesday");
        site.sandbox.znap_ok(&["restore", "before-upgrade"]);
        site.sandbox.grow(36, 15, "large");
        site.save("after-upgrade");
        site
    }

    fn grow_copy(&self, seed: u64, transactions: u64) {
        let path = self.sandbox.file("parts/copy.fs");
        let (seed, transactions) = (seed.to_string(), transactions.to_string());
        let path = path.to_str().unwrap();
        zodb(&["grow", path, "--seed", &seed, "--transactions", &transactions, "--profile", "large"]);
    }

    fn save(&mut self, id: &str) {
        self.sandbox.znap_ok(&["save", id]);
        let files = DATABASES.map(|(name, path)| {
            let path = self.sandbox.file(path);
            (name, State { bytes: fs::read(&path).unwrap(), ends: boundaries(&path) })
        });
        self.saved.push(Saved { id: id.to_owned(), files: BTreeMap::from(files) });
    }

    fn delete(&mut self, id: &str) {
        self.sandbox.znap_ok(&["delete", id]);
        self.saved.retain(|saved| saved.id != id);
    }

    fn objects(&self) -> PathBuf {
        self.sandbox.file(".znap/objects")
    }

    fn catalog(&self) -> Connection {
        read_only(&self.sandbox.file(".znap/catalog.db"))
    }

    /// Runs a query of the document.
    fn ask(&self, heading: &str) -> Vec<Row> {
        self.ask_about(heading, "3f9a")
    }

    /// The same, with the beginning of an object file's name put in.
    fn ask_about(&self, heading: &str, object_file: &str) -> Vec<Row> {
        let sql = self.recipes.get(heading).unwrap_or_else(|| panic!("no query {heading}"));
        rows(&self.catalog(), &sql.replace("3f9a", object_file))
    }

    fn find(&self, id: &str) -> &Saved {
        self.saved.iter().find(|saved| saved.id == id).unwrap()
    }

    fn tail(&self, id: &str, database: &str) -> u64 {
        self.find(id).files[database].length() - self.bases[database]
    }

    /// The chunks of a snapshot's tail: offset, length, hash, object file.
    fn chunks(&self, id: &str, database: &str) -> Vec<Row> {
        let sql = format!(
            "SELECT * FROM snapshot_chunks WHERE snapshot = '{id}' AND database = '{database}' ORDER BY offset"
        );
        rows(&self.catalog(), &sql)
    }

    /// All that the document says must hold, whatever was deleted.
    fn check(&self) {
        for (heading, sql) in &self.recipes {
            let _ = rows(&self.catalog(), sql);
            assert!(!heading.is_empty());
        }
        self.check_chunk_lists();
        self.check_cuts();
        self.check_sharing();
        self.check_files();
        self.check_indexes();
        self.check_own();
    }

    fn check_chunk_lists(&self) {
        for saved in &self.saved {
            for (database, State { bytes, .. }) in &saved.files {
                let mut offset = self.bases[database];
                for row in self.chunks(&saved.id, database) {
                    assert_eq!(number(&row, "offset"), offset, "{} {database}", saved.id);
                    let end = offset + number(&row, "length");
                    let hash = blake3::hash(&bytes[offset as usize..end as usize]).to_hex();
                    assert_eq!(text(&row, "hash"), hash.as_str());
                    assert!(self.objects().join(text(&row, "object_file")).exists());
                    offset = end;
                }
                assert_eq!(offset, bytes.len() as u64, "{} {database}", saved.id);
            }
        }
        let listed = self.ask("The chunk list of a snapshot");
        let expected = self.chunks("before-upgrade", "data");
        assert!(expected.len() > 3);
        assert_eq!(listed.len(), expected.len());
        for (listed, expected) in listed.iter().zip(&expected) {
            assert_eq!(text(listed, "hash"), text(expected, "hash"));
        }
    }

    fn check_cuts(&self) {
        let mut largest: Vec<(u64, &str)> = self
            .saved
            .iter()
            .map(|saved| (self.tail(&saved.id, "data") + self.tail(&saved.id, "copy"), &*saved.id))
            .collect();
        largest.sort_by(|left, right| right.cmp(left));
        let found = self.ask("The largest snapshots");
        let found: Vec<(u64, &str)> = found.iter().map(|row| (number(row, "bytes"), text(row, "snapshot"))).collect();
        assert_eq!(found, largest);

        let ids: Vec<&str> = self.saved.iter().map(|saved| &*saved.id).collect();
        let growth = self.ask("Growth over time");
        for (database, _) in DATABASES {
            let growth: Vec<&Row> = growth.iter().filter(|row| text(row, "database") == database).collect();
            assert_eq!(growth.iter().map(|row| text(row, "snapshot")).collect::<Vec<_>>(), ids);
            let lengths: Vec<u64> = growth.iter().map(|row| number(row, "file_bytes")).collect();
            assert_eq!(lengths, self.saved.iter().map(|saved| saved.files[database].length()).collect::<Vec<_>>());
            assert_eq!(growth[0]["growth"], Value::Null);
            for (pair, row) in lengths.windows(2).zip(&growth[1..]) {
                assert_eq!(row["growth"], Value::Integer(pair[1] as i64 - pair[0] as i64));
            }
        }

        let days = self.ask("Snapshots per day");
        assert_eq!(days.iter().map(|row| number(row, "snapshots")).sum::<u64>(), self.saved.len() as u64);
        assert_eq!(
            days.iter().map(|row| number(row, "new")).sum::<u64>(),
            one(&self.catalog(), "SELECT sum(new_bytes) FROM cuts")
        );

        let times = self.ask("Time between snapshots");
        assert_eq!(times.iter().map(|row| text(row, "id")).collect::<Vec<_>>(), ids);
        assert_eq!(times[0]["hours_since_the_one_before"], Value::Null);
        for row in &times[1..] {
            assert!(matches!(row["hours_since_the_one_before"], Value::Real(hours) if (0.0..1.0).contains(&hours)));
        }

        let last = self.ask("The last transaction of each snapshot");
        assert_eq!(last.len(), 2 * self.saved.len());
        for row in &last {
            let state = &self.find(text(row, "snapshot")).files[text(row, "database")];
            assert_eq!(text(row, "tid"), format!("0x{:016x}", state.last_tid()));
            let base = self.bases[text(row, "database")];
            assert_eq!(number(row, "transactions"), state.ends.iter().filter(|(end, _)| *end > base).count() as u64);
        }

        let newest = self.ask("Databases and their newest snapshot");
        assert_eq!(newest.len(), 2);
        for (row, (name, path)) in newest.iter().zip(DATABASES) {
            assert_eq!((text(row, "name"), text(row, "path")), (name, path));
            assert_eq!((number(row, "base_length"), number(row, "complete")), (self.bases[name], 0));
            assert_eq!(text(row, "snapshot"), self.saved.last().unwrap().id);
            assert_eq!(number(row, "file_bytes"), self.saved.last().unwrap().files[name].length());
        }

        // By ids of transactions, which sort like their times.
        let before = self.ask("The last snapshot before something happened");
        assert_eq!(before.len(), 2);
        let furthest = self.saved.iter().map(|saved| saved.files["data"].last_tid()).max().unwrap();
        let row = before.iter().find(|row| text(row, "database") == "data").unwrap();
        assert_eq!(self.find(text(row, "snapshot")).files["data"].last_tid(), furthest);
    }

    fn check_sharing(&self) {
        let hashes = |id: &str, database: &str| -> BTreeMap<String, u64> {
            self.chunks(id, database).iter().map(|row| (text(row, "hash").to_owned(), number(row, "length"))).collect()
        };
        let of_both =
            |id: &str| -> BTreeMap<String, u64> { hashes(id, "data").into_iter().chain(hashes(id, "copy")).collect() };

        let (before, after) = (of_both("before-upgrade"), of_both("after-upgrade"));
        let [row] = &self.ask("What two snapshots share")[..] else { panic!("one row") };
        assert_eq!(number(row, "before_bytes"), before.values().sum::<u64>());
        assert_eq!(number(row, "after_bytes"), after.values().sum::<u64>());
        let shared: u64 = before.iter().filter(|(hash, _)| after.contains_key(*hash)).map(|(_, length)| length).sum();
        assert!(shared > 0);
        assert_eq!(number(row, "shared_bytes"), shared);

        // The copy was one when that snapshot was made: all of its tail is stored once.
        let [row] = &self.ask("What databases share")[..] else { panic!("one row") };
        assert_eq!(number(row, "chunks"), before.len() as u64);
        assert_eq!(number(row, "bytes"), self.tail("before-upgrade", "data"));
        assert_eq!(number(row, "most_databases"), 2);
        let used_most = self.ask("Chunks that are used most");
        assert_eq!(used_most.len(), 20);
        assert!(used_most.iter().all(|row| number(row, "saved_bytes") >= number(row, "length")), "{used_most:?}");
        let saved =
            one(&self.catalog(), "SELECT sum((\"references\" - 1) * length) FROM chunks WHERE \"references\" > 0");
        assert!(saved >= self.tail("before-upgrade", "data"));

        self.check_parting("before-upgrade", "after-upgrade");
        if self.saved.iter().any(|saved| saved.id == "tuesday") {
            assert_eq!(self.check_parting("tuesday", "after-upgrade"), 2, "both databases");
        }

        let [row] = &self.ask("What isn't stored twice")[..] else { panic!("one row") };
        let tails: u64 =
            self.saved.iter().map(|saved| self.tail(&saved.id, "data") + self.tail(&saved.id, "copy")).sum();
        let indexes = one(&self.catalog(), "SELECT sum(bytes) FROM indexes");
        assert_eq!(number(row, "bytes_of_all_snapshots"), tails + indexes);
        let mut different = BTreeMap::new();
        for saved in &self.saved {
            different.extend(of_both(&saved.id));
        }
        let different: u64 = different.values().sum();
        let with_indexes = number(row, "different_bytes");
        assert!(different <= with_indexes && with_indexes <= different + indexes);
        assert!(
            number(row, "stored_bytes")
                < one(&self.catalog(), "SELECT sum(bytes) FROM object_files WHERE kind = 'data'")
        );

        // What one or several snapshots alone need, counted in full.
        let [row] = &self.ask("What deleting several snapshots would free")[..] else { panic!("one row") };
        let mut alone: BTreeMap<String, u64> = before.into_iter().chain(after).collect();
        for saved in &self.saved {
            if !["before-upgrade", "after-upgrade"].contains(&&*saved.id) {
                let others = of_both(&saved.id);
                alone.retain(|hash, _| !others.contains_key(hash));
            }
        }
        assert_eq!((number(row, "chunks"), number(row, "bytes")), (alone.len() as u64, alone.values().sum::<u64>()));
    }

    /// The two snapshots part within the chunk that begins where the query says. In how many databases they do.
    fn check_parting(&self, left: &str, right: &str) -> usize {
        let sql =
            self.recipes["Where two snapshots part"].replace("before-upgrade", left).replace("after-upgrade", right);
        let parted = rows(&self.catalog(), &sql);
        for row in &parted {
            let database = text(row, "database");
            let (left, right) = (&self.find(left).files[database].bytes, &self.find(right).files[database].bytes);
            let same = left.iter().zip(right).take_while(|(left, right)| left == right).count() as u64;
            let part = number(row, "same_up_to");
            assert!(part <= same && same - part < 1 << 20, "{database}: {part}, {same}");
        }
        parted.len()
    }

    /// The views about object files against the files themselves.
    fn check_files(&self) {
        let mut on_disk = BTreeMap::new();
        for entry in fs::read_dir(self.objects()).unwrap() {
            let entry = entry.unwrap();
            on_disk.insert(entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len());
        }
        let known = rows(&self.catalog(), "SELECT * FROM object_files");
        let known: BTreeMap<String, u64> =
            known.iter().map(|row| (text(row, "name").to_owned(), number(row, "bytes"))).collect();
        assert_eq!(known, on_disk);

        let takes = self.ask("What the repository takes");
        assert_eq!(takes.iter().map(|row| number(row, "files")).sum::<u64>(), on_disk.len() as u64);
        assert_eq!(takes.iter().map(|row| number(row, "bytes")).sum::<u64>(), on_disk.values().sum::<u64>());

        let mut chunks = 0;
        for row in self.ask("How well object files are compressed") {
            assert!(number(&row, "stored_bytes") < on_disk[text(&row, "object_file")]);
            let Value::Real(ratio) = row["ratio"] else { panic!("a ratio: {row:?}") };
            assert!((ratio - number(&row, "stored_bytes") as f64 / number(&row, "bytes") as f64).abs() < 0.001);
            chunks += number(&row, "chunks");
        }
        assert_eq!(chunks, one(&self.catalog(), "SELECT count(*) FROM chunk"));

        for row in self.ask("Dead space") {
            let (bytes, dead) = (number(&row, "bytes"), number(&row, "dead_bytes"));
            assert!(dead > 0 && dead <= bytes, "{row:?}");
            assert_eq!(bytes, on_disk[text(&row, "name")]);
        }

        for file in on_disk.keys() {
            let of_snapshot: Vec<Row> = DATABASES
                .iter()
                .flat_map(|(database, _)| self.chunks("before-upgrade", database))
                .filter(|row| text(row, "object_file") == file)
                .collect();
            let parts = self.ask_about("What of a snapshot is in an object file", file);
            assert_eq!(parts.iter().map(|row| number(row, "chunks")).sum::<u64>(), of_snapshot.len() as u64);
            assert_eq!(
                parts.iter().map(|row| number(row, "bytes")).sum::<u64>(),
                of_snapshot.iter().map(|row| number(row, "length")).sum::<u64>()
            );
        }
    }

    fn check_indexes(&self) {
        let found = self.ask("Indexes: keyframes and deltas");
        assert_eq!(found.len(), 2 * self.saved.len());
        for saved in &self.saved {
            let shown: serde_json::Value =
                serde_json::from_str(&self.sandbox.znap_ok(&["show", &saved.id, "--json"])).unwrap();
            for details in shown["details"].as_array().unwrap() {
                let is_it = |row: &&Row| text(row, "snapshot") == saved.id && text(row, "database") == details["name"];
                let row = found.iter().find(is_it).unwrap();
                assert_eq!(number(row, "objects_in_keyframe"), details["index_keyframe"].as_u64().unwrap());
                assert_eq!(number(row, "deltas"), details["index_deltas"].as_u64().unwrap());
                assert_eq!(number(row, "bytes"), details["index_bytes"].as_u64().unwrap());
                assert!(number(row, "stored_bytes") > 0);
            }
        }
    }

    /// What a snapshot alone needs, of tails, against all lists in full.
    fn check_own(&self) {
        let mut users: HashMap<String, (u64, BTreeSet<&str>)> = HashMap::new();
        for saved in &self.saved {
            for (database, _) in DATABASES {
                for row in self.chunks(&saved.id, database) {
                    let user =
                        users.entry(text(&row, "hash").to_owned()).or_insert((number(&row, "length"), BTreeSet::new()));
                    user.1.insert(&saved.id);
                }
            }
        }
        // Deltas of snapshots on which nothing builds come on top of that.
        let indexes = one(&self.catalog(), "SELECT sum(bytes) FROM indexes");
        let found = self.ask("What deleting a snapshot would free");
        assert_eq!(found.len(), self.saved.len());
        for row in &found {
            let alone = users.values().filter(|(_, users)| users.len() == 1 && users.contains(text(row, "snapshot")));
            let (chunks, bytes) = alone.fold((0, 0), |(chunks, bytes), (length, _)| (chunks + 1, bytes + length));
            assert!((chunks..=chunks + 4).contains(&number(row, "chunks")), "{row:?} {chunks}");
            assert!((bytes..=bytes + indexes).contains(&number(row, "bytes")), "{row:?} {bytes}");
        }
        assert!(found.iter().any(|row| number(row, "bytes") > 100_000));
    }

    /// Writes a snapshot's databases to a new folder; whether that worked, with the right bytes.
    fn comes_back(&self, saved: &Saved) -> bool {
        let out = self.sandbox.file("out");
        let done = self.sandbox.znap(&["restore", &saved.id, "--to", "out"]);
        if done.code == 0 {
            for (name, path) in DATABASES {
                let file = out.join(name).join(Path::new(path).file_name().unwrap());
                assert_same_bytes(&fs::read(file).unwrap(), &saved.files[name].bytes, &saved.id);
            }
        }
        let _ = fs::remove_dir_all(out);
        done.code == 0
    }

    /// With nothing but the object files that a snapshot needs it comes back, and with one of them away only those
    /// do that don't need it.
    fn check_needs(&self) {
        let away = self.sandbox.file("away");
        fs::create_dir(&away).unwrap();
        let needed = self.ask("Which object files a snapshot needs");
        assert_eq!(needed.iter().filter(|row| text(row, "kind") == "config").count(), 1);
        let needed: BTreeSet<&str> = needed.iter().map(|row| text(row, "name")).collect();
        let all: Vec<String> = fs::read_dir(self.objects())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for name in all.iter().filter(|name| !needed.contains(name.as_str())) {
            fs::rename(self.objects().join(name), away.join(name)).unwrap();
        }
        assert!(self.comes_back(self.find("before-upgrade")));
        for entry in fs::read_dir(&away).unwrap() {
            let entry = entry.unwrap();
            fs::rename(entry.path(), self.objects().join(entry.file_name())).unwrap();
        }

        let data = rows(&self.catalog(), "SELECT name FROM object_files WHERE kind = 'data' AND live_bytes > 0");
        for name in data.iter().map(|row| text(row, "name")) {
            let concerned = self.ask_about("Which snapshots need an object file", &name[..16]);
            let concerned: BTreeSet<&str> = concerned.iter().map(|row| text(row, "snapshot")).collect();
            assert!(!concerned.is_empty());
            fs::rename(self.objects().join(name), away.join(name)).unwrap();
            for saved in &self.saved {
                assert_eq!(self.comes_back(saved), !concerned.contains(&*saved.id), "{} without {name}", saved.id);
            }
            fs::rename(away.join(name), self.objects().join(name)).unwrap();
        }
        fs::remove_dir(away).unwrap();
    }
}

impl Sandbox {
    /// Makes the second database what the first one is.
    fn copy_data_fs(&self) {
        for (from, to) in [("Data.fs", "parts/copy.fs"), ("Data.fs.index", "parts/copy.fs.index")] {
            fs::copy(self.file(from), self.file(to)).unwrap();
        }
    }
}

#[test]
fn p11_every_query_of_the_document_gives_what_it_should() {
    let mut site = Site::new();
    assert!(site.recipes.len() >= 12, "{:?}", site.recipes.keys());
    site.check();
    site.check_needs();
    assert!(site.ask("Dead space").is_empty(), "all is needed");

    // Both branches build on one deleted snapshot's list, and one of them on another's.
    site.delete("monday");
    site.check();
    assert!(!site.ask("Dead space").is_empty());
    site.sandbox.znap_ok(&["gc", "--all"]);
    site.check();
    site.check_needs();
    assert!(site.ask("Dead space").is_empty(), "{:?}", site.ask("Dead space"));

    // What it said about a snapshot on which nothing builds is what goes.
    let own = site.ask("What deleting a snapshot would free");
    let own = own.iter().find(|row| text(row, "snapshot") == "tuesday").unwrap();
    let stored = |site: &Site| one(&site.catalog(), "SELECT sum(length) FROM chunks");
    let before = stored(&site);
    site.delete("tuesday");
    site.sandbox.znap_ok(&["gc", "--all"]);
    assert_eq!(before - stored(&site), number(own, "bytes"));
    site.check();
}

#[test]
fn p11_a_deleted_snapshot_that_others_build_on_is_seen_nowhere_but_in_what_is_needed() {
    let sandbox = Sandbox::with_database(41, 4, "large");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "start"]);
    sandbox.grow(42, 8, "large");
    sandbox.znap_ok(&["save", "middle"]);
    for (seed, id) in [(43, "left"), (44, "right")] {
        sandbox.grow(seed, 8, "large");
        sandbox.znap_ok(&["save", id]);
        sandbox.znap_ok(&["restore", "middle"]);
    }
    sandbox.znap_ok(&["delete", "start", "middle"]);
    let catalog = read_only(&sandbox.file(".znap/catalog.db"));
    for after_gc in [false, true] {
        if after_gc {
            sandbox.znap_ok(&["gc", "--all"]);
        }
        for (view, column) in [
            ("snapshots", "id"),
            ("cuts", "snapshot"),
            ("snapshot_chunks", "snapshot"),
            ("indexes", "snapshot"),
            ("snapshot_files", "snapshot"),
            ("snapshot_own", "snapshot"),
        ] {
            let found = rows(&catalog, &format!("SELECT DISTINCT {column} AS id FROM {view} ORDER BY id"));
            let found: Vec<&str> = found.iter().map(|row| text(row, "id")).collect();
            assert_eq!(found, ["left", "right"], "{view}");
        }
        // The middle's manifest stays, its own and that of what it was folded with: both build on it.
        let manifests = "SELECT count(*) FROM object_files WHERE kind = 'manifest' AND live_bytes = bytes";
        assert_eq!(one(&catalog, manifests), if after_gc { 3 } else { 4 });
        let in_lists = one(&catalog, "SELECT count(DISTINCT hash) FROM snapshot_chunks");
        let in_indexes = one(&catalog, "SELECT count(DISTINCT chunk) FROM index_chunk");
        assert_eq!(one(&catalog, "SELECT count(*) FROM chunks WHERE \"references\" > 0"), in_lists + in_indexes);
        if after_gc {
            assert_eq!(one(&catalog, "SELECT count(*) FROM chunks"), in_lists + in_indexes);
            assert_eq!(
                one(&catalog, "SELECT count(*) FROM object_files WHERE live_bytes < bytes AND kind = 'data'"),
                0
            );
        }
    }
}

#[test]
fn p11_the_views_have_the_promised_columns() {
    let sandbox = Sandbox::with_database(45, 3, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let catalog = read_only(&sandbox.file(".znap/catalog.db"));
    for (view, columns) in [
        ("snapshots", "id, kind, created, message, sequence, partial"),
        ("databases", "name, path, generation, base_length, complete, keep_base, tracked, blobs, blobs_mode"),
        ("cuts", "snapshot, database, offset, tid, time, transactions, tail_bytes, new_bytes"),
        ("snapshot_chunks", "snapshot, database, offset, length, hash, object_file"),
        ("chunks", "hash, length, stored_bytes, object_file, references"),
        ("object_files", "name, kind, bytes, live_bytes"),
        ("snapshot_blobs", "snapshot, database, oid, tid, size, hash, object_file"),
        ("missing_blobs", "snapshot, database, oid, tid"),
        ("indexes", "snapshot, database, bytes, keyframe, deltas, stored_bytes"),
        ("snapshot_files", "snapshot, database, object_file, content"),
        ("snapshot_own", "snapshot, chunks, bytes, stored_bytes"),
    ] {
        let statement = catalog.prepare(&format!("SELECT * FROM {view}")).unwrap();
        assert_eq!(statement.column_names().join(", "), columns, "{view}");
    }
    // No snapshot yet.
    for view in ["snapshots", "cuts", "snapshot_chunks", "chunks", "indexes", "snapshot_files", "snapshot_own"] {
        assert_eq!(one(&catalog, &format!("SELECT count(*) FROM {view}")), 0, "{view}");
    }
}

#[test]
fn p11_hashes_times_and_ids_are_text_as_documented() {
    let sandbox = Sandbox::new();
    // A database without a transaction, and one with some.
    fs::write(sandbox.file("empty.fs"), b"FS21").unwrap();
    sandbox.make(46, 5, "mixed");
    sandbox.znap_ok(&["init", "Data.fs", "empty.fs"]);
    sandbox.znap_ok(&["save", "a", "-m", "Grüße, 'quoted'"]);
    let shown: serde_json::Value = serde_json::from_str(&sandbox.znap_ok(&["show", "a", "--json"])).unwrap();
    let catalog = read_only(&sandbox.file(".znap/catalog.db"));

    let [snapshot] = &rows(&catalog, "SELECT * FROM snapshots")[..] else { panic!("one snapshot") };
    assert_eq!(
        (text(snapshot, "id"), text(snapshot, "kind"), text(snapshot, "message")),
        ("a", "save", "Grüße, 'quoted'")
    );
    let to_the_millisecond = |time: &str| time[..19].to_owned();
    let created = text(snapshot, "created");
    assert!(created.len() == 24 && created.ends_with('Z'), "{created}");
    assert_eq!(to_the_millisecond(created), to_the_millisecond(shown["created"].as_str().unwrap()));

    let cuts = rows(&catalog, "SELECT * FROM cuts ORDER BY database");
    let [data, empty] = &cuts[..] else { panic!("two cuts") };
    let of_data = &shown["databases"][0];
    assert_eq!(text(data, "tid"), of_data["tid"].as_str().unwrap());
    assert_eq!(to_the_millisecond(text(data, "time")), to_the_millisecond(of_data["time"].as_str().unwrap()));
    assert_eq!((&empty["tid"], &empty["time"]), (&Value::Null, &Value::Null));
    assert_eq!((number(empty, "offset"), number(empty, "tail_bytes")), (4, 0));

    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    for row in rows(&catalog, "SELECT hash, object_file FROM chunks") {
        assert!(is_hash(text(&row, "hash")) && is_hash(text(&row, "object_file")), "{row:?}");
    }
}

#[test]
fn p11_the_catalog_is_sqlite_as_designed() {
    let sandbox = Sandbox::with_database(47, 5, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    let path = sandbox.file(".znap/catalog.db");
    let catalog = read_only(&path);
    let pragma = |name: &str| -> Value { catalog.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
    assert_eq!(pragma("application_id"), Value::Integer(i64::from(u32::from_be_bytes(*b"ZNAP"))));
    let migrations = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap().count();
    assert_eq!(pragma("user_version"), Value::Integer(migrations as i64));
    // As others open it; znap itself cuts the journal instead of removing it.
    assert_eq!(pragma("journal_mode"), Value::Text("delete".into()));
    // 1 and 1: the rollback journal in the file's header too.
    assert_eq!(fs::read(&path).unwrap()[18..20], [1, 1]);
    assert_eq!(fs::metadata(sandbox.file(".znap/catalog.db-journal")).unwrap().len(), 0);

    let tables = rows(
        &catalog,
        "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'",
    );
    assert!(tables.len() >= 11, "{tables:?}");
    for table in &tables {
        assert_eq!(number(table, "strict"), 1, "{table:?}");
    }
    assert!(one(&catalog, "SELECT count(*) FROM pragma_table_list t, pragma_foreign_key_list(t.name)") >= 8);
    assert!(rows(&catalog, "PRAGMA foreign_key_check").is_empty());
    assert_eq!(text(&rows(&catalog, "PRAGMA integrity_check")[0], "integrity_check"), "ok");
}

#[test]
fn p11_it_is_readable_at_any_moment_of_twenty_saves() {
    let sandbox = Sandbox::with_database(48, 10, "large");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "first"]);
    let path = sandbox.file(".znap/catalog.db");
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let catalog = read_only(&path);
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                // One statement sees one moment: the newest snapshot is there with all its chunks.
                let missing = one(
                    &catalog,
                    "SELECT (SELECT tail_bytes FROM cuts c WHERE c.snapshot = n.id)
                            - (SELECT coalesce(sum(length), 0) FROM snapshot_chunks k WHERE k.snapshot = n.id)
                     FROM (SELECT id FROM snapshots ORDER BY sequence DESC LIMIT 1) n",
                );
                assert_eq!(missing, 0);
                one(&catalog, "SELECT sum(live_bytes) FROM object_files");
                longest = longest.max(began.elapsed());
                reads.fetch_add(1, Ordering::Relaxed);
            }
            longest
        });
        let mut python = Zodb::start();
        for number in 0..20_u64 {
            let data_fs = sandbox.data_fs();
            let seed = (number + 60).to_string();
            let before = reads.load(Ordering::Relaxed);
            python.run(&[
                "grow",
                data_fs.to_str().unwrap(),
                "--seed",
                &seed,
                "--transactions",
                "2",
                "--profile",
                "large",
            ]);
            sandbox.znap_ok(&["save", &format!("s{number}")]);
            assert!(!reader.is_finished(), "the reader failed");
            assert!(reads.load(Ordering::Relaxed) > before, "the reader was kept waiting");
        }
        done.store(true, Ordering::Relaxed);
        let longest = reader.join().unwrap();
        assert!(longest < Duration::from_secs(2), "{longest:?}");
    });
    assert_eq!(one(&read_only(&path), "SELECT count(*) FROM snapshots"), 21);
}

#[test]
fn p11_a_reader_that_does_not_end_costs_a_save_and_nothing_else() {
    let sandbox = Sandbox::with_database(49, 5, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.grow(50, 2, "mixed");
    let catalog = read_only(&sandbox.file(".znap/catalog.db"));
    catalog.execute_batch("BEGIN; SELECT count(*) FROM snapshots;").unwrap();
    let began = Instant::now();
    let failed = sandbox.znap(&["save", "b"]);
    assert_eq!(failed.code, 4, "{failed:?}");
    assert!(failed.stderr.contains("catalog.db"), "{failed:?}");
    assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
    catalog.execute_batch("ROLLBACK").unwrap();
    sandbox.znap_ok(&["save", "b"]);
    sandbox.znap_ok(&["gc"]);
    assert_eq!(one(&catalog, "SELECT count(*) FROM snapshots"), 2);
    let known = one(&catalog, "SELECT count(*) FROM object_files");
    assert_eq!(known, fs::read_dir(sandbox.file(".znap/objects")).unwrap().count() as u64);
}

#[test]
fn p11_a_copy_that_cannot_be_written_can_be_read() {
    let sandbox = Sandbox::with_database(51, 10, "large");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "before-upgrade"]);
    sandbox.grow(52, 5, "large");
    sandbox.znap_ok(&["save", "after-upgrade"]);
    let folder = sandbox.file("archive");
    let copy = folder.join("catalog.db");
    fs::create_dir(&folder).unwrap();
    assert_eq!(fs::metadata(sandbox.file(".znap/catalog.db-journal")).unwrap().len(), 0);
    fs::copy(sandbox.file(".znap/catalog.db"), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();

    let original = read_only(&sandbox.file(".znap/catalog.db"));
    for parameters in ["mode=ro&immutable=1", "mode=ro"] {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let uri = format!("file:{}?{parameters}", copy.to_str().unwrap());
        let connection = Connection::open_with_flags(uri, flags).unwrap();
        for (heading, sql) in recipes() {
            let (found, expected) = (rows(&connection, &sql), rows(&original, &sql));
            assert_eq!(found, expected, "{heading}");
        }
        assert_eq!(one(&connection, "SELECT count(*) FROM snapshots"), 2);
        assert!(connection.execute("DELETE FROM snapshot", []).is_err());
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing was written beside it");
    // Or the sandbox can't be removed.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// How many steps SQLite's machine takes for a query, and how many rows it gives.
fn steps(connection: &Connection, sql: &str) -> (u64, u64) {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = {
        let mut rows = statement.query([]).unwrap();
        let mut count = 0;
        while rows.next().unwrap().is_some() {
            count += 1;
        }
        count
    };
    (u64::try_from(statement.get_status(StatementStatus::VmStep)).unwrap(), rows)
}

#[test]
fn p11_the_views_cost_what_is_asked_for_however_many_snapshots_there_are() {
    let sandbox = Sandbox::with_database(53, 2, "small");
    let mut python = Zodb::start();
    let data_fs = sandbox.data_fs();
    sandbox.znap_ok(&["init", "Data.fs"]);
    let mut grow_to = |from: u64, to: u64| {
        for number in from..to {
            let seed = (number + 100).to_string();
            python.run(&[
                "grow",
                data_fs.to_str().unwrap(),
                "--seed",
                &seed,
                "--transactions",
                "1",
                "--profile",
                "small",
            ]);
            sandbox.znap_ok(&["save", &format!("s{number}")]);
        }
        read_only(&sandbox.file(".znap/catalog.db"))
    };
    let early = "SELECT * FROM snapshot_chunks WHERE snapshot = 's3' ORDER BY offset";
    let linear = [
        "SELECT * FROM chunks",
        "SELECT * FROM object_files",
        "SELECT * FROM indexes",
        "SELECT * FROM snapshot_own",
        "SELECT * FROM snapshot_files WHERE snapshot = 's3'",
    ];
    let few = grow_to(0, 20);
    let before = steps(&few, early);
    let before_linear = linear.map(|sql| steps(&few, sql).0);
    drop(few);
    let many = grow_to(20, 80);
    assert_eq!(steps(&many, early), before, "later snapshots cost nothing");
    for (sql, before) in linear.iter().zip(before_linear) {
        let now = steps(&many, sql).0;
        // Four times as many snapshots; were it quadratic, sixteen times the steps. Sorting adds a little.
        assert!(now < 6 * before, "{sql}: {before} steps, then {now}");
    }
    let last = "SELECT * FROM snapshot_chunks WHERE snapshot = 's79' ORDER BY offset";
    let (steps, _) = steps(&many, last);
    assert!(steps < 10_000, "{steps}");
}
