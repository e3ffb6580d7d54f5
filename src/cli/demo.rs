//! `znap demo`.

use std::path::PathBuf;

use clap::Args;

use znap::error::{Error, Result};

use super::{Context, Outcome};

/// Take a guided tour on a small database that it makes
#[derive(Debug, Args)]
pub struct Demo {
    /// Where: a directory that is new or empty [default: a temporary one]
    directory: Option<PathBuf>,
}

pub(super) fn run(_context: &Context, _args: &Demo) -> Result<Outcome> {
    Err(Error::failed("the tour isn't there yet"))
}
