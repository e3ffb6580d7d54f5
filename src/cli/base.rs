//! `znap base`.

use clap::{Args, ValueEnum};

use znap::error::{Kind, Result};
use znap::snapshot::{Repository, StoredBase, drop_bases, keep_bases, lost_snapshots};

use super::output::Terminal;
use super::{Context, Outcome, place, words};

/// Keep the beginnings of databases in the repository, or not
///
/// Snapshots hold what came after znap first saw a file, or after its last pack, and need the file itself for the rest. With
/// keep, that is stored too, now and after every pack: snapshots then need nothing but .znap. Of a Plone site it takes
/// 5 to 10 % of the Data.fs. With drop it isn't any more, and what the file has is given up; gc frees it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap base keep
  znap base drop catalog")]
pub struct Base {
    /// What to do
    what: What,

    /// The databases' names, as status shows them [default: all]
    #[arg(value_name = "DB")]
    databases: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Store them from now on
    Keep,
    /// Don't
    Drop,
}

pub(super) fn run(context: &Context, args: &Base) -> Result<Outcome> {
    let terminal = context.terminal;
    let place = place::existing_to_change(context)?;
    let mut repository = Repository::open_to_write(&place, context.progress)?;
    if args.what == What::Keep {
        let stored =
            keep_bases(&mut repository, &args.databases, context.progress).map_err(|error| match error.kind() {
                Kind::Interrupted(_) => error.hint("they are kept from now on: the next znap save stores them"),
                _ => error,
            })?;
        context.progress.clear();
        terminal.say("the databases' beginnings are kept from now on")?;
        tell_stored(terminal, &stored);
        warn_of_lost(terminal, &repository)?;
        return Ok(Outcome::Done);
    }
    let dropped = drop_bases(&mut repository, &args.databases, context.progress)?;
    context.progress.clear();
    for base in dropped {
        terminal.say(match base.bytes {
            Some(bytes) => format!(
                "{}: its beginning isn't kept any more; snapshots need the first {} of the file",
                base.database,
                words::size(bytes)
            ),
            None => format!("{}: its beginning isn't kept any more from now on", base.database),
        })?;
    }
    terminal.hint("znap gc frees what isn't needed any more");
    Ok(Outcome::Done)
}

/// Says what was stored, so that snapshots need it no more.
pub(super) fn tell_stored(terminal: &Terminal, bases: &[StoredBase]) {
    for base in bases {
        terminal.note(format_args!(
            "{}: the first {} of the file{} are stored now ({}), so that {}snapshots need it no more",
            base.database,
            words::size(base.bytes),
            if base.is_now { "" } else { " before" },
            words::size(base.stored_bytes),
            if base.is_now { "" } else { "older " },
        ));
    }
}

/// Warns of snapshots that need what nobody has any more.
pub(super) fn warn_of_lost(terminal: &Terminal, repository: &Repository) -> Result<()> {
    if let Some(lost) = words::lost(&lost_snapshots(repository)?) {
        terminal.warn(lost);
    }
    Ok(())
}

/// What it takes to store so many bytes of a site's database, in words.
pub(super) fn about(bytes: u64) -> String {
    format!("about {} to {} for a site like Plone's", words::size(bytes / 20), words::size(bytes / 10))
}
