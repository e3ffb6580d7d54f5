//! The ZODB FileStorage format.
//!
//! Reads, checks and, for tests and demonstrations, writes the files of a FileStorage: the log
//! (`Data.fs`), its index and its lock. All numbers in them are big-endian. The rules are those of
//! `FileStorage.read_index` of ZODB 6, which decides what a storage holds when it is opened:
//!
//! - [`source`] opens files and reads bytes at offsets, [`transaction`] reads single transactions;
//! - [`cut`] finds the end of the last complete transaction by hopping from header to header;
//! - [`mod@scan`] parses and checks every record of a range of bytes, [`changes`] collects what it finds;
//! - [`index`], [`index_check`] and [`index_writer`] read, judge and write `Data.fs.index`;
//! - [`blob_records`] finds which records are blobs, and [`blobs`] where their files are;
//! - [`lock`], [`holders`] and [`ownership`] keep out of the way of a running server, and [`fence`] keeps one out;
//! - [`zeo_cache`] finds what clients of a ZEO server remember;
//! - [`blob_directory`] knows what is a blob directory, and where one usually is;
//! - [`configuration`] finds the databases that a `zope.conf` or `zeo.conf` names;
//! - [`mod@write`] and [`pickles`] make small storages for tests and demonstrations.
//!
//! Everything that a file claims about itself is checked before it is believed.

pub mod blob_directory;
pub mod blob_records;
pub mod blobs;
pub mod changes;
pub mod configuration;
pub mod cut;
pub mod fence;
pub mod holders;
pub mod index;
pub mod index_check;
pub mod index_writer;
pub mod lock;
pub mod ownership;
pub mod pickles;
pub mod scan;
pub mod source;
pub mod tid;
pub mod transaction;
pub mod warning;
pub mod write;
pub mod zeo_cache;

mod bytes;
mod index_pickle;
mod read;
mod window;

pub use blob_directory::{blob_directory_near, check_blob_directory};
pub use blob_records::{BlobRecord, BlobRecords};
pub use blobs::BlobLayout;
pub use changes::Changes;
pub use cut::{Cut, LeftOut, LeftOutKind, Position, find_cut};
pub use holders::{Opener, openers};
pub use index::{IndexFile, index_path};
pub use index_check::{Unusable, usable_index};
pub use index_writer::{IndexWriter, Merge, merge};
pub use lock::StorageLock;
pub use scan::{Record, ScanSummary, Scanner, Sink, scan};
pub use source::{DataFile, FileIdentity, Magic, Source};
pub use tid::{Oid, Tid};
pub use transaction::{Backwards, Forwards, Header, Transaction, header_at, read_transaction, transaction_ending_at};
pub use warning::{Warning, WarningKind, Warnings};
pub use write::{Payload, TransactionBuilder, Writer};
pub use zeo_cache::zeo_caches;

use std::path::Path;

use crate::error::Error;

/// The offset at which the first transaction of every FileStorage begins: right after the magic.
pub const FIRST_TRANSACTION: u64 = 4;

/// The error for a file that ZODB would refuse to open: what is wrong, and at which offset.
fn unopenable(path: &Path, offset: u64, what: &str) -> Error {
    Error::failed(format!(
        "{} is damaged at offset {offset}: {what}; ZODB itself would not open this file",
        path.display()
    ))
    .hint("look at it with ZODB's fstest, then repair a copy with fsrecover, or put a backup in its place")
}
