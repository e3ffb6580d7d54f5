//! Attacks: commands are killed at each of their changes, each change fails, and the power is cut behind each of them. After
//! that, what was there before is there, or what was to be there; every snapshot restores exactly; and the command can be
//! given again. (P5, P6, P10)
//!
//! All of it goes through the library's one seam for changes of files, in this process. What SQLite does to the catalog by itself
//! is taken as atomic and durable once it says so, which is SQLite's promise; `.ci/attack` (docs/reliability.md) kills the
//! real program at its system calls, SQLite's too.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

/// Whether a case is tried: one in so many, or each with `ZNAP_ATTACKS=all`, which takes hours.
fn is_tried(case: usize, one_in: usize) -> bool {
    static ALL: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ALL.get_or_init(|| std::env::var_os("ZNAP_ATTACKS").is_some_and(|value| value == "all"))
        || case.is_multiple_of(one_in)
}

mod errors;
mod kills;
mod power;
mod repair;
mod script;
mod world;
