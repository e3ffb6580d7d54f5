//! znap keeps snapshots of ZODB FileStorages.
//!
//! The crate is three layers, and calls run one way: the command line (`cli`, in the program only)
//! calls [`snapshot`], which joins [`filestorage`] (the ZODB file format; knows nothing of znap) and
//! [`repository`] (what lives in `.znap`; knows nothing of ZODB). A library function never prints,
//! exits, reads the environment or asks the terminal: it reports through its return value and a
//! [`monitor::Monitor`].

pub mod disk;
pub mod error;
pub mod filestorage;
pub mod monitor;
pub mod repository;
pub mod snapshot;
