//! `znap init`.

use std::env;
use std::path::PathBuf;

use clap::Args;

use znap::error::{Error, Result};
use znap::snapshot::{BlobMode, InitOptions, NewDatabase, Place, Repository, find_configured, init, keep_bases};

use super::base::about;
use super::track::{BlobsMode, line, remarks};
use super::{Context, Outcome, place, words};

/// Start a repository that tracks these FileStorages
///
/// Makes the directory .znap here (or the one that -R names) and notes how long each database is now. That much
/// of each file is taken for granted from then on: snapshots hold only what comes after it, and need the file for
/// the rest. Files of up to 1 MiB are kept whole. All databases of a repository are saved and restored
/// together, unless --only names some; znap track adds more of them later.
///
/// Reads each database's index, or the whole file where there is none that fits. Changes nothing outside .znap,
/// so the server may be running. To take it back, remove the directory .znap.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap init var/filestorage/Data.fs
  znap init var/filestorage/Data.fs var/filestorage/catalog.fs --group
  znap init var/filestorage/Data.fs --blobs var/blobstorage
  znap init --zope-conf parts/instance/etc/zope.conf --zope-conf parts/zeoserver/etc/zeo.conf")]
pub struct Init {
    /// The databases' files, such as var/filestorage/Data.fs
    #[arg(required_unless_present = "zope_conf", value_name = "DB")]
    databases: Vec<PathBuf>,

    /// Find the databases in this zope.conf or zeo.conf instead; for a client of ZEO, name both
    ///
    /// Goes through %define, %include, <blobstorage>, <zlibstorage> and <demostorage>; leaves out what is kept in memory. Of a
    /// <demostorage> the changes are tracked, if they are kept in a file, else the base. Relative paths are seen from here, as the
    /// server sees them from the directory that it is started in.
    #[arg(long, value_name = "FILE", conflicts_with = "databases")]
    zope_conf: Vec<PathBuf>,

    /// The directory of a database's blobs, such as var/blobstorage: the first of the first database, and so on
    #[arg(long, value_name = "DIR", conflicts_with = "zope_conf")]
    blobs: Vec<PathBuf>,

    /// How blobs are saved [default: link, on the repository's file system; else copy]
    #[arg(long, value_name = "MODE")]
    blobs_mode: Option<BlobsMode>,

    /// Let the members of the first database's group use the repository too
    ///
    /// Otherwise only its owner may: a Data.fs holds password hashes. The members have to say that they trust it:
    /// ZNAP_TRUST=DIR, see znap --help.
    #[arg(long)]
    group: bool,

    /// Store the databases' beginnings too, with the first save and after every pack, so that snapshots need nothing but
    /// .znap: see znap base
    #[arg(long)]
    base: bool,
}

pub(super) fn run(context: &Context, args: &Init) -> Result<Outcome> {
    let terminal = context.terminal;
    let mut databases: Vec<NewDatabase> = if args.zope_conf.is_empty() {
        args.databases.iter().cloned().map(NewDatabase::from).collect()
    } else {
        let site = find_configured(&args.zope_conf, &|name| env::var(name).ok())?;
        site.notes.iter().for_each(|note| terminal.note(note));
        site.databases.into_iter().map(NewDatabase::from).collect()
    };
    if args.blobs.len() > databases.len() {
        return Err(Error::usage("there are more blob directories than databases")
            .hint("name the databases in the order of their --blobs"));
    }
    for (database, blobs) in databases.iter_mut().zip(&args.blobs) {
        database.blobs = Some(blobs.clone());
    }
    databases.iter_mut().for_each(|database| database.mode = args.blobs_mode.map(BlobMode::from));
    if args.blobs_mode.is_some() && databases.iter().all(|database| database.blobs.is_none()) {
        return Err(Error::usage("--blobs-mode is given, but no blob directory").hint("--blobs DIR names one"));
    }
    let options = InitOptions {
        root: place::new(context.global)?,
        databases,
        current: place::current()?,
        share_with_group: args.group,
    };
    let report = init(&options, context.progress)?;
    if args.base {
        let place = Place { root: report.root.clone(), trusted: Vec::new() };
        keep_bases(&mut Repository::open_to_write(&place, context.progress)?, &[], context.progress)?;
    }
    context.progress.clear();
    terminal.say(format_args!(
        "started the repository {} with {}",
        report.root.display(),
        words::count(report.databases.len() as u64, "database", "databases")
    ))?;
    for database in &report.databases {
        terminal.say(format_args!("  {}", line(database, args.base)))?;
        remarks(context, database)?;
    }
    let needed =
        report.databases.iter().filter(|database| !database.complete).map(|database| database.base_length).sum();
    if needed > 0 && !args.base {
        terminal.hint(format_args!("znap base keep stores that too, in {}", about(needed)));
    }
    terminal.hint("znap save ID takes the first snapshot, such as: znap save before-upgrade");
    Ok(Outcome::Done)
}
