//! What each fuzz target does with any bytes: it must not panic, and what it gives must be right or an error. The fuzz targets
//! and `tests/fuzz_corpus.rs`, which replays the corpus, share it.

#![allow(dead_code, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod corpora;
mod formats;
mod known;
mod repository;

pub use corpora::corpora;
pub use formats::{index, transactions};
pub use repository::{ids, object_file, plan};
