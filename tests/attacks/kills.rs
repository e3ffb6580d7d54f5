//! Every command is killed before each of its changes; so is what finishes a restore that was killed.

use znap::disk::Disk;
use znap::error::Error;
use znap::snapshot::Way;

use crate::common::Kill;
use crate::script::{Step, script, sites};
use crate::world::{Command, World};

/// How many changes a command makes there.
pub fn changes_of(world: &World, command: Command) -> usize {
    let all = Kill::at(usize::MAX);
    let result = world.copy().run(command, &Disk::watched(all.clone()));
    assert!(result.is_ok() || is_too_late(command, &result.unwrap_err()), "{command:?}");
    all.seen()
}

/// Whether it was refused because a database may be in use again.
pub fn is_too_late(command: Command, error: &Error) -> bool {
    command == Command::Finish(Way::Back) && error.to_string().contains("too late")
}

/// Runs a command that is killed before a change; false if it has fewer.
pub fn killed(world: &World, command: Command, change: usize) -> bool {
    let kill = Kill::at(change);
    let result = world.run(command, &Disk::watched(kill.clone()));
    let right = kill.fired() || result.as_ref().err().is_none_or(|error| is_too_late(command, error));
    assert!(right, "{command:?}: {result:?}");
    kill.fired()
}

#[test]
fn p5_a_command_that_is_killed_anywhere_costs_at_most_itself() {
    let kills = kill_each(script());
    assert!(kills > 530, "{kills}");
}

#[test]
fn p5_so_does_one_on_a_site_with_blobs() {
    let kills = kill_each(sites());
    assert!(kills > 100, "{kills}");
}

fn kill_each(steps: Vec<Step>) -> usize {
    let mut kills = 0;
    for step in steps {
        for change in 0.. {
            let world = step.before.copy();
            if !killed(&world, step.command, change) {
                break;
            }
            if !crate::is_tried(change, step.before.rarity()) {
                continue;
            }
            kills += 1;
            step.check(world, &format!("{:?} killed before change {change}", step.command));
        }
    }
    println!("{kills} kills");
    kills
}

#[test]
fn p5_what_finishes_a_restore_can_be_killed_anywhere_too() {
    let kills = kill_finishing(script());
    assert!(kills > 500, "{kills}");
}

#[test]
fn p5_so_can_what_finishes_one_of_blobs() {
    let kills = kill_finishing(sites());
    assert!(kills > 70, "{kills}");
}

fn kill_finishing(steps: Vec<Step>) -> usize {
    let (mut kills, mut case) = (0, 0);
    for step in steps {
        if !step.command.is_restore() {
            continue;
        }
        for change in 0.. {
            let world = step.before.copy();
            if !killed(&world, step.command, change) {
                break;
            }
            if world.read().unfinished_restore().unwrap().is_none() {
                continue;
            }
            for way in [Way::Forward, Way::Back] {
                for second in 0..changes_of(&world, Command::Finish(way)) {
                    case += 1;
                    if !crate::is_tried(case, 17 * world.rarity()) {
                        continue;
                    }
                    let world = world.copy();
                    assert!(killed(&world, Command::Finish(way), second));
                    kills += 1;
                    // And a third time, the other way, if there is anything left to do.
                    let other = if way == Way::Forward { Way::Back } else { Way::Forward };
                    killed(&world, Command::Finish(other), second / 2);
                    let what = format!("{:?} killed before {change}, {way:?} before {second}", step.command);
                    step.check(world, &what);
                }
            }
        }
    }
    println!("{kills} kills in {case} cases");
    kills
}
