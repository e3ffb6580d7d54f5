//! Real ZODB: one command, a process that answers many, or one that has a storage open.

use super::python::{python, script};
use super::sandbox::spawn;
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Runs a subcommand of `tests/python/zodb_tool.py` and returns what it printed.
///
/// # Panics
/// With what it wrote to stderr, when it fails.
pub fn zodb(args: &[&str]) -> Value {
    try_zodb(args).unwrap_or_else(|error| panic!("zodb {args:?}: {error}"))
}

/// As [`zodb`], but a failure is an `Err` with what it wrote to stderr.
pub fn try_zodb(args: &[&str]) -> Result<Value, String> {
    let child = spawn(tool().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().expect("python ends");
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).expect("the tool prints JSON"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Where the transactions of this file end, and their ids, as ZODB reads it.
pub fn boundaries(path: &Path) -> Vec<(u64, u64)> {
    let found = zodb(&["boundaries", path.to_str().expect("a UTF-8 path")]);
    let pairs: Vec<(u64, String)> = serde_json::from_value(found).expect("pairs");
    pairs.into_iter().map(|(end, tid)| (end, u64::from_str_radix(&tid, 16).expect("hex"))).collect()
}

fn tool() -> Command {
    let mut command = Command::new(python());
    command.arg("-B").arg(script("zodb_tool.py")).env("TZ", "UTC").env_remove("PYTHONPATH");
    command
}

/// A Python process that answers many subcommands: starting one for each would take most of a test's time.
pub struct Zodb {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Zodb {
    pub fn start() -> Self {
        let mut child = spawn(tool().arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Zodb { child, stdin, stdout }
    }

    /// As [`zodb`].
    pub fn run(&mut self, args: &[&str]) -> Value {
        self.try_run(args).unwrap_or_else(|error| panic!("zodb {args:?}: {error}"))
    }

    /// As [`try_zodb`].
    pub fn try_run(&mut self, args: &[&str]) -> Result<Value, String> {
        let stdin = self.stdin.as_mut().expect("it runs");
        writeln!(stdin, "{}", Value::from(args.to_vec())).expect("it listens");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it answers");
        let mut answer: Value = serde_json::from_str(&line).expect("it answers with JSON");
        match answer.get("error") {
            Some(error) => Err(error.as_str().expect("text").to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }
}

impl Drop for Zodb {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// A process that has a storage open: a live writer, or one that just holds it.
pub struct ZodbProcess {
    child: Option<Child>,
    stdout: BufReader<ChildStdout>,
}

impl ZodbProcess {
    /// Commits (`--mode commit`), votes and aborts (`--mode abort`), or both (`--mode mixed`), without pause.
    pub fn writer(path: &Path, args: &[&str]) -> Self {
        Self::spawn("writer", path, args)
    }

    /// Has the storage open and does nothing.
    pub fn hold(path: &Path, read_only: bool) -> Self {
        Self::spawn("hold", path, if read_only { &["--read-only"] } else { &[] })
    }

    /// Any other subcommand that says `ready`, and ends when it is told to stop.
    pub fn start(command: &str, path: &Path, args: &[&str]) -> Self {
        Self::spawn(command, path, args)
    }

    /// Returns once the storage is open.
    fn spawn(command: &str, path: &Path, args: &[&str]) -> Self {
        let args: Vec<OsString> =
            [command.into(), path.into()].into_iter().chain(args.iter().map(OsString::from)).collect();
        let mut child = spawn(tool().args(&args).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it writes");
        if line != "ready\n" {
            let status = child.wait().expect("it ends");
            panic!("zodb {args:?} did not open the storage: {status}");
        }
        ZodbProcess { child: Some(child), stdout }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Has a writer pack, while it goes on committing (`--packed`).
    pub fn pack(&mut self) {
        let stdin = self.child.as_mut().and_then(|child| child.stdin.as_mut()).expect("it runs");
        stdin.write_all(b"pack\n").expect("it listens");
    }

    /// Whether it still runs (a writer with `--transactions` or `--seconds` ends by itself).
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().expect("it was started").try_wait().expect("it is ours").is_none()
    }

    /// Lets it finish what it does and close the storage; returns what it reports.
    pub fn stop(mut self) -> Value {
        let mut child = self.child.take().expect("it runs");
        if let Some(mut stdin) = child.stdin.take() {
            // It may have ended by itself.
            let _ = stdin.write_all(b"stop\n");
        }
        let mut report = String::new();
        self.stdout.read_to_string(&mut report).expect("it writes");
        let status = child.wait().expect("it ends");
        assert!(status.success(), "the ZODB process failed: {status}");
        serde_json::from_str(&report).expect("the tool prints JSON")
    }

    /// Ends it as a power failure would: nothing is closed, no index written.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for ZodbProcess {
    fn drop(&mut self) {
        self.end();
    }
}
