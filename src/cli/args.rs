//! The arguments of the program, and those that all commands share.

use std::path::PathBuf;

use clap::{Args, ColorChoice, Parser, Subcommand};

use super::{
    base, check, delete, demo, export, gc, import, init, list, log, repair, restore, save, show, status, track, undo,
};

/// Snapshots of ZODB FileStorages
///
/// znap keeps dozens of snapshots of a Data.fs, or of several that belong together, at nearly no cost: each holds
/// only what is new. It takes one while the server runs, and puts one back by writing only what differs.
#[derive(Debug, Parser)]
#[command(name = "znap", version, max_term_width = 100, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for all commands")]
pub struct Global {
    /// The repository's directory [default: $ZNAP_DIR, else the nearest .znap from here upward]
    #[arg(short = 'R', long, global = true, value_name = "DIR")]
    pub repository: Option<PathBuf>,

    /// Say only what was asked for, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say what it cost, too
    #[arg(short, long, global = true)]
    pub verbose: bool,

    /// Whether to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = false)]
    pub color: ColorChoice,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[allow(missing_docs)]
    Init(init::Init),
    #[allow(missing_docs)]
    Save(save::Save),
    #[allow(missing_docs)]
    List(list::List),
    #[allow(missing_docs)]
    Show(show::Show),
    #[allow(missing_docs)]
    Status(status::Status),
    #[allow(missing_docs)]
    Log(log::Log),
    #[allow(missing_docs)]
    Restore(restore::Restore),
    #[allow(missing_docs)]
    Undo(undo::Undo),
    #[allow(missing_docs)]
    Delete(delete::Delete),
    #[allow(missing_docs)]
    Export(export::Export),
    #[allow(missing_docs)]
    Import(import::Import),
    #[allow(missing_docs)]
    Gc(gc::Gc),
    #[allow(missing_docs)]
    Check(check::Check),
    #[allow(missing_docs)]
    Base(base::Base),
    #[allow(missing_docs)]
    Repair(repair::Repair),
    #[allow(missing_docs)]
    Track(track::Track),
    #[allow(missing_docs)]
    Untrack(track::Untrack),
    #[allow(missing_docs)]
    Demo(demo::Demo),
}

const AFTER_HELP: &str = "\
Start here:
  znap demo                            a guided tour, on a small database that it makes
  znap init var/filestorage/Data.fs    start a repository in the current directory
  znap save before-upgrade             the server may keep running
  znap restore before-upgrade          the server must be stopped

Exit codes:
  0  done
  1  failed, or refused because something would be lost; status --max-age: too old
  2  the command line makes no sense, or an id is no id
  3  the repository is damaged; check: or a database is
  4  a database is open elsewhere, or another znap is at work
  5  no such snapshot, repository or database
  6  done, with warnings that matter
  129, 130, 143  interrupted by SIGHUP, SIGINT, SIGTERM

Environment:
  ZNAP_DIR    the repository's directory, where -R isn't given
  ZNAP_TRUST  directories, with : between them: repositories of other users that you trust
  NO_COLOR    no colours, whatever it is set to";
