//! The configuration of a Zope or ZEO server: which databases it has, and where their files and blobs are.
//!
//! [`parse`] reads ZConfig's syntax, [`site`] finds the databases in it, [`address`] tells which ZEO server a client means.
//! Nothing but the files that are named, and those that they include, is read.

pub mod address;
pub mod parse;
pub mod site;

pub use parse::{Key, Place, Section};
pub use site::{ConfiguredDatabase, ConfiguredSite, find};

/// What an environment variable is, if it is set: ZConfig replaces `$(NAME)` by it.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;
