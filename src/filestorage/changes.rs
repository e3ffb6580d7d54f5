//! Collecting which objects a range of transactions changed, and where their last records are.

use super::FIRST_TRANSACTION;
use super::scan::{Record, Sink};
use super::transaction::Header;
use super::warning::{WarningKind, Warnings};

/// How many records are collected, at least, before they are sorted into the rest.
const BATCH: usize = 1 << 16;

/// A record that has not been sorted in yet.
#[derive(Debug, Clone, Copy)]
struct Seen {
    oid: u64,
    offset: u64,
    previous: u64,
    transaction: u64,
}

/// Collects the offset of every object's last record.
///
/// Needs 16 bytes an object, and four more for records that come in. Where a record doesn't point at the
/// object's record before it, there is a warning, as in ZODB.
#[derive(Debug)]
pub struct Changes {
    /// Whether the walk began at the beginning of the file, so that an object not seen yet is a new one.
    complete: bool,
    /// Sorted by oid, each once.
    pairs: Vec<(u64, u64)>,
    pending: Vec<Seen>,
    warnings: Warnings,
}

impl Changes {
    /// For a walk that begins at this offset.
    pub fn new(start: u64) -> Changes {
        Changes {
            complete: start <= FIRST_TRANSACTION,
            pairs: Vec::new(),
            pending: Vec::new(),
            warnings: Warnings::default(),
        }
    }

    /// What is odd about the records so far, in no particular order.
    pub fn warnings(&mut self) -> &Warnings {
        self.sort_in();
        &self.warnings
    }

    /// (oid, offset of its last record), sorted by oid.
    pub fn into_pairs(self) -> Vec<(u64, u64)> {
        self.into_parts().0
    }

    /// What [`Changes::into_pairs`] and [`Changes::warnings`] give, together.
    pub fn into_parts(mut self) -> (Vec<(u64, u64)>, Warnings) {
        self.sort_in();
        (self.pairs, self.warnings)
    }

    /// Brings the pending records into the sorted pairs.
    fn sort_in(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        // Offsets only grow, so this also brings each object's records into the order of the file.
        pending.sort_unstable_by_key(|seen| (seen.oid, seen.offset));
        self.check_previous(&pending);
        // Keep each object's last one.
        pending.reverse();
        pending.dedup_by_key(|seen| seen.oid);
        pending.reverse();
        self.merge(&pending);
        pending.clear();
        self.pending = pending;
    }

    fn check_previous(&mut self, pending: &[Seen]) {
        let mut known = 0;
        for group in pending.chunk_by(|one, other| one.oid == other.oid) {
            let Some(first) = group.first() else { continue };
            known += self.pairs[known..].partition_point(|pair| pair.0 < first.oid);
            let mut expected = match self.pairs.get(known) {
                // Of a transaction that was sorted in half, only the last record is known.
                Some((oid, offset)) if *oid == first.oid => (*offset < first.transaction).then_some(*offset),
                _ => self.complete.then_some(0),
            };
            // Within a transaction, ZODB compares with what was before the transaction.
            for same in group.chunk_by(|one, other| one.transaction == other.transaction) {
                for seen in same {
                    if let Some(expected) = expected.filter(|offset| *offset != seen.previous) {
                        self.warnings.push(seen.offset, WarningKind::Previous, || {
                            format!(
                                "a record of object {} names {} instead of {expected} as the one before it",
                                super::Oid(seen.oid),
                                seen.previous
                            )
                        });
                    }
                }
                expected = same.last().map(|seen| seen.offset);
            }
        }
    }

    /// Merges sorted records into the sorted pairs from the back, where the free room is.
    fn merge(&mut self, pending: &[Seen]) {
        let mut known = 0;
        let mut new = 0;
        for seen in pending {
            known += self.pairs[known..].partition_point(|pair| pair.0 < seen.oid);
            match self.pairs.get_mut(known) {
                Some(pair) if pair.0 == seen.oid => pair.1 = seen.offset,
                _ => new += 1,
            }
        }
        if new == 0 {
            return;
        }
        let mut read = self.pairs.len();
        self.pairs.reserve_exact(new);
        self.pairs.resize(read + new, (0, 0));
        let mut write = self.pairs.len();
        for seen in pending.iter().rev() {
            while read > 0 && self.pairs[read - 1].0 > seen.oid {
                read -= 1;
                write -= 1;
                self.pairs[write] = self.pairs[read];
            }
            let present = read > 0 && self.pairs[read - 1].0 == seen.oid;
            if !present {
                write -= 1;
                self.pairs[write] = (seen.oid, seen.offset);
            }
            if read == write {
                break;
            }
        }
    }
}

impl Sink for Changes {
    fn transaction(&mut self, _header: &Header) {}

    fn record(&mut self, record: &Record) {
        if self.pending.len() >= BATCH.max(self.pairs.len() / 8) {
            self.sort_in();
        }
        self.pending.push(Seen {
            oid: record.oid.0,
            offset: record.position,
            previous: record.previous,
            transaction: record.transaction,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tid::{Oid, Tid};
    use super::*;
    use std::collections::BTreeMap;

    fn record(oid: u64, position: u64, previous: u64, transaction: u64) -> Record {
        Record { position, oid: Oid(oid), tid: Tid(1), previous, data_length: 1, back: 0, transaction }
    }

    #[test]
    fn the_last_record_of_an_object_counts() {
        // Transactions of some length, objects in no order and some of them twice, as ZODB sees them.
        let mut changes = Changes::new(4);
        let mut index: BTreeMap<u64, u64> = BTreeMap::new();
        let mut position = 10;
        let mut state = 1_u64;
        while index.len() < 300_000 {
            let transaction = position;
            let mut own = BTreeMap::new();
            for _ in 0..70 {
                position += 50;
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let oid = (state >> 33) % 400_000;
                let previous = index.get(&oid).copied().unwrap_or(0);
                changes.record(&record(oid, position, previous, transaction));
                own.insert(oid, position);
            }
            index.extend(own);
            position += 31;
        }
        assert!(changes.warnings().is_empty(), "{:?}", changes.warnings().iter().next());
        assert_eq!(changes.into_pairs(), index.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_wrong_previous_record_is_noticed() {
        let mut changes = Changes::new(4);
        changes.record(&record(1, 50, 0, 4));
        changes.record(&record(2, 60, 7, 4));
        changes.record(&record(1, 150, 0, 104));
        assert_eq!(changes.warnings().total(), 2);
        changes.record(&record(1, 250, 50, 204));
        changes.record(&record(2, 260, 60, 204));
        assert_eq!(changes.warnings().total(), 3);
        assert_eq!(changes.into_pairs(), [(1, 250), (2, 260)]);
        // Of what was before the walk nothing is known.
        let mut changes = Changes::new(100);
        changes.record(&record(1, 150, 50, 104));
        changes.record(&record(1, 250, 50, 204));
        assert_eq!(changes.warnings().total(), 1);
    }
}
