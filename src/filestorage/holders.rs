//! Who has a file open, as far as the system tells. On Linux `/proc` does; elsewhere nobody is found.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::source::FileIdentity;

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opener {
    /// Its number.
    pub pid: u32,
    /// Its command line, shortened, if it can be read.
    pub program: Option<String>,
    /// The user it runs as: the name, or the number if that has none.
    pub user: Option<String>,
    /// Whether it can write to the file.
    pub writable: bool,
}

impl std::fmt::Display for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.pid)?;
        match (&self.program, &self.user) {
            (Some(program), Some(user)) => write!(f, " ({program}, user {user})"),
            (Some(program), None) => write!(f, " ({program})"),
            (None, Some(user)) => write!(f, " (user {user})"),
            (None, None) => Ok(()),
        }
    }
}

/// The other processes that have this file open, by number. Those that this user may not look into are not
/// found, and where there is no `/proc` none are.
pub fn openers(identity: FileIdentity) -> Vec<Opener> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    let mut openers: Vec<Opener> = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let writable = opened_by(pid, identity)?;
            Some(Opener { writable, ..process(pid) })
        })
        .collect();
    openers.sort_by_key(|opener| opener.pid);
    openers
}

/// Whether a process has the file open: `Some(whether it can write)` if so.
fn opened_by(pid: u32, identity: FileIdentity) -> Option<bool> {
    let mut found = None;
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let path = descriptor.path();
        if !fs::metadata(&path).is_ok_and(|metadata| FileIdentity::of(&metadata) == identity) {
            continue;
        }
        // The link's own permissions are those that the file was opened with.
        let writable = fs::symlink_metadata(&path).is_ok_and(|link| link.mode() & 0o200 != 0);
        found = Some(found.unwrap_or(false) || writable);
    }
    found
}

/// What can be said about a process; just the number if nothing.
pub(super) fn process(pid: u32) -> Opener {
    let directory = format!("/proc/{pid}");
    let user = fs::metadata(&directory).ok().map(|metadata| metadata.uid());
    Opener {
        pid,
        program: program(Path::new(&directory)),
        user: user.map(|uid| user_name(uid).unwrap_or_else(|| uid.to_string())),
        writable: false,
    }
}

/// The name of a user, if there is one with this number.
pub(super) fn user_name(uid: u32) -> Option<String> {
    Some(uzers::get_user_by_uid(uid)?.name().to_string_lossy().into_owned())
}

/// A command line short enough for a message, without the directories of the program.
fn program(process: &Path) -> Option<String> {
    const LONGEST: usize = 60;
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let Some(first) = words.next() else {
        let name = fs::read_to_string(process.join("comm")).ok()?;
        return Some(name.trim_end().to_owned()).filter(|name| !name.is_empty());
    };
    let first = Path::new(std::ffi::OsStr::from_bytes(first));
    let mut text = first.file_name().unwrap_or(first.as_os_str()).to_string_lossy().into_owned();
    for word in words {
        text.push(' ');
        text.push_str(&String::from_utf8_lossy(word));
        if text.len() > LONGEST {
            break;
        }
    }
    // Whatever a process calls itself goes to somebody's terminal.
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST - 1).chain(['…']).collect();
    }
    Some(text)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn another_process_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("held");
        fs::write(&path, "").unwrap();
        let identity = FileIdentity::of(&fs::metadata(&path).unwrap());
        let _mine = fs::File::open(&path).unwrap();
        assert!(openers(identity).iter().all(|opener| opener.pid != std::process::id()));
        for writable in [false, true] {
            let file = fs::OpenOptions::new().read(true).append(writable).open(&path).unwrap();
            let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(file)).spawn().unwrap();
            let found = openers(identity);
            child.kill().unwrap();
            child.wait().unwrap();
            let opener = found.iter().find(|opener| opener.pid == child.id()).unwrap();
            assert_eq!(opener.writable, writable);
            assert!(opener.program.is_some() && opener.user.is_some());
        }
    }
}
