//! A ZEO server and its clients, with real ZEO: what clients remember of transactions that a restore takes back.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Sandbox, python, script, spawn};
use serde_json::{Value, json};

/// A server of the sandbox's Data.fs, which is told to end, and has ended, when this is dropped.
struct Server(Child);

impl Server {
    fn start(sandbox: &Sandbox) -> Self {
        let program = python().with_file_name("runzeo");
        let mut command = sandbox.command_of(program.to_str().unwrap());
        command.arg("-a").arg(sandbox.file("zeo.socket")).args(["-f", "Data.fs"]);
        Server(spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

/// A client in a process of its own.
struct Client {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Client {
    /// One that has a persistent cache in the sandbox, or none.
    fn start(sandbox: &Sandbox, persistent: bool) -> Self {
        let mut command = Command::new(python());
        command.current_dir(sandbox.path()).arg(script("zeo_client.py")).arg(sandbox.file("zeo.socket"));
        if persistent {
            command.arg(sandbox.path());
        }
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Client { child, to, from }
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn ask(&mut self, line: &str) -> Value {
        writeln!(self.to.as_mut().unwrap(), "{line}").unwrap();
        self.answer()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends when there is nothing more to read.
        drop(self.to.take());
        let _ = self.child.wait();
    }
}

fn connected(sandbox: &Sandbox, persistent: bool) -> Client {
    let mut client = Client::start(sandbox, persistent);
    assert_eq!(client.answer(), json!({"connected": true}));
    client
}

/// The story, up to the server that was stopped: snapshot `a` has `x` 1, and a client with a persistent cache has seen 2.
fn story() -> Sandbox {
    let sandbox = Sandbox::with_database(11, 5, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let server = Server::start(&sandbox);
    let mut first = connected(&sandbox, false);
    first.ask("write y 1");
    assert_eq!(first.ask("write x 1"), json!({"x": 1, "y": 1}));
    drop(first);
    sandbox.znap_ok(&["save", "a"]);
    let mut client = connected(&sandbox, true);
    assert_eq!(client.ask("write x 2")["x"], 2);
    client.ask("forget");
    assert_eq!(client.ask("read")["x"], 2);
    // As long as the server runs, P7.
    let refused = sandbox.znap(&["restore", "a"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    drop(client);
    drop(server);
    sandbox
}

/// Why it is dangerous, and can't be left to ZEO: a cache that has seen what is gone is first refused, and then believed.
#[test]
fn a_stale_cache_serves_what_was_taken_back() {
    let sandbox = story();
    let (cache, kept) = (sandbox.file("test-1.zec"), sandbox.file("kept"));
    fs::copy(&cache, &kept).unwrap();
    sandbox.znap_ok(&["restore", "a"]);
    fs::copy(&kept, &cache).unwrap();
    let _server = Server::start(&sandbox);
    let mut fresh = connected(&sandbox, false);
    assert_eq!(fresh.ask("read")["x"], 1);
    assert_eq!(Client::start(&sandbox, true).answer(), json!({"error": "ClientDisconnected"}));
    // Anything at all is written: now the server is ahead of the cache.
    assert_eq!(fresh.ask("write y 3"), json!({"x": 1, "y": 3}));
    let read = connected(&sandbox, true).ask("read");
    assert_eq!(read, json!({"x": 2, "y": 3}), "if ZEO has found a way to notice, so much the better");
}

/// P6: with what znap does about it, a client on this host sees what is there.
#[test]
fn p6_after_a_restore_no_client_sees_what_was_taken_back() {
    let sandbox = story();
    let cache = sandbox.file("test-1.zec");
    let output = sandbox.znap(&["restore", "a", "-q"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output.stderr.contains("stop every one and delete its persistent cache (*.zec) on every host"),
        "{output:?}"
    );
    assert!(!cache.exists() && is_cache(&sandbox.file("test-1.zec.before-restore")));
    let server = Server::start(&sandbox);
    for persistent in [true, false] {
        assert_eq!(connected(&sandbox, persistent).ask("read")["x"], 1);
    }
    // And back: the caches that are there now have seen less.
    drop(server);
    let output = sandbox.znap(&["undo", "--json"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["plan"]["databases"][0]["goes_back"], false, "{report}");
    assert_eq!(report["zeo_caches"], json!([]));
    let _server = Server::start(&sandbox);
    for persistent in [true, false] {
        assert_eq!(connected(&sandbox, persistent).ask("read")["x"], 2);
    }
}

/// A client that isn't restarted has a cache without a name, which is as stale. As long as the server is behind it, it reads from that,
/// and can't write; then it is believed. Nothing but its end helps, which is what znap says.
#[test]
fn a_client_that_goes_on_running_serves_what_was_taken_back_and_is_believed_in_the_end() {
    let sandbox = Sandbox::with_database(11, 5, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let server = Server::start(&sandbox);
    let mut client = connected(&sandbox, false);
    assert_eq!(client.ask("write x 1")["x"], 1);
    sandbox.znap_ok(&["save", "a"]);
    assert_eq!(client.ask("write x 2")["x"], 2);
    drop(server);
    let output = sandbox.znap(&["restore", "a"]);
    assert!(output.stderr.contains("if ZEO clients use this database, stop every one"), "{output:?}");
    let _server = Server::start(&sandbox);
    let mut fresh = connected(&sandbox, false);
    assert_eq!(fresh.ask("read"), json!({"x": 1}));
    // What it has in its cache needs no server; writing does.
    client.ask("forget");
    assert_eq!(client.ask("read"), json!({"x": 2}));
    assert_eq!(client.ask("write x 3"), json!({"error": "ClientDisconnected"}));
    assert_eq!(fresh.ask("read"), json!({"x": 1}), "P5: it was refused");
    // Anything at all is written: now the server is ahead of it. It tries to connect every ten seconds or so.
    assert_eq!(fresh.ask("write y 4"), json!({"x": 1, "y": 4}));
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut answer = client.ask("write y 5");
    while answer["error"].is_string() {
        assert!(Instant::now() < deadline, "{answer}");
        answer = client.ask("write y 5");
    }
    assert_eq!(answer, json!({"x": 2, "y": 5}), "if ZEO has found a way to notice, so much the better");
}

fn is_cache(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"ZEC3"))
}
