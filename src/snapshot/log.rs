//! Log: the transactions of a database, or of a snapshot, newest first.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::filestorage::{Backwards, DataFile, Position, Source, Transaction, find_cut, read_transaction};
use crate::monitor::Monitor;
use crate::repository::catalog::{Database, Stream, StreamChunk};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::lock::Gate;
use crate::snapshot::anchor::{begins_with, damaged_list, is_of, known_end, nearest};
use crate::snapshot::database;
use crate::snapshot::generations::{Life, life_of};
use crate::snapshot::handle::Repository;
use crate::snapshot::plan::checked_chunks;
use crate::snapshot::set_aside::refuse_set_aside;

/// Which transactions.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// A snapshot; without one, the live databases.
    pub snapshot: Option<String>,
    /// Only those at or after this time.
    pub since: Option<Timestamp>,
    /// Only those whose user or description has this in it, upper or lower case alike.
    pub grep: Option<String>,
    /// So many at most, over all databases.
    pub limit: Option<usize>,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// When it was committed.
    pub time: Timestamp,
    /// Its id, as ZODB writes it.
    pub tid: String,
    /// Who committed it; what isn't UTF-8 in it is replaced.
    pub user: String,
    /// What it was for; what isn't UTF-8 in it is replaced.
    pub description: String,
    /// How many records it has.
    pub objects: u64,
    /// How many bytes it takes in the file.
    pub bytes: u64,
}

impl LogEntry {
    /// From a transaction as it was read.
    pub fn new(transaction: &Transaction) -> Self {
        let header = &transaction.header;
        LogEntry {
            time: header.tid.time(),
            tid: header.tid.to_string(),
            user: String::from_utf8_lossy(&transaction.user).into_owned(),
            description: String::from_utf8_lossy(&transaction.description).into_owned(),
            objects: transaction.objects,
            bytes: header.end() - header.position,
        }
    }

    /// One line about it, for messages, with the time as in this zone: nothing in it can control a terminal.
    pub fn line(&self, zone: &TimeZone) -> String {
        let clean =
            |text: &str| -> String { text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect() };
        let time = self.time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        let words: Vec<String> = [time, clean(&self.user), clean(&self.description)]
            .into_iter()
            .filter(|word| !word.trim().is_empty())
            .collect();
        format!("{} (tid {}, {} bytes)", words.join(", "), self.tid, self.bytes)
    }

    fn matches(&self, options: &LogOptions) -> bool {
        let Some(pattern) = &options.grep else {
            return true;
        };
        let pattern = pattern.to_lowercase();
        self.user.to_lowercase().contains(&pattern) || self.description.to_lowercase().contains(&pattern)
    }
}

/// The transactions of one database.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseLog {
    /// The database's name.
    pub database: String,
    /// Those that were asked for, newest first.
    pub transactions: Vec<LogEntry>,
    /// Set if older transactions couldn't be read because the file that has them isn't there.
    pub ends_at_base: bool,
}

/// Reads the log of a snapshot, or of the live databases.
pub fn log(repository: &Repository, options: &LogOptions, monitor: &dyn Monitor) -> Result<Vec<DatabaseLog>> {
    let mut logs = logs(repository, options, monitor)?;
    if let Some(limit) = options.limit {
        keep_newest(&mut logs, limit);
    }
    Ok(logs)
}

/// Of all databases together, the newest transactions only.
fn keep_newest(logs: &mut [DatabaseLog], limit: usize) {
    let mut left = limit;
    let mut places = vec![0; logs.len()];
    while left > 0 {
        let next = |at: usize| logs[at].transactions.get(places[at]).map(|entry| (entry.time, at));
        let Some((_, at)) = (0..logs.len()).filter_map(next).max_by_key(|(time, _)| *time) else {
            return;
        };
        places[at] += 1;
        left -= 1;
    }
    for (log, place) in logs.iter_mut().zip(places) {
        log.transactions.truncate(place);
    }
}

fn logs(repository: &Repository, options: &LogOptions, monitor: &dyn Monitor) -> Result<Vec<DatabaseLog>> {
    // The gate before the catalog, as gc has it; all that is asked is of one moment. Reading takes longer, and
    // needs neither: what is read from is open by then.
    let gate = Gate::shared(&repository.layout, monitor)?;
    let places = repository.catalog.snapshot_of(|catalog| {
        let databases = catalog.databases()?;
        let Some(word) = &options.snapshot else {
            let tracked = databases.iter().filter(|database| database.tracked);
            return tracked.map(|database| Place::live(repository, database, monitor)).collect();
        };
        let snapshot = repository.resolve(word)?;
        refuse_set_aside(repository, &snapshot)?;
        let mut places = Vec::new();
        for stream in catalog.streams_of(snapshot.row)? {
            let database = databases.iter().find(|database| database.row == stream.database);
            places.push(Place::stored(repository, database.ok_or_else(|| damaged_list(&stream))?, &stream)?);
        }
        Ok(places)
    })?;
    drop(gate);
    places.iter().map(|place| read(place, options, monitor)).collect()
}

/// Where a database's transactions are read from.
struct Place {
    database: String,
    source: Box<dyn Source>,
    /// The end of the last of them.
    end: u64,
    /// Where the oldest that can be read begins.
    oldest: u64,
}

impl Place {
    /// A live file, up to its last complete transaction.
    fn live(repository: &Repository, database: &Database, monitor: &dyn Monitor) -> Result<Self> {
        let file = database::open_patiently(&repository.path_of(database), monitor)?;
        let end = live_end(repository, database, &file, monitor)?;
        Ok(Place { database: database.name.clone(), source: Box::new(file), end, oldest: 0 })
    }

    /// A snapshot: the live file if it begins with it, otherwise what the repository has.
    fn stored(repository: &Repository, database: &Database, stream: &Stream) -> Result<Self> {
        let generation = repository.catalog.generation(stream.generation)?.known;
        let (name, end) = (database.name.clone(), stream.cut.offset);
        let file = DataFile::open(repository.path_of(database)).ok();
        let file = match file {
            Some(file) if is_of(&file, &generation)? => Some(file),
            _ => None,
        };
        let begins = match &file {
            Some(file) => begins_with(file, file.size()?, &repository.catalog, stream)?,
            None => false,
        };
        match file {
            Some(file) if begins => Ok(Place { database: name, source: Box::new(file), end, oldest: 0 }),
            file => {
                let oldest = if file.is_some() { 0 } else { generation.base_length };
                let stored = StoredTail::open(repository, stream, generation.base_length, file)?;
                Ok(Place { database: name, source: Box::new(stored), end, oldest })
            }
        }
    }
}

/// The end of the last complete transaction of a live file.
fn live_end(repository: &Repository, database: &Database, file: &DataFile, monitor: &dyn Monitor) -> Result<u64> {
    let size = file.size()?;
    let from = match life_of(repository, database, file)? {
        Life::Known(generation) => {
            let snapshot = nearest(file, size, &repository.catalog, generation.row)?;
            known_end(snapshot.as_ref(), &generation.known)
        }
        Life::New(..) => Position::START,
    };
    Ok(find_cut(file, from, size, monitor)?.offset)
}

fn read(place: &Place, options: &LogOptions, monitor: &dyn Monitor) -> Result<DatabaseLog> {
    let Place { source, end, oldest, .. } = place;
    let (source, end, oldest) = (source.as_ref(), *end, *oldest);
    let mut log = DatabaseLog { database: place.database.clone(), transactions: Vec::new(), ends_at_base: false };
    let mut backwards = Backwards::new(source, end);
    let mut reached = end;
    while options.limit.is_none_or(|limit| log.transactions.len() < limit) {
        if reached <= oldest {
            log.ends_at_base = oldest > crate::filestorage::FIRST_TRANSACTION;
            break;
        }
        monitor.check()?;
        let Some(header) = backwards.next() else { break };
        let header = header?;
        reached = header.position;
        if options.since.is_some_and(|since| header.tid.time() < since) {
            break;
        }
        let entry = LogEntry::new(&read_transaction(source, &header)?);
        if entry.matches(options) {
            log.transactions.push(entry);
        }
    }
    Ok(log)
}

/// A snapshot's bytes as a source: the tail out of the repository, the base out of the file, if it is there.
pub(super) struct StoredTail {
    path: PathBuf,
    base_length: u64,
    length: u64,
    base: Option<DataFile>,
    chunks: Vec<StreamChunk>,
    reader: RefCell<ChunkReader>,
}

impl StoredTail {
    /// Opens all that will be read: the caller holds the gate, or the writer's lock.
    pub(super) fn open(
        repository: &Repository,
        stream: &Stream,
        base_length: u64,
        base: Option<DataFile>,
    ) -> Result<Self> {
        let chunks = checked_chunks(&repository.catalog, stream, None, base_length)?;
        let mut reader = ChunkReader::new(&repository.layout, &repository.counters);
        reader.open(chunks.iter().map(|chunk| &chunk.location))?;
        Ok(StoredTail {
            path: PathBuf::from(format!("snapshot {}", stream.snapshot_name)),
            base_length,
            length: stream.cut.offset,
            base,
            chunks,
            reader: RefCell::new(reader),
        })
    }
}

impl Source for StoredTail {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> Result<u64> {
        Ok(self.length)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let outside = || Error::failed(format!("{} ends before offset {}", self.path.display(), offset));
        let mut at = offset;
        let mut rest = buffer;
        if at < self.base_length && !rest.is_empty() {
            let length = rest.len().min((self.base_length - at) as usize);
            let (part, others) = rest.split_at_mut(length);
            match &self.base {
                Some(base) => base.read_exact_at(part, at)?,
                // Read along with what follows it, and never looked at: the log ends before.
                None => part.fill(0),
            }
            at += length as u64;
            rest = others;
        }
        while !rest.is_empty() {
            let index = self.chunks.partition_point(|chunk| chunk.end() <= at);
            let chunk = self.chunks.get(index).ok_or_else(outside)?;
            let within = (at - chunk.offset) as usize;
            let length = rest.len().min((chunk.end() - at) as usize);
            let (part, others) = rest.split_at_mut(length);
            self.reader.borrow_mut().with_chunk(&chunk.location, |bytes| {
                part.copy_from_slice(&bytes[within..within + length]);
                Ok(())
            })?;
            at += length as u64;
            rest = others;
        }
        Ok(())
    }
}
