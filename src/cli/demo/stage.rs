//! Where the tour takes place: shows commands with their output, and checks what they did.

use std::cell::Cell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::builder::styling::{AnsiColor, Style};

use znap::error::{Error, IoContext, Result};
use znap::monitor::Monitor;
use znap::snapshot::shell_word;

use crate::cli::Context;
use crate::cli::output::STRONG;

const RIGHT: Style = AnsiColor::Green.on_default();
const WRONG: Style = AnsiColor::Red.on_default().bold();

/// A directory, and a count of what was not as it should be.
pub(super) struct Stage<'a> {
    context: &'a Context<'a>,
    directory: PathBuf,
    program: PathBuf,
    wrong: Cell<u32>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(context: &'a Context<'a>, directory: PathBuf) -> Result<Self> {
        let program = std::env::current_exe().at("find", "the program itself")?;
        Ok(Stage { context, directory, program, wrong: Cell::new(0) })
    }

    /// Where everything is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many checks failed.
    pub(super) fn wrong(&self) -> u32 {
        self.wrong.get()
    }

    /// Says something.
    pub(super) fn text(&self, text: &str) -> Result<()> {
        self.context.terminal.result(text)
    }

    /// Shows a command, what it prints, and checks that it ends with this exit code.
    pub(super) fn run(&self, arguments: &[&str], expected: i32) -> Result<()> {
        let words: Vec<String> = arguments.iter().map(|word| shell_word(Path::new(word))).collect();
        self.text(&format!("{STRONG}$ znap {}{STRONG:#}", words.join(" ")))?;
        let (code, output) = self.znap(arguments)?;
        let output = output.trim_end();
        if !output.is_empty() {
            self.text(output)?;
        }
        if code != expected {
            self.wrong.set(self.wrong.get() + 1);
            return Err(Error::failed(format!("znap {} ended with exit code {code}, not {expected}", words.join(" ")))
                .hint("the tour stops here; please report what you see"));
        }
        Ok(())
    }

    /// Runs a command; gives its exit code and all that it prints.
    pub(super) fn znap(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let colours = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
        let (mut reader, writer) = std::io::pipe().at("make", "a pipe")?;
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_remove("ZNAP_DIR")
            .env_remove("ZNAP_TRUST")
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .env(if colours { "CLICOLOR_FORCE" } else { "NO_COLOR" }, "1")
            .stdin(Stdio::null())
            .stdout(writer.try_clone().at("copy", "a pipe")?)
            .stderr(writer);
        let mut child = command.spawn().at("run", &self.program)?;
        // With it go this process's ends of the pipe: only the child's are left.
        drop(command);
        let mut output = String::new();
        let read = reader.read_to_string(&mut output).at("read", "what znap printed");
        let status = child.wait().at("wait for", "znap")?;
        read?;
        self.context.progress.check()?;
        Ok((status.code().unwrap_or(-1), output))
    }

    /// Says whether something is as it should be.
    pub(super) fn check(&self, what: &str, right: bool) -> Result<()> {
        if right {
            return self.text(&format!("{RIGHT}checked:{RIGHT:#} {what}"));
        }
        self.wrong.set(self.wrong.get() + 1);
        self.text(&format!("{WRONG}wrong, this is not so:{WRONG:#} {what}"))
    }
}
