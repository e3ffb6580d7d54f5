//! How a command shows how far it is, and learns that it should stop.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use znap::error::{Error, IoContext, Kind, Result};
use znap::monitor::Monitor;

use super::output::Terminal;

/// An operation that lasts less than this shows no bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// The ear of the library: a bar on stderr, when that is a terminal and the operation lasts.
pub struct Progress {
    started: Instant,
    wanted: bool,
    quiet: bool,
    signal: Arc<AtomicUsize>,
    phase: Mutex<Phase>,
}

/// What is being done.
#[derive(Default)]
struct Phase {
    name: String,
    bytes: u64,
    done: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to listen for signals.
    pub fn new(terminal: &Terminal) -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            // `nohup` wants it to go on: what is ignored stays ignored.
            if !is_ignored(number) {
                signal_hook::flag::register_usize(number, Arc::clone(&signal), number.unsigned_abs() as usize)
                    .at("listen for", "signals")?;
            }
        }
        Ok(Progress {
            started: Instant::now(),
            wanted: !terminal.quiet && std::io::stderr().is_terminal(),
            quiet: terminal.quiet,
            signal,
            phase: Mutex::default(),
        })
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        *self.phase() = Phase::default();
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, phase: &mut Phase) {
        if let Some(bar) = &phase.bar {
            bar.set_position(phase.done);
        } else if self.wanted && phase.bytes > 0 && self.started.elapsed() >= PATIENCE {
            let bar = ProgressBar::with_draw_target(Some(phase.bytes), ProgressDrawTarget::stderr());
            let template = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(phase.name.clone());
            bar.set_position(phase.done);
            phase.bar = Some(bar);
        }
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Monitor for Progress {
    fn begin(&self, phase: &str, bytes: u64) {
        let mut current = self.phase();
        *current = Phase { name: phase.to_string(), bytes, done: 0, bar: None };
        self.show(&mut current);
    }

    fn advance(&self, bytes: u64) {
        let mut current = self.phase();
        current.done = current.done.saturating_add(bytes);
        self.show(&mut current);
    }

    fn end(&self) {
        self.clear();
    }

    fn notice(&self, text: &str) {
        if self.quiet {
            return;
        }
        let current = self.phase();
        let write = || {
            use std::io::Write;
            let mut err = anstream::stderr().lock();
            let _ = writeln!(err, "znap: {text}");
        };
        match &current.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn check(&self) -> Result<()> {
        let (number, name) = match i32::try_from(self.signal.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(SIGINT) => (SIGINT, "SIGINT"),
            Ok(SIGHUP) => (SIGHUP, "SIGHUP"),
            Ok(other) => (other, "SIGTERM"),
        };
        Err(Error::new(Kind::Interrupted(number), format!("interrupted ({name})")))
    }
}

/// Whether the process was started with this signal ignored, as far as the system tells.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
