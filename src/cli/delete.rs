//! `znap delete`.

use clap::Args;

use znap::error::{Kind, Result};
use znap::snapshot::{Repository, delete};

use super::{Context, Outcome, place};

/// Forget snapshots
///
/// Takes whole ids only. Other snapshots are not affected, and the databases are not touched. The space comes back
/// with znap gc. It can't be taken back; where one of the ids doesn't exist, nothing is deleted.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  znap delete before-upgrade after-upgrade")]
pub struct Delete {
    /// The snapshots' ids, whole
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(super) fn run(context: &Context, args: &Delete) -> Result<Outcome> {
    let place = place::existing_to_change(context)?;
    let mut repository = Repository::open_to_write(&place, context.progress)?;
    let report = delete(&mut repository, &args.ids, context.progress).map_err(|error| match error.kind() {
        Kind::NotFound => error.hint("delete takes whole ids, no beginnings and not latest; znap list shows them"),
        _ => error,
    })?;
    context.progress.clear();
    let said = context.terminal.say(format_args!("deleted {}", report.deleted.join(", ")));
    said.map_err(|error| error.context("the snapshots were deleted, but"))?;
    context.terminal.hint("znap gc gives back the space");
    Ok(Outcome::Done)
}
