//! Packs: a snapshot from before one comes back after it, and the other way round, byte for byte. (P2, P4, P5, P6)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Sandbox, zodb};
use znap::filestorage::index_path;

/// A database and its index.
type State = (Vec<u8>, Option<Vec<u8>>);

/// A database that isn't kept whole, and what each of its snapshots holds.
struct Site {
    sandbox: Sandbox,
    held: BTreeMap<String, State>,
}

impl Site {
    fn new(seed: u64) -> Self {
        let sandbox = Sandbox::with_database(seed, 60, "large");
        assert!(fs::metadata(sandbox.data_fs()).unwrap().len() > znap::snapshot::KEPT_WHOLE);
        sandbox.znap_ok(&["init", "Data.fs"]);
        Site { sandbox, held: BTreeMap::new() }
    }

    fn state(&self) -> State {
        (fs::read(self.sandbox.data_fs()).unwrap(), fs::read(index_path(&self.sandbox.data_fs())).ok())
    }

    fn save(&mut self, id: &str) -> String {
        let output = self.sandbox.znap(&["save", id]);
        assert_eq!(output.code, 0, "{output:?}");
        self.held.insert(id.into(), self.state());
        output.stdout + &output.stderr
    }

    fn pack(&self) {
        zodb(&["pack", self.sandbox.data_fs().to_str().unwrap()]);
    }

    fn is(&self, id: &str) {
        let (state, expected) = (self.state(), &self.held[id]);
        assert!(state.0 == expected.0, "P6: the file isn't as {id} was");
        assert!(state.1 == expected.1, "P4: the index isn't as {id} had it");
    }

    fn restores(&self, id: &str) {
        self.sandbox.znap_ok(&["restore", id]);
        self.is(id);
        self.sandbox.check();
    }

    fn all_come_back(&self) {
        for id in self.held.keys() {
            self.sandbox.znap_ok(&["restore", id, "--to", "copy"]);
            let copy = self.sandbox.file("copy/data/Data.fs");
            assert!(fs::read(&copy).unwrap() == self.held[id].0, "P6: {id}");
            assert!(fs::read(index_path(&copy)).ok() == self.held[id].1, "P4: {id}");
            fs::remove_dir_all(self.sandbox.file("copy")).unwrap();
        }
    }
}

fn two_lives() -> Site {
    let mut site = Site::new(71);
    site.save("a");
    site.sandbox.grow(72, 10, "mixed");
    site.save("b");
    site.pack();
    site
}

#[test]
fn p5_snapshots_from_before_a_pack_come_back_after_it_and_the_other_way_round() {
    let mut site = two_lives();
    let old = site.sandbox.file("Data.fs.old");
    assert!(old.exists());
    assert!(site.sandbox.znap_ok(&["status"]).contains("packed"));
    let said = site.save("packed");
    assert!(said.contains("packed"), "{said}");
    // From now on nothing but the repository is needed for what was before.
    fs::remove_file(&old).unwrap();
    site.sandbox.grow(73, 10, "mixed");
    site.save("after");
    site.all_come_back();
    for id in ["a", "after", "b", "packed", "b", "a", "packed", "after"] {
        site.restores(id);
    }
    site.sandbox.znap_ok(&["restore", "a"]);
    site.sandbox.znap_ok(&["undo"]);
    site.is("after");
    site.sandbox.znap_ok(&["gc", "--all"]);
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
    // A second pack.
    site.pack();
    fs::remove_file(&old).unwrap();
    site.save("packed-again");
    site.all_come_back();
    for id in ["a", "packed-again", "packed"] {
        site.restores(id);
    }
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.sandbox.znap_ok(&["repair"]);
    site.all_come_back();
    site.restores("b");
}
