//! The script that is attacked: a repository's life, and what has to be so after each of its commands.

use std::collections::BTreeMap;

use znap::disk::Disk;
use znap::filestorage::fence::FENCE;
use znap::snapshot::Way;

use crate::world::{Command, State, World};

/// A command, and everything before and after it.
pub struct Step {
    pub command: Command,
    pub before: World,
    pub after: World,
    /// What every snapshot holds that is there before or after.
    pub held: BTreeMap<String, State>,
}

/// Every command at least once, on a few hundred kilobytes.
pub fn script() -> Vec<Step> {
    use Command::*;
    let mut steps = Vec::new();
    let mut world = World::new();
    let lives: [(&[usize], Command); 12] = [
        (&[3000, 90_000], Init),
        (&[], Save("a")),
        (&[150_000, 10, 4000], Save("b")),
        (&[60_000], Restore("a")),
        (&[], Undo),
        (&[200_000], Save("c")),
        (&[], Restore("b")),
        (&[], Restore("c")),
        (&[], Delete("b")),
        (&[], Gc(false)),
        (&[70_000], Save("d")),
        (&[], Gc(true)),
    ];
    for (number, (grown, command)) in lives.into_iter().enumerate() {
        if !grown.is_empty() {
            world.grow(number as u64 + 7, grown);
        }
        let after = world.copy();
        after.run(command, &Disk::default()).unwrap();
        let mut held = if command == Init { BTreeMap::new() } else { world.snapshots() };
        held.extend(after.snapshots());
        let next = after.copy();
        steps.push(Step { command, before: world, after, held });
        world = next;
    }
    steps
}

impl Step {
    /// Checks a world in which the command was interrupted: what was there is there, or what was to be there; a restore can be
    /// finished either way; the command can be given again.
    pub fn check(&self, world: World, what: &str) {
        let (before, after) = (self.before.state(), self.after.state());
        if !world.path().join(".znap").exists() {
            assert_eq!(self.command, Command::Init, "{what}: the repository is gone");
            assert!(world.state() == before, "{what}");
            world.run(Command::Init, &Disk::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
            return;
        }
        let damage = world.damage();
        assert!(damage.is_empty(), "P6: {what}: check calls it damage: {damage:?}");
        let found = world.snapshots();
        for (id, state) in &found {
            assert!(self.held.get(id) == Some(state), "P6: {what}: {id} came back wrong");
        }
        let (old, new) = if self.command == Command::Init {
            (BTreeMap::new(), self.after.snapshots())
        } else {
            (self.before.snapshots(), self.after.snapshots())
        };
        for id in old.keys().filter(|id| new.contains_key(*id)) {
            assert!(found.contains_key(id), "P5: {what}: {id} is gone");
        }
        match world.read().unfinished_restore().unwrap() {
            None => {
                let now = world.state();
                // Without an index ZODB reads all of the file, and is right.
                let same = |state: &State| now.0 == state.0 && (now.1 == state.1 || now.1.is_none());
                assert!(same(&before) || same(&after), "P5: {what}: neither as before nor as after");
            }
            Some(_) => {
                let now = world.state().0;
                assert!(now[..4] == FENCE || now == before.0 || now == after.0, "P5: {what}: ZODB could open it");
                let copy = world.copy();
                let journal = std::fs::read_to_string(world.path().join(".znap/restore-journal")).unwrap();
                let is_taken_back = journal.contains("\"stage\":\"taken-back\"");
                match copy.run(Command::Finish(Way::Back), &Disk::default()) {
                    Ok(()) => assert!(copy.state() == before, "P4, P5: {what}: not taken back"),
                    Err(error) => assert!(error.to_string().contains("too late"), "{what}: {error}"),
                }
                world
                    .run(Command::Finish(Way::Forward), &Disk::default())
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                // What is taken back already doesn't go forward any more.
                let expected = if is_taken_back { &before } else { &after };
                assert!(world.state() == *expected, "P5: {what}: not finished");
                assert!(world.litter().is_empty(), "{what}: {:?}", world.litter());
            }
        }
        self.again(&world, what);
        assert!(world.state().0 == after.0, "{what}: given again, it does something else");
        // Nothing is left that gc doesn't take.
        for all in [false, true] {
            world.run(Command::Gc(all), &Disk::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        assert!(world.snapshots() == new, "P10: {what}: gc changed a snapshot");
        let damage = world.damage();
        assert!(damage.is_empty(), "P6: {what}: {damage:?}");
        let unnamed = unnamed_objects(&world);
        assert!(unnamed.is_empty(), "P10: {what}: {unnamed:?}");
    }

    /// Gives the command again, unless it was done.
    fn again(&self, world: &World, what: &str) {
        let done = match self.command {
            Command::Init => true,
            Command::Save(id) => world.snapshots().contains_key(id),
            Command::Delete(id) => !world.snapshots().contains_key(id),
            // An undo that was done would be undone.
            Command::Restore(_) | Command::Undo => world.state().0 == self.after.state().0,
            Command::Gc(_) | Command::Finish(_) | Command::Repair => false,
        };
        if !done {
            world.run(self.command, &Disk::default()).unwrap_or_else(|error| panic!("{what}: again: {error}"));
        }
    }
}

/// Object files that the catalog doesn't name.
fn unnamed_objects(world: &World) -> Vec<String> {
    let catalog = rusqlite::Connection::open(world.path().join(".znap/catalog.db")).unwrap();
    let mut statement = catalog.prepare("SELECT name FROM object_files").unwrap();
    let named: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(|name| name.unwrap()).collect();
    std::fs::read_dir(world.path().join(".znap/objects"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !named.contains(name))
        .collect()
}
