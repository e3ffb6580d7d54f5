//! Every change of every command fails: once, or from then on; with what disks and file systems say.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use znap::disk::{Change, Disk, Watcher};

use crate::script::script;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// Fails one change, or all from it on; or has each write take only a few bytes.
struct Fail {
    seen: AtomicUsize,
    at: usize,
    for_ever: bool,
    code: i32,
}

impl Watcher for Fail {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        let now = self.seen.fetch_add(1, Ordering::Relaxed);
        // What frees space still works on a full disk.
        let full = self.code != EIO;
        let frees = matches!(change, Change::Remove { .. } | Change::SyncDirectory { .. });
        if (now == self.at || self.for_ever && now > self.at) && !(full && frees) {
            return Err(io::Error::from_raw_os_error(self.code));
        }
        Ok(usize::MAX)
    }
}

#[test]
fn p5_any_change_may_fail_once_or_for_ever() {
    let (mut failures, mut case) = (0, 0);
    for step in script() {
        for (code, for_ever) in [(EIO, false), (EIO, true), (ENOSPC, false), (ENOSPC, true), (EDQUOT, true)] {
            for at in 0.. {
                case += 1;
                if !crate::is_tried(case, 7) && at < 500 {
                    continue;
                }
                let world = step.before.copy();
                let fail = Arc::new(Fail { seen: AtomicUsize::new(0), at, for_ever, code });
                let result = world.run(step.command, &Disk::watched(fail.clone()));
                if fail.seen.load(Ordering::Relaxed) <= at {
                    assert!(result.is_ok());
                    break;
                }
                failures += 1;
                let what = format!("{:?}, error {code} at change {at}, for ever: {for_ever}", step.command);
                if let Err(error) = &result {
                    let said = error.to_string();
                    assert!(said.contains("os error"), "{what}: {said}");
                    assert_eq!(error.is_no_space(), code != EIO, "{what}: {said}");
                }
                step.check(world, &what);
            }
        }
    }
    println!("{failures} failures");
    assert!(failures > 150, "{failures}");
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
    for step in script() {
        let world = step.before.copy();
        world.run(step.command, &Disk::watched(Arc::new(Short(AtomicUsize::new(0))))).unwrap();
        assert!(world.state() == step.after.state(), "{:?}", step.command);
        step.check(world, "after short writes");
    }
}
