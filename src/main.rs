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
    cli::main(&arguments)
}
