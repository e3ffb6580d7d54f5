//! The program `znap`: snapshots of ZODB FileStorages. See the library of the same name for what it does, and
//! [`cli`] for how it is told to.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader of --help that has gone away has read enough.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(cli::USAGE));
        }
    };
    allow_open_files();
    cli::main(&arguments)
}

/// A copy of a snapshot has all object files open that it is made from, so that gc can go on meanwhile; as many
/// as there are saves since the last gc. The usual limit is a relic, and can be raised up to the hard one.
fn allow_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it can't be raised, it stays as it is.
    let _ = setrlimit(Resource::Nofile, limit);
}
