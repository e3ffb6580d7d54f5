//! Repair is killed before each of its changes, and the power is cut behind each: nothing is worse than before, and given again
//! it finishes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use znap::disk::Disk;
use znap::snapshot::{Repository, list};

use crate::kills::killed;
use crate::power::{Images, cut_power};
use crate::script::with_zodb;
use crate::world::{Command, State, World, elsewhere};

/// What can be restored as things are, written elsewhere.
pub fn restorable(world: &World) -> BTreeMap<String, State> {
    let Ok(repository) = Repository::open(&world.place()) else { return BTreeMap::new() };
    let ids = list(&repository).map_or(Vec::new(), |infos| infos.into_iter().map(|info| info.id).collect());
    ids.into_iter().filter_map(|id| Some((id.clone(), elsewhere(&repository, &id).ok()?))).collect()
}

fn ids(world: &World) -> Vec<(String, String)> {
    list(&world.read()).unwrap().into_iter().map(|info| (info.id, info.kind)).collect()
}

/// A file in `objects`, by its place in the order of the names of all that belong to a snapshot's own save.
fn objects(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.path().join(".znap/objects")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Repositories that are damaged in different ways.
pub fn damaged() -> Vec<(&'static str, World)> {
    let world = World::with(&["Data.fs"]);
    let run = |command| world.run(command, &Disk::default()).unwrap();
    world.grow(1, &[3000, 90_000]);
    run(Command::Init);
    run(Command::Save("a"));
    world.grow(2, &[150_000, 10]);
    run(Command::Save("gone"));
    run(Command::Delete("gone"));
    run(Command::Gc(false));
    let before_b = objects(&world);
    run(Command::Save("b"));
    let of_b: Vec<PathBuf> = objects(&world).into_iter().filter(|path| !before_b.contains(path)).collect();
    let kind = |kind: u8| of_b.iter().find(|path| fs::read(path).unwrap()[9] == kind).unwrap().clone();
    let (data, manifest) = (kind(1), kind(2));
    let old = fs::read(world.path().join(".znap/catalog.db")).unwrap();
    world.grow(3, &[60_000]);
    run(Command::Save("c"));
    let damage = |path: &PathBuf, world: &World| {
        let path = world.path().join(".znap/objects").join(path.file_name().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let make = |change: &dyn Fn(&World)| {
        let world = world.copy();
        change(&world);
        world
    };
    let catalog = |world: &World| world.path().join(".znap/catalog.db");
    let mut worlds = vec![
        ("no catalog", make(&|world| fs::remove_file(catalog(world)).unwrap())),
        (
            "garbage",
            make(&|world| {
                fs::write(catalog(world), &old[..6000]).unwrap();
                fs::write(world.path().join(".znap/catalog.db-journal"), &old[..3000]).unwrap();
            }),
        ),
        ("an old catalog", make(&|world| fs::write(catalog(world), &old).unwrap())),
        ("a damaged data file", make(&|world| damage(&data, world))),
        (
            "a data file that nobody has",
            make(&|world| {
                world.run(Command::Restore("a"), &Disk::default()).unwrap();
                damage(&data, world);
            }),
        ),
        ("a damaged manifest", make(&|world| damage(&manifest, world))),
        (
            "an old catalog that was worked with",
            make(&|world| {
                fs::write(catalog(world), &old).unwrap();
                for (seed, id) in [(4, "c"), (5, "d")] {
                    world.grow(seed, &[40_000]);
                    world.run(Command::Save(id), &Disk::default()).unwrap();
                }
            }),
        ),
        (
            "a damaged tombstone",
            make(&|world| {
                world.run(Command::Delete("c"), &Disk::default()).unwrap();
                let is_tombstone = |path: &PathBuf| fs::read(path).unwrap()[9] == 3;
                let tombstone = objects(world).into_iter().find(is_tombstone).unwrap();
                damage(&tombstone, world);
            }),
        ),
    ];
    worlds.extend(damaged_sites());
    worlds
}

/// The same with linked blobs and a pack.
fn damaged_sites() -> Vec<(&'static str, World)> {
    let world = World::with_blobs("bushy");
    let run = |command| world.run(command, &Disk::default()).unwrap();
    with_zodb(|zodb| world.grow_site(zodb, 1, 4));
    run(Command::Init);
    run(Command::Save("a"));
    with_zodb(|zodb| {
        world.grow_site(zodb, 2, 3);
        world.pack(zodb);
    });
    run(Command::Save("b"));
    let (no_catalog, missing, changed) = (world.copy(), world.copy(), world.copy());
    fs::remove_file(no_catalog.path().join(".znap/catalog.db")).unwrap();
    for (world, bytes) in [(&missing, None), (&changed, Some("something else"))] {
        for blob in world.state()["Data.fs"].blobs.values().take(3) {
            let name = blake3::hash(blob).to_hex();
            let path = world.path().join(format!(".znap/objects/blobs/{}/{name}", &name[..2]));
            // The site keeps its own.
            if fs::remove_file(&path).is_ok()
                && let Some(bytes) = bytes
            {
                fs::write(&path, bytes).unwrap();
            }
        }
    }
    vec![("no catalog of a site", no_catalog), ("missing blobs", missing), ("changed blobs", changed)]
}

/// Checks a repository whose repair was interrupted.
pub fn check(world: &World, before: &BTreeMap<String, State>, after: &World, what: &str) {
    let now = restorable(world);
    // Where there was a catalog, there still is one, unless it couldn't be read.
    for (id, state) in before {
        assert!(now.get(id) == Some(state), "P5: {what}: {id} can't be restored any more");
    }
    world.run(Command::Repair, &Disk::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(ids(world), ids(after), "{what}");
    let whole = restorable(after);
    assert!(restorable(world) == whole, "P5: {what}: given again, it does something else");
    for all in [false, true] {
        world.run(Command::Gc(all), &Disk::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert!(restorable(world) == whole, "P10: {what}: gc changed a snapshot");
}

/// The repository repaired.
pub fn repaired(world: &World) -> World {
    let after = world.copy();
    after.run(Command::Repair, &Disk::default()).unwrap();
    after
}

#[test]
fn p5_repair_may_be_killed_anywhere() {
    let mut kills = 0;
    for (name, world) in damaged() {
        let (before, after) = (restorable(&world), repaired(&world));
        assert!(restorable(&after).len() >= before.len(), "{name}");
        for change in 0.. {
            let world = world.copy();
            if !killed(&world, Command::Repair, change) {
                break;
            }
            if !crate::is_tried(change, world.rarity()) {
                continue;
            }
            kills += 1;
            check(&world, &before, &after, &format!("{name}, killed before change {change}"));
        }
    }
    println!("{kills} kills");
    assert!(kills > 190, "{kills}");
}

#[test]
fn p5_the_power_may_be_cut_during_a_repair() {
    let mut images = Images::default();
    for (name, world) in damaged() {
        let (before, after) = (restorable(&world), repaired(&world));
        let end = cut_power(&world, None, Command::Repair, &mut images, |world, what| {
            check(&world, &before, &after, &format!("{name}: {what}"));
        });
        let end = end.unwrap();
        assert_eq!(ids(&end), ids(&after), "{name}");
        assert!(restorable(&end) == restorable(&after), "{name}");
    }
    println!("{images} tried");
    assert!(images.tried > 30, "{images}");
}
