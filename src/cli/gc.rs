//! `znap gc`.

use clap::Args;

use znap::error::Result;
use znap::snapshot::{GcOptions, GcReport, Repository, gc, gc_dry_run};

use super::{Context, Outcome, place, words};

/// Free what nothing in .znap uses
///
/// Removes what only deleted snapshots or interrupted commands have left in .znap, joins small files and writes
/// those anew that are more than a fifth unused. Never touches a database, and no snapshot changes. What is freed
/// can't be taken back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap gc --dry-run
  znap gc")]
pub struct Gc {
    /// Say what would be freed, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Join all small files, write those anew that have anything unused in them, and compress harder: takes longer
    #[arg(long)]
    all: bool,

    /// Print the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Gc) -> Result<Outcome> {
    let terminal = context.terminal;
    let place = place::existing_to_change(context)?;
    let options = GcOptions { all: args.all };
    // A dry run too: while a save is going on, its files look like what nothing uses.
    let mut repository = Repository::open_to_write(&place, context.progress)?;
    let report = if args.dry_run {
        gc_dry_run(&mut repository, options)?
    } else {
        gc(&mut repository, options, context.progress)?
    };
    context.progress.clear();
    if args.json {
        terminal.json(&report)?;
    } else if args.dry_run {
        // It was asked for.
        terminal.result(text(&report, args))?;
        terminal.note("nothing was changed");
    } else {
        terminal.say(text(&report, args))?;
    }
    for name in &report.unknown_files {
        terminal.warn(format_args!("left alone, because znap knows nothing of it: objects/{}", words::clean(name)));
    }
    if report.bytes_after >= report.bytes_before {
        terminal.hint("znap delete ID forgets a snapshot; znap list shows those there are");
    }
    terminal.counts(&report.counts);
    Ok(Outcome::Done)
}

fn text(report: &GcReport, args: &Gc) -> String {
    let (freed, removed) = match args.dry_run {
        true => ("would free about", "would be removed"),
        false => ("freed", "removed"),
    };
    let files = |number| words::count(number, "file", "files");
    let mut lines = vec![format!(
        "{freed} {}: {} {removed}, {} written anew",
        words::size(report.bytes_before.saturating_sub(report.bytes_after)),
        files(report.files_removed),
        files(report.files_rewritten),
    )];
    let mut rest = format!(
        "the rest: {} for {}",
        words::size(report.bytes_after),
        words::count(report.snapshots, "snapshot", "snapshots")
    );
    if report.deleted_still_needed > 0 {
        rest.push_str(&format!(
            ", and what they share of {}",
            words::count(report.deleted_still_needed, "deleted one", "deleted ones")
        ));
    }
    lines.push(rest);
    if report.unused_bytes_left > 0 && !args.all {
        lines.push(format!(
            "about {} of it is unused, in files that are mostly used: znap gc --all frees that too",
            words::size(report.unused_bytes_left)
        ));
    }
    lines.join("\n")
}
