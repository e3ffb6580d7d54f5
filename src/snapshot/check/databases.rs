//! The databases' own files: is each the one that the snapshots are of, can ZODB read all of it, and has it the bytes
//! that snapshots have?
//!
//! That it differs from a snapshot is damage only if it goes on from it. One that ends elsewhere, or differs from where
//! another transaction begins, went another way: it was restored to an earlier snapshot, and has grown since.

use std::collections::HashMap;

use crate::error::{Error, Kind, Result};
use crate::filestorage::{
    Changes, DataFile, FIRST_TRANSACTION, Header, Position, Record, Sink, Source, find_cut, scan,
};
use crate::repository::catalog::{Database, Stream};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::hash::Hash;
use crate::repository::manifest::ChunkName;
use crate::snapshot::anchor::{ends_a_transaction, recognise, refusal};
use crate::snapshot::database;

use super::catalog::about_catalog;
use super::report::DatabaseCheck;
use super::{Check, Finding, Subject, damage};

/// How many different places at which snapshots differ from a file are looked at.
const DIFFERENCES: usize = 100;

/// Looks at every database.
pub(super) fn check(check: &mut Check<'_>) -> Result<()> {
    let databases = match check.catalog().databases() {
        Ok(databases) => databases,
        Err(error) => return check.note(error, about_catalog(Vec::new())),
    };
    let mut reports = Vec::new();
    for database in &databases {
        let report = one(check, database)?;
        reports.push(report);
    }
    check.report.databases = Some(reports);
    Ok(())
}

/// The snapshots of a database as it is now.
struct Lists {
    /// The streams, by sequence, each with the chunks that it has of its own, and whether its snapshot was deleted.
    streams: Vec<(Stream, Vec<(u64, ChunkName)>, bool)>,
}

impl Lists {
    fn read(check: &Check<'_>, database: &Database) -> Result<Self> {
        check.catalog().snapshot_of(|catalog| {
            let mut streams = Vec::new();
            for stream in catalog.streams_with_deleted()? {
                if stream.database == database.row && stream.generation == database.generation.row {
                    let own = catalog.own_chunks(stream.row)?;
                    let deleted = catalog.is_deleted(stream.snapshot)?;
                    streams.push((stream, own, deleted));
                }
            }
            Ok(Lists { streams })
        })
    }

    fn live(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|(_, _, deleted)| !deleted).map(|(stream, _, _)| stream)
    }

    fn ids(&self) -> Vec<String> {
        self.live().map(|stream| stream.snapshot_name.clone()).collect()
    }
}

fn one(check: &mut Check<'_>, database: &Database) -> Result<DatabaseCheck> {
    let path = check.repository.path_of(database);
    let mut report = DatabaseCheck {
        name: database.name.clone(),
        path: path.clone(),
        size: None,
        problem: None,
        damage: None,
        damaged_at: None,
        transactions: 0,
        records: 0,
        left_out: None,
        warnings: Vec::new(),
        same_bytes: 0,
        differs_at: None,
        differs_from: None,
        last_good: None,
    };
    let lists = match Lists::read(check, database) {
        Ok(lists) => lists,
        Err(error) => {
            check.note(error, about_catalog(Vec::new()))?;
            Lists { streams: Vec::new() }
        }
    };
    let base_length = database.generation.known.base_length;
    // The snapshots that need the beginning of the file.
    let dependent = if base_length > FIRST_TRANSACTION { lists.ids() } else { Vec::new() };
    let finding = |what: String, snapshots: Vec<String>| Finding {
        what,
        prevents_restore: !snapshots.is_empty(),
        snapshots,
        ..Finding::about(Subject::Database)
    };
    let file = match database::open_patiently(&path, check.monitor) {
        Ok(file) => file,
        Err(error) => {
            let missing = error.kind() == Kind::NotFound;
            let what = if missing { error.to_string() } else { damage(error)? };
            report.problem = Some(what.clone());
            // Until an unfinished restore is finished, it can't be opened; that is said elsewhere.
            if check.report.unfinished_restore.is_none() {
                check.add(finding(format!("{}: {what}", database.name), dependent));
            }
            return Ok(report);
        }
    };
    let size = file.size()?;
    report.size = Some(size);
    let problem = recognise(&file, &database.generation.known)
        .map(|recognition| refusal(&path, &recognition, &database.generation.known))
        .or_else(|error| damage(error).map(|what| Some(Error::failed(what))))?;
    let mut forks = Vec::new();
    if let Some(problem) = &problem {
        report.problem = Some(problem.to_string());
        if !dependent.is_empty() {
            let what = format!("{}: {problem}; snapshots need its first {base_length} bytes", database.name);
            let hint = problem.hint_text().map(str::to_string);
            check.add(Finding { hint, ..finding(what, dependent.clone()) });
        }
    } else {
        forks = compare(check, &lists, &file, size, base_length, &mut report)?;
    }
    let end = structure(check, &file, size, &mut forks, &mut report)?;
    if problem.is_none() {
        judge(check, &file, end, forks, &mut report);
    }
    if let Some(what) = &report.damage {
        let in_base = report.damaged_at.is_some_and(|at| at < base_length);
        let hint = hint(&report);
        let snapshots = if in_base && problem.is_none() { dependent } else { Vec::new() };
        check.add(Finding { hint, ..finding(format!("{}: {what}", database.name), snapshots) });
    }
    check.database_bytes_read += file.bytes_read();
    Ok(report)
}

fn hint(report: &DatabaseCheck) -> Option<String> {
    let id = report.last_good.as_ref()?;
    Some(format!("znap restore --to DIR {id} writes the last snapshot that it has all bytes of elsewhere"))
}

/// A snapshot from which a file differs, and may have gone another way.
struct Fork {
    stream: Stream,
    /// The first offset that differs.
    at: u64,
    /// Whether the snapshot's last transaction is where it was, so that the file should be as the snapshot.
    goes_on: bool,
    /// Whether another transaction begins just there.
    another_transaction: bool,
}

/// Compares the file with every list, chunk by chunk: what lists share is read once. Says up to where it is the same, and
/// returns the snapshots from which it differs.
fn compare(
    check: &Check<'_>,
    lists: &Lists,
    file: &DataFile,
    size: u64,
    base_length: u64,
    report: &mut DatabaseCheck,
) -> Result<Vec<Fork>> {
    check.monitor.begin("comparing with the snapshots", size.saturating_sub(base_length));
    // Up to where the file is as each list says.
    let mut same: HashMap<i64, u64> = HashMap::new();
    let mut furthest = base_length;
    let mut bytes = Vec::new();
    for (stream, own, _) in &lists.streams {
        let mut reached = base_length;
        if let Some(parent) = stream.parent {
            reached = same.get(&parent).copied().unwrap_or(base_length).min(stream.kept_length);
        }
        if reached == stream.kept_length {
            for (offset, chunk) in own {
                check.monitor.check()?;
                let end = offset.saturating_add(u64::from(chunk.length));
                // No chunk of a tail is longer than this, whatever a damaged catalog says.
                let possible = *offset == reached && chunk.length as usize <= crate::repository::chunker::MAX;
                if !possible || end > size {
                    break;
                }
                bytes.resize(chunk.length as usize, 0);
                if file.read_exact_at(&mut bytes, *offset).is_err() || Hash::of(&bytes) != chunk.hash {
                    break;
                }
                check.monitor.advance(end.saturating_sub(furthest.max(*offset)));
                furthest = furthest.max(end);
                reached = end;
            }
        }
        same.insert(stream.row, reached);
    }
    check.monitor.end();
    let is_same = |stream: &&Stream| same.get(&stream.row) == Some(&stream.cut.offset);
    report.same_bytes = furthest - base_length;
    // Of several that end at the same place, the newest.
    report.last_good =
        lists.live().filter(is_same).max_by_key(|stream| stream.cut.offset).map(|stream| stream.snapshot_name.clone());
    let mut forks: Vec<Fork> = Vec::new();
    for stream in lists.live().filter(|stream| !is_same(stream)) {
        let chunk = same.get(&stream.row).copied().unwrap_or(base_length);
        let goes_on = stream.cut.offset <= size && ends_a_transaction(file, &stream.cut).unwrap_or(false);
        let at = match forks.len() < DIFFERENCES {
            true => exactly(check, file, stream, chunk, size)?,
            false => chunk,
        };
        forks.push(Fork { stream: stream.clone(), at, goes_on, another_transaction: false });
    }
    Ok(forks)
}

/// The first offset in a chunk at which the file differs; the chunk's beginning if the chunk can't be read.
fn exactly(check: &Check<'_>, file: &DataFile, stream: &Stream, chunk: u64, size: u64) -> Result<u64> {
    let layout = check.layout();
    let find = || -> Result<u64> {
        let Some(chunk) = check.catalog().stream_chunks(stream.row, chunk, chunk + 1)?.pop() else { return Ok(chunk) };
        let mut bytes = vec![0; chunk.end().min(size).saturating_sub(chunk.offset) as usize];
        file.read_exact_at(&mut bytes, chunk.offset)?;
        ChunkReader::new(layout, &check.repository.counters).with_chunk(&chunk.location, |stored| {
            Ok(chunk.offset + stored.iter().zip(&bytes).take_while(|(one, other)| one == other).count() as u64)
        })
    };
    match find() {
        Ok(at) => Ok(at),
        Err(error) => damage(error).map(|_| chunk),
    }
}

/// Parses all of the file, as ZODB's fstest does, and finds out where transactions begin. Returns where the last complete one
/// ends, or the file's size if that can't be told.
fn structure(
    check: &Check<'_>,
    file: &DataFile,
    size: u64,
    forks: &mut [Fork],
    report: &mut DatabaseCheck,
) -> Result<u64> {
    let mut walk =
        Walk { changes: Changes::new(FIRST_TRANSACTION), forks, transactions: 0, records: 0, last: FIRST_TRANSACTION };
    check.monitor.begin("reading the database", size.saturating_sub(FIRST_TRANSACTION));
    let cut = find_cut(file, Position::START, size);
    let end = cut.as_ref().map_or(size, |cut| cut.offset);
    let scanned = scan(file, Position::START, end, &mut walk, check.monitor);
    check.monitor.end();
    let Walk { changes, transactions, records, last, .. } = walk;
    (report.transactions, report.records) = (transactions, records);
    match (scanned, cut) {
        (Ok(summary), Ok(cut)) => {
            let mut warnings = summary.warnings;
            warnings.append(changes.into_parts().1);
            report.warnings = database::warning_lines(&warnings);
            report.left_out = cut.left_out.map(|left| left.to_string());
        }
        (Err(error), _) | (_, Err(error)) => {
            report.damage = Some(damage(error)?);
            report.damaged_at = Some(last);
        }
    }
    Ok(end)
}

/// Counts, and tells where a file went another way than a snapshot.
struct Walk<'f> {
    changes: Changes,
    forks: &'f mut [Fork],
    transactions: u64,
    records: u64,
    /// Where the last transaction began.
    last: u64,
}

impl Sink for Walk<'_> {
    fn transaction(&mut self, header: &Header) {
        self.transactions += 1;
        self.last = header.position;
        // Two transactions have different ids, which are what they begin with.
        let id = header.position..header.position.saturating_add(8);
        for fork in self.forks.iter_mut().filter(|fork| id.contains(&fork.at)) {
            fork.another_transaction = true;
        }
    }

    fn record(&mut self, record: &Record) {
        self.records += 1;
        self.changes.record(record);
    }
}

/// Is it damage that the file, whose transactions end at `end`, differs from a snapshot?
fn judge(check: &mut Check<'_>, file: &DataFile, end: u64, forks: Vec<Fork>, report: &mut DatabaseCheck) {
    let wrong = forks.into_iter().filter(|fork| {
        // Where the structure is damaged, it can't be told which transactions are there.
        let told = report.damaged_at.is_none_or(|at| fork.at < at);
        fork.goes_on || (told && fork.at < end && !fork.another_transaction)
    });
    // Of those that it goes on from, the one that reaches furthest; the first difference of all.
    let Some(wrong) = wrong.min_by_key(|fork| (fork.at, !fork.goes_on, std::cmp::Reverse(fork.stream.cut.offset)))
    else {
        return;
    };
    let id = wrong.stream.snapshot_name;
    report.differs_at = Some(wrong.at);
    report.differs_from = Some(id.clone());
    let what = format!(
        "{}: {} differs from snapshot {id} at offset {}, in bytes that it should have in common with it",
        report.name,
        file.path().display(),
        wrong.at
    );
    let whole = format!("the snapshot has what should be there: znap restore --to DIR {id} writes it elsewhere");
    check.add(Finding { what, hint: Some(whole), ..Finding::about(Subject::Database) });
}
