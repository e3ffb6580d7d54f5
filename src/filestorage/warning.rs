//! Oddities that ZODB logs and then lives with.

use std::fmt;

/// How many warnings are kept; of the others only their number is known.
const KEPT: usize = 100;

/// What is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WarningKind {
    /// A transaction is not newer than the one before it.
    TimeWentBack,
    /// A transaction has a status that ZODB doesn't know.
    UnknownStatus,
    /// A record carries another transaction id than its transaction.
    RecordTid,
    /// A record doesn't point at the object's previous record.
    Previous,
    /// A record refers to data that comes after it.
    Back,
}

/// One oddity of a file, which ZODB opens all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Offset of the transaction or record.
    pub position: u64,
    /// What is odd.
    pub kind: WarningKind,
    /// A phrase that says it, without the offset.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.text, self.position)
    }
}

/// The warnings about a file: the first hundred, and how many there were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    kept: Vec<Warning>,
    total: u64,
}

impl Warnings {
    /// Adds one. The text is only made if it will be kept.
    pub fn push(&mut self, position: u64, kind: WarningKind, text: impl FnOnce() -> String) {
        self.total = self.total.saturating_add(1);
        if self.kept.len() < KEPT {
            self.kept.push(Warning { position, kind, text: text() });
        }
    }

    /// Adds all of the others.
    pub fn append(&mut self, others: Warnings) {
        self.total = self.total.saturating_add(others.total);
        let room = KEPT.saturating_sub(self.kept.len());
        self.kept.extend(others.kept.into_iter().take(room));
    }

    /// Those that were kept, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Warning> {
        self.kept.iter()
    }

    /// How many there were, kept or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}
