//! Every change of every command fails: once, or from then on; with what disks and file systems say. Whoever is told that a command
//! is done can rely on it: it fails, too, unless what failed is named in [`may_fail`].

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use znap::disk::{Change, Disk, Watcher};
use znap::snapshot::Way;

use crate::kills::{changes_of, is_too_late, killed};
use crate::repair::{self, damaged, repaired, restorable};
use crate::script::{Step, script, sites};
use crate::world::{Command, World};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// Fails one change, or all from it on.
struct Fail {
    command: Command,
    at: usize,
    for_ever: bool,
    code: i32,
    seen: AtomicUsize,
    failed: Mutex<Failed>,
}

impl Fail {
    fn new(command: Command, at: usize, for_ever: bool, code: i32) -> Arc<Self> {
        let (seen, failed) = Default::default();
        Arc::new(Fail { command, at, for_ever, code, seen, failed })
    }
}

/// What was made to fail, and of that what counts.
#[derive(Default)]
struct Failed {
    any: bool,
    counts: Vec<String>,
}

impl Watcher for Fail {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        let now = self.seen.fetch_add(1, Ordering::Relaxed);
        // What frees space still works on a full disk.
        let full = self.code != EIO;
        let frees = matches!(
            change,
            Change::Remove { .. }
                | Change::RemoveDirectory { .. }
                | Change::SyncDirectory { .. }
                | Change::SyncFileSystem { .. }
        );
        // A blob that can't be removed stays, which is told: tests/blobs has that.
        let stays = matches!(change, Change::Remove { path } if path.extension().is_some_and(|end| end == "blob"));
        if (now == self.at || self.for_ever && now > self.at) && !(full && frees) && !stays {
            let mut failed = self.failed.lock().unwrap();
            failed.any = true;
            if !may_fail(change, self.command) {
                failed.counts.push(in_words(change));
            }
            return Err(io::Error::from_raw_os_error(self.code));
        }
        Ok(usize::MAX)
    }
}

/// Whether a command may be done though this has failed.
fn may_fail(change: &Change<'_>, command: Command) -> bool {
    let is = |path: &Path, word: &str| path.file_name().unwrap().to_str().unwrap().contains(word);
    match change {
        // Space for the next time, which is no reason to fail now. But init makes a repository that has all it needs.
        Change::Create { path } | Change::Write { path, .. } | Change::Remove { path } if is(path, "reserve") => {
            command != Command::Init
        }
        // Where a file can't get a second name it is copied.
        Change::Link { .. } => true,
        // An empty folder in a blob directory is in nobody's way.
        Change::RemoveDirectory { .. } => true,
        _ => false,
    }
}

fn in_words(change: &Change<'_>) -> String {
    match change {
        Change::Write { path, offset, .. } => format!("Write at {offset} of {}", path.display()),
        change => format!("{change:?}"),
    }
}

/// How many cases there were, of which one in so many is tried, and how many of these had something fail.
struct Attack {
    one_in: usize,
    cases: usize,
    failures: usize,
}

impl Attack {
    fn new(one_in: usize) -> Self {
        Attack { one_in, cases: 0, failures: 0 }
    }

    /// Lets each change of a command fail, in every way, and gives what is there then to `check`.
    fn each_change(&mut self, before: &World, command: Command, what: &str, check: impl Fn(World, &str)) {
        let changes = changes_of(before, command);
        for (code, for_ever) in [(EIO, false), (EIO, true), (ENOSPC, false), (ENOSPC, true), (EDQUOT, true)] {
            for at in 0..changes {
                self.cases += 1;
                if !crate::is_tried(self.cases, self.one_in * before.rarity()) {
                    continue;
                }
                let world = before.copy();
                let fail = Fail::new(command, at, for_ever, code);
                let result = world.run(command, &Disk::watched(fail.clone()));
                let failed = fail.failed.lock().unwrap();
                let what = format!("{what}{command:?}, error {code} at change {at}, for ever: {for_ever}");
                if let Err(error) = &result {
                    let said = error.to_string();
                    if failed.any {
                        assert!(said.contains("os error"), "{what}: {said}");
                        assert_eq!(error.is_no_space(), code != EIO, "{what}: {said}");
                    } else {
                        assert!(is_too_late(command, error), "{what}: {said}");
                    }
                }
                let counts = &failed.counts;
                assert!(result.is_err() || counts.is_empty(), "P5: {what}: says that it is done: {counts:?}");
                if failed.any {
                    self.failures += 1;
                    check(world, &what);
                }
            }
        }
    }
}

#[test]
fn p5_any_change_may_fail_once_or_for_ever() {
    let failures = fail_each(script());
    assert!(failures > 190, "{failures}");
}

#[test]
fn p5_on_a_site_with_blobs_too() {
    let failures = fail_each(sites());
    assert!(failures > 30, "{failures}");
}

fn fail_each(steps: Vec<Step>) -> usize {
    let mut attack = Attack::new(13);
    for step in steps {
        attack.each_change(&step.before, step.command, "", |world, what| step.check(world, what));
    }
    println!("{} failures in {} cases", attack.failures, attack.cases);
    attack.failures
}

#[test]
fn p5_any_change_of_what_finishes_a_restore_may_fail() {
    let mut attack = Attack::new(101);
    for step in script().into_iter().filter(|step| step.command.is_restore()) {
        // Of the moments at which it was killed some are enough: kills.rs has all of them.
        for change in (0..).step_by(5) {
            let world = step.before.copy();
            if !killed(&world, step.command, change) {
                break;
            }
            if world.read().unfinished_restore().unwrap().is_none() {
                continue;
            }
            let what = format!("{:?} killed before {change}, ", step.command);
            for way in [Way::Forward, Way::Back] {
                attack.each_change(&world, Command::Finish(way), &what, |world, what| step.check(world, what));
            }
        }
    }
    println!("{} failures in {} cases", attack.failures, attack.cases);
    assert!(attack.failures > 80, "{}", attack.failures);
}

#[test]
fn p5_any_change_of_a_repair_may_fail() {
    let mut attack = Attack::new(17);
    for (name, world) in damaged() {
        let (before, after) = (restorable(&world), repaired(&world));
        attack.each_change(&world, Command::Repair, &format!("{name}, "), |world, what| {
            repair::check(&world, &before, &after, what);
        });
    }
    println!("{} failures in {} cases", attack.failures, attack.cases);
    assert!(attack.failures > 50, "{}", attack.failures);
}

/// Takes a few bytes of each write.
struct Short(AtomicUsize);

impl Watcher for Short {
    fn before(&self, _: &Change<'_>) -> io::Result<usize> {
        Ok(1 + self.0.fetch_add(7919, Ordering::Relaxed) % 50_000)
    }
}

#[test]
fn p5_writes_may_be_short() {
    for step in script().into_iter().chain(sites()) {
        let world = step.before.copy();
        world.run(step.command, &Disk::watched(Arc::new(Short(AtomicUsize::new(0))))).unwrap();
        assert!(world.state() == step.after.state(), "{:?}", step.command);
        step.check(world, "after short writes");
    }
}
