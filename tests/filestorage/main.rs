//! The FileStorage format, against files that the crate's own writer made and damaged copies of them.

// Helpers outside test functions fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod any_bytes;
mod damage;
mod index;
mod reading;
mod sample;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use znap::error::{Kind, Result};
use znap::filestorage::pickles::{Content, mapping};
use znap::filestorage::{
    Backwards, Changes, Cut, DataFile, Forwards, Header, IndexFile, LeftOutKind, Oid, Position, Record, ScanSummary,
    Scanner, Sink, Source, Tid, Unusable, WarningKind, Writer, find_cut, index_path, read_transaction, scan,
    transaction_ending_at, usable_index,
};
use znap::monitor::Silent;
