//! `znap undo`.

use clap::Args;

use znap::error::Result;
use znap::snapshot::{Repository, RestoreOptions, undo, undo_dry_run};

use super::{Context, Outcome, place, restore};

/// Take the last restore back
///
/// Puts the databases back as they were before the last znap restore: to the snapshot that they were then, or to the one
/// that the restore made of what no snapshot held. It is a restore like any other, so a second undo takes the first one back. What
/// came after the restore is kept in a snapshot too; --discard drops it instead.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap undo --dry-run
  znap undo")]
pub struct Undo {
    /// Say what would be done, and do nothing; takes no lock, so the server may be running
    #[arg(long)]
    dry_run: bool,

    /// Don't save transactions that no snapshot holds: list them, and drop them for good
    #[arg(long)]
    discard: bool,

    /// Check the bytes that stay in the database, too: reads the whole file
    #[arg(long)]
    verify: bool,

    /// Print the plan or the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Undo) -> Result<Outcome> {
    let place = place::existing_to_change(context)?;
    if args.dry_run {
        let plan = undo_dry_run(&place::open(context, &place)?, context.progress)?;
        context.progress.clear();
        return restore::tell_plan(context, &plan, args.discard, args.json);
    }
    let options = RestoreOptions {
        discard: args.discard,
        verify: args.verify,
        base_from: None,
        zone: context.terminal.zone.clone(),
        only: Vec::new(),
    };
    let report = undo(&mut Repository::open_to_write(&place, context.progress)?, &options, context.progress)?;
    context.progress.clear();
    restore::tell(context, &report, args.json)
}
