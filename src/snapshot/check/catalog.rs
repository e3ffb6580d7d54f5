//! The catalog: is it whole, and what does it say?

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::repository::catalog::{Catalog, Database, KnownFrame, KnownSnapshot, ObjectFile, Stream};
use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::{DAMAGED, Generation};
use crate::snapshot::gc::lists;
use crate::snapshot::id;

use super::{Check, Finding, Subject};

/// All that the catalog said at one moment.
pub(super) struct Known {
    /// The repository's identity, and the object file of its config.
    pub(super) repository: (Uid, Hash),
    /// The highest sequence number ever given.
    pub(super) sequence: u64,
    /// The object files, by name.
    pub(super) files: Vec<ObjectFile>,
    /// The frames of each data file, by its row.
    pub(super) frames: HashMap<i64, Vec<KnownFrame>>,
    /// All snapshots, deleted ones too, by sequence.
    pub(super) snapshots: Vec<KnownSnapshot>,
    /// The ids of those that aren't found by their id.
    not_found: Vec<String>,
    /// All streams, by sequence of their snapshots.
    pub(super) streams: Vec<Stream>,
    pub(super) databases: Vec<Database>,
    /// By row.
    pub(super) generations: HashMap<i64, Generation>,
}

/// Asks SQLite, and whether the tables are those that they should be and refer to each other as they should.
pub(super) fn whole(check: &mut Check<'_>, thorough: bool) -> Result<()> {
    let catalog = check.reading;
    let monitor = check.monitor;
    let number = |number: u64, what: &str| match number {
        0 => Vec::new(),
        number => vec![format!("{number} {what}")],
    };
    let integrity = || catalog.interruptible(monitor, |catalog| catalog.integrity(thorough));
    let schema =
        || Ok(number(catalog.schema_differences()?, "of its tables, indexes and views aren't as they should be"));
    let broken = || catalog.interruptible(monitor, Catalog::broken_references);
    let references = || Ok(number(broken()?, "of its rows refer to others that aren't there"));
    let questions: [&dyn Fn() -> Result<Vec<String>>; 3] = [&integrity, &schema, &references];
    for ask in questions {
        check.monitor.check()?;
        match ask() {
            Ok(lines) if lines.is_empty() => {}
            Ok(lines) => {
                let path = check.layout().catalog();
                let more = lines.len().saturating_sub(3);
                let lines: Vec<String> = lines.iter().take(3).map(|line| one_line(line)).collect();
                let mut what = format!("the catalog {} is damaged: {}", path.display(), lines.join("; "));
                if more > 0 {
                    what.push_str(&format!("; and {more} more"));
                }
                check.add(Finding { what, ..about_catalog(Vec::new()) });
            }
            Err(error) => check.note(error, about_catalog(Vec::new()))?,
        }
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A finding about what the catalog says of these snapshots.
pub(super) fn about_catalog(snapshots: Vec<String>) -> Finding {
    Finding {
        snapshots,
        prevents_restore: true,
        hint: Some("put catalog.db back from a copy; or rebuild it with znap repair".into()),
        ..Finding::about(Subject::Catalog)
    }
}

/// Reads all that is compared later, and checks every list against its hash. `None` if it can't be read.
pub(super) fn read(check: &mut Check<'_>) -> Result<Option<Known>> {
    let monitor = check.monitor;
    let mut wrong: Vec<(i64, Error)> = Vec::new();
    let read = |catalog: &Catalog| -> Result<Known> {
        lists::each(catalog, monitor, |stream, _, checked| {
            wrong.extend(checked.err().map(|error| (stream.row, error)));
            Ok(())
        })?;
        let streams = catalog.streams_with_deleted()?;
        let mut generations = HashMap::new();
        for row in streams.iter().map(|stream| stream.generation).collect::<HashSet<_>>() {
            generations.insert(row, catalog.generation(row)?.known);
        }
        let mut files = catalog.object_files()?;
        files.sort_by_key(|file| file.name);
        let snapshots = catalog.all_snapshots()?;
        Ok(Known {
            repository: catalog.repository()?,
            sequence: catalog.last_sequence()?,
            files,
            frames: catalog.frames()?,
            not_found: not_found(catalog, &snapshots)?,
            snapshots,
            streams,
            databases: catalog.databases()?,
            generations,
        })
    };
    let known = check.reading.interruptible(monitor, |catalog| catalog.snapshot_of(read));
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            check.note(error, about_catalog(Vec::new()))?;
            return Ok(None);
        }
    };
    for (row, error) in wrong {
        let snapshots = known.that_build_on(row);
        check.note(error, about_catalog(snapshots))?;
    }
    known.order(check);
    known.set_aside(check);
    Ok(Some(known))
}

/// The ids under which the catalog doesn't find their snapshots, as a restore looks for them.
fn not_found(catalog: &Catalog, snapshots: &[KnownSnapshot]) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for known in snapshots.iter().filter(|known| !known.deleted) {
        let id = &known.snapshot.name;
        if catalog.snapshot(id)?.is_none_or(|found| found.uid != known.snapshot.uid) {
            ids.push(id.clone());
        }
    }
    Ok(ids)
}

impl Known {
    /// The ids of the snapshots that weren't deleted, oldest first, but for stored bases.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        let all = self.snapshots.iter().filter(|known| !known.deleted).map(|known| known.snapshot.name.as_str());
        all.filter(|id| !id.starts_with(id::BASE))
    }

    /// The ids of the snapshots whose lists begin with this stream's, itself included.
    fn that_build_on(&self, row: i64) -> Vec<String> {
        let deleted: HashSet<i64> =
            self.snapshots.iter().filter(|known| known.deleted).map(|known| known.snapshot.row).collect();
        let mut rows = HashSet::from([row]);
        let mut ids = Vec::new();
        // Parents come before those that build on them.
        for stream in &self.streams {
            if stream.parent.is_some_and(|parent| rows.contains(&parent)) {
                rows.insert(stream.row);
            }
            if rows.contains(&stream.row) && !deleted.contains(&stream.snapshot) {
                ids.push(stream.snapshot_name.clone());
            }
        }
        ids.dedup();
        ids
    }

    /// Those that repair has set aside are damaged still.
    fn set_aside(&self, check: &mut Check<'_>) {
        for known in self.snapshots.iter().filter(|known| !known.deleted && known.snapshot.kind == DAMAGED) {
            let id = &known.snapshot.name;
            check.add(Finding {
                what: format!("snapshot {id} is set aside: nobody has all of it"),
                snapshots: vec![id.clone()],
                prevents_restore: true,
                hint: Some(format!(
                    "znap restore --dry-run {id} says what is missing; znap repair --from PATH looks for it in a copy"
                )),
                ..Finding::about(Subject::Snapshot)
            });
        }
    }

    /// Everything else relies on it that parents come first, and sequence numbers only grow.
    fn order(&self, check: &mut Check<'_>) {
        let mut seen = HashSet::new();
        for stream in &self.streams {
            if stream.parent.is_some_and(|parent| !seen.contains(&parent) || parent >= stream.row) {
                let what = format!(
                    "the catalog says that the chunk list of snapshot {} goes on from one that isn't before it",
                    stream.snapshot_name
                );
                check.add(Finding { what, ..about_catalog(vec![stream.snapshot_name.clone()]) });
            }
            seen.insert(stream.row);
        }
        if self.snapshots.iter().any(|known| known.snapshot.sequence > self.sequence) {
            let what = "the catalog has forgotten how many snapshots there ever were".into();
            check.add(Finding { what, prevents_restore: false, ..about_catalog(Vec::new()) });
        }
        for id in &self.not_found {
            let what = format!("the catalog doesn't find snapshot {id} under its id");
            check.add(Finding { what, ..about_catalog(vec![id.clone()]) });
        }
    }
}
