//! `znap init`.

use std::path::PathBuf;

use clap::Args;

use znap::error::Result;
use znap::snapshot::{InitOptions, Place, Repository, TrackedDatabase, init, keep_bases};

use super::base::about;
use super::{Context, Outcome, place, words};

/// Start a repository that tracks these FileStorages
///
/// Makes the directory .znap here (or the one that -R names) and notes how long each database is now. That much
/// of each file is taken for granted from then on: snapshots hold only what comes after it, and need the file for
/// the rest. Files of up to 1 MiB are kept whole. All databases of a repository are saved and restored together.
///
/// Reads each database's index, or the whole file where there is none that fits. Changes nothing outside .znap,
/// so the server may be running. To take it back, remove the directory .znap.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap init var/filestorage/Data.fs
  znap init var/filestorage/Data.fs var/filestorage/catalog.fs --group")]
pub struct Init {
    /// The databases' files, such as var/filestorage/Data.fs
    #[arg(required = true, value_name = "DB")]
    databases: Vec<PathBuf>,

    /// Let the members of the first database's group use the repository too
    ///
    /// Otherwise only its owner may: a Data.fs holds password hashes. The members have to say that they trust it:
    /// ZNAP_TRUST=DIR, see znap --help.
    #[arg(long)]
    group: bool,

    /// Store the databases' beginnings too, with the first save and after every pack, so that snapshots need nothing but
    /// .znap: see znap base
    #[arg(long)]
    base: bool,
}

pub(super) fn run(context: &Context, args: &Init) -> Result<Outcome> {
    let terminal = context.terminal;
    let options = InitOptions {
        root: place::new(context.global)?,
        databases: args.databases.clone(),
        current: place::current()?,
        share_with_group: args.group,
    };
    let report = init(&options, context.progress)?;
    if args.base {
        let place = Place { root: report.root.clone(), trusted: Vec::new() };
        keep_bases(&mut Repository::open_to_write(&place, context.progress)?, &[], context.progress)?;
    }
    context.progress.clear();
    terminal.say(format_args!(
        "started the repository {} with {}",
        report.root.display(),
        words::count(report.databases.len() as u64, "database", "databases")
    ))?;
    for database in &report.databases {
        terminal.say(format_args!("  {}", line(database, args.base)))?;
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
    }
    let needed =
        report.databases.iter().filter(|database| !database.complete).map(|database| database.base_length).sum();
    if needed > 0 && !args.base {
        terminal.hint(format_args!("znap base keep stores that too, in {}", about(needed)));
    }
    terminal.hint("znap save ID takes the first snapshot, such as: znap save before-upgrade");
    Ok(Outcome::Done)
}

fn line(database: &TrackedDatabase, keep: bool) -> String {
    let kept = if database.complete {
        "snapshots will need nothing but the repository".to_string()
    } else if keep {
        let bytes = words::size(database.base_length);
        format!("its first {bytes} will be stored with the first snapshot: {}", about(database.base_length))
    } else {
        format!("snapshots will need its first {}", words::size(database.base_length))
    };
    format!("{}: {}, {}; {kept}", database.name, database.path.display(), words::size(database.size))
}
