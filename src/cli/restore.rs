//! `znap restore`.

use std::path::PathBuf;

use clap::Args;

use znap::error::Result;
use znap::snapshot::{
    BlobPlan, CacheMoved, CopyReport, DatabasePlan, Repository, RestoreOptions, RestorePlan, RestoreReport, Way,
    copy_out_only, dry_run_only, finish, restore,
};

use super::output::STRONG;
use super::table::pairs;
use super::{Context, Outcome, place, words};

/// Put the databases back as they were at a snapshot
///
/// Cuts off what came after the snapshot, writes what is missing, and puts the index of that moment beside each
/// file. Only what differs is written, and every byte of it is checked first; the index takes 8 bytes an object. The
/// server must be stopped: ZODB's own lock is taken, and a database that any process has open is refused.
///
/// What no snapshot holds is saved first, and znap undo takes the restore back; --discard drops it instead. If a restore
/// is interrupted, even by a power cut, ZODB refuses to open what is half restored until --resume or --abort was given.
///
/// Databases that the snapshot doesn't have, or that --only leaves out, stay as they are, and are named.
///
/// With --to, nothing but DIR is touched: each database is written whole, index included, to DIR/NAME/. The server
/// may keep running.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap restore before-upgrade --dry-run
  znap restore before-upgrade
  znap restore before-upgrade --only catalog
  znap restore latest --to /tmp/copy")]
pub struct Restore {
    /// The snapshot: its id, the beginning of it, or latest
    #[arg(required_unless_present_any = ["resume", "abort"])]
    id: Option<String>,

    /// Say what would be done, and do nothing; takes no lock, so the server may be running
    #[arg(long)]
    dry_run: bool,

    /// Check the bytes that stay in the database, too: reads the whole file
    ///
    /// What came after init is checked against hashes, what was there before only for its structure.
    #[arg(long)]
    verify: bool,

    /// Don't save transactions that no snapshot holds: list them, and drop them for good
    #[arg(long)]
    discard: bool,

    /// A file that begins as the database did before a pack, if the snapshot needs that
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run"])]
    base_from: Option<PathBuf>,

    /// Put only these databases back, by their names; the others stay as they are
    #[arg(long, value_name = "DB", value_delimiter = ',', requires = "id")]
    only: Vec<String>,

    /// Finish the restore that was interrupted
    #[arg(long, conflicts_with_all = ["id", "dry_run", "verify", "discard", "to", "abort", "base_from"])]
    resume: bool,

    /// Go back to what was there before the restore that was interrupted
    #[arg(long, conflicts_with_all = ["id", "dry_run", "verify", "discard", "to", "base_from"])]
    abort: bool,

    /// Write the databases whole to DIR/NAME/ instead; DIR must be new or empty
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dry_run", "verify", "discard"])]
    pub(super) to: Option<PathBuf>,

    /// Print the plan or the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Restore) -> Result<Outcome> {
    let place = place::existing_to_change(context)?;
    // Without an id it is one of these, as the arguments are declared.
    let Some(id) = &args.id else {
        let way = if args.resume { Way::Forward } else { Way::Back };
        return tell_finished(context, &mut Repository::open_to_finish(&place, context.progress)?, way, args.json);
    };
    if let Some(to) = &args.to {
        let (repository, base_from) = (place::open(context, &place)?, args.base_from.as_deref());
        let report = copy_out_only(&repository, id, &args.only, base_from, to, context.progress)?;
        context.progress.clear();
        return tell_copy(context, &report, args.json);
    }
    if args.dry_run {
        let plan = dry_run_only(&place::open(context, &place)?, id, &args.only, context.progress)?;
        context.progress.clear();
        return tell_plan(context, &plan, args.discard, args.json);
    }
    let options = RestoreOptions {
        discard: args.discard,
        verify: args.verify,
        base_from: args.base_from.clone(),
        zone: context.terminal.zone.clone(),
        only: args.only.clone(),
    };
    let mut repository = Repository::open_to_write(&place, context.progress)?;
    let report = restore(&mut repository, id, &options, context.progress)?;
    context.progress.clear();
    tell(context, &report, args.json)
}

/// Says what a restore did.
pub(super) fn tell(context: &Context, report: &RestoreReport, json: bool) -> Result<Outcome> {
    let terminal = context.terminal;
    let said = if json { terminal.json(report) } else { tell_done(context, report) };
    terminal.counts(&report.counts);
    tell_caches(context, &report.zeo_caches);
    for database in report.plan.databases.iter().filter(|database| database.homeless_blobs > 0) {
        terminal.warn(format_args!(
            "{}: the snapshot has {}, and there is no blob directory to put them in",
            database.name,
            words::count(database.homeless_blobs, "blob", "blobs")
        ));
        terminal.hint(format_args!("znap track {} --blobs DIR, and restore again", database.name));
    }
    if report.plan.goes_back() {
        // Even when it is to be quiet, and when nothing else can be said.
        terminal.warn(ZEO);
    }
    said.map_err(|error| error.context(format!("snapshot {} was restored, but", report.plan.id)))?;
    Ok(if report.blobs_left { Outcome::Warned } else { Outcome::Done })
}

fn tell_done(context: &Context, report: &RestoreReport) -> Result<()> {
    let mut lines = vec![format!("restored {}", report.plan.id)];
    for database in &report.plan.databases {
        lines.push(format!(
            "  {}: kept {}, cut off {}, wrote {}; now {}",
            words::database(&database.name, &database.path),
            words::size(database.keep),
            words::size(database.cut_off),
            words::size(database.write),
            now(context, database),
        ));
        lines.extend(database.blobs.iter().map(|blobs| format!("    {}", blobs_done(blobs))));
        lines.extend(losses(context, database, "  dropped for good, because no snapshot held them"));
    }
    lines.extend(untouched(&report.plan));
    if let Some(kept) = &report.kept {
        lines.push(format!("what no snapshot held is kept as {kept}"));
    }
    lines.extend(left_out_kept(&report.left_out));
    if report.left_out.is_empty() {
        let left_out = |database: &DatabasePlan| database.left_out.clone().filter(|_| database.keep < database.size);
        lines.extend(
            report.plan.databases.iter().filter_map(left_out).map(|what| format!("  dropped for good: {what}")),
        );
    }
    lines.extend(words::checked(report.verified, report.verified_structure));
    context.terminal.say(lines.join("\n"))?;
    if report.undoable {
        context.terminal.hint("znap undo takes it back");
    }
    Ok(())
}

fn blobs_done(blobs: &BlobPlan) -> String {
    if !blobs.saved {
        return "its blobs weren't saved, and stay as they are".into();
    }
    let (count, missing) = (words::count(blobs.count, "blob", "blobs"), words::missing(blobs));
    match (blobs.add, blobs.remove) {
        (0, 0) => format!("{count}, all there{missing}"),
        (add, remove) => {
            format!("{count}: put {add} there ({}), removed {remove}{missing}", words::size(blobs.add_bytes))
        }
    }
}

/// The databases that stay as they are.
fn untouched(plan: &RestorePlan) -> Option<String> {
    (!plan.untouched.is_empty()).then(|| format!("left as they are: {}", plan.untouched.join(", ")))
}

fn tell_finished(context: &Context, repository: &mut Repository, way: Way, json: bool) -> Result<Outcome> {
    let finished = finish(repository, way, context.progress)?;
    context.progress.clear();
    let terminal = context.terminal;
    let outcome = match &finished {
        Some(finished) if finished.blobs_left => Outcome::Warned,
        _ => Outcome::Done,
    };
    if let Some(finished) = &finished {
        tell_caches(context, &finished.zeo_caches);
        for line in left_out_kept(&finished.left_out) {
            terminal.note(line);
        }
        for name in &finished.left_alone {
            terminal.warn(format_args!("{name} had not been touched yet, and was used since: it was left as it is"));
        }
    }
    if json {
        terminal.json(&finished)?;
        if finished.is_some_and(|finished| finished.restored || finished.dropped) {
            terminal.warn(ZEO);
        }
        return Ok(outcome);
    }
    match finished {
        None => terminal.say("nothing to do: no restore is unfinished")?,
        Some(finished) if finished.restored => {
            terminal.say(format_args!("restored {}", finished.id))?;
            terminal.warn(ZEO);
        }
        Some(finished) if finished.dropped => {
            terminal.say(format_args!(
                "everything is as it was before the restore of {}, but for what no snapshot held: --discard dropped it for good",
                finished.id
            ))?;
            terminal.warn(ZEO);
        }
        Some(finished) => {
            terminal.say(format_args!("everything is as it was before the restore of {}", finished.id))?
        }
    }
    Ok(outcome)
}

fn left_out_kept(files: &[PathBuf]) -> Vec<String> {
    let line = |path: &PathBuf| {
        format!("what lay behind the last complete transaction is kept in {}", words::clean(&path.to_string_lossy()))
    };
    files.iter().map(line).collect()
}

fn tell_caches(context: &Context, caches: &[CacheMoved]) {
    for cache in caches {
        let path = words::clean(&cache.path.to_string_lossy());
        match &cache.now {
            Some(now) => context.terminal.note(format_args!("the ZEO cache {path} is called {now} now: remove it")),
            None => context
                .terminal
                .warn(format_args!("the ZEO cache {path} could not be renamed: delete it before its client starts")),
        }
    }
}

/// What a ZEO client remembers of transactions that are gone.
const ZEO: &str = "\
if ZEO clients use this database, stop every one and delete its persistent cache (*.zec) on every host:
one that saw the transactions that are gone now can serve them, or commit on top of them, without a word";

fn now(context: &Context, database: &DatabasePlan) -> String {
    words::up_to(database.target_time, &database.target_tid, &context.terminal.zone)
}

/// Says what a restore would do.
pub(super) fn tell_plan(context: &Context, plan: &RestorePlan, discard: bool, json: bool) -> Result<Outcome> {
    let terminal = context.terminal;
    if json {
        terminal.json(plan)?;
        return Ok(Outcome::Done);
    }
    let heading = if discard {
        "  dropped for good, because no snapshot holds them"
    } else {
        "  kept in a snapshot for znap undo, because no other holds them"
    };
    let mut lines = vec![format!("restoring {} would do this:", plan.id)];
    for database in &plan.databases {
        lines.push(format!("{STRONG}{}{STRONG:#}  {}", database.name, words::clean(&database.path.to_string_lossy())));
        lines.push(pairs("  ", &facts(context, database, discard)));
        lines.extend(losses(context, database, heading));
    }
    lines.extend(untouched(plan));
    terminal.result(lines.join("\n"))?;
    terminal.note("nothing was changed");
    Ok(Outcome::Done)
}

fn facts(context: &Context, database: &DatabasePlan, discard: bool) -> Vec<(&'static str, String)> {
    let begins = match &database.from {
        Some(from) => format!("begins with snapshot {from}"),
        None => "begins with no snapshot".into(),
    };
    let mut facts = vec![
        ("now", format!("{}, {begins}", words::exact_size(database.size))),
        ("kept", words::exact_size(database.keep)),
        ("cut off", words::exact_size(database.cut_off)),
        ("written", words::exact_size(database.write)),
        ("then", format!("{}, {}", words::exact_size(database.target), now(context, database))),
    ];
    if let Some(left_out) = &database.left_out {
        facts.push((if discard { "dropped" } else { "left out" }, left_out.clone()));
    }
    if let Some(blobs) = &database.blobs {
        let fact = match blobs.saved {
            true => format!(
                "{}; {} to put there ({}), {} to remove",
                words::count(blobs.count, "blob", "blobs"),
                blobs.add,
                words::size(blobs.add_bytes),
                blobs.remove
            ),
            false => "they weren't saved, and stay as they are".into(),
        };
        facts.push(("blobs", fact));
    }
    if let Some(what) = database.new_life {
        facts.push(("changed", format!("it was {what} since the last snapshot, and is saved first")));
    }
    if database.anew {
        facts.push((
            "packed",
            "a pack lies between: the whole file is written beside and takes the other's place".into(),
        ));
    }
    if database.beside {
        facts.push(("links", "the file has other names (hard links); they keep it as it is now".into()));
    }
    facts
}

fn losses(context: &Context, database: &DatabasePlan, heading: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if database.unsaved > 0 {
        lines.push(format!("{heading}: {}", words::transactions(database.unsaved)));
        let listed = &database.unsaved_transactions;
        lines.extend(listed.iter().map(|entry| format!("    {}", words::clean(&entry.line(&context.terminal.zone)))));
        let more = database.unsaved.saturating_sub(listed.len() as u64);
        if more > 0 {
            lines.push(format!("    and {more} more"));
        }
    }
    lines
}

fn tell_copy(context: &Context, report: &CopyReport, json: bool) -> Result<Outcome> {
    let terminal = context.terminal;
    if json {
        terminal.json(report)?;
    } else {
        terminal.say(format_args!("wrote snapshot {}", report.id))?;
        for database in &report.databases {
            terminal.say(format_args!(
                "  {}: {}, {}, with its index{}",
                database.name,
                database.path.display(),
                words::size(database.bytes),
                match &database.blobs {
                    Some(blobs) => format!(
                        " and {} ({}){}",
                        words::count(blobs.count, "blob", "blobs"),
                        words::size(blobs.add_bytes),
                        words::missing(blobs)
                    ),
                    None => String::new(),
                }
            ))?;
        }
        if !report.not_written.is_empty() {
            terminal.say(format_args!("not written: {}", report.not_written.join(", ")))?;
        }
    }
    terminal.counts(&report.counts);
    Ok(Outcome::Done)
}
