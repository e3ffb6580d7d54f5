//! The command line: arguments in, words out. One file per command; nothing else prints.

mod args;
mod base;
mod check;
mod delete;
mod demo;
mod export;
mod gc;
mod import;
mod init;
mod list;
mod log;
mod output;
mod place;
mod progress;
mod repair;
mod restore;
mod save;
mod show;
mod status;
mod table;
mod times;
mod track;
mod undo;
mod words;

use std::io::ErrorKind;
use std::process::ExitCode;

use znap::error::{Error, Kind, Result};

pub use args::Cli;
use args::Command;
use output::Terminal;
use progress::Progress;

/// The exit code of a command line that makes no sense.
pub const USAGE: u8 = 2;

/// How a command ended that didn't fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// `status --max-age` found something too old, or `demo` something wrong.
    Alarm,
    /// `check` found damage.
    Damaged,
    /// It is done, with warnings that matter.
    Warned,
}

impl Outcome {
    /// The documented exit code.
    fn code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Alarm => 1,
            Outcome::Damaged => 3,
            Outcome::Warned => 6,
        }
    }
}

/// What every command gets to work with.
pub struct Context<'a> {
    /// The arguments that all commands share.
    pub global: &'a args::Global,
    /// Where words go.
    pub terminal: &'a Terminal,
    /// The ear of the library.
    pub progress: &'a Progress,
}

/// Runs the command, says what went wrong, and gives the exit code.
pub fn main(arguments: &Cli) -> ExitCode {
    let terminal = Terminal::new(&arguments.global);
    let result = Progress::new(&terminal).and_then(|progress| {
        let context = Context { global: &arguments.global, terminal: &terminal, progress: &progress };
        let result = run(&context, &arguments.command);
        progress.clear();
        result
    });
    match result {
        Ok(outcome) => ExitCode::from(outcome.code()),
        // Whoever read the output has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let error = match error.kind() {
                Kind::Interrupted(_) => interrupted(error, &arguments.command),
                _ => error,
            };
            terminal.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Says what an interrupted command leaves behind.
fn interrupted(error: Error, command: &Command) -> Error {
    // It knows better.
    if error.hint_text().is_some() {
        return error;
    }
    let (left, hint) = match command {
        Command::Save(_) => {
            ("nothing was changed", "znap gc removes temporary files that may be left in the repository")
        }
        Command::Restore(args) if args.to.is_some() => {
            ("no database was changed", "remove what was written to the directory that --to names")
        }
        // A restore that hasn't begun to write may have made a snapshot of what no other one held.
        Command::Restore(_) | Command::Undo(_) => ("no database was changed", "the command can be given again"),
        Command::Delete(_) => ("snapshots that were named first may be deleted", "znap list shows those there are"),
        Command::Export(_) => ("there is no archive", "the command can be given again"),
        Command::Import(_) => ("nothing was imported", "the command can be given again"),
        Command::Gc(_) => ("no snapshot was changed", "znap gc goes on where it was"),
        Command::Repair(_) => ("nothing was lost", "znap repair can be given again"),
        Command::Demo(_) => ("the directory of the tour is still there", "remove it, or look around in it"),
        _ => ("nothing was changed", "the command can be given again"),
    };
    Error::new(error.kind(), format!("{error}: {left}")).hint(hint)
}

fn is_broken_pipe(error: &Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn run(context: &Context, command: &Command) -> Result<Outcome> {
    match command {
        Command::Init(args) => init::run(context, args),
        Command::Save(args) => save::run(context, args),
        Command::List(args) => list::run(context, args),
        Command::Show(args) => show::run(context, args),
        Command::Status(args) => status::run(context, args),
        Command::Log(args) => log::run(context, args),
        Command::Restore(args) => restore::run(context, args),
        Command::Undo(args) => undo::run(context, args),
        Command::Delete(args) => delete::run(context, args),
        Command::Export(args) => export::run(context, args),
        Command::Import(args) => import::run(context, args),
        Command::Gc(args) => gc::run(context, args),
        Command::Check(args) => check::run(context, args),
        Command::Base(args) => base::run(context, args),
        Command::Repair(args) => repair::run(context, args),
        Command::Track(args) => track::run(context, args),
        Command::Untrack(args) => track::run_untrack(context, args),
        Command::Demo(args) => demo::run(context, args),
    }
}
