//! What lives in `.znap`: object files, the catalog, locks. Knows nothing of ZODB.

pub mod blob_list;
pub mod catalog;
pub mod chunk_reader;
pub mod chunk_writer;
pub mod chunker;
pub mod counters;
pub mod data;
pub mod data_writer;
pub(crate) mod frame_encoder;
pub mod frames;
pub mod hash;
pub(crate) mod huge_pages;
pub(crate) mod in_order;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod object;
pub mod plain;
pub mod record;
pub mod run_reader;
