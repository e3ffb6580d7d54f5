//! Pipes, colours and signals.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{output, spawn, undisturbed};
use crate::site::Site;

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let site = Site::started();
    site.grow("many", 3000);
    for args in [&["log"][..], &["log", "--json"], &["status"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = site.sandbox.znap_command();
        let child = spawn(command.args(args).stdout(writer).stderr(Stdio::piped()));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    // And one that goes away in the middle.
    let mut child = spawn(site.sandbox.znap_command().arg("log").stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut start = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

#[test]
fn colours_only_where_they_are_wanted() {
    let site = Site::with_snapshots();
    let coloured = |args: &[&str], no_color: bool| {
        let mut command = site.sandbox.znap_command();
        if !no_color {
            command.env_remove("NO_COLOR");
        }
        let output = output(command.args(args));
        output.stdout.contains('\x1b') || output.stderr.contains('\x1b')
    };
    for command in ["list", "nonsense"] {
        assert!(!coloured(&[command], false), "not a terminal");
    }
    for args in [&["--color", "always", "list"][..], &["--color=always", "restore", "none"]] {
        assert!(coloured(args, false), "{args:?}");
        assert!(coloured(args, true), "{args:?}: --color goes before NO_COLOR");
    }
    assert!(!coloured(&["--color", "never", "list"], false));
    assert!(!coloured(&["--color", "auto", "list"], true));
    assert!(!coloured(&["--color", "always", "list", "--json"], true), "JSON has no colours");
}

#[test]
fn text_from_a_database_cannot_control_a_terminal() {
    let site = Site::started();
    site.grow("\x1b[31mred\x07\n", 1);
    site.znap_ok(&["save", "a", "-m", "\x1b[2Jgone\nnext"]);
    site.grow("\u{202e}gnorw\u{2066}\u{200b}", 1);
    for args in [&["log"][..], &["restore", "a", "--dry-run"], &["restore", "a", "--discard"]] {
        let output = site.znap(args);
        let text = output.stdout + &output.stderr;
        assert!(text.contains(" gnorw "), "{text:?}");
        assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{200b}']), "{text:?}");
    }
    for args in [&["log"][..], &["list"], &["show", "a"]] {
        let output = site.znap(&[args, &["--color", "always"][..]].concat());
        assert!(output.code == 0 && output.stdout.contains("[2J") | output.stdout.contains("[31m"), "{output:?}");
        assert!(!output.stdout.contains("\x1b[2J") && !output.stdout.contains("\x1b[31m"), "{output:?}");
        assert!(!output.stdout.contains('\x07'), "{output:?}");
    }
}

#[test]
fn signals_have_their_exit_codes() {
    let site = Site::with_snapshots();
    let before = site.data();
    let _lock = crate::busy::hold(&site);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = spawn(site.sandbox.znap_heeding(&["restore", "one"]).stderr(Stdio::piped()));
        // It waits for the lock, and says so.
        let mut stderr = child.stderr.take().unwrap();
        let mut start = [0; 13];
        stderr.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"znap: waiting");
        let sent = Instant::now();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code));
        assert!(sent.elapsed() < Duration::from_secs(4), "it didn't wait on");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert!(
            rest.contains("znap: error: interrupted (SIG") && rest.contains("): no database was changed\n"),
            "{rest}"
        );
    }
    assert_eq!(site.data(), before);
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let site = Site::with_snapshots();
    let lock = crate::busy::hold(&site);
    let znap = site.sandbox.znap_command();
    let mut shell = site.sandbox.command_of("sh");
    let script = "trap '' HUP; exec \"$0\" save three";
    shell.args(["-c", script]).arg(znap.get_program());
    let mut child = spawn(shell.stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut start = [0; 13];
    child.stderr.as_mut().unwrap().read_exact(&mut start).unwrap();
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    undisturbed(|| drop(lock));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(site.znap_ok(&["list"]).contains("three"));
}
