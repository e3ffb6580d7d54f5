//! `znap track` and `znap untrack`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use znap::error::Result;
use znap::snapshot::{BlobMode, Repository, TrackOptions, TrackedDatabase, track, untrack};

use super::base::about;
use super::{Context, Outcome, place, words};

/// How blobs are saved, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BlobsMode {
    /// As second names of the same files, or clones of them, which take no space
    Link,
    /// As copies
    Copy,
    /// Not at all: neither save nor restore touches them
    Skip,
}

impl From<BlobsMode> for BlobMode {
    fn from(mode: BlobsMode) -> Self {
        match mode {
            BlobsMode::Link => BlobMode::Link,
            BlobsMode::Copy => BlobMode::Copy,
            BlobsMode::Skip => BlobMode::Skip,
        }
    }
}

/// Add a database to the repository, or change what is saved of one
///
/// From the next save on, a new database is in every snapshot. Those from before don't have it: restoring one leaves it
/// as it is. A database that is known is named by its name, as znap status shows it, or by its file: --blobs and
/// --blobs-mode say what is saved of its blobs from then on, and one that was untracked is saved again.
///
/// To take it back: znap untrack NAME.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap track var/filestorage/catalog.fs
  znap track var/filestorage/Data.fs --blobs var/blobstorage
  znap track data --blobs-mode skip")]
pub struct Track {
    /// The database's file, or its name if it is known
    #[arg(value_name = "DB")]
    database: PathBuf,

    /// What a new one is to be called [default: like its file]
    #[arg(long)]
    name: Option<String>,

    /// The directory of its blobs, such as var/blobstorage
    #[arg(long, value_name = "DIR")]
    blobs: Option<PathBuf>,

    /// How its blobs are saved [default: link, on the repository's file system; else copy]
    #[arg(long, value_name = "MODE")]
    blobs_mode: Option<BlobsMode>,
}

/// Stop saving databases
///
/// Snapshots that have them stay, and restoring one of those puts them back. To take it back: znap track NAME.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap untrack catalog")]
pub struct Untrack {
    /// The databases' names, as znap status shows them
    #[arg(required = true, value_name = "DB")]
    databases: Vec<String>,
}

pub(super) fn run(context: &Context, args: &Track) -> Result<Outcome> {
    let terminal = context.terminal;
    let place = place::existing_to_change(context)?;
    let options = TrackOptions {
        database: args.database.clone(),
        name: args.name.clone(),
        blobs: args.blobs.clone(),
        mode: args.blobs_mode.map(BlobMode::from),
        current: place::current()?,
    };
    let report = track(&mut Repository::open_to_write(&place, context.progress)?, &options, context.progress)?;
    context.progress.clear();
    if let Some(database) = &report.added {
        terminal.say(format_args!("added {}", line(database, false)))?;
        remarks(context, database)?;
        if !database.complete {
            let (name, cost) = (&database.name, about(database.base_length));
            terminal.hint(format_args!("znap base keep {name} stores that too, in {cost}"));
        }
        return Ok(Outcome::Done);
    }
    let again = if report.again { " is tracked again" } else { "" };
    let blobs = match (&report.blobs, report.blobs_mode) {
        (Some(blobs), Some(mode)) => format!("; blobs: {} ({mode})", words::clean(&blobs.to_string_lossy())),
        _ => String::new(),
    };
    terminal.say(format_args!("{}{again}{blobs}", report.name))?;
    Ok(Outcome::Done)
}

pub(super) fn run_untrack(context: &Context, args: &Untrack) -> Result<Outcome> {
    let place = place::existing_to_change(context)?;
    untrack(&mut Repository::open_to_write(&place, context.progress)?, &args.databases)?;
    context.terminal.say(format_args!("not tracked any more: {}", args.databases.join(", ")))?;
    Ok(Outcome::Done)
}

/// What is said of a database that is now tracked, and whose base is to be kept, or isn't.
pub(super) fn line(database: &TrackedDatabase, keep: bool) -> String {
    let kept = if database.complete {
        "snapshots will need nothing but the repository".to_string()
    } else if keep {
        let bytes = words::size(database.base_length);
        format!("its first {bytes} will be stored with the first snapshot: {}", about(database.base_length))
    } else {
        format!("snapshots will need its first {}", words::size(database.base_length))
    };
    let blobs = match (&database.blobs, database.blobs_mode) {
        (Some(blobs), Some(mode)) => format!("; blobs: {} ({mode})", blobs.display()),
        _ => String::new(),
    };
    format!("{}: {}, {}; {kept}{blobs}", database.name, database.path.display(), words::size(database.size))
}

/// What else there is to say of it.
pub(super) fn remarks(context: &Context, database: &TrackedDatabase) -> Result<()> {
    let terminal = context.terminal;
    if let Some(left_out) = &database.left_out {
        terminal.say(format_args!("  {}: after its last transaction: {left_out}", database.name))?;
    }
    for warning in &database.warnings {
        terminal.warn(format_args!("{}: {warning}", database.name));
    }
    if let Some(reason) = &database.index
        && terminal.verbose
    {
        terminal.note(format_args!(
            "{}: the whole file was read, because its index can't be used: {reason}",
            database.name
        ));
    }
    if let Some(near) = &database.blobs_near {
        terminal.hint(format_args!(
            "{} looks like the blob directory of {}: znap track {} --blobs {} has it saved, too",
            near.display(),
            database.name,
            database.name,
            znap::snapshot::shell_word(near)
        ));
    }
    Ok(())
}
