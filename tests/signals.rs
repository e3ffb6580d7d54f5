//! SIGINT, SIGTERM and SIGHUP in the middle of the commands that take long: each ends soon, says how things are, and
//! everything is valid. (P5, P6, P9, P10)
//!
//! That it is in the middle is seen, not hoped for: the program is stopped where its work can be seen, in its files or in how much
//! it has read and written, and looked at again; then the signal is sent, and it may go on. Where it had nothing left to stop for, the
//! same is tried with a larger database.

#![cfg(target_os = "linux")]
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use common::{Output, Sandbox, Zodb, assert_same_bytes, code_of, spawn};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use znap::error::{Error, Kind, Result};
use znap::filestorage::fence::{FENCE, notice_path};
use znap::filestorage::{Oid, Tid, Writer, index_path};
use znap::monitor::{Monitor, Silent};
use znap::snapshot::{GcOptions, Place, Repository, gc};

const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];
/// How many bytes each transaction has, at first and if that was done too quickly.
const SIZES: [usize; 3] = [2_000_000, 8_000_000, 25_000_000];
/// How many transactions, each with a save of its own, lie between two snapshots: they are written one by one.
const PIECES: u64 = 4;

/// A database and its index.
type State = (Vec<u8>, Vec<u8>);

/// Snapshots `a`, `b` and `c`; the last two begin with the first and go different ways. The database is at `c`. `d` follows it, and no
/// snapshot has that.
struct Site {
    sandbox: Sandbox,
    states: BTreeMap<&'static str, State>,
}

impl Site {
    fn new(size: usize) -> Self {
        let sandbox = Sandbox::new();
        let mut states = BTreeMap::new();
        drop(Writer::create(sandbox.data_fs()).unwrap());
        grow(&sandbox, 1, 3000);
        sandbox.znap_ok(&["init", "Data.fs"]);
        sandbox.znap_ok(&["save", "a"]);
        states.insert("a", state(&sandbox));
        for id in ["b", "c"] {
            if id == "c" {
                sandbox.znap_ok(&["restore", "a"]);
            }
            for piece in 1..=PIECES {
                grow(&sandbox, piece + 100 * u64::from(id == "c"), size);
                let name = format!("{id}-{piece}");
                sandbox.znap_ok(&["save", if piece == PIECES { id } else { &name }]);
                if piece < PIECES {
                    sandbox.znap_ok(&["delete", &name]);
                }
            }
            states.insert(id, state(&sandbox));
        }
        let copy = sandbox.copy();
        for piece in 0..PIECES {
            grow(&copy, 1000 + piece, size);
        }
        states.insert("d", state(&copy));
        Site { sandbox, states }
    }

    /// The database is at this snapshot, and nothing is damaged.
    fn is_at(&self, world: &Sandbox, now: &str, what: &str) {
        let (bytes, index) = state(world);
        assert_same_bytes(&bytes, &self.states[now].0, &format!("P5: {what}: the database and {now}"));
        assert_same_bytes(&index, &self.states[now].1, &format!("P4: {what}: the index and that of {now}"));
        let check = world.znap(&["check", "--data", "--databases"]);
        assert_eq!(check.code, 0, "P6: {what}: {check:?}");
    }

    fn is_valid(&self, world: &Sandbox, now: &str, what: &str) {
        self.is_at(world, now, what);
        self.snapshots_are_whole(world, what);
    }

    /// Every snapshot comes back as it was.
    fn snapshots_are_whole(&self, world: &Sandbox, what: &str) {
        let list = world.znap_ok(&["list"]);
        for id in ["a", "b", "c"] {
            assert!(list.contains(&format!("\n{id} ")), "P5: {what}: {id} is gone: {list}");
            world.znap_ok(&["restore", id, "--to", "copy"]);
            let copy = world.file("copy/data/Data.fs");
            assert_same_bytes(&fs::read(&copy).unwrap(), &self.states[id].0, &format!("P6: {what}: {id}"));
            assert_same_bytes(&fs::read(index_path(&copy)).unwrap(), &self.states[id].1, &format!("P4: {what}: {id}"));
            fs::remove_dir_all(world.file("copy")).unwrap();
        }
    }
}

/// The site whose transactions are so large: made once, as long as some test uses it.
fn site(size: usize) -> Arc<Site> {
    static SITES: Mutex<BTreeMap<usize, Weak<Site>>> = Mutex::new(BTreeMap::new());
    let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
    sites.get(&size).and_then(Weak::upgrade).unwrap_or_else(|| {
        let site = Arc::new(Site::new(size));
        sites.insert(size, Arc::downgrade(&site));
        site
    })
}

/// Interrupts a command in its middle, in a copy of a site that was prepared; of a larger one if it was done too soon.
fn interrupted(
    prepare: fn(&Sandbox, &Site),
    args: &[&str],
    middle: fn(&Seen<'_>) -> bool,
    signals: &[Signal],
) -> (Arc<Site>, Sandbox, Output) {
    for size in SIZES {
        let site = site(size);
        let world = site.sandbox.copy();
        prepare(&world, &site);
        if let Some(output) = interrupt(&world, args, middle, signals) {
            return (site, world, output);
        }
    }
    panic!("{args:?} is always done before a signal hits it");
}

fn state(sandbox: &Sandbox) -> State {
    (fs::read(sandbox.data_fs()).unwrap(), fs::read(sandbox.index()).unwrap())
}

/// Commits so many bytes, of which zstd can save a quarter with some work; and writes the index.
fn grow(sandbox: &Sandbox, seed: u64, size: usize) {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'0' + (state >> 58) as u8
    };
    let data: Vec<u8> = std::iter::repeat_with(letter).take(size).collect();
    let mut writer = Writer::open(sandbox.data_fs()).unwrap();
    // No two have the same id, or two ways would seem to be one.
    let tid = Tid(writer.end().tid.0 + (seed << 32));
    writer.transaction().tid(tid).user("u").data(Oid(seed), data).commit().unwrap();
    writer.save_index().unwrap();
}

/// What can be seen of a command that is at work.
struct Seen<'a> {
    world: &'a Sandbox,
    /// The bytes that it has read and written.
    read: u64,
    written: u64,
    /// How long the database was when it began, and all object files.
    database: u64,
    objects: u64,
}

impl Seen<'_> {
    fn has(&self, name: &str) -> bool {
        self.world.file(name).exists()
    }
}

/// The bytes that a process has read and written, once it is znap.
fn work_of(process: Pid) -> Option<(u64, u64)> {
    let folder = format!("/proc/{}", process.as_raw_nonzero());
    let program = fs::read_link(format!("{folder}/exe")).ok()?;
    if program.file_name()? != "znap" {
        return None;
    }
    let text = fs::read_to_string(format!("{folder}/io")).ok()?;
    let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some((number("rchar:")?, number("wchar:")?))
}

/// Stops a command where `middle` is seen, sends the first signal, lets it go on, and sends the others. `None` if it was
/// done, or had nothing left to stop for.
fn interrupt(world: &Sandbox, args: &[&str], middle: fn(&Seen<'_>) -> bool, signals: &[Signal]) -> Option<Output> {
    let database = fs::metadata(world.data_fs()).unwrap().len();
    let objects =
        fs::read_dir(world.file(".znap/objects")).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    let objects = objects.sum();
    let mut command = world.znap_heeding(args);
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let process = Pid::from_child(&child);
    let send = |signal| kill_process(process, signal).unwrap();
    let mut began = None;
    let mut is_in_the_middle = || {
        let Some(now) = work_of(process) else { return false };
        let (read, written) = *began.get_or_insert(now);
        middle(&Seen { world, read: now.0 - read, written: now.1 - written, database, objects })
    };
    let is_stopped = || {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(process), options).unwrap().unwrap().stopped()
    };
    let mut stopped = false;
    while child.try_wait().unwrap().is_none() {
        if is_in_the_middle() {
            send(Signal::STOP);
            stopped = is_stopped() && is_in_the_middle();
            if stopped {
                break;
            }
            send(Signal::CONT);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let went_on = Instant::now();
    if stopped {
        send(signals[0]);
        send(Signal::CONT);
        signals[1..].iter().for_each(|signal| send(*signal));
    }
    let ended = child.wait_with_output().unwrap();
    let took = went_on.elapsed();
    let output = Output {
        code: code_of(ended.status),
        stdout: String::from_utf8(ended.stdout).unwrap(),
        stderr: String::from_utf8(ended.stderr).unwrap(),
    };
    if output.code == 0 {
        return None;
    }
    assert!(stopped, "{args:?} failed: {output:?}");
    assert!(signals.iter().any(|signal| output.code == 128 + signal.as_raw()), "{args:?}, {signals:?}: {output:?}");
    let name = match output.code - 128 {
        1 => "SIGHUP",
        2 => "SIGINT",
        _ => "SIGTERM",
    };
    assert!(output.stderr.contains(&format!("interrupted ({name})")), "{args:?}: {output:?}");
    println!("{args:?} ended {} ms after {name}", took.as_millis());
    // A second on a machine that has time.
    assert!(took < Duration::from_secs(5), "{args:?}: {took:?} after {name}");
    Some(output)
}

fn as_it_is(_: &Sandbox, _: &Site) {}

/// What was committed since the last snapshot.
fn grown(world: &Sandbox, site: &Site) {
    fs::write(world.data_fs(), &site.states["d"].0).unwrap();
    fs::write(world.index(), &site.states["d"].1).unwrap();
}

#[test]
fn p5_a_save_is_not_there_or_whole() {
    let _kept = site(SIZES[0]);
    for signal in SIGNALS {
        let middle = |seen: &Seen<'_>| seen.read > seen.database / 8;
        let (site, world, output) = interrupted(grown, &["save", "d"], middle, &[signal]);
        assert!(output.stderr.contains("): nothing was changed\n"), "{output:?}");
        let ids = world.znap_ok(&["list"]);
        assert!(!ids.contains("\nd "), "{ids}");
        site.is_valid(&world, "d", "a save was interrupted");
        world.znap_ok(&["save", "d"]);
        world.znap_ok(&["restore", "a"]);
        world.znap_ok(&["restore", "d"]);
        site.is_at(&world, "d", "saved again");
    }
}

#[test]
fn p10_a_collection_loses_nothing() {
    let _kept = site(SIZES[0]);
    for signal in SIGNALS {
        let middle = |seen: &Seen<'_>| seen.read > seen.objects / 2;
        let (site, world, output) = interrupted(as_it_is, &["gc", "--all"], middle, &[signal]);
        assert!(output.stderr.contains("): no snapshot was changed\n"), "{output:?}");
        site.is_valid(&world, "c", "a gc was interrupted");
        world.znap_ok(&["gc", "--all"]);
        site.is_valid(&world, "c", "collected again");
    }
}

/// Has a gc stop when it asks for the second time whether it should, before its first frame is made.
#[derive(Default)]
struct Impatient {
    asked: AtomicUsize,
    is_made: AtomicBool,
}

impl Monitor for Impatient {
    fn begin(&self, phase: &str, _bytes: u64) {
        self.is_made.store(phase != "compacting", Ordering::Relaxed);
        self.asked.store(0, Ordering::Relaxed);
    }
    fn advance(&self, _bytes: u64) {
        self.is_made.store(true, Ordering::Relaxed);
    }
    fn end(&self) {}
    fn notice(&self, _text: &str) {}
    fn check(&self) -> Result<()> {
        match self.asked.fetch_add(1, Ordering::Relaxed) > 0 && !self.is_made.load(Ordering::Relaxed) {
            true => Err(Error::new(Kind::Interrupted(15), "interrupted")),
            false => Ok(()),
        }
    }
}

/// One can take many seconds.
#[test]
fn p10_a_collection_ends_in_the_middle_of_a_frame() {
    let site = site(SIZES[0]);
    let world = site.sandbox.copy();
    let place = Place { root: world.file(".znap"), trusted: Vec::new() };
    let mut repository = Repository::open_to_write(&place, &Silent).unwrap();
    let monitor = Impatient { is_made: true.into(), ..Impatient::default() };
    let error = gc(&mut repository, GcOptions { all: true }, &monitor).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted(15), "{error}");
    drop(repository);
    site.is_valid(&world, "c", "a gc was interrupted in the middle of a frame");
}

#[test]
fn p6_a_check_changes_nothing() {
    let _kept = site(SIZES[0]);
    let of_data = |seen: &Seen<'_>| seen.read > seen.objects / 2;
    let of_the_database = |seen: &Seen<'_>| seen.read > seen.objects + seen.database / 2;
    for signal in SIGNALS {
        for middle in [of_data, of_the_database] {
            let args = ["check", "--data", "--databases"];
            let (site, world, output) = interrupted(as_it_is, &args, middle, &[signal]);
            assert!(output.stderr.contains("): nothing was changed\n"), "{output:?}");
            assert!(!output.stdout.contains("damaged") && !output.stderr.contains("damaged"), "{output:?}");
            site.is_valid(&world, "c", "a check was interrupted");
        }
    }
}

#[test]
fn p9_a_repair_can_be_given_again() {
    let _kept = site(SIZES[0]);
    let without_catalog = |world: &Sandbox, _: &Site| fs::remove_file(world.file(".znap/catalog.db")).unwrap();
    for signal in SIGNALS {
        let middle = |seen: &Seen<'_>| seen.read > seen.objects / 2 && !seen.has(".znap/catalog.db");
        let (site, world, output) = interrupted(without_catalog, &["repair"], middle, &[signal]);
        assert!(output.stderr.contains("): nothing was lost\n"), "{output:?}");
        world.znap_ok(&["repair"]);
        site.is_valid(&world, "c", "repaired again");
    }
}

#[test]
fn p5_a_restore_that_has_not_begun_to_write_has_changed_no_database() {
    let _kept = site(SIZES[0]);
    let middle = |seen: &Seen<'_>| seen.has("Data.fs.index.znap-new") && !seen.has(".znap/restore-journal");
    for signal in SIGNALS {
        let (site, world, output) = interrupted(as_it_is, &["restore", "b"], middle, &[signal]);
        assert!(output.stderr.contains("): no database was changed\n"), "{output:?}");
        assert!(!world.file("Data.fs.index.znap-new").exists());
        site.is_valid(&world, "c", "a restore was interrupted before its fence");
        world.znap_ok(&["restore", "b"]);
        site.is_at(&world, "b", "restored again");
    }
    // What no snapshot held is one already: it isn't true that nothing was changed.
    let (site, world, output) = interrupted(grown, &["restore", "b"], middle, &[Signal::TERM, Signal::INT]);
    assert!(output.stderr.contains("): no database was changed\n"), "{output:?}");
    assert!(world.znap_ok(&["list"]).contains("undo-"));
    site.is_valid(&world, "d", "a restore was interrupted before its fence");
}

#[test]
fn p6_a_copy_that_is_not_whole_does_not_look_like_a_database() {
    let _kept = site(SIZES[0]);
    for signal in SIGNALS {
        let middle = |seen: &Seen<'_>| seen.written > seen.database / 4 && seen.has("to/data/Data.fs.znap-new");
        let (site, world, output) = interrupted(as_it_is, &["restore", "b", "--to", "to"], middle, &[signal]);
        assert!(output.stderr.contains("): no database was changed\n"), "{output:?}");
        assert_eq!(fs::read_dir(world.file("to/data")).unwrap().count(), 0, "nothing is left in there");
        site.is_valid(&world, "c", "a copy was interrupted");
        // As it says: the directory may be used again.
        world.znap_ok(&["restore", "b", "--to", "to"]);
        assert!(fs::read(world.file("to/data/Data.fs")).unwrap() == site.states["b"].0);
    }
}

/// Real ZODB refuses the database, for reading too, and changes nothing.
fn zodb_refuses(zodb: &mut Zodb, world: &Sandbox) {
    let before = fs::read(world.data_fs()).unwrap();
    assert_eq!(before[..4], FENCE);
    let path = world.data_fs();
    for args in [&["open", path.to_str().unwrap()][..], &["open", path.to_str().unwrap(), "--read-only"]] {
        let opened = zodb.run(args);
        assert_eq!(opened["error"], "FileStorageFormatError", "P7: {opened}");
    }
    assert_same_bytes(&fs::read(&path).unwrap(), &before, "the fenced database before and after ZODB");
}

/// Real ZODB opens the database, with its index, without a warning.
fn zodb_opens(zodb: &mut Zodb, world: &Sandbox) {
    let opened = zodb.run(&["open", world.data_fs().to_str().unwrap()]);
    assert!(
        opened["ok"] == true && opened["used_index"] == 1 && opened["warnings"] == serde_json::json!([]),
        "{opened}"
    );
}

/// The restore is in its fence, and has cut the database, but not written all of it.
fn within_the_fence(seen: &Seen<'_>) -> bool {
    let length = fs::metadata(seen.world.data_fs()).unwrap().len();
    seen.has("Data.fs.ZNAP-RESTORE-UNFINISHED.txt") && length < seen.database && !seen.has("Data.fs.index")
}

#[test]
fn p5_p7_a_restore_within_its_fence_can_be_finished_either_way() {
    let _kept = site(SIZES[0]);
    let mut zodb = Zodb::start();
    for (number, signal) in SIGNALS.into_iter().enumerate() {
        // The second one arrives while it ends.
        let signals = [signal, SIGNALS[(number + 1) % 3]];
        let (site, world, output) = interrupted(as_it_is, &["restore", "b"], within_the_fence, &signals);
        assert!(output.stderr.contains("the restore is unfinished: interrupted"), "{output:?}");
        assert!(output.stderr.contains("--resume finishes it, --abort goes back"), "{output:?}");
        let is_fenced = |zodb: &mut Zodb, world: &Sandbox| {
            zodb_refuses(zodb, world);
            assert!(notice_path(&world.data_fs()).exists());
            let refused = world.znap(&["save"]);
            assert!(refused.code == 1 && refused.stderr.contains("--resume"), "{refused:?}");
        };
        is_fenced(&mut zodb, &world);
        let check = world.znap(&["check", "--data", "--databases"]);
        assert_eq!(check.code, 0, "P6: within the fence: {check:?}");
        site.snapshots_are_whole(&world, "a restore was interrupted within its fence");

        for way in ["--resume", "--abort"] {
            // What finishes it may be interrupted too; where it was done too soon, another copy is taken.
            let middle = |seen: &Seen<'_>| seen.has("Data.fs.index.znap-new");
            let mut tries = std::iter::repeat_with(|| world.copy()).take(20);
            let hit = tries.find_map(|copy| Some((interrupt(&copy, &["restore", way], middle, &[signal])?, copy)));
            let (output, end) = hit.expect("it is interrupted");
            assert!(output.stderr.contains("the restore is unfinished"), "{output:?}");
            is_fenced(&mut zodb, &end);
            let other = end.copy();
            end.znap_ok(&["restore", "--resume"]);
            site.is_at(&end, "b", "resumed");
            zodb_opens(&mut zodb, &end);
            other.znap_ok(&["restore", "--abort"]);
            site.is_at(&other, "c", "aborted");
            zodb_opens(&mut zodb, &other);
        }
    }
}
