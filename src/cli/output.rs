//! Where words go: results to stdout; warnings, hints and errors to stderr.

use std::fmt::{Arguments, Display};
use std::io::Write;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use jiff::tz::TimeZone;
use serde::Serialize;

use znap::error::{Error, IoContext, Result};
use znap::repository::counters::Counts;

use super::args::Global;
use super::words;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// Headings of tables and the like.
pub const STRONG: Style = Style::new().bold();

/// The two ways out of the program, and how much is to go there.
#[derive(Debug)]
pub struct Terminal {
    /// Only what was asked for.
    pub quiet: bool,
    /// What it cost, too.
    pub verbose: bool,
    /// The zone of all times that people read.
    pub zone: TimeZone,
}

impl Terminal {
    /// As the arguments and the environment say.
    pub fn new(global: &Global) -> Self {
        match global.color {
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
            // NO_COLOR, CLICOLOR and the like are looked at when something is written.
            ColorChoice::Auto => anstream::ColorChoice::Auto,
        }
        .write_global();
        Terminal { quiet: global.quiet, verbose: global.verbose, zone: TimeZone::try_system().unwrap_or(TimeZone::UTC) }
    }

    /// What was asked for: a text of whole lines, without the last line's end.
    pub fn result(&self, text: impl Display) -> Result<()> {
        let mut out = anstream::stdout().lock();
        let written = writeln!(out, "{text}").and_then(|()| out.flush()).at("write to", "standard output");
        // Not what is said of a full disk otherwise: space in the repository is of no use here.
        written.map_err(|error| match error.is_no_space() {
            true => error.hint("make room where the output goes"),
            false => error,
        })
    }

    /// What a command did: not when it is to be quiet.
    pub fn say(&self, text: impl Display) -> Result<()> {
        if self.quiet { Ok(()) } else { self.result(text) }
    }

    /// One JSON document.
    pub fn json(&self, document: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| Error::failed(format!("cannot write the result as JSON: {error}")))?;
        self.result(text)
    }

    /// Something that a user should know, and that is no failure.
    pub fn warn(&self, text: impl Display) {
        to_stderr(format_args!("{WARNING}warning:{WARNING:#} {}", cleaned(text)));
    }

    /// What can be done next.
    pub fn hint(&self, text: impl Display) {
        if !self.quiet {
            to_stderr(format_args!("{HINT}hint:{HINT:#} {}", cleaned(text)));
        }
    }

    /// Something on the way, or beside the result.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            to_stderr(format_args!("{text}"));
        }
    }

    /// What went wrong, and what can be done about it.
    pub fn error(&self, error: &Error) {
        to_stderr(format_args!("{ERROR}znap: error:{ERROR:#} {}", cleaned(error)));
        if let Some(hint) = error.hint_text() {
            to_stderr(format_args!("{HINT}hint:{HINT:#} {}", cleaned(hint)));
        }
    }

    /// What it cost, if that is wanted.
    pub fn counts(&self, counts: &Counts) {
        if self.verbose {
            self.note(words::counts(counts));
        }
    }
}

/// Names of files and what a database says can be in it.
fn cleaned(text: impl Display) -> String {
    words::clean_lines(&text.to_string())
}

/// If stderr is gone there is nobody left to tell.
fn to_stderr(text: Arguments) {
    let mut err = anstream::stderr().lock();
    let _ = writeln!(err, "{text}");
}
