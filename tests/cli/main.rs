//! The command line: what it prints, and its exit codes.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod busy;
mod checking;
mod commands;
mod demo;
mod errors;
mod help;
mod json;
mod places;
mod reading;
mod repairing;
mod restoring;
mod several;
mod site;
mod terminal;

#[path = "../common/mod.rs"]
mod common;
