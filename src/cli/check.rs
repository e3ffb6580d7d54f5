//! `znap check`.

use std::time::Duration;

use clap::Args;

use znap::error::{Error, Result};
use znap::snapshot::{
    Affected, AffectedRange, CheckOptions, CheckReport, DatabaseCheck, Finding, Repository, Subject, check,
};

use super::output::STRONG;
use super::table::pairs;
use super::{Context, Outcome, place, times, words};

/// Look for damage
///
/// Compares the catalog with the object files: whether all are there that snapshots need, and what is in them. With
/// --data it reads all of them, and checks every hash. With --databases it reads the databases' own files, as ZODB's
/// fstest does, and compares them with the snapshots. Names each damaged object file, the snapshots that need it, and
/// the bytes and objects of the databases that are affected. What interrupted commands have left is no damage.
///
/// Takes no lock that keeps others from working, so the server may be running. Changes nothing, but remembers with
/// --for where to go on. If anything is damaged, the exit code is 3.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap check
  znap check --data --databases
  znap check --data --for 10m    every night: goes on where it stopped")]
pub struct Check {
    /// Read all data of the repository, and check every hash
    #[arg(long)]
    data: bool,

    /// Stop reading data after this time, such as 30s, 5m or 2h, and go on there the next time
    #[arg(long = "for", value_name = "TIME", requires = "data")]
    limit: Option<String>,

    /// Read the databases' own files too, and compare them with the snapshots
    #[arg(long)]
    databases: bool,

    /// Print the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Check) -> Result<Outcome> {
    let terminal = context.terminal;
    let limit = args.limit.as_deref().map(limit).transpose()?;
    let place = place::existing(context.global)?;
    // Not place::open: what is wrong with an unfinished restore is a finding.
    let repository = Repository::open(&place)?;
    let options = CheckOptions { data: args.data, limit, databases: args.databases };
    let report = check(&repository, &options, context.progress)?;
    context.progress.clear();
    if let Some(id) = &report.unfinished_restore {
        terminal.warn(format_args!(
            "the restore of {id} is unfinished: znap restore --resume finishes it, --abort goes back"
        ));
    }
    if args.json {
        terminal.json(&report)?;
    } else if report.is_damaged() {
        // It was asked for.
        terminal.result(damaged(&report))?;
        terminal.say(rest(&report))?;
    } else {
        terminal.say(format!("{}\n{}", rest(&report), "nothing is damaged"))?;
    }
    for name in &report.unknown_files {
        terminal.warn(format_args!("znap knows nothing of objects/{}", words::clean(name)));
    }
    for database in report.databases.iter().flatten() {
        for warning in &database.warnings {
            terminal.warn(format_args!("{}: {warning}", database.name));
        }
    }
    if report.left_over_files > 0 {
        terminal.hint(format_args!(
            "{} of interrupted commands, or of one that is just at work: znap gc removes what is left over",
            words::count(report.left_over_files, "file is", "files are")
        ));
    }
    if let Some(data) = &report.data {
        if let Some(reason) = &data.not_remembered {
            terminal.warn(format_args!("the next check begins at the beginning again: {reason}"));
        } else if data.files_left > 0 && !args.json {
            terminal.hint("the same command goes on there");
        }
    } else if !report.is_damaged() {
        terminal.hint("znap check --data also reads all data");
    }
    terminal.counts(&report.counts);
    Ok(if report.is_damaged() { Outcome::Damaged } else { Outcome::Done })
}

fn limit(text: &str) -> Result<Duration> {
    let nonsense = || Error::usage(format!("{text:?} is no time to check for")).hint("type it like 30s, 5m or 2h");
    let duration = times::duration(text).map_err(|_| nonsense())?;
    Duration::try_from(duration).map_err(|_| nonsense())
}

/// What is damaged, and what still is whole.
fn damaged(report: &CheckReport) -> String {
    let mut blocks: Vec<String> = report.findings.iter().map(finding).collect();
    if report.more_findings > 0 {
        blocks.push(format!("and {} more like these", report.more_findings));
    }
    let mut lines = Vec::new();
    if !report.damaged_snapshots.is_empty() {
        let list = listed(&report.damaged_snapshots, report.more_damaged_snapshots);
        lines.push(format!("can't be restored whole: {list}"));
    }
    if let Some(id) = &report.last_whole {
        lines.push(format!("the newest snapshot that is whole: {id}"));
    }
    if !lines.is_empty() {
        blocks.push(lines.join("\n"));
    }
    blocks.join("\n\n")
}

fn finding(finding: &Finding) -> String {
    let mut lines = vec![format!("{STRONG}{}{STRONG:#}", words::clean(&finding.what))];
    if let Some(name) = &finding.object_file {
        lines.push(match finding.subject {
            Subject::Blob => format!("  file: objects/blobs/{}/{name}", name.get(..2).unwrap_or_default()),
            _ => format!("  file: objects/{name}"),
        });
    }
    if !finding.snapshots.is_empty() {
        let needed = if finding.prevents_restore { "needed by" } else { "about" };
        lines.push(format!("  {needed}: {}", listed(&finding.snapshots, finding.more_snapshots)));
    } else if finding.prevents_restore && finding.object_file.is_some() {
        lines.push("  needed by: no snapshot".into());
    }
    if finding.other_snapshots > 0 {
        let others = words::count(finding.other_snapshots, "other snapshot", "other snapshots");
        lines.push(format!("  {others}: what they need of it is whole"));
    }
    lines.extend(finding.databases.iter().flat_map(affected));
    if let Some(hint) = &finding.hint {
        lines.push(format!("  {}", words::clean(hint)));
    }
    lines.join("\n")
}

fn affected(of: &Affected) -> Vec<String> {
    let mut lines = Vec::new();
    if of.bytes > 0 {
        lines.push(format!("  {}: {} affected", of.name, words::size(of.bytes)));
        lines.extend(of.ranges.iter().map(|range| format!("    {}", one_range(range))));
        if of.more_ranges > 0 {
            lines.push(format!("    and {} more places", of.more_ranges));
        }
    }
    if !of.oids.is_empty() {
        lines.push(format!("    objects {}", listed(&of.oids, of.more_oids)));
    }
    if of.index {
        lines.push(format!("  {}: its stored index is affected", of.name));
    }
    lines
}

fn one_range(range: &AffectedRange) -> String {
    let mut text = format!("offset {} to {}", range.start, range.end);
    if let (Some(transactions), Some(records)) = (range.transactions, range.records) {
        let records = words::count(records, "record", "records");
        text.push_str(&format!(", {}, {records}", words::transactions(transactions)));
    }
    text.push_str(if range.in_database { "; the database still has it" } else { "; the database doesn't have it" });
    text
}

fn listed(items: &[String], more: u64) -> String {
    let mut text = words::clean(&items.join(", "));
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// What was checked.
fn rest(report: &CheckReport) -> String {
    let mut lines = vec![format!(
        "checked the catalog, {} and {}",
        words::count(report.snapshots, "snapshot", "snapshots"),
        words::count(report.object_files, "object file", "object files"),
    )];
    if let Some(data) = &report.data {
        let files = words::count(data.files, "file", "files");
        let from = if data.went_on { ", going on where the last check had stopped" } else { "" };
        lines.push(format!("read {} of data in {files}{from}", words::size(data.bytes)));
        if data.files_left > 0 {
            let left = words::count(data.files_left, "file", "files");
            lines.push(format!("not finished: {} in {left} are left", words::size(data.bytes_left)));
        }
    }
    for database in report.databases.iter().flatten() {
        lines.push(format!("{STRONG}{}{STRONG:#}  {}", database.name, words::clean(&database.path.to_string_lossy())));
        lines.push(pairs("  ", &facts(database)));
    }
    lines.join("\n")
}

fn facts(database: &DatabaseCheck) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(size) = database.size {
        facts.push(("size", words::exact_size(size)));
        let records = words::count(database.records, "record", "records");
        facts.push(("read", format!("{}, {records}", words::transactions(database.transactions))));
    }
    if let Some(problem) = &database.problem {
        facts.push(("problem", words::clean(problem)));
    } else {
        facts.push(("same", format!("{} as in snapshots", words::size(database.same_bytes))));
        let last = database.last_good.clone().unwrap_or_else(|| "none".into());
        facts.push(("goes on from", last));
    }
    if let Some(damage) = &database.damage {
        facts.push(("damage", words::clean(damage)));
    }
    if let (Some(at), Some(id)) = (database.differs_at, &database.differs_from) {
        facts.push(("differs", format!("from {id} at offset {at}")));
    }
    if let Some(left_out) = &database.left_out {
        facts.push(("unfinished", left_out.clone()));
    }
    facts
}
