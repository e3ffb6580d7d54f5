//! Check: is everything there that the snapshots need, and as it was written?
//!
//! In levels. Always: the catalog is whole ([`catalog`]), the object files are those that it names ([`objects`]), and the
//! small ones among them, which are read, say what it says ([`records`]). If asked for: every frame and hash of the data
//! files ([`data`], which goes on where it stopped, [`progress`]), and the databases' own files ([`databases`]). What is
//! found damaged is then followed to the snapshots, bytes and objects that need it ([`blame`], [`details`]).
//!
//! It takes no lock but the readers' ones, for moments: what takes long is asked of a copy of the catalog, which is of one
//! moment, object files never change, and one that is missing counts only if the catalog still names it then. Nothing is
//! changed but the file that says where to go on.

mod blame;
mod catalog;
mod compare;
mod data;
mod databases;
mod details;
mod objects;
mod progress;
mod records;
mod report;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, KnownChunk};
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::repository::lock::Gate;
use crate::snapshot::handle::Repository;
use crate::snapshot::journal::Journal;

use catalog::Known;
use report::bounded;

pub use report::{Affected, AffectedRange, CheckReport, DataCheck, DatabaseCheck, Finding, Subject};

/// How thoroughly to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read every data file, and check every hash.
    pub data: bool,
    /// Stop reading data files after about this time, and go on there the next time.
    pub limit: Option<Duration>,
    /// Walk the databases' own files, and compare them with the snapshots.
    pub databases: bool,
}

/// No check is limited to more than this.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// How many findings are listed.
const FINDINGS: usize = 100;
/// How many snapshots are listed with each.
const SNAPSHOTS: usize = 100;
/// How many unknown files are listed.
const UNKNOWN: usize = 100;

/// Checks a repository. Damage is what it reports, and no error.
pub fn check(repository: &Repository, options: &CheckOptions, monitor: &dyn Monitor) -> Result<CheckReport> {
    let started = Instant::now();
    let deadline = options.limit.map(|limit| started.checked_add(limit.min(LONGEST)).unwrap_or(started));
    let (copy, problem) = match repository.catalog.copy(monitor) {
        Ok(copy) => (Some(copy), None),
        Err(error) if error.kind() == Kind::Damaged => (None, Some(error)),
        // Where there is no room for one, it has to be read itself.
        Err(error) if error.kind() == Kind::Failed => (None, None),
        Err(error) => return Err(error),
    };
    let mut check = Check::new(repository, copy.as_ref().unwrap_or(&repository.catalog), monitor);
    if let Some(problem) = problem {
        check.note(problem, catalog::about_catalog(Vec::new()))?;
    }
    check.restores()?;
    check.locks()?;
    catalog::whole(&mut check, options.data)?;
    let known = catalog::read(&mut check)?;
    if let Some(known) = &known {
        check.report.snapshots = known.ids().count() as u64;
        check.report.object_files = known.files.len() as u64;
        check.report.object_bytes = data::bytes_of(known.files.iter());
        objects::check(&mut check, known)?;
        records::check(&mut check, known)?;
        if options.data {
            data::check(&mut check, known, deadline)?;
        }
        data::look_closer(&mut check, known)?;
        blame::follow(&mut check)?;
    }
    if options.databases {
        databases::check(&mut check)?;
    }
    blame::name_dependents(&mut check)?;
    check.finish(known.as_ref())
}

/// A check on its way.
struct Check<'a> {
    repository: &'a Repository,
    /// What is asked if it takes long: a copy of the catalog.
    reading: &'a Catalog,
    monitor: &'a dyn Monitor,
    report: CheckReport,
    /// Damaged data files; what they affect is found out at the end.
    damaged: BTreeMap<Hash, DamagedFile>,
    database_bytes_read: u64,
}

/// A data file in which something is wrong.
#[derive(Debug, Default)]
struct DamagedFile {
    /// What, each in a clause.
    reasons: Vec<String>,
    /// The chunks that can't be had.
    lost: Vec<KnownChunk>,
    /// Those that can.
    whole: Vec<KnownChunk>,
    /// Whether it is known which those are.
    looked_closer: bool,
}

impl<'a> Check<'a> {
    fn new(repository: &'a Repository, reading: &'a Catalog, monitor: &'a dyn Monitor) -> Self {
        let report = CheckReport { root: repository.root().to_path_buf(), ..CheckReport::default() };
        Check { repository, reading, monitor, report, damaged: BTreeMap::new(), database_bytes_read: 0 }
    }

    fn layout(&self) -> &'a Layout {
        &self.repository.layout
    }

    /// The catalog as it is now, for short questions.
    fn catalog(&self) -> &'a Catalog {
        &self.repository.catalog
    }

    /// Is a restore unfinished, and can what is remembered of the last ones be read?
    fn restores(&mut self) -> Result<()> {
        match self.repository.unfinished_restore() {
            Ok(id) => self.report.unfinished_restore = id,
            Err(error) => self.note(error, Finding::about(Subject::Restore))?,
        }
        match Journal::last(self.layout(), self.repository.uid) {
            Ok(_) => Ok(()),
            Err(error) => self.note(error, Finding::about(Subject::Restore)),
        }
    }

    /// Can readers keep gc away?
    fn locks(&mut self) -> Result<()> {
        match Gate::shared(self.layout(), self.monitor) {
            Ok(_) => Ok(()),
            Err(error) => self.note(
                error,
                Finding {
                    prevents_restore: true,
                    hint: Some(format!("make it anew, it is empty: touch {}", self.layout().gate().display())),
                    ..Finding::about(Subject::Locks)
                },
            ),
        }
    }

    /// Adds a finding that says what the error says, if that is what a check looks for; else fails with it.
    fn note(&mut self, error: Error, finding: Finding) -> Result<()> {
        let what = damage(error)?;
        self.add(Finding { what, ..finding });
        Ok(())
    }

    fn add(&mut self, finding: Finding) {
        self.report.findings.push(finding);
    }

    /// Notes what is wrong with a data file.
    fn add_damaged(&mut self, name: Hash, reason: impl Into<String>) {
        self.damaged.entry(name).or_default().reasons.push(reason.into());
    }

    /// Whether the catalog names an object file no longer: a gc took it away, and it was no damage that it couldn't be read.
    fn is_gone(&self, name: &Hash) -> Result<bool> {
        Ok(!self.catalog().names(name)?)
    }

    fn finish(mut self, known: Option<&Known>) -> Result<CheckReport> {
        if self.report.is_damaged() && self.catalog().is_replaced() {
            let path = self.layout().catalog();
            return Err(Error::busy(format!("the catalog {} was replaced meanwhile", path.display()))
                .hint("a repair has made it anew; check again"));
        }
        let affected: HashSet<String> = self
            .report
            .findings
            .iter()
            .filter(|finding| finding.prevents_restore)
            .flat_map(|finding| finding.snapshots.iter().cloned())
            .collect();
        // Of damage to the catalog it can't be told what depends on it.
        let believed = self.report.findings.iter().all(|finding| finding.subject != Subject::Catalog);
        let snapshots = known.iter().flat_map(|known| known.ids());
        let (damaged, whole): (Vec<_>, Vec<_>) = snapshots.map(str::to_string).partition(|id| affected.contains(id));
        let report = &mut self.report;
        report.last_whole = whole.into_iter().next_back().filter(|_| believed);
        (report.damaged_snapshots, report.more_damaged_snapshots) = bounded(damaged, SNAPSHOTS);
        (report.findings, report.more_findings) = bounded(std::mem::take(&mut report.findings), FINDINGS);
        for finding in &mut report.findings {
            let (snapshots, more) = bounded(std::mem::take(&mut finding.snapshots), SNAPSHOTS);
            (finding.snapshots, finding.more_snapshots) = (snapshots, more);
        }
        report.unknown_files.sort();
        report.unknown_files.truncate(UNKNOWN);
        report.counts = self.repository.counts();
        report.counts.database_bytes_read = self.database_bytes_read;
        Ok(self.report)
    }
}

impl Finding {
    /// One that affects no snapshot as yet, and about which nothing special can be done.
    fn about(subject: Subject) -> Self {
        Finding {
            subject,
            what: String::new(),
            object_file: None,
            snapshots: Vec::new(),
            more_snapshots: 0,
            prevents_restore: false,
            other_snapshots: 0,
            databases: Vec::new(),
            hint: None,
        }
    }
}

/// What an error says of the thing that was looked at. One that is about the looking itself is passed on.
fn damage(error: Error) -> Result<String> {
    let passing = error.io_error().is_some_and(|error| {
        let no_handles = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::OutOfMemory)
            || no_handles.contains(&error.raw_os_error())
    });
    match error.kind() {
        Kind::Damaged | Kind::Failed if !passing && !error.is_no_space() => Ok(error.to_string()),
        _ => Err(error),
    }
}
