//! `znap import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use znap::error::{Error, Result};
use znap::snapshot::{ImportOptions, ImportReport, Imported, Origin, Repository, import};

use super::{Context, Outcome, place, words};

/// Take in what an archive, repozo or znap2 holds
///
/// Makes snapshots of it, each with the time at which that was made. Everything is checked: an archive of znap export by
/// its hashes, backups of repozo by the sums in their .dat files, and all of it is parsed. What isn't sound, or needs
/// something that isn't, is named and not taken; the exit code is then 6. What is there already is left as it is, so
/// that the command can be given again.
///
/// Only .znap is written to, which for a while needs room for one database, unpacked. To take it back: znap delete ID.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap import --from repozo var/backups --dry-run
  znap import --from repozo var/backups
  znap import --from znap2
  znap import --from archive /backup/before-upgrade.tar.zst")]
pub struct Import {
    /// What it is
    #[arg(long, value_name = "KIND")]
    from: Kind,

    /// The archive, or the directory [default for znap2: .znap2]
    #[arg(value_name = "PATH", required_if_eq_any = [("from", "archive"), ("from", "repozo")])]
    path: Option<PathBuf>,

    /// The tracked database that it is of, if there are several, or it has another name there
    #[arg(long, value_name = "NAME")]
    database: Option<String>,

    /// Say what would be taken, and take nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the report as JSON (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// What can be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A file that znap export wrote
    Archive,
    /// A directory of backups that repozo made
    Repozo,
    /// The directory .znap2
    Znap2,
}

pub(super) fn run(context: &Context, args: &Import) -> Result<Outcome> {
    let terminal = context.terminal;
    let place = place::existing_to_change(context)?;
    let mut repository = Repository::open_to_write(&place, context.progress)?;
    let options = ImportOptions {
        origin: match args.from {
            Kind::Archive => Origin::Archive,
            Kind::Repozo => Origin::Repozo,
            Kind::Znap2 => Origin::Znap2,
        },
        // The others have one, as the arguments are declared.
        path: args.path.clone().unwrap_or_else(|| ".znap2".into()),
        database: args.database.clone(),
        dry_run: args.dry_run,
        zone: terminal.zone.clone(),
    };
    let report = import(&mut repository, &options, context.progress)?;
    context.progress.clear();
    let said = if args.json {
        terminal.json(&report)
    } else if args.dry_run {
        // It was asked for.
        terminal.result(lines(context, &report).join("\n"))
    } else {
        terminal.say(lines(context, &report).join("\n"))
    };
    for snapshot in &report.imported {
        for database in &snapshot.databases {
            for warning in &database.warnings {
                terminal.warn(format_args!("{}: {}: {warning}", snapshot.id, database.name));
            }
        }
    }
    let not_taken = if args.dry_run { "would not be taken" } else { "not taken" };
    for refused in &report.refused {
        terminal.warn(format_args!("{not_taken}: {}: {}", refused.source, refused.reason));
    }
    terminal.counts(&report.counts);
    said.map_err(|error: Error| error.context("the snapshots were made, but"))?;
    let databases = report.imported.iter().flat_map(|snapshot| &snapshot.databases);
    let lacks_blobs = databases.filter_map(|database| database.blobs.as_ref()?.missing).any(|missing| missing > 0);
    Ok(if report.refused.is_empty() && !lacks_blobs { Outcome::Done } else { Outcome::Warned })
}

fn lines(context: &Context, report: &ImportReport) -> Vec<String> {
    let mut lines: Vec<String> = report.imported.iter().map(|snapshot| line(context, report, snapshot)).collect();
    lines.extend(
        report
            .present
            .iter()
            .map(|present| format!("there already: {}, as {}", words::clean(&present.source), present.id)),
    );
    let imported = words::count(report.imported.len() as u64, "snapshot", "snapshots");
    lines.push(match report.dry_run {
        true => format!("{imported} would be made; nothing was changed"),
        false => format!("{imported} made"),
    });
    lines
}

fn line(context: &Context, report: &ImportReport, snapshot: &Imported) -> String {
    let zone = &context.terminal.zone;
    let made = words::exact_time(snapshot.created, zone);
    let mut line = format!("{}: {}, of {made}", snapshot.id, words::clean(&snapshot.source));
    for database in &snapshot.databases {
        let up_to = words::up_to(database.time, &database.tid, zone);
        line.push_str(&format!("; {} {up_to}, {}", database.name, words::size(database.cut)));
        if let Some(blobs) = database.blobs.as_ref().filter(|blobs| blobs.taken) {
            line.push_str(&format!(", {} ({})", words::count(blobs.count, "blob", "blobs"), words::size(blobs.bytes)));
        }
        if let Some(left_out) = &database.left_out {
            line.push_str(&format!(", left out: {left_out}"));
        }
    }
    if !report.dry_run {
        line.push_str(&format!("; stored {}", words::size(snapshot.stored_bytes)));
    }
    line
}
