//! `znap status`.

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use znap::error::Result;
use znap::snapshot::{DatabaseStatus, StatusReport, status};

use super::output::STRONG;
use super::table::pairs;
use super::{Context, Outcome, place, times, words};

/// Say how the databases are
///
/// Per database: its size, who has it open, the nearest snapshot that the file begins with, how old that is, and
/// what is new since. Other users' processes are found only by root. Touches nothing.
///
/// With --max-age it prints one line, and exits with 1 if the nearest snapshot of any database is older, or if there
/// is none, or if a database has a problem: for cron and monitoring.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap status
  znap status --max-age 26h || mail -s 'no snapshot' admin@example.org < /dev/null")]
pub struct Status {
    /// Exit with 1 if a snapshot is older than this, such as 26h or 2d
    #[arg(long, value_name = "AGE")]
    max_age: Option<String>,

    /// Print it as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Status) -> Result<Outcome> {
    let terminal = context.terminal;
    let max_age = args.max_age.as_deref().map(times::duration).transpose()?;
    let repository = place::open(context, &place::existing(context.global)?)?;
    let report = status(&repository, context.progress)?;
    context.progress.clear();
    let now = Timestamp::now();
    let alarms: Vec<String> = match max_age {
        Some(max) => report.databases.iter().filter_map(|database| alarm(database, now, max)).collect(),
        None => Vec::new(),
    };
    if args.json {
        terminal.json(&report)?;
    } else if max_age.is_some() {
        terminal.result(one_line(&report, &alarms, now))?;
    } else {
        terminal.result(text(&report, now))?;
    }
    Ok(if alarms.is_empty() { Outcome::Done } else { Outcome::Alarm })
}

fn age(database: &DatabaseStatus, now: Timestamp) -> Option<SignedDuration> {
    database.snapshot_created.map(|created| now.duration_since(created))
}

/// What is wrong with a database whose nearest snapshot should not be older than `max`.
fn alarm(database: &DatabaseStatus, now: Timestamp, max: SignedDuration) -> Option<String> {
    let name = &database.name;
    if let Some(problem) = &database.problem {
        return Some(format!("{name}: {}", words::clean(problem)));
    }
    match age(database, now) {
        None if database.new_life.is_some() => {
            let what = database.new_life.unwrap_or_default();
            Some(format!("{name} was {what} since the last snapshot"))
        }
        None => Some(format!("{name} has no snapshot")),
        Some(age) if age > max => Some(format!("the nearest snapshot of {name} is {} old", words::age(age))),
        Some(_) => None,
    }
}

fn one_line(report: &StatusReport, alarms: &[String], now: Timestamp) -> String {
    if !alarms.is_empty() {
        return format!("znap: not ok: {}", alarms.join("; "));
    }
    let oldest = report.databases.iter().filter_map(|database| age(database, now)).max().unwrap_or_default();
    let new = report.databases.iter().map(|database| database.new_transactions).sum();
    format!("znap: ok: the nearest snapshot is {} old, {} since", words::age(oldest), words::transactions(new))
}

fn text(report: &StatusReport, now: Timestamp) -> String {
    let mut lines = vec![format!(
        "{}: {}, {}",
        report.root.display(),
        words::count(report.snapshots, "snapshot", "snapshots"),
        words::size(report.repository_bytes)
    )];
    for database in &report.databases {
        lines.push(format!("{STRONG}{}{STRONG:#}  {}", database.name, words::clean(&database.path.to_string_lossy())));
        lines.push(pairs("  ", &facts(database, now)));
    }
    if !report.untracked.is_empty() {
        lines.push(format!("not tracked any more: {}", report.untracked.join(", ")));
    }
    lines.extend(words::lost(&report.lost));
    lines.join("\n")
}

fn facts(database: &DatabaseStatus, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let since = if database.snapshot.is_some() { "then" } else { "init" };
    if let Some(size) = database.size {
        facts.push(("size", words::exact_size(size)));
        facts.push((
            "open in",
            match database.openers.as_slice() {
                [] => "no process that can be seen".into(),
                openers => words::clean(&openers.join(", ")),
            },
        ));
    }
    if let (Some(blobs), Some(mode)) = (&database.blobs, database.blobs_mode) {
        facts.push(("blobs", format!("{} ({mode})", words::clean(&blobs.to_string_lossy()))));
    }
    if let Some(problem) = &database.problem {
        facts.push(("problem", words::clean(problem)));
        return facts;
    }
    if let Some(what) = database.new_life {
        facts.push(("changed", format!("it was {what} since the last snapshot; the next save goes on from there")));
    } else {
        facts.extend(newest(database, now, since));
    }
    if database.at_risk {
        let lost = "two packs without a save between would lose what snapshots need; znap base keep prevents that";
        facts.push(("at risk", lost.into()));
    }
    if database.held_bytes > 0 {
        let held = words::size(database.held_bytes);
        facts.push((
            "kept",
            format!("the file from before the pack, {held}, until the next save has stored what is needed"),
        ));
    }
    if let Some(left_out) = &database.left_out {
        facts.push(("unfinished", left_out.clone()));
    }
    facts
}

/// The nearest snapshot, and what is new since.
fn newest(database: &DatabaseStatus, now: Timestamp, since: &str) -> [(&'static str, String); 2] {
    let nearest = match (&database.snapshot, age(database, now)) {
        (Some(id), Some(age)) => format!("{id}, {} old", words::age(age)),
        _ => "none that the file begins with".into(),
    };
    let new = match database.new_transactions {
        0 => format!("nothing since {since}"),
        number => format!("{} since {since}, {}", words::transactions(number), words::size(database.new_bytes)),
    };
    [("snapshot", nearest), ("new", new)]
}
