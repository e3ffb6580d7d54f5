//! The ZODB FileStorage format.
