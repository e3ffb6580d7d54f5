//! `znap restore`.

use std::path::PathBuf;

use clap::Args;

use znap::error::Result;
use znap::snapshot::{
    CopyReport, DatabasePlan, Repository, RestoreOptions, RestorePlan, RestoreReport, copy_out, dry_run, restore,
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
/// Refuses to drop transactions that no snapshot holds, unless --discard is given. To be able to take a restore back,
/// znap save first: then znap restore with that snapshot's id is the way back.
///
/// With --to, nothing but DIR is touched: each database is written whole, index included, to DIR/NAME/. The server
/// may keep running.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap restore before-upgrade --dry-run
  znap restore before-upgrade
  znap restore latest --to /tmp/copy")]
pub struct Restore {
    /// The snapshot: its id, the beginning of it, or latest
    id: String,

    /// Say what would be done, and do nothing; takes no lock, so the server may be running
    #[arg(long)]
    dry_run: bool,

    /// Check the bytes that stay in the database, too: reads the whole file
    ///
    /// What came after init is checked against hashes, what was there before only for its structure.
    #[arg(long)]
    verify: bool,

    /// Drop transactions that no snapshot holds; they are gone for good
    #[arg(long)]
    discard: bool,

    /// Write the databases whole to DIR/NAME/ instead, which must be new or empty
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dry_run", "verify", "discard"])]
    pub(super) to: Option<PathBuf>,

    /// Print the plan or the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Restore) -> Result<Outcome> {
    let place = place::existing_to_change(context)?;
    if let Some(to) = &args.to {
        let report = copy_out(&Repository::open(&place)?, &args.id, to, context.progress)?;
        context.progress.clear();
        return tell_copy(context, &report, args.json);
    }
    if args.dry_run {
        let plan = dry_run(&Repository::open(&place)?, &args.id, context.progress)?;
        context.progress.clear();
        return tell_plan(context, &plan, args);
    }
    let options = RestoreOptions { discard: args.discard, verify: args.verify, zone: context.terminal.zone.clone() };
    let mut repository = Repository::open_to_write(&place, context.progress)?;
    let report = restore(&mut repository, &args.id, &options, context.progress)?;
    context.progress.clear();
    tell(context, &report, args.json)
}

fn tell(context: &Context, report: &RestoreReport, json: bool) -> Result<Outcome> {
    let terminal = context.terminal;
    let said = if json { terminal.json(report) } else { tell_done(context, report) };
    terminal.counts(&report.counts);
    if report.plan.goes_back() {
        // Even when it is to be quiet, and when nothing else can be said.
        terminal.warn(ZEO);
    }
    said.map_err(|error| error.context(format!("snapshot {} was restored, but", report.plan.id)))?;
    Ok(Outcome::Done)
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
    }
    lines.extend(words::checked(report.verified, report.verified_structure));
    context.terminal.say(lines.join("\n"))
}

/// What a ZEO client remembers of transactions that are gone.
const ZEO: &str = "\
if ZEO clients use this database, stop every one and delete its persistent cache (*.zec) on every host:
one that saw the transactions that are gone now can serve them, or commit on top of them, without a word";

fn now(context: &Context, database: &DatabasePlan) -> String {
    words::up_to(database.target_time, &database.target_tid, &context.terminal.zone)
}

fn tell_plan(context: &Context, plan: &RestorePlan, args: &Restore) -> Result<Outcome> {
    let terminal = context.terminal;
    if args.json {
        terminal.json(plan)?;
        return Ok(Outcome::Done);
    }
    let mut lines = vec![format!("restoring {} would do this:", plan.id)];
    for database in &plan.databases {
        lines.push(format!("{STRONG}{}{STRONG:#}  {}", database.name, words::clean(&database.path.to_string_lossy())));
        lines.push(pairs("  ", &facts(context, database)));
        lines.extend(losses(context, database));
    }
    terminal.result(lines.join("\n"))?;
    terminal.note("nothing was changed");
    if plan.unsaved() > 0 && !args.discard {
        terminal.hint(format_args!(
            "as it is, this would be refused: znap save keeps what would be lost; \
             znap restore --discard {} drops it",
            plan.id
        ));
    }
    Ok(Outcome::Done)
}

fn facts(context: &Context, database: &DatabasePlan) -> Vec<(&'static str, String)> {
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
        facts.push(("dropped", left_out.clone()));
    }
    if database.beside {
        facts.push(("links", "the file has other names (hard links); they keep it as it is now".into()));
    }
    facts
}

fn losses(context: &Context, database: &DatabasePlan) -> Vec<String> {
    let mut lines = Vec::new();
    if database.unsaved > 0 {
        lines.push(format!("  lost, because no snapshot holds them: {}", words::transactions(database.unsaved)));
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
                "  {}: {}, {}, with its index",
                database.name,
                database.path.display(),
                words::size(database.bytes)
            ))?;
        }
    }
    terminal.counts(&report.counts);
    Ok(Outcome::Done)
}
