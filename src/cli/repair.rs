//! `znap repair`.

use std::path::PathBuf;

use clap::Args;

use znap::error::Result;
use znap::snapshot::{DamagedObject, RepairOptions, RepairReport, repair};

use super::{Context, Outcome, place, words};

/// Bring back what can be brought back of a damaged .znap
///
/// Reads all of .znap and makes catalog.db anew if it is missing, damaged or older than the rest; deleted snapshots
/// stay deleted. What is missing or damaged in .znap/objects is taken again from the databases, if they still have it, and
/// from copies that --from names. Snapshots that need what nobody has are set aside: they are listed as damaged.
///
/// Never touches a database. Damaged files are not deleted, but moved to .znap/damaged. It may be interrupted and given
/// again. Exits with 6 if a snapshot is damaged or lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap repair --dry-run
  znap repair --from /backup/Data.fs --from /backup/.znap")]
pub struct Repair {
    /// Look here too: a copy of a database, another .znap, or a directory with object files; may be given several times
    #[arg(long, value_name = "PATH")]
    from: Vec<PathBuf>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Repair) -> Result<Outcome> {
    let terminal = context.terminal;
    let place = place::existing_to_change(context)?;
    let options = RepairOptions { dry_run: args.dry_run, from: args.from.clone() };
    let report = repair(&place, &options, context.progress)?;
    context.progress.clear();
    if args.json {
        terminal.json(&report)?;
    } else if args.dry_run {
        // It was asked for.
        terminal.result(text(&report, true))?;
        terminal.note("nothing was changed");
    } else {
        terminal.say(text(&report, false))?;
    }
    for name in &report.unknown_files {
        terminal.warn(format_args!("left alone, because znap knows nothing of it: objects/{}", words::clean(name)));
    }
    warn(context, &report);
    terminal.counts(&report.counts);
    Ok(if report.is_whole() { Outcome::Done } else { Outcome::Warned })
}

/// What isn't whole, and what can be done about it; also when only errors and warnings are wanted.
fn warn(context: &Context, report: &RepairReport) {
    let terminal = context.terminal;
    for snapshot in &report.set_aside {
        terminal.warn(format_args!("snapshot {} is damaged: nobody has {}", snapshot.id, snapshot.missing.join("; ")));
    }
    if report.blobs_lost > 0 {
        terminal.warn(format_args!(
            "{} lost: snapshots that have them are restored without; a save takes those again that the database still has",
            words::count(report.blobs_lost, "blob is", "blobs are")
        ));
    }
    for id in &report.forgotten {
        terminal.warn(format_args!("snapshot {id} is lost: only the catalog knew of it"));
    }
    for id in &report.from_catalog {
        terminal.warn(format_args!(
            "snapshot {id} was made again from the catalog alone: delete it if it was deleted (znap delete {id})"
        ));
    }
    for file in report.damaged_files.iter().filter(|file| !file.made_good) {
        match file.kind {
            Some("manifest") => {
                terminal.warn(format_args!("object file {} was a snapshot, which is lost", short(file)))
            }
            Some("tombstone") => terminal.warn(format_args!(
                "object file {} was a deletion: a deleted snapshot may be listed again",
                short(file)
            )),
            None => {
                terminal.warn(format_args!("object file {} may have been a snapshot, which is lost then", short(file)))
            }
            Some("blob") => terminal.warn(format_args!(
                "object file {} was a blob, which nobody has any more: znap check says which snapshots need it",
                short(file)
            )),
            _ => {}
        }
    }
    if let Some(id) = &report.unfinished_restore {
        terminal.warn(format_args!(
            "the restore of {id} is unfinished: znap restore --resume finishes it, --abort goes back"
        ));
    }
    if !report.is_whole() {
        terminal.hint(
            "znap repair --from PATH looks in a copy of a database or of .znap, too; znap delete ID forgets a snapshot",
        );
    }
}

fn short(file: &DamagedObject) -> String {
    file.name.chars().take(12).chain(['…']).collect()
}

fn text(report: &RepairReport, dry_run: bool) -> String {
    let snapshots = words::count(report.snapshots, "snapshot", "snapshots");
    if !report.is_change() && report.set_aside.is_empty() {
        return format!("nothing to repair: {snapshots}, and all that they need is there");
    }
    let (was, were) = if dry_run { ("would be", "would be") } else { ("was", "were") };
    let mut lines = Vec::new();
    if let Some(problem) = &report.catalog_problem {
        lines.push(format!("the catalog {was} made anew, with {snapshots}: {}", words::clean(problem)));
    }
    if let Some(kept) = &report.catalog_kept {
        lines.push(format!("the one before it is kept as {kept}"));
    }
    for file in &report.damaged_files {
        let end =
            if file.made_good { "nothing that is needed is lost with it" } else { "not all of it could be had again" };
        let kind = file.kind.map_or(String::new(), |kind| format!(" ({kind})"));
        lines.push(format!("object file {}{kind}: {}; {end}", short(file), file.problem));
    }
    let found = &report.found;
    let sources = [
        (found.damaged_files, "out of damaged files"),
        (found.databases, "out of the databases"),
        (found.copies, "out of copies"),
        (found.indexes, "made again from the transactions"),
    ];
    let taken: Vec<String> = sources
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, place)| format!("{} {place}", words::count(*number, "chunk", "chunks")))
        .collect();
    if !taken.is_empty() {
        lines.push(format!("{were} stored again: {}", taken.join(", ")));
    }
    if !report.brought_back.is_empty() {
        lines.push(format!("{was} brought back: {}", report.brought_back.join(", ")));
    }
    if !report.renamed.is_empty() {
        lines.push(format!("{were} given new ids, because two had the same: {}", report.renamed.join(", ")));
    }
    let set_aside: Vec<&str> = report.set_aside.iter().filter(|one| !one.before).map(|one| one.id.as_str()).collect();
    if !set_aside.is_empty() {
        lines.push(format!("{was} set aside as damaged: {}", set_aside.join(", ")));
    }
    let whole = report.snapshots.saturating_sub(report.set_aside.len() as u64);
    lines.push(format!("{} can be restored", words::count(whole, "snapshot", "snapshots")));
    lines.join("\n")
}
