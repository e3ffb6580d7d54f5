//! Tracked databases as files: opening them, their paths, their index.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::filestorage::{
    Changes, Cut, DataFile, FIRST_TRANSACTION, IndexFile, Position, Tid, Warnings, merge, scan, transaction_ending_at,
    usable_index,
};
use crate::monitor::Monitor;
use crate::repository::manifest::DatabaseEntry;
use crate::repository::record::path_from;

/// How long a file may be missing: between its two renames, a pack leaves none for a moment.
const MISSING: Duration = Duration::from_millis(500);

/// Opens a database's file; waits a moment if it isn't there.
pub fn open_patiently(path: &Path, monitor: &dyn Monitor) -> Result<DataFile> {
    patiently(|| DataFile::open(path), monitor)
}

/// Opens a file in this way, which is tried for a moment if it isn't there.
pub fn patiently(open: impl Fn() -> Result<DataFile>, monitor: &dyn Monitor) -> Result<DataFile> {
    let deadline = Instant::now() + MISSING;
    loop {
        match open() {
            Err(error) if error.kind() == Kind::NotFound && Instant::now() < deadline => {
                monitor.check()?;
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// A path as it can be given to a shell.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The whole index of a file up to a cut: one on disk and what changed since, or all from a scan.
///
/// Memory: 8 bytes an object in the index on disk and 16 a changed one, or 16 an object after a scan.
pub struct WholeIndex {
    on_disk: Option<IndexFile>,
    newer: Vec<(u64, u64)>,
}

impl WholeIndex {
    /// From the changes behind `from` if that is the file's beginning; else from the index at this path, brought
    /// up to date; without a usable one the file is scanned.
    pub fn of(
        file: &DataFile,
        index: Option<&Path>,
        from: u64,
        cut: &Cut,
        changes: Vec<(u64, u64)>,
        monitor: &dyn Monitor,
    ) -> Result<WholeIndex> {
        if from <= FIRST_TRANSACTION {
            return Ok(WholeIndex { on_disk: None, newer: changes });
        }
        drop(changes);
        let usable = index.map(|path| usable_index(file, path)).transpose()?.and_then(|usable| usable.ok());
        let on_disk = usable.filter(|index| index.position() <= cut.offset);
        let position = match &on_disk {
            Some(index) => {
                let tid = transaction_ending_at(file, index.position())?.map_or(Tid(0), |header| header.tid);
                Position { offset: index.position(), tid }
            }
            None => Position::START,
        };
        Ok(WholeIndex { on_disk, newer: scan_pairs(file, position, cut.offset, monitor)? })
    }

    /// Its pairs, in ascending order of oid.
    pub fn pairs(&self) -> impl Iterator<Item = Result<(u64, u64)>> + '_ {
        type Layer<'a> = Box<dyn Iterator<Item = Result<(u64, u64)>> + 'a>;
        let older = self.on_disk.iter().flat_map(IndexFile::iter).map(Ok);
        let newer = self.newer.iter().copied().map(Ok);
        let layers: Vec<Layer<'_>> = vec![Box::new(older), Box::new(newer)];
        merge(layers)
    }
}

/// The (oid, offset) pairs of everything between two boundaries.
pub fn scan_pairs(file: &DataFile, from: Position, to: u64, monitor: &dyn Monitor) -> Result<Vec<(u64, u64)>> {
    let mut changes = Changes::new(from.offset);
    monitor.begin("reading the database for its index", to.saturating_sub(from.offset));
    scan(file, from, to, &mut changes, monitor)?;
    monitor.end();
    Ok(changes.into_pairs())
}

/// Serialises a path as text, with what isn't UTF-8 in it replaced.
pub fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// The same for several.
pub fn as_texts<S: serde::Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.display().to_string()))
}

/// The same for a path that may not be there.
pub fn maybe_as_text<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.collect_str(&path.display()),
        None => serializer.serialize_none(),
    }
}

/// Refuses a transaction id that the catalog can't hold: one of the year 5909 or later, which no clock gave.
pub fn check_tid(path: &Path, tid: Tid) -> Result<()> {
    if i64::try_from(tid.0).is_ok() {
        return Ok(());
    }
    Err(Error::failed(format!("{} ends with a transaction of an impossible time ({tid})", path.display()))
        .hint("look at it with ZODB's fstest; a damaged clock or file made it"))
}

/// The path of a database as a manifest has it.
pub fn path_of_entry(entry: &DatabaseEntry) -> PathBuf {
    path_from(&entry.path, entry.path_hex.as_deref())
}

/// Warnings as lines; the last says how many more there were.
pub fn warning_lines(warnings: &Warnings) -> Vec<String> {
    let mut lines: Vec<String> = warnings.iter().take(10).map(ToString::to_string).collect();
    let more = warnings.total().saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more such oddities"));
    }
    lines
}

/// How a path that was typed in `current` is stored for a repository in `home`: relative to it,
/// as typed; absolute only if it was typed so, or if no relative path leads to the same file.
pub fn stored_path(typed: &Path, current: &Path, home: &Path) -> PathBuf {
    if typed.is_absolute() {
        return typed.to_path_buf();
    }
    if home == current {
        return typed.to_path_buf();
    }
    let absolute = current.join(typed);
    match relative(&absolute, home) {
        Some(path) if same_file(&home.join(&path), &absolute) => path,
        _ => absolute,
    }
}

/// `path` seen from `from`, by names alone; both absolute.
fn relative(path: &Path, from: &Path) -> Option<PathBuf> {
    let (path, from) = (plain(path)?, plain(from)?);
    let shared = path.iter().zip(&from).take_while(|(a, b)| a == b).count();
    let up = from.iter().skip(shared).map(|_| OsStr::new(".."));
    Some(up.chain(path.iter().skip(shared).map(|name| name.as_os_str())).collect())
}

/// The names of an absolute path, with `.` and `..` worked in.
fn plain(path: &Path) -> Option<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                names.pop()?;
            }
            Component::Normal(name) => names.push(name.to_owned()),
            Component::Prefix(_) => return None,
        }
    }
    Some(names)
}

fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

/// Unique names for databases: the ones wanted, else made from their paths: the file's name without `.fs`; lower-cased ASCII letters, digits,
/// `.`, `_` and `-`; with its folders in front, or a number behind, where several are alike, or like those that are taken.
pub fn names(wanted: &[(Option<&str>, &Path)], taken: &[String]) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for (name, path) in wanted {
        let mut parts: Vec<String> = path
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(clean(&name.to_string_lossy())),
                _ => None,
            })
            .collect();
        let Some(last) = parts.pop() else {
            return Err(
                Error::usage(format!("{} is no path of a database", path.display())).hint("give the path of a Data.fs")
            );
        };
        let stem = match name {
            Some(name) => clean(name),
            None => last.strip_suffix(".fs").filter(|stem| !stem.is_empty()).unwrap_or(&last).to_string(),
        };
        let mut candidates = vec![stem.clone()];
        let mut longer = stem.clone();
        while let Some(folder) = parts.pop() {
            longer = format!("{folder}-{longer}");
            candidates.push(longer.clone());
        }
        candidates.extend((2..=names.len() + taken.len() + 2).map(|number| format!("{stem}-{number}")));
        let free = candidates.into_iter().find(|name| !names.contains(name) && !taken.contains(name));
        names.extend(free);
    }
    Ok(names)
}

fn clean(name: &str) -> String {
    let cleaned: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '_' })
        .take(60)
        .collect();
    // Never `.` or `..`, nor hidden: the name becomes a directory of restore --to.
    match cleaned.trim_start_matches(['.', '-']) {
        "" => "database".into(),
        rest => rest.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_plain() {
        let paths =
            ["var/filestorage/Data.fs", "b/Data.fs", "/abs/ünï code.fs", "../..fs", "x/Data.fs", "x/../x/Data.fs"];
        let wanted: Vec<(Option<&str>, &Path)> = paths.iter().map(|path| (None, Path::new(path))).collect();
        let names = names(&wanted, &[]).expect("names");
        assert_eq!(names[0], "data");
        assert_eq!(names[1], "b-data");
        assert_eq!(names[2], "_n__code");
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), paths.len());
        assert!(
            names.iter().all(|name| !name.starts_with('.') && !name.contains('/') && !name.is_empty()),
            "{names:?}"
        );
        let wanted =
            [(Some("Main"), Path::new("a/x.fs")), (Some("main"), Path::new("b/y.fs")), (None, Path::new("z.fs"))];
        assert_eq!(super::names(&wanted, &["z".into()]).expect("names"), ["main", "b-main", "z-2"]);
    }

    #[test]
    fn relative_paths_are_by_name() {
        let seen = |path: &str, from: &str| relative(Path::new(path), Path::new(from));
        assert_eq!(seen("/a/b/c", "/a/x"), Some(PathBuf::from("../b/c")));
        assert_eq!(seen("/a/x/c", "/a/x"), Some(PathBuf::from("c")));
        assert_eq!(seen("/a/x/../c", "/a"), Some(PathBuf::from("c")));
    }
}
