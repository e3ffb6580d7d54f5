//! `znap export`.

use std::path::PathBuf;

use clap::Args;

use znap::error::Result;
use znap::snapshot::export;

use super::{Context, Outcome, place, words};

/// Write a snapshot into an archive that plain tar unpacks
///
/// FILE becomes a tar archive in zstd: per database, in a directory of its name, the whole file, its index and its blobs.
/// What the repository has is checked against its hashes; what it hasn't, because the snapshot needs the beginning of the
/// database's file, by parsing it. If anything is damaged, there is no FILE. The server may keep running.
///
/// znap import takes it into another repository; without znap, tar --zstd -xf FILE unpacks it. It holds everything that
/// is in the databases, password hashes too, and only you may read it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap export before-upgrade /backup/before-upgrade.tar.zst
  znap export latest site.tar.zst && tar --zstd -tvf site.tar.zst")]
pub struct Export {
    /// The snapshot: its id, the beginning of it, or latest
    id: String,

    /// The archive, which must not exist yet
    file: PathBuf,

    /// Leave the blobs out
    #[arg(long)]
    no_blobs: bool,

    /// Print the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Export) -> Result<Outcome> {
    let terminal = context.terminal;
    let place = place::existing_to_change(context)?;
    let report = export(&place::open(context, &place)?, &args.id, &args.file, !args.no_blobs, context.progress)?;
    context.progress.clear();
    // Said in any case: the file is there.
    let said = if args.json {
        terminal.json(&report)
    } else {
        let mut lines = vec![format!(
            "wrote snapshot {} to {}, {}",
            report.id,
            words::clean(&report.path.to_string_lossy()),
            words::size(report.bytes)
        )];
        lines.extend(report.databases.iter().map(|database| {
            let member = words::database(&database.name, &database.path);
            let blobs = database.blobs.as_ref().map_or(String::new(), |blobs| {
                let (count, size) = (words::count(blobs.count, "blob", "blobs"), words::size(blobs.add_bytes));
                format!(" and {count} ({size}){}", words::missing(blobs))
            });
            format!("  {member}: {}, with its index{blobs}", words::size(database.bytes))
        }));
        let blobs = report.without_blobs.iter().map(|name| format!("the blobs of {name}"));
        let not_written: Vec<String> = report.not_written.iter().cloned().chain(blobs).collect();
        if !not_written.is_empty() {
            lines.push(format!("not written: {}", not_written.join(", ")));
        }
        terminal.say(lines.join("\n"))
    };
    terminal.warn("it holds everything that is in the databases, password hashes too: keep it as safe as them");
    terminal.counts(&report.counts);
    said.map_err(|error| error.context(format!("{} was written, but", report.path.display())))?;
    Ok(Outcome::Done)
}
