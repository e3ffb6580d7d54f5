//! From damaged data files to what needs them: which snapshots, and which bytes of which databases.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use crate::error::Result;
use crate::filestorage::DataFile;
use crate::repository::catalog::{Catalog, ChunkPlace, Database, KnownChunk, Stream};
use crate::repository::hash::Hash;
use crate::repository::object::ObjectKind;
use crate::snapshot::anchor::is_of;
use crate::snapshot::gc::lists;
use crate::snapshot::handle::Repository;
use crate::snapshot::id;
use crate::snapshot::index_parts::{self, StoredPart};

use super::catalog::about_catalog;
use super::details::{Details, LostPlace, merged};
use super::{Check, DamagedFile, FINDINGS, Finding, Subject, damage};

/// How many streams, and those related to them, are searched for objects with records in what is lost.
const SEARCHED: usize = 100;
const RELATED: usize = 2000;

/// Adds a finding for every damaged data file that the catalog still names.
pub(super) fn follow(check: &mut Check<'_>) -> Result<()> {
    let damaged = std::mem::take(&mut check.damaged);
    if damaged.is_empty() {
        return Ok(());
    }
    let read = |catalog: &Catalog| catalog.snapshot_of(|catalog| Needs::read(catalog, &damaged));
    let needs = match check.reading.interruptible(check.monitor, read) {
        Ok(needs) => Some(needs),
        Err(error) => {
            check.note(error, about_catalog(Vec::new()))?;
            None
        }
    };
    let mut details = Details::new(check.repository, check.monitor);
    for (name, file) in &damaged {
        check.monitor.check()?;
        // One of which that can't be told was found in the catalog a moment ago.
        let is_blob = matches!(check.reading.object_kind(name), Ok(Some(ObjectKind::Plain)));
        let hint = match is_blob {
            true => "znap repair takes it from the blob directory, if it is there, or from a copy of .znap (--from)",
            false => "put the file back from a copy of .znap, if there is one; or try znap repair",
        };
        let subject = if is_blob { Subject::Blob } else { Subject::Data };
        let mut finding = Finding {
            what: sentence(check, name, file, is_blob),
            object_file: Some(name.to_string()),
            prevents_restore: true,
            hint: Some(hint.into()),
            ..Finding::about(subject)
        };
        // A gc may have removed it meanwhile.
        if check.is_gone(name)? {
            continue;
        }
        if let Some(needs) = &needs {
            let detailed = check.report.findings.len() < FINDINGS;
            needs.complete(&mut finding, (name, file), check.reading, detailed.then_some(&mut details))?;
        }
        check.add(finding);
    }
    check.database_bytes_read += details.bytes_read();
    Ok(())
}

/// Where a finding affects a stored base: names the snapshots that need it instead. Users know of no stored bases.
pub(super) fn name_dependents(check: &mut Check<'_>) -> Result<()> {
    let is_base = |id: &String| id.starts_with(id::BASE);
    if !check.report.findings.iter().any(|finding| finding.snapshots.iter().any(is_base)) {
        return Ok(());
    }
    let dependents = match check.catalog().snapshot_of(|catalog| dependents(check.repository, catalog)) {
        Ok(dependents) => dependents,
        Err(error) => {
            check.note(error, about_catalog(Vec::new()))?;
            HashMap::new()
        }
    };
    for finding in &mut check.report.findings {
        let named: Vec<String> = std::mem::take(&mut finding.snapshots);
        let mut seen = HashSet::new();
        let ids = named.into_iter().flat_map(|id| match dependents.get(&id) {
            Some(ids) => ids.clone(),
            None if is_base(&id) => Vec::new(),
            None => vec![id],
        });
        finding.snapshots = ids.filter(|id| seen.insert(id.clone())).collect();
    }
    Ok(())
}

/// For each stored base the snapshots that need it: those of its generation, unless the database's file begins with it.
fn dependents(repository: &Repository, catalog: &Catalog) -> Result<HashMap<String, Vec<String>>> {
    let streams = catalog.all_streams()?;
    let mut dependents = HashMap::new();
    for database in catalog.databases()? {
        let file = DataFile::open(repository.path_of(&database)).ok();
        for generation in catalog.generations(database.row)? {
            let Some(base) = catalog.stored_base(&generation.known)? else { continue };
            let has_it = file.as_ref().is_some_and(|file| is_of(file, &generation.known).unwrap_or(false));
            let ids = streams.iter().filter(|stream| stream.generation == generation.row && !has_it);
            dependents.insert(base.snapshot_name, ids.map(|stream| stream.snapshot_name.clone()).collect());
        }
    }
    Ok(dependents)
}

fn sentence(check: &Check<'_>, name: &Hash, file: &DamagedFile, is_blob: bool) -> String {
    let folder = if is_blob { check.layout().blobs() } else { check.layout().objects() };
    let mut what =
        format!("object file {}… in {} is damaged: {}", name.short(), folder.display(), file.reasons.join("; "));
    if !is_blob && file.looked_closer && file.lost.is_empty() {
        what.push_str("; all that snapshots have in it can still be read");
    }
    what
}

/// Who needs which chunks.
struct Needs {
    /// All streams, by sequence: parents come before those that build on them.
    streams: Vec<Stream>,
    /// Their places in that, by row.
    place_of: HashMap<i64, usize>,
    /// Those that build on each.
    children: HashMap<i64, Vec<usize>>,
    /// Up to where each is needed by some snapshot, by row.
    reach: HashMap<i64, u64>,
    /// Rows of streams that have a keyframe of their own.
    keyframes: HashSet<i64>,
    /// Rows of snapshots that were deleted.
    deleted: HashSet<i64>,
    databases: Vec<Database>,
    /// The places in tails of the chunks that are in damaged files, by chunk.
    places: HashMap<i64, Vec<ChunkPlace>>,
    /// The streams that have them in their own index parts, by chunk.
    index_places: HashMap<i64, Vec<i64>>,
    /// The places in lists of blobs of those whose bytes they are, by chunk.
    blob_places: HashMap<i64, Vec<ChunkPlace>>,
}

impl Needs {
    fn read(catalog: &Catalog, damaged: &BTreeMap<Hash, DamagedFile>) -> Result<Self> {
        let streams = catalog.streams_with_deleted()?;
        let snapshots = catalog.all_snapshots()?;
        let deleted: HashSet<i64> =
            snapshots.iter().filter(|known| known.deleted).map(|known| known.snapshot.row).collect();
        let place_of: HashMap<i64, usize> =
            streams.iter().enumerate().map(|(place, stream)| (stream.row, place)).collect();
        let mut children: HashMap<i64, Vec<usize>> = HashMap::new();
        for (place, stream) in streams.iter().enumerate() {
            if let Some(parent) = stream.parent {
                children.entry(parent).or_default().push(place);
            }
        }
        let links = catalog.index_links()?;
        let mut chunks = HashSet::new();
        for (name, file) in damaged {
            for chunk in file.lost.iter().chain(&file.whole) {
                // Where there is no copy of the catalog, it may have been moved meanwhile.
                if catalog.object_file_of(chunk.row)? == Some(*name) {
                    chunks.insert(chunk.row);
                }
            }
        }
        let mut places: HashMap<i64, Vec<ChunkPlace>> = HashMap::new();
        for place in catalog.places_of(&chunks)? {
            places.entry(place.chunk).or_default().push(place);
        }
        let mut blob_places: HashMap<i64, Vec<ChunkPlace>> = HashMap::new();
        for place in catalog.blob_places_of(&chunks)? {
            blob_places.entry(place.chunk).or_default().push(place);
        }
        let mut index_places: HashMap<i64, Vec<i64>> = HashMap::new();
        for (stream, chunk) in catalog.index_places_of(&chunks)? {
            index_places.entry(chunk).or_default().push(stream);
        }
        Ok(Needs {
            reach: lists::reach(&streams, &deleted),
            keyframes: links.iter().filter(|link| link.has_keyframe).map(|link| link.stream).collect(),
            databases: catalog.databases()?,
            streams,
            place_of,
            children,
            deleted,
            places,
            index_places,
            blob_places,
        })
    }

    fn parent(&self, place: usize) -> Option<usize> {
        let parent = self.place_of.get(&self.streams.get(place)?.parent?)?;
        // In a damaged catalog it might not be.
        (*parent < place).then_some(*parent)
    }

    /// Says which snapshots, and which bytes of databases, a damaged file affects.
    fn complete(
        &self,
        finding: &mut Finding,
        (name, file): (&Hash, &DamagedFile),
        catalog: &Catalog,
        details: Option<&mut Details<'_>>,
    ) -> Result<()> {
        let lost = self.affected(&file.lost, &catalog.plain_places_of(name)?);
        let whole = self.affected(&file.whole, &[]);
        let mut ids: Vec<String> = Vec::new();
        let mut others: HashSet<i64> = HashSet::new();
        for (place, stream) in self.streams.iter().enumerate() {
            if self.deleted.contains(&stream.snapshot) {
                continue;
            }
            if lost.tail[place] || lost.index[place] {
                ids.push(stream.snapshot_name.clone());
            } else if whole.tail[place] || whole.index[place] {
                others.insert(stream.snapshot);
            }
        }
        for (place, stream) in self.streams.iter().enumerate() {
            // Of several databases, one is enough.
            if lost.tail[place] || lost.index[place] {
                others.remove(&stream.snapshot);
            }
        }
        // A snapshot's databases come one behind the other.
        ids.dedup();
        finding.snapshots = ids;
        finding.other_snapshots = others.len() as u64;
        let Some(details) = details else { return Ok(()) };
        for database in &self.databases {
            let places = self.lost_places(&file.lost, database.row);
            let index = self.streams.iter().enumerate().any(|(place, stream)| {
                stream.database == database.row && lost.index[place] && !self.deleted.contains(&stream.snapshot)
            });
            if places.is_empty() && !index {
                continue;
            }
            let parts = self.parts(catalog, &places)?;
            let present = places.iter().all(|(stream, _)| {
                self.place_of.get(stream).is_some_and(|at| self.streams[*at].generation == database.generation.row)
            });
            let places = places.into_iter().map(|(_, place)| place).collect();
            finding.databases.push(details.of(database, places, index, present, &parts)?);
        }
        Ok(())
    }

    /// Which streams need any of these chunks, for their tail, for a blob or for their index; or blobs that are in these places.
    fn affected(&self, chunks: &[KnownChunk], blobs: &[ChunkPlace]) -> AffectedStreams {
        let mut own: HashMap<i64, u64> = HashMap::new();
        let mut own_index: HashSet<i64> = HashSet::new();
        // A list of blobs is inherited like a chunk list: what is before the place up to which that is kept.
        let mut needs = |place: &ChunkPlace| {
            let first = own.entry(place.stream).or_insert(u64::MAX);
            *first = place.offset.min(*first);
        };
        blobs.iter().for_each(&mut needs);
        for chunk in chunks {
            let places = self.places.get(&chunk.row).into_iter().flatten();
            places.chain(self.blob_places.get(&chunk.row).into_iter().flatten()).for_each(&mut needs);
            own_index.extend(self.index_places.get(&chunk.row).into_iter().flatten());
        }
        // The first offset of each whole list, and whether the index is affected; parents come first.
        let mut first: Vec<u64> = Vec::with_capacity(self.streams.len());
        let mut index: Vec<bool> = Vec::with_capacity(self.streams.len());
        for (place, stream) in self.streams.iter().enumerate() {
            let parent = self.parent(place);
            let kept = parent.map(|parent| first[parent]).filter(|offset| *offset < stream.kept_length);
            let mine = own.get(&stream.row).copied().unwrap_or(u64::MAX);
            first.push(mine.min(kept.unwrap_or(u64::MAX)));
            let inherited = !self.keyframes.contains(&stream.row) && parent.is_some_and(|parent| index[parent]);
            index.push(own_index.contains(&stream.row) || inherited);
        }
        let tail = self.streams.iter().zip(&first).map(|(stream, first)| *first < stream.cut.offset).collect();
        AffectedStreams { tail, index }
    }

    /// The places of these chunks in a database that some snapshot needs, with the stream that has each.
    fn lost_places(&self, chunks: &[KnownChunk], database: i64) -> Vec<(i64, LostPlace)> {
        let mut found = Vec::new();
        for chunk in chunks {
            for place in self.places.get(&chunk.row).into_iter().flatten() {
                let stream = self.place_of.get(&place.stream).map(|at| &self.streams[*at]);
                let needed = self.reach.get(&place.stream).is_some_and(|reach| place.offset < *reach);
                if needed && stream.is_some_and(|stream| stream.database == database) {
                    let place = LostPlace { offset: place.offset, length: chunk.length, hash: chunk.hash };
                    found.push((stream.map_or(0, |stream| stream.row), place));
                }
            }
        }
        found.sort_by_key(|(stream, place)| (place.offset, *stream));
        found
    }

    /// The index parts that may name records in these places: those of the streams that have them, and of those before and
    /// behind these; each with the ranges that are of interest in it.
    fn parts(&self, catalog: &Catalog, places: &[(i64, LostPlace)]) -> Result<Vec<SearchedPart>> {
        let mut by_stream: BTreeMap<i64, Vec<LostPlace>> = BTreeMap::new();
        for (stream, place) in places {
            by_stream.entry(*stream).or_default().push(*place);
        }
        // For each stream that is searched, for which of those it is.
        let mut sources: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        for (row, places) in by_stream.iter().take(SEARCHED) {
            let (Some(&at), Some(first)) = (self.place_of.get(row), places.first()) else { continue };
            for related in self.related(at, first.offset) {
                if sources.len() < RELATED || sources.contains_key(&related) {
                    sources.entry(related).or_default().push(*row);
                }
            }
        }
        // Neighbours are mostly searched for the same ones: those share what they are searched for.
        let mut ranges: HashMap<Vec<i64>, Ranges> = HashMap::new();
        let mut parts = Vec::new();
        for (at, rows) in sources {
            let own = match index_parts::own_parts(catalog, &self.streams[at]) {
                Ok(own) => own,
                // Found before, or dropped by a gc since.
                Err(error) => {
                    damage(error)?;
                    continue;
                }
            };
            let wanted = ranges.entry(rows).or_insert_with_key(|rows| {
                let places: Vec<LostPlace> =
                    rows.iter().filter_map(|row| by_stream.get(row)).flatten().copied().collect();
                merged(&places).into()
            });
            let id = &self.streams[at].snapshot_name;
            parts.extend(own.into_iter().map(|part| (part, id.clone(), Ranges::clone(wanted))));
        }
        Ok(parts)
    }

    /// A stream, those that it builds on as far as they reach beyond an offset, and those that build on it.
    fn related(&self, at: usize, offset: u64) -> Vec<usize> {
        let mut related = vec![at];
        let mut before = self.parent(at);
        while let Some(parent) = before.filter(|parent| self.streams[*parent].cut.offset > offset) {
            related.push(parent);
            before = self.parent(parent);
        }
        let mut waiting = vec![at];
        while let Some(next) = waiting.pop() {
            for child in self.children.get(&self.streams[next].row).into_iter().flatten() {
                // In a damaged catalog they might go round.
                if *child > next && related.len() < RELATED {
                    related.push(*child);
                    waiting.push(*child);
                }
            }
        }
        related
    }
}

/// Ranges of a database's file, in order.
type Ranges = Rc<[Range<u64>]>;

/// An index part, the id of its snapshot, and the ranges that are of interest in it.
pub(super) type SearchedPart = (StoredPart, String, Ranges);

/// Which streams are affected, by their places.
struct AffectedStreams {
    tail: Vec<bool>,
    index: Vec<bool>,
}
