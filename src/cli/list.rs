//! `znap list`.

use clap::Args;
use jiff::tz::TimeZone;

use znap::error::Result;
use znap::repository::manifest::DAMAGED;
use znap::snapshot::{CutInfo, SnapshotInfo, list};

use super::table::table;
use super::{Context, Outcome, place, words};

/// List the snapshots, oldest first
///
/// Says of each when it was made, up to when its transactions go, how much comes after what init took for granted
/// (tail), how much it added, and whether it is complete or needs a database's file. With several databases the sizes
/// are sums, and the time is the latest. Touches nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap list
  znap list --json | jq -r '.[].id'")]
pub struct List {
    /// Print the list as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &List) -> Result<Outcome> {
    let terminal = context.terminal;
    let repository = place::open(context, &place::existing(context.global)?)?;
    let snapshots = list(&repository)?;
    if args.json {
        terminal.json(&snapshots)?;
    } else if snapshots.is_empty() {
        terminal.hint("there is no snapshot yet; znap save makes one");
    } else {
        let columns = [
            ("id", false),
            ("when", false),
            ("up to", false),
            ("tail", true),
            ("added", true),
            ("state", false),
            ("message", false),
        ];
        let rows = snapshots.iter().map(|snapshot| row(context, snapshot)).collect();
        terminal.result(table(&columns, rows))?;
    }
    Ok(Outcome::Done)
}

fn row(context: &Context, snapshot: &SnapshotInfo) -> Vec<String> {
    let zone = &context.terminal.zone;
    let latest = snapshot.databases.iter().filter_map(|cut| cut.time).max();
    vec![
        snapshot.id.clone(),
        words::time(snapshot.created, zone),
        latest.map_or_else(|| "-".into(), |time| words::time(time, zone)),
        // Whatever a catalog says.
        words::size(snapshot.databases.iter().fold(0, |sum, cut| cut.tail_bytes.saturating_add(sum))),
        words::size(snapshot.stored_bytes),
        state(snapshot, zone),
        words::clean(&snapshot.message),
    ]
}

/// Whether it needs nothing but the repository, or which files.
pub(super) fn state(snapshot: &SnapshotInfo, zone: &TimeZone) -> String {
    let needed = |cut: &CutInfo| {
        let name = words::clean(&cut.needs.as_ref()?.file_name()?.to_string_lossy());
        Some(match cut.needs_before {
            None => name,
            Some(pack) if snapshot.databases.len() == 1 => {
                format!("the file before the pack of {}", words::time(pack, zone))
            }
            Some(pack) => format!("{name} before the pack of {}", words::time(pack, zone)),
        })
    };
    let files: Vec<String> = snapshot.databases.iter().filter_map(needed).collect();
    if snapshot.kind == DAMAGED {
        return "damaged".into();
    }
    let mut words = if files.is_empty() { "complete".into() } else { format!("needs {}", files.join(", ")) };
    if snapshot.partial {
        let names: Vec<&str> = snapshot.databases.iter().map(|cut| cut.name.as_str()).collect();
        words.push_str(&format!(", partial: only {}", names.join(" and ")));
    }
    if !snapshot.one_moment {
        words.push_str(", not of one moment");
    }
    words
}
