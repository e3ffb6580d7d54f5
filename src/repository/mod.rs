//! What lives in `.znap`.
