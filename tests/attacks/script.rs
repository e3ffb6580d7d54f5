//! The script that is attacked: the lives of some repositories, and what has to be so after each of their commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use znap::disk::Disk;
use znap::filestorage::fence::FENCE;
use znap::snapshot::Way;

use crate::common::Zodb;
use crate::world::{Command, Database, OTHER_NAME, State, World};

/// All snapshots by their ids, as they come back.
type Snapshots = BTreeMap<String, State>;

/// A command, and everything before and after it.
pub struct Step {
    pub command: Command,
    pub before: World,
    pub after: World,
    was: (State, Snapshots),
    becomes: (State, Snapshots),
    /// What is there once it is taken back; with [`Command::Discard`] not always all that was there before, and never what lay
    /// behind the last complete transaction. Of blobs that were lost before, as many as the restore had put back.
    taken_back: State,
    /// That, which a restore keeps beside the database.
    left_out: Vec<u8>,
}

/// What happens before a command: transactions of these sizes, and another name.
enum Before<'a> {
    Nothing,
    Grown(&'a [usize]),
    Large,
    /// So many transactions of real ZODB, with blobs.
    Site(u64),
    Packed,
    /// Somebody removes the blob directory.
    BlobsLost,
    GrownAndLinked(&'a [usize]),
    /// A transaction of the first size; the next one's length is broken, and whole ones may follow it.
    GrownAndBroken(&'a [usize]),
}

/// Every command at least once, on a few hundred kilobytes; and restores of two databases, one of which has another name.
pub fn script() -> Vec<Step> {
    use Before::*;
    use Command::*;
    let mut steps = life(
        World::with(&["Data.fs"]),
        &[
            (Grown(&[3000, 90_000]), Init),
            (Nothing, Save("a")),
            (Grown(&[150_000, 10, 4000]), Save("b")),
            (Grown(&[60_000]), Restore("a")),
            (Nothing, Undo),
            (Grown(&[200_000]), Save("c")),
            (Nothing, Restore("b")),
            (Nothing, Restore("c")),
            (Nothing, Delete("b")),
            (Nothing, Gc(false)),
            (Grown(&[70_000]), Save("d")),
            (Nothing, Gc(true)),
            (Grown(&[40_000]), Discard("a")),
            (GrownAndBroken(&[5000, 30_000, 2000]), Restore("c")),
        ],
    );
    steps.extend(life(
        World::with(&["Data.fs", "Users.fs"]),
        &[
            (Grown(&[50_000]), Init),
            (Grown(&[20_000]), Save("a")),
            (Grown(&[30_000]), Save("b")),
            (GrownAndLinked(&[10_000]), Restore("a")),
        ],
    ));
    steps
}

/// Sites with blobs and a pack: linked ones of a small database, which is kept whole, and copied ones of another one, of which
/// the second name in the repository is all that is left of before the pack.
pub fn sites() -> Vec<Step> {
    use Before::*;
    use Command::*;
    let mut steps = life(
        World::with_blobs("bushy"),
        &[
            (Site(4), Init),
            (Nothing, Save("a")),
            (Site(3), Save("b")),
            (Packed, Save("c")),
            (Site(2), Restore("a")),
            (Nothing, Undo),
            (Nothing, Restore("b")),
            (Nothing, Restore("c")),
            (Nothing, Delete("b")),
            (Nothing, Gc(true)),
            (BlobsLost, Restore("a")),
        ],
    );
    steps.extend(life(
        World::with_blobs("lawn"),
        &[(Large, Init), (Site(3), Save("a")), (Packed, Save("b")), (Site(2), Restore("a")), (Nothing, Restore("b"))],
    ));
    steps
}

/// One process for all: starting it takes longer than what it does.
pub fn with_zodb<T>(work: impl FnOnce(&mut Zodb) -> T) -> T {
    static ZODB: Mutex<Option<Zodb>> = Mutex::new(None);
    work(ZODB.lock().unwrap().get_or_insert_with(Zodb::start))
}

fn life(mut world: World, commands: &[(Before<'_>, Command)]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut held: BTreeMap<&str, State> = BTreeMap::new();
    for (number, (happens, command)) in commands.iter().enumerate() {
        let ended = world.state();
        match happens {
            Before::Site(transactions) => with_zodb(|zodb| world.grow_site(zodb, number as u64, *transactions)),
            Before::Large => with_zodb(|zodb| world.make_large(zodb)),
            Before::Packed => with_zodb(|zodb| world.pack(zodb)),
            Before::BlobsLost => world.lose_blobs(),
            _ => {}
        }
        if let Before::Grown(sizes) | Before::GrownAndLinked(sizes) = happens {
            world.grow(number as u64 + 7, sizes);
        }
        if let Before::GrownAndLinked(_) = happens {
            world.link();
        }
        let (mut complete, mut left_out) = (None, Vec::new());
        if let Before::GrownAndBroken([first, others @ ..]) = happens {
            world.grow(number as u64 + 7, &[*first]);
            complete = Some(world.state());
            left_out = world.grow_broken(number as u64 + 8, others);
        }
        let after = world.copy();
        after.run(*command, &Disk::default()).unwrap();
        match command {
            Command::Save(id) => drop(held.insert(id, world.state())),
            Command::Restore(id) => {
                assert!(databases_of(&after.state()) == databases_of(&held[id]), "P4, P6: {id} came back wrong");
                if after.has_blobs() {
                    with_zodb(|zodb| after.read_by_zodb(zodb));
                }
            }
            _ => {}
        }
        let was = (world.state(), if *command == Command::Init { Snapshots::new() } else { world.snapshots() });
        let becomes = (after.state(), after.snapshots());
        let taken_back = match (command, happens) {
            (Command::Discard(_), _) | (_, Before::BlobsLost) => ended,
            _ => complete.unwrap_or(was.0.clone()),
        };
        let next = after.copy();
        steps.push(Step { command: *command, before: world, after, was, becomes, taken_back, left_out });
        world = next;
    }
    steps
}

impl Step {
    /// Checks a world in which the command was interrupted: what was there is there, or what was to be there; a restore can be
    /// finished either way; the command can be given again.
    pub fn check(&self, world: World, what: &str) {
        let ((before, old), (after, new)) = (&self.was, &self.becomes);
        if !world.path().join(".znap").exists() {
            assert_eq!(self.command, Command::Init, "{what}: the repository is gone");
            assert!(world.state() == *before, "{what}");
            world.run(Command::Init, &Disk::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
            return;
        }
        let damage = world.damage();
        assert!(damage.is_empty(), "P6: {what}: check calls it damage: {damage:?}");
        let found = world.snapshots();
        let saved = databases_of(&self.taken_back);
        for (id, state) in &found {
            let held = if self.is_new_undo(id) { Some(&saved) } else { old.get(id).or(new.get(id)) };
            assert!(held == Some(state), "P6: {what}: {id} came back wrong");
        }
        for id in old.keys().filter(|id| new.contains_key(*id)) {
            assert!(found.contains_key(id), "P5: {what}: {id} is gone");
        }
        let journal = std::fs::read_to_string(world.path().join(".znap/restore-journal")).unwrap_or_default();
        self.check_left_out(&world, what);
        let is_taken_back = journal.contains("\"stage\":\"taken-back\"");
        match world.read().unfinished_restore().unwrap() {
            None => {
                let now = world.state();
                // With their indexes: nothing would tell that one is missing.
                assert!(now == *after || self.is_back(&now), "P4, P5: {what}: neither as before nor as after");
            }
            Some(_) => {
                for (name, now) in world.bytes() {
                    let whole = [before, after, &self.taken_back].iter().any(|state| state[&name].file == now);
                    let fenced = now[..4] == FENCE && name != OTHER_NAME;
                    assert!(fenced || whole, "P5: {what}: ZODB could open {name}");
                }
                let copy = world.copy();
                match copy.run(Command::Finish(Way::Back), &Disk::default()) {
                    Ok(()) => {
                        let state = copy.state();
                        let is_back = self.is_back(&state);
                        assert!(is_back, "P4, P5: {what}: not taken back: {}", differences(&state, &self.taken_back));
                    }
                    Err(error) => assert!(error.to_string().contains("too late"), "{what}: {error}"),
                }
                world
                    .run(Command::Finish(Way::Forward), &Disk::default())
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                // What is taken back already doesn't go forward any more.
                let state = world.state();
                let is_finished = if is_taken_back { self.is_back(&state) } else { state == *after };
                assert!(is_finished, "P5: {what}: not finished");
                assert!(world.litter().is_empty(), "{what}: {:?}", world.litter());
            }
        }
        self.again(&world, what);
        assert!(world.bytes() == self.after.bytes(), "{what}: given again, it does something else");
        self.check_left_out(&world, what);
        // Nothing is left that gc doesn't take.
        for all in [false, true] {
            world.run(Command::Gc(all), &Disk::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        self.check_snapshots(&world, what);
        let damage = world.damage();
        assert!(damage.is_empty(), "P6: {what}: {damage:?}");
        let unnamed = unnamed_objects(&world);
        assert!(unnamed.is_empty(), "P10: {what}: {unnamed:?}");
    }

    /// Checks that what lay behind the last complete transaction is in the database, or else all of it beside.
    fn check_left_out(&self, world: &World, what: &str) {
        let beside = world.left_out();
        if self.left_out.is_empty() {
            assert!(beside.is_empty(), "{what}: nothing was left out, and there is {:?}", beside.keys());
        } else if !world.bytes().values().any(|bytes| bytes.ends_with(&self.left_out)) {
            assert!(beside.values().any(|bytes| *bytes == self.left_out), "P5: {what}: what was left out is gone");
        }
    }

    /// Whether a restore that was interrupted is taken back in this world.
    pub fn is_taken_back(&self, world: &World) -> bool {
        self.is_back(&world.state())
    }

    /// Whether this is what is there once the command is taken back, or was never done: all as it was; and of the blobs that
    /// were lost, which the database needs, those that are there again are right.
    fn is_back(&self, state: &State) -> bool {
        let has_again = |now: &Database, was: &Database, all: &Database| {
            let is_right = |(name, blob): (&PathBuf, &Vec<u8>)| all.blobs.get(name) == Some(blob);
            let is_there = |name: &PathBuf| now.blobs.contains_key(name);
            (&now.file, &now.index) == (&all.file, &all.index)
                && now.blobs.iter().all(is_right)
                && was.blobs.keys().all(is_there)
        };
        let before = &self.was.0;
        let databases = || state.iter().zip(before).zip(&self.taken_back);
        let is_between = || databases().all(|(((_, now), (_, was)), (_, all))| has_again(now, was, all));
        state == before || state == &self.taken_back || state.keys().eq(before.keys()) && is_between()
    }

    /// Checks that the snapshots are those that have to be there after the command. What a restore saves has its time as its id.
    pub fn check_snapshots(&self, world: &World, what: &str) {
        let by_content = |snapshots: &Snapshots| -> (Snapshots, BTreeSet<State>) {
            let (undo, others): (Snapshots, Snapshots) =
                snapshots.clone().into_iter().partition(|(id, _)| self.is_new_undo(id));
            (others, undo.into_values().collect())
        };
        assert!(by_content(&world.snapshots()) == by_content(&self.becomes.1), "P5, P10: {what}: other snapshots");
    }

    /// Whether this is what the command saved of what it was about to overwrite.
    fn is_new_undo(&self, id: &str) -> bool {
        self.command.is_restore() && id.starts_with("undo-") && !self.was.1.contains_key(id)
    }

    /// Gives the command again, unless it was done.
    fn again(&self, world: &World, what: &str) {
        let done = match self.command {
            Command::Init => true,
            Command::Save(id) => world.snapshots().contains_key(id),
            Command::Delete(id) => !world.snapshots().contains_key(id),
            // An undo that was done would be undone.
            Command::Restore(_) | Command::Discard(_) | Command::Undo => world.bytes() == self.after.bytes(),
            Command::Gc(_) | Command::Finish(_) | Command::Repair => false,
        };
        if !done {
            world.run(self.command, &Disk::default()).unwrap_or_else(|error| panic!("{what}: again: {error}"));
        }
    }
}

/// In what the databases differ.
fn differences(left: &State, right: &State) -> String {
    let pairs = left.iter().filter_map(|(name, database)| Some((name, database, right.get(name)?)));
    let found = pairs.map(|(name, one, other)| {
        let blobs = one.blobs.keys().filter(|name| one.blobs.get(*name) != other.blobs.get(*name)).collect::<Vec<_>>();
        let missing = other.blobs.keys().filter(|name| !one.blobs.contains_key(*name)).collect::<Vec<_>>();
        let (file, index) = (one.file == other.file, one.index == other.index);
        format!("{name}: the same file: {file}, index: {index}; other blobs: {blobs:?}, missing: {missing:?}")
    });
    found.collect::<Vec<_>>().join("; ")
}

/// What a snapshot of these databases has.
fn databases_of(state: &State) -> State {
    state.clone().into_iter().filter(|(name, _)| name != OTHER_NAME).collect()
}

/// Object files that the catalog doesn't name.
fn unnamed_objects(world: &World) -> Vec<String> {
    let catalog = rusqlite::Connection::open(world.path().join(".znap/catalog.db")).unwrap();
    let mut statement = catalog.prepare("SELECT name FROM object_files").unwrap();
    let named: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(|name| name.unwrap()).collect();
    let mut folders = vec![world.path().join(".znap/objects")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.file_name().into_string().unwrap()),
            }
        }
    }
    found.retain(|name| !named.contains(name));
    found
}
