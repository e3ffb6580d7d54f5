//! `znap demo`.

mod site;
mod stage;
mod tour;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;

use znap::error::{Error, IoContext, Result};
use znap::snapshot::shell_word;

use super::{Context, Outcome};
use stage::Stage;

/// Take a guided tour on a small database that it makes
///
/// Makes a small real FileStorage in a new directory, and runs every command of znap on it, with its output. After
/// each step it checks that the files are, byte for byte, what they should be, and exits with 1 if they are not.
/// Touches nothing outside that directory, and says at the end how to remove it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  znap demo
  znap demo /tmp/tour")]
pub struct Demo {
    /// Where: a directory that is new or empty [default: a temporary one]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &Demo) -> Result<Outcome> {
    let directory = match &args.directory {
        Some(directory) => empty(directory)?,
        None => temporary()?,
    };
    let stage = Stage::new(context, directory)?;
    let result = tour::tour(&stage);
    stage.text(&format!(
        "\nEverything is in {0}: try things out there.\nTo remove it: rm -r {0}",
        shell_word(stage.directory())
    ))?;
    result?;
    let wrong = stage.wrong();
    if wrong > 0 {
        stage.text(&format!("Not everything was as it should be ({wrong} times): see above."))?;
        return Ok(Outcome::Alarm);
    }
    Ok(Outcome::Done)
}

/// A directory that is there, and has nothing in it.
fn empty(directory: &Path) -> Result<PathBuf> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        result => result.at("create", directory)?,
    }
    if fs::read_dir(directory).at("read", directory)?.next().is_some() {
        return Err(Error::failed(format!("{} isn't empty", directory.display()))
            .hint("name a directory that is new or empty, or none at all"));
    }
    directory.canonicalize().at("resolve", directory)
}

fn temporary() -> Result<PathBuf> {
    let parent = std::env::temp_dir();
    let directory =
        tempfile::Builder::new().prefix("znap-demo-").tempdir_in(&parent).at("create a directory in", &parent)?;
    Ok(directory.keep())
}
