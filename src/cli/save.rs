//! `znap save`.

use clap::Args;

use znap::error::{Kind, Result};
use znap::snapshot::{
    Repository, SaveOptions, SaveReport, SavedDatabase, held_files, save, store_bases, unstored_bases,
};

use super::base::{about, tell_stored, warn_of_lost};
use super::{Context, Outcome, place, words};

/// Take a snapshot of every tracked database
///
/// Reads what is new since the nearest snapshot, and stores it in .znap. The server may keep running: transactions
/// that are not finished yet are left out. Nothing outside .znap is touched, and no lock is taken on a database.
/// To take it back: znap delete ID.
///
/// Several databases are saved as of one moment, between two transactions. Where the server leaves no such moment,
/// they are saved all the same, with a warning and exit code 6. What is odd about a database, but is no obstacle to
/// ZODB, is a warning and changes no exit code.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap save
  znap save --only catalog before-reindex
  znap save before-upgrade -m \"Plone 6.0, all add-ons still old\"")]
pub struct Save {
    /// The snapshot's id: ASCII letters, digits, and . _ - @ + [default: the local time, as 2026-11-20_14-03-59]
    #[arg(allow_hyphen_values = false)]
    id: Option<String>,

    /// Some words about it, for the list
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,

    /// Exit with 0 even if blobs that current objects need are missing from the blob directory
    #[arg(long)]
    allow_missing_blobs: bool,
    /// Save only these databases, by their names; such a snapshot is never what latest means
    #[arg(long, value_name = "DB", value_delimiter = ',')]
    only: Vec<String>,

    /// Print the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// How many missing blobs are listed.
const MISSING: usize = 10;

pub(super) fn run(context: &Context, args: &Save) -> Result<Outcome> {
    let terminal = context.terminal;
    let place = place::existing_to_change(context)?;
    let mut repository = Repository::open_to_write(&place, context.progress)?;
    let mut options = SaveOptions::new(args.id.clone(), args.message.as_str(), terminal.zone.clone());
    options.only.clone_from(&args.only);
    let report = save(&mut repository, &options, context.progress)?;
    context.progress.clear();
    // Whether it can be said or not, the snapshot is there, and so are the warnings.
    let said = if args.json { terminal.json(&report) } else { terminal.say(lines(context, &report).join("\n")) };
    for database in &report.databases {
        for warning in &database.warnings {
            terminal.warn(format_args!("{}: {warning}", database.name));
        }
    }
    for database in &report.databases {
        let Some(blobs) = database.blobs.as_ref().filter(|blobs| blobs.missing > 0) else { continue };
        let name = words::clean(&database.name);
        for blob in blobs.missing_blobs.iter().take(MISSING) {
            let path = words::clean(&blob.path.to_string_lossy());
            terminal.warn(format_args!("{name}: blob {} of transaction {} is missing: {path}", blob.oid, blob.tid));
        }
        let more = blobs.missing.saturating_sub(MISSING as u64);
        if more > 0 {
            terminal.warn(format_args!("{name}: and {more} more"));
        }
    }
    for database in &report.databases {
        if let Some(what) = database.new_life {
            terminal.note(format_args!("{} was {what} since the last snapshot", database.name));
        }
    }
    let held = held_files(&repository)?;
    for file in &held {
        terminal.note(format_args!(
            "{}: .znap keeps the file from before the pack ({}) until what older snapshots need of it is stored",
            file.database,
            words::size(file.bytes)
        ));
    }
    let bases = store_bases(&mut repository, context.progress);
    context.progress.clear();
    let mut outcome = Outcome::Done;
    let bases = bases.or_else(|error| match error.kind() {
        Kind::Interrupted(_) => Err(error
            .context(format!(
                "snapshot {} was taken, but what snapshots need of a file's beginning is not stored yet",
                report.id
            ))
            .hint("the next znap save stores it")),
        _ => {
            terminal.warn(format_args!("what snapshots need of a file's beginning could not be stored: {error}"));
            terminal.hint(if held.is_empty() {
                "keep that file until a save has stored it"
            } else {
                "that file stays in .znap until a save has stored it"
            });
            outcome = Outcome::Warned;
            Ok(Vec::new())
        }
    })?;
    tell_stored(terminal, &bases);
    if report.databases.iter().any(|database| database.new_life.is_some()) {
        warn_of_lost(terminal, &repository)?;
    }
    if report.sequence == 1 {
        for base in unstored_bases(&repository)? {
            let (bytes, name) = (words::size(base.bytes), base.database);
            terminal.hint(format_args!(
                "snapshots need the first {bytes} of {name}; znap base keep stores them too, in {}",
                about(base.bytes)
            ));
        }
    }
    terminal.counts(&report.counts);
    said.map_err(|error| error.context(format!("snapshot {} was taken, but", report.id)))?;
    if report.databases.iter().any(|database| database.blobs.as_ref().is_some_and(|blobs| blobs.missing > 0))
        && !args.allow_missing_blobs
    {
        terminal.hint("put these files back, or remove the objects; --allow-missing-blobs takes it as it is");
        outcome = Outcome::Warned;
    }
    if report.one_moment {
        return Ok(outcome);
    }
    terminal.warn("the databases are not of one moment: transactions were being written all the time");
    terminal.hint("save again when less is going on, or with the server stopped");
    Ok(Outcome::Warned)
}

fn lines(context: &Context, report: &SaveReport) -> Vec<String> {
    let stored = words::size(report.stored_bytes);
    let mut lines = Vec::new();
    match report.databases.as_slice() {
        [only] => lines.push(format!("{}: {}; stored {stored}", report.id, line(context, only, ""))),
        several => {
            let databases = words::count(several.len() as u64, "database", "databases");
            lines.push(format!("{}: {databases}; stored {stored}", report.id));
            lines.extend(several.iter().map(|one| format!("  {}", line(context, one, ":"))));
        }
    }
    if report.partial {
        lines.push(format!("not saved: {}", report.not_saved.join(", ")));
    }
    for database in &report.databases {
        if let Some(left_out) = &database.left_out {
            lines.push(match report.databases.len() {
                1 => format!("left out: {left_out}"),
                _ => format!("left out of {}: {left_out}", database.name),
            });
        }
    }
    lines
}

fn line(context: &Context, database: &SavedDatabase, colon: &str) -> String {
    format!("{}{colon} {}", words::database(&database.name, &database.path), what(context, database))
}

fn what(context: &Context, database: &SavedDatabase) -> String {
    let up_to = words::up_to(database.time, &database.tid, &context.terminal.zone);
    let since = match &database.parent {
        Some(parent) => format!(" since {parent}"),
        None => String::new(),
    };
    let blobs = match &database.blobs {
        Some(blobs) if database.parent.is_none() && blobs.count > 0 => {
            format!(", {} ({})", words::count(blobs.count, "blob", "blobs"), words::size(blobs.bytes))
        }
        Some(blobs) if blobs.new > 0 => {
            format!(", {} ({})", words::count(blobs.new, "new blob", "new blobs"), words::size(blobs.new_bytes))
        }
        _ => String::new(),
    };
    if database.new_transactions == 0 {
        return format!("{up_to}, nothing new{since}{blobs}");
    }
    let new = words::count(database.new_transactions, "new transaction", "new transactions");
    format!("{up_to}, {new}{since}, {}{blobs}", words::size(database.new_bytes))
}
