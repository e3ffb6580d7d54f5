//! The databases' own files: is each the one that the snapshots are of, can ZODB read all of it, and has it the bytes
//! that snapshots have?
//!
//! That it differs from a snapshot is damage only if it goes on from it. One that ends elsewhere, or differs from where
//! another transaction begins, went another way: it was restored to an earlier snapshot, and has grown since.

use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::filestorage::{
    Changes, DataFile, FIRST_TRANSACTION, Header, Position, Record, Sink, Source, Tid, find_cut, scan,
};
use crate::repository::catalog::{Catalog, Database, GenerationRow};
use crate::snapshot::anchor::refusal;
use crate::snapshot::base::{needs_base, source_of};
use crate::snapshot::database;
use crate::snapshot::generations::{Life, life_of};
use crate::snapshot::journal::Journal;

use super::catalog::about_catalog;
use super::compare::{Compared, Lists, compare};
use super::report::DatabaseCheck;
use super::walk::Quiet;
use super::{Check, Finding, Subject, damage};

/// Looks at every database.
pub(super) fn check(check: &mut Check<'_>) -> Result<()> {
    let databases = match check.catalog().databases() {
        Ok(databases) => databases,
        Err(error) => return check.note(error, about_catalog(Vec::new())),
    };
    let mut reports = Vec::new();
    for database in databases.iter().filter(|database| database.tracked) {
        let report = one(check, database)?;
        reports.push(report);
    }
    check.report.databases = Some(reports);
    Ok(())
}

/// Looks at one, unless a restore is changing it.
fn one(check: &mut Check<'_>, database: &Database) -> Result<DatabaseCheck> {
    let (layout, uid) = (check.layout(), check.repository.uid);
    // What is damaged in it is a finding of its own.
    let last_restore = || match Journal::last(layout, uid) {
        Err(error) if error.io_error().is_some() => Err(error),
        last => Ok(last.ok()),
    };
    let is_unfinished = || match Journal::unfinished(layout, uid) {
        Err(error) if error.io_error().is_some() => Err(error),
        found => Ok(!matches!(found, Ok(None))),
    };
    let before = (last_restore()?, is_unfinished()?);
    let (mut report, findings) = look(check, database)?;
    if before != (last_restore()?, false) || is_unfinished()? {
        report.problem.get_or_insert_with(|| "a restore is changing it, or has just changed it: check again".into());
        (report.damage, report.damaged_at) = (None, None);
        (report.differs_at, report.differs_from) = (None, None);
    } else {
        findings.into_iter().for_each(|finding| check.add(finding));
    }
    Ok(report)
}

fn look(check: &mut Check<'_>, database: &Database) -> Result<(DatabaseCheck, Vec<Finding>)> {
    let path = check.repository.path_of(database);
    let mut findings = Vec::new();
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
    let about = |what: String, snapshots: Vec<String>| Finding {
        what,
        prevents_restore: !snapshots.is_empty(),
        snapshots,
        ..Finding::about(Subject::Database)
    };
    let opened = database::open_patiently(&path, check.monitor);
    let (in_its_life, problem) = match &opened {
        Ok(file) => life(check, database, file)?,
        Err(_) => (database.clone(), None),
    };
    let lists = match Lists::read(check, &in_its_life) {
        Ok(lists) => lists,
        Err(error) => {
            check.note(error, about_catalog(Vec::new()))?;
            Lists::none()
        }
    };
    let base_length = in_its_life.generation.known.base_length;
    // The snapshots that need the beginning of the file: it isn't stored, and no pack has left it.
    let known = &in_its_life.generation.known;
    let is_left = || matches!(source_of(check.layout(), &path, known), Ok(Some(_)));
    let dependent = match needs_base(check.catalog(), known) {
        Ok(true) if problem.is_none() || !is_left() => lists.ids(),
        Ok(_) => Vec::new(),
        Err(error) => {
            check.note(error, about_catalog(Vec::new()))?;
            Vec::new()
        }
    };
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            let missing = error.kind() == Kind::NotFound;
            let what = if missing { error.to_string() } else { damage(error)? };
            report.problem = Some(what.clone());
            return Ok((report, vec![about(format!("{}: {what}", database.name), dependent)]));
        }
    };
    let size = file.size()?;
    report.size = Some(size);
    let mut compared = None;
    if let Some(problem) = &problem {
        report.problem = Some(problem.to_string());
        if !dependent.is_empty() {
            let what = format!("{}: {problem}; snapshots need its first {base_length} bytes", database.name);
            let hint = problem.hint_text().map(str::to_string);
            findings.push(Finding { hint, ..about(what, dependent.clone()) });
        }
    } else {
        compared = Some(compare(check, &lists, &file, size, base_length)?);
    }
    let end = structure(check, &file, size, compared.as_mut(), &mut report)?;
    if let Some(compared) = compared {
        report.same_bytes = compared.same_upto - base_length;
        report.last_good.clone_from(&compared.last_good);
        if report.damage.is_none() {
            report.damage.clone_from(&compared.unreadable);
        }
        findings.extend(judge(&file, end, compared, &mut report));
    }
    if let Some(what) = &report.damage {
        let in_base = report.damaged_at.is_some_and(|at| at < base_length);
        let hint = hint(&report);
        let snapshots = if in_base && problem.is_none() { dependent } else { Vec::new() };
        findings.push(Finding { hint, ..about(format!("{}: {what}", database.name), snapshots) });
    }
    check.database_bytes_read += file.bytes_read();
    findings.extend(other_lives(check, &in_its_life, &path)?);
    Ok((report, findings))
}

/// What snapshots from before a pack need, and nobody has.
fn other_lives(check: &mut Check<'_>, now: &Database, path: &Path) -> Result<Vec<Finding>> {
    let layout = check.layout().clone();
    let lacking = |catalog: &Catalog| -> Result<Vec<(GenerationRow, Option<Error>)>> {
        let mut lacking = Vec::new();
        for generation in catalog.generations(now.row)? {
            if generation.row != now.generation.row && needs_base(catalog, &generation.known)? {
                match source_of(&layout, path, &generation.known) {
                    Ok(Some(_)) => {}
                    Ok(None) => lacking.push((generation, None)),
                    Err(error) => lacking.push((generation, Some(error))),
                }
            }
        }
        Ok(lacking)
    };
    let mut findings = Vec::new();
    for (generation, unreadable) in
        lacking(check.catalog()).or_else(|error| check.note(error, about_catalog(Vec::new())).map(|()| Vec::new()))?
    {
        let why =
            unreadable.map_or(Ok(", and it is gone".into()), |error| damage(error).map(|why| format!(": {why}")))?;
        let snapshots = Lists::read(check, &Database { generation, ..now.clone() })?.ids();
        if !snapshots.is_empty() {
            findings.push(Finding {
                what: format!("{}: snapshots need the file as it was before it was packed{why}", now.name),
                hint: Some("if there is a copy of that file: znap restore ID --base-from FILE".into()),
                prevents_restore: true,
                snapshots,
                ..Finding::about(Subject::Database)
            });
        }
    }
    Ok(findings)
}

/// The database in the life that its file is in, and what keeps the file from being compared with its snapshots.
fn life(check: &Check<'_>, database: &Database, file: &DataFile) -> Result<(Database, Option<Error>)> {
    Ok(match life_of(check.repository, database, file) {
        Ok(Life::Known(generation)) => (Database { generation, ..database.clone() }, None),
        Ok(Life::New(recognition, _)) => {
            (database.clone(), refusal(file.path(), &recognition, &database.generation.known))
        }
        Err(error) if error.kind() == Kind::Failed && error.io_error().is_none() => (database.clone(), Some(error)),
        Err(error) => (database.clone(), Some(Error::failed(damage(error)?))),
    })
}

fn hint(report: &DatabaseCheck) -> Option<String> {
    let id = report.last_good.as_ref()?;
    Some(format!("znap restore --to DIR {id} writes the last snapshot that it has all bytes of elsewhere"))
}

/// Parses all of the file, as ZODB's fstest does, and finds out where transactions begin. Returns where the last complete one
/// ends, or the file's size if that can't be told.
fn structure(
    check: &Check<'_>,
    file: &DataFile,
    size: u64,
    mut compared: Option<&mut Compared>,
    report: &mut DatabaseCheck,
) -> Result<u64> {
    let mut walk = Walk {
        changes: Changes::new(FIRST_TRANSACTION),
        compared: compared.as_deref_mut(),
        transactions: 0,
        records: 0,
        last: None,
    };
    check.monitor.begin("reading the database", size.saturating_sub(FIRST_TRANSACTION));
    let cut = find_cut(file, Position::START, size, check.monitor);
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
            // It is one that was complete.
            if let Some(left) =
                cut.left_out.filter(|_| compared.is_some_and(|compared| compared.has_transaction(end, size)))
            {
                report.damage = Some(format!(
                    "{} is damaged at offset {end}: a transaction that a snapshot has whole looks like {left}, which ZODB would cut off",
                    file.path().display()
                ));
                report.damaged_at = Some(end);
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            report.damage = Some(damage(error)?);
            report.damaged_at = Some(match last {
                None => FIRST_TRANSACTION,
                Some(last) => where_damaged(check, file, &last)?,
            });
        }
    }
    Ok(end)
}

/// Where the transaction begins that is damaged: this one, whose header was the last that could be read, or the next.
fn where_damaged(check: &Check<'_>, file: &DataFile, last: &Header) -> Result<u64> {
    let before = Position { offset: last.position, tid: Tid(0) };
    match scan(file, before, last.end(), &mut (), &Quiet(check.monitor)) {
        Ok(_) => Ok(last.end()),
        Err(error) => damage(error).map(|_| last.position),
    }
}

/// Counts, and tells where a file went another way than a snapshot.
struct Walk<'c> {
    changes: Changes,
    compared: Option<&'c mut Compared>,
    transactions: u64,
    records: u64,
    /// The last transaction that began.
    last: Option<Header>,
}

impl Sink for Walk<'_> {
    fn transaction(&mut self, header: &Header) {
        self.transactions += 1;
        self.last = Some(*header);
        // Two transactions have different ids, which are what they begin with. What a pack has copied has its status, and is shorter
        // where records were left out: that comes next, and if it were damage, the structure would be, too.
        let length = if header.status == b'p' { 17 } else { 8 };
        let id = header.position..header.position.saturating_add(length);
        let forks = self.compared.iter_mut().flat_map(|compared| &mut compared.forks);
        for fork in forks.filter(|fork| fork.at.is_some_and(|at| id.contains(&at))) {
            fork.another_transaction = true;
        }
    }

    fn record(&mut self, record: &Record) {
        self.records += 1;
        self.changes.record(record);
    }
}

/// Is it damage that the file, whose transactions end at `end`, differs from a snapshot?
fn judge(file: &DataFile, end: u64, compared: Compared, report: &mut DatabaseCheck) -> Option<Finding> {
    let wrong = compared.forks.into_iter().filter(|fork| {
        // Where the structure is damaged, it can't be told which transactions are there.
        let told = |at: u64| at < end && report.damaged_at.is_none_or(|damaged| at < damaged);
        fork.goes_on || (fork.at.is_some_and(told) && !fork.another_transaction)
    });
    // The first difference of all; of those that it goes on from, the one that reaches furthest.
    let wrong = wrong.min_by_key(|fork| {
        (fork.at.unwrap_or(fork.same_upto), !fork.goes_on, std::cmp::Reverse(fork.stream.cut.offset))
    })?;
    let id = wrong.stream.snapshot_name;
    let at = wrong.at.unwrap_or(wrong.same_upto);
    report.differs_at = Some(at);
    report.differs_from = Some(id.clone());
    let what = format!(
        "{}: {} differs from snapshot {id} {} offset {at}, in bytes that it should have in common with it",
        report.name,
        file.path().display(),
        if wrong.at.is_some() { "at" } else { "somewhere behind" },
    );
    let whole = format!("the snapshot has what should be there: znap restore --to DIR {id} writes it elsewhere");
    Some(Finding { what, hint: Some(whole), ..Finding::about(Subject::Database) })
}
