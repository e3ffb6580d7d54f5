//! What the tests share: real ZODB in a virtual environment of their own, a directory to work in, and znap.

// Each test binary compiles this module and uses a part of it.
#![allow(dead_code, unused_imports, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;
mod kill;
mod python;
mod sandbox;
mod views;
mod zodb;

pub use bench::{Bench, stop_in_restore};
pub use kill::{Kill, finish_on, restore_on};
pub use python::{python, script};
pub use sandbox::{
    Output, Sandbox, assert_same_bytes, assert_same_file, code_of, output, simulated_disk, spawn, undisturbed,
};
pub use views::{file_views, names_all, views};
pub use zodb::{Zodb, ZodbProcess, boundaries, try_zodb, zodb};
