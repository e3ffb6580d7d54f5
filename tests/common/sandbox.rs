//! A directory of its own for each test, and znap run in it.

use super::zodb::zodb;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};
use tempfile::TempDir;

/// A directory that is removed at the end of the test.
pub struct Sandbox {
    directory: TempDir,
}

/// What a run of znap gave.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128 + its number when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("znap-test-").tempdir().expect("a temporary directory");
        Sandbox { directory }
    }

    /// A sandbox whose `Data.fs` real ZODB has made, the same for the same arguments.
    pub fn with_database(seed: u64, transactions: u32, profile: &str) -> Self {
        let sandbox = Self::new();
        sandbox.make(seed, transactions, profile);
        sandbox
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the sandbox.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    pub fn data_fs(&self) -> PathBuf {
        self.file("Data.fs")
    }

    pub fn index(&self) -> PathBuf {
        self.file("Data.fs.index")
    }

    /// Makes `Data.fs` with real ZODB.
    pub fn make(&self, seed: u64, transactions: u32, profile: &str) -> Value {
        self.change("make", seed, transactions, profile)
    }

    /// Appends so many transactions to `Data.fs` with real ZODB.
    pub fn grow(&self, seed: u64, transactions: u32, profile: &str) -> Value {
        self.change("grow", seed, transactions, profile)
    }

    fn change(&self, command: &str, seed: u64, transactions: u32, profile: &str) -> Value {
        let (seed, transactions) = (seed.to_string(), transactions.to_string());
        self.zodb(command, &["--seed", &seed, "--transactions", &transactions, "--profile", profile])
    }

    /// Runs a subcommand of the ZODB tool on `Data.fs`.
    pub fn zodb(&self, command: &str, args: &[&str]) -> Value {
        let path = self.data_fs();
        let path = path.to_str().expect("a UTF-8 path");
        zodb(&[&[command, path], args].concat())
    }

    /// Real ZODB opens `Data.fs` with its index, without a warning, loads everything, and changes nothing.
    pub fn check(&self) -> Value {
        self.zodb("check", &["--expect-index"])
    }

    /// znap, in the sandbox and with an environment that is the same everywhere.
    pub fn znap_command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_znap"))
    }

    /// Another program, in the same place and environment.
    pub fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env_clear().env("TZ", "UTC").env("NO_COLOR", "1").env("HOME", self.path());
        for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// znap, heeding signals. Whoever runs the tests may have made them ignore some (a shell does with SIGINT for what it
    /// starts in the background), and znap would go on ignoring them.
    pub fn znap_heeding(&self, args: &[&str]) -> Command {
        let heed = "import os, signal, sys\n\
                    for number in (1, 2, 15): signal.signal(number, signal.SIG_DFL)\n\
                    os.execv(sys.argv[1], sys.argv[1:])";
        let mut command = self.command_of("python3");
        command.args(["-ISc", heed, env!("CARGO_BIN_EXE_znap")]).args(args);
        command
    }

    /// The same files in another sandbox.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        copy_all(self.path(), copy.path());
        copy
    }

    /// Runs znap.
    pub fn znap(&self, args: &[&str]) -> Output {
        output(self.znap_command().args(args))
    }

    /// Runs znap, which must succeed; returns its stdout.
    pub fn znap_ok(&self, args: &[&str]) -> String {
        let output = self.znap(args);
        assert_eq!(output.code, 0, "znap {args:?}: {output:#?}");
        output.stdout
    }
}

/// A folder for what only looks like a disk: in memory, where there is room, since the power is never cut there. Removed at the end.
pub fn simulated_disk() -> TempDir {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |found| found.f_bavail * found.f_frsize);
    let in_memory = (room > 1 << 30).then(|| tempfile::tempdir_in(memory).ok()).flatten();
    in_memory.unwrap_or_else(|| tempfile::tempdir().expect("a temporary directory"))
}

/// Between a fork and its exec, a child has every file open that this process has, those of other tests' threads
/// too, and with them their locks. Held shared while a process is started.
static STARTING: RwLock<()> = RwLock::new(());

/// Starts a program.
pub fn spawn(command: &mut Command) -> Child {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn().expect("the program starts")
}

/// Runs a program, and collects what it prints.
pub fn output(command: &mut Command) -> Output {
    let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().expect("the program ends");
    Output {
        code: code_of(output.status),
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
    }
}

/// Does something with files that znap must not find open afterwards: no child is just being started meanwhile.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _starting = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    work()
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            fs::create_dir(&target).expect("a new directory");
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

/// The exit code; 128 + its number when a signal ended it.
pub fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().expect("a code or a signal"))
}

/// The two files have the same bytes.
pub fn assert_same_file(left: impl AsRef<Path>, right: impl AsRef<Path>) {
    let (left, right) = (left.as_ref(), right.as_ref());
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_same_bytes(&read(left), &read(right), &format!("{} and {}", left.display(), right.display()));
}

/// As `assert_eq!`, but says where they part instead of printing megabytes.
pub fn assert_same_bytes(left: &[u8], right: &[u8], what: &str) {
    if left != right {
        let at = left.iter().zip(right).take_while(|(left, right)| left == right).count();
        panic!("{what} differ from byte {at} on ({} and {} bytes long)", left.len(), right.len());
    }
}
