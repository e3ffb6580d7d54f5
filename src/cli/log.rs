//! `znap log`.

use clap::Args;
use jiff::Timestamp;

use znap::error::Result;
use znap::snapshot::{DatabaseLog, LogEntry, LogOptions, log};

use super::table::table;
use super::{Context, Outcome, place, times, words};

/// List the transactions of a snapshot, or of the databases as they are
///
/// Newest first: time, tid, user, description, number of objects, bytes. What is longer than 60 characters is cut;
/// --json has all. Touches nothing, and the server may be
/// running. A snapshot that needs its database's file is listed only down to where the file would be needed, if that
/// is gone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap log -n 20
  znap log before-upgrade --since 2026-11-20
  znap log --since 2h --grep /Plone/news")]
pub struct Log {
    /// The snapshot: its id, the beginning of it, or latest [default: the databases as they are]
    id: Option<String>,

    /// Only transactions at or after this time: 2026-11-20, "2026-11-20 14:03", RFC 3339, or an age such as 2h or 3d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Only transactions with this text in user or description, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,

    /// At most so many transactions, the newest
    #[arg(short = 'n', long = "limit", value_name = "NUMBER")]
    limit: Option<usize>,

    /// Print them as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Log) -> Result<Outcome> {
    let terminal = context.terminal;
    let since = match &args.since {
        Some(text) => Some(times::time(text, Timestamp::now(), &terminal.zone)?),
        None => None,
    };
    let options = LogOptions { snapshot: args.id.clone(), since, grep: args.grep.clone(), limit: args.limit };
    let repository = place::open(context, &place::existing(context.global)?)?;
    let logs = log(&repository, &options, context.progress)?;
    context.progress.clear();
    if args.json {
        terminal.json(&logs)?;
    } else if logs.iter().all(|log| log.transactions.is_empty()) {
        terminal.hint("no transaction fits; znap log -n 20 lists the last ones");
    } else {
        terminal.result(text(context, &logs))?;
    }
    for log in logs.iter().filter(|log| log.ends_at_base) {
        terminal.note(format_args!(
            "{}: older transactions are in the database's file, which isn't there or is another one",
            log.database
        ));
    }
    Ok(Outcome::Done)
}

fn text(context: &Context, logs: &[DatabaseLog]) -> String {
    let mut entries: Vec<(&str, &LogEntry)> =
        logs.iter().flat_map(|log| log.transactions.iter().map(|entry| (log.database.as_str(), entry))).collect();
    // Within a database the file's order stands, even where its times don't go up.
    if logs.len() > 1 {
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.time));
    }
    let mut columns = vec![
        ("time", false),
        ("tid", false),
        ("user", false),
        ("description", false),
        ("objects", true),
        ("bytes", true),
    ];
    if logs.len() > 1 {
        columns.insert(0, ("database", false));
    }
    let row = |(database, entry): (&str, &LogEntry)| {
        let mut row = vec![
            words::exact_time(entry.time, &context.terminal.zone),
            entry.tid.clone(),
            words::short(&entry.user),
            words::short(&entry.description),
            entry.objects.to_string(),
            entry.bytes.to_string(),
        ];
        if logs.len() > 1 {
            row.insert(0, database.to_string());
        }
        row
    };
    table(&columns, entries.into_iter().map(row).collect())
}
