//! `znap show`.

use clap::Args;

use znap::error::Result;
use znap::snapshot::{CutInfo, DatabaseDetails, SnapshotDetails, show};

use super::list::state;
use super::output::STRONG;
use super::table::pairs;
use super::{Context, Outcome, place, words};

/// Show one snapshot
///
/// Says per database where the snapshot ends, how many transactions and bytes come after what init took for granted,
/// in how many pieces (chunks) they are stored, and what its index is made from. Touches nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap show latest
  znap show before-up")]
pub struct Show {
    /// The snapshot: its id, the beginning of it, or latest
    id: String,

    /// Print it as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Show) -> Result<Outcome> {
    let repository = place::open(context, &place::existing(context.global)?)?;
    let snapshot = show(&repository, &args.id)?;
    if args.json {
        context.terminal.json(&snapshot)?;
    } else {
        context.terminal.result(text(context, &snapshot))?;
    }
    Ok(Outcome::Done)
}

fn text(context: &Context, snapshot: &SnapshotDetails) -> String {
    let zone = &context.terminal.zone;
    let info = &snapshot.info;
    let mut facts = vec![
        ("made", format!("{} ({})", words::exact_time(info.created, zone), info.kind)),
        ("added", words::exact_size(info.stored_bytes)),
        ("state", state(info, zone)),
        ("manifest", snapshot.manifest.clone()),
    ];
    if !info.message.is_empty() {
        facts.insert(0, ("message", words::clean(&info.message)));
    }
    let mut lines = vec![format!("{STRONG}{}{STRONG:#}", info.id), pairs("  ", &facts)];
    for (cut, details) in info.databases.iter().zip(&snapshot.details) {
        lines.push(format!("{STRONG}{}{STRONG:#}  {}", cut.name, words::clean(&details.path.to_string_lossy())));
        lines.push(pairs("  ", &facts_of(context, cut, details)));
    }
    lines.join("\n")
}

fn facts_of(context: &Context, cut: &CutInfo, details: &DatabaseDetails) -> Vec<(&'static str, String)> {
    let last = match cut.time {
        Some(time) => format!("{} (tid {})", words::exact_time(time, &context.terminal.zone), cut.tid),
        None => "none".into(),
    };
    let keeps = match &details.parent {
        Some(parent) => format!(", {} of them shared with {parent}", details.kept_chunks),
        None => String::new(),
    };
    let changes = match details.index_deltas {
        0 => String::new(),
        number => format!(" and {}", words::count(number, "set of changes", "sets of changes")),
    };
    let objects = words::count(details.index_keyframe, "object", "objects");
    vec![
        ("length", words::exact_size(cut.cut)),
        ("last transaction", last),
        (
            "needs",
            match &cut.needs {
                Some(path) => {
                    let (size, path) = (words::size(details.base_length), words::clean(&path.to_string_lossy()));
                    match cut.needs_before {
                        None => format!("the first {size} of {path}"),
                        Some(pack) => {
                            let pack = words::time(pack, &context.terminal.zone);
                            format!("the first {size} of {path} as it was before the pack of {pack}")
                        }
                    }
                }
                None => "nothing but the repository".into(),
            },
        ),
        ("tail", format!("{}, {}", words::exact_size(cut.tail_bytes), words::transactions(cut.transactions))),
        ("new in it", words::exact_size(cut.new_bytes)),
        ("chunks", format!("{}{keeps}", details.chunks)),
        ("index", format!("made from {objects}{changes}, {}", words::size(details.index_bytes))),
    ]
}
