//! What exactly is lost of a database: which bytes, whether its own file still has them, and which objects have records
//! there.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::filestorage::Oid;
use crate::monitor::Monitor;
use crate::repository::catalog::Database;
use crate::repository::frames::FrameFiles;
use crate::repository::hash::Hash;
use crate::snapshot::handle::Repository;
use crate::snapshot::index_reader::with_merged;

use super::blame::SearchedPart;
use super::damage;
use super::report::{Affected, AffectedRange, bounded};
use super::walk::Live;

/// How many ranges are listed with each database.
const RANGES: usize = 20;
/// How many objects.
const OIDS: usize = 100;

/// A chunk of a tail that can't be had, and where it is in the database's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LostPlace {
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) hash: Hash,
}

impl LostPlace {
    fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// The ranges of bytes that these places are, in order.
pub(super) fn merged(places: &[LostPlace]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = places.iter().map(|place| place.offset..place.end()).collect();
    sorted.sort_by_key(|range| range.start);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match ranges.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => ranges.push(range),
        }
    }
    ranges
}

/// Finds out what is lost.
pub(super) struct Details<'a> {
    repository: &'a Repository,
    monitor: &'a dyn Monitor,
    /// The databases' files, by row, as far as they can be used.
    live: HashMap<i64, Option<Live>>,
    files: Arc<FrameFiles>,
}

impl<'a> Details<'a> {
    pub(super) fn new(repository: &'a Repository, monitor: &'a dyn Monitor) -> Self {
        let files = Arc::new(FrameFiles::new(&repository.layout, &repository.counters));
        Details { repository, monitor, live: HashMap::new(), files }
    }

    /// How many bytes of databases were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.live.values().flatten().map(Live::bytes_read).sum()
    }

    /// What of a database is affected if these places are lost. `present` says whether they are of the file as it is now,
    /// and not as it was before a pack; `parts` are the index parts that may name records there.
    pub(super) fn of(
        &mut self,
        database: &Database,
        places: Vec<LostPlace>,
        index: bool,
        present: bool,
        parts: &[SearchedPart],
    ) -> Result<Affected> {
        if !self.live.contains_key(&database.row) {
            self.live.insert(database.row, Live::open(self.repository, database)?);
        }
        let live = self.live.get(&database.row).and_then(Option::as_ref).filter(|_| present);
        let mut ranges = Vec::new();
        let mut oids = BTreeSet::new();
        let mut elsewhere = Vec::new();
        let merged = merged(&places);
        let bytes = merged.iter().map(|range| range.end - range.start).sum();
        for range in merged {
            self.monitor.check()?;
            let mut inside = places.iter().filter(|place| range.contains(&place.offset));
            let in_database = live.is_some_and(|live| inside.all(|place| live.has(place)));
            let found = match live.filter(|_| in_database) {
                Some(live) => live.records_in(&range, self.monitor)?,
                None => None,
            };
            match &found {
                Some(found) => oids.extend(&found.oids),
                None => elsewhere.push(range.clone()),
            }
            ranges.push(AffectedRange {
                start: range.start,
                end: range.end,
                in_database,
                transactions: found.as_ref().map(|found| found.transactions),
                records: found.as_ref().map(|found| found.records),
            });
        }
        if !elsewhere.is_empty() {
            let base_length = database.generation.known.base_length;
            self.search(parts, &elsewhere, base_length, &mut oids)?;
        }
        let (ranges, more_ranges) = bounded(ranges, RANGES);
        let more_oids = oids.len().saturating_sub(OIDS) as u64;
        let oids = oids.into_iter().take(OIDS).map(|oid| Oid(oid).to_string()).collect();
        Ok(Affected { name: database.name.clone(), index, bytes, ranges, more_ranges, oids, more_oids })
    }

    /// Finds, in index parts, the objects with records in these ranges. A record that reaches into a range begins before it:
    /// so the last one before each is taken, too.
    fn search(
        &self,
        parts: &[SearchedPart],
        wanted: &[Range<u64>],
        base_length: u64,
        oids: &mut BTreeSet<u64>,
    ) -> Result<()> {
        let is_wanted = |offset: u64| {
            let next = wanted.partition_point(|range| range.end <= offset);
            wanted.get(next).is_some_and(|range| range.start <= offset)
        };
        // By the range's beginning: the offset of the last record before it, and its object.
        let mut before: HashMap<u64, (u64, u64)> = HashMap::new();
        for (part, id, ranges) in parts {
            self.monitor.check()?;
            let read = with_merged(&self.files, std::slice::from_ref(part), id, |pairs| {
                for pair in pairs {
                    let (oid, offset) = pair?;
                    let next = ranges.partition_point(|range| range.end <= offset);
                    match ranges.get(next) {
                        Some(range) if range.start <= offset && is_wanted(offset) => {
                            oids.insert(oid);
                        }
                        // What tails begin with is a transaction.
                        Some(range) if range.start > offset && range.start > base_length => {
                            let last = before.entry(range.start).or_insert((offset, oid));
                            *last = (*last).max((offset, oid));
                        }
                        _ => {}
                    }
                }
                Ok(())
            });
            if let Err(error) = read {
                // It is damaged itself, or a gc has removed it: less is known then.
                damage(error)?;
            }
        }
        oids.extend(before.iter().filter(|(start, _)| is_wanted(**start)).map(|(_, (_, oid))| *oid));
        Ok(())
    }
}
