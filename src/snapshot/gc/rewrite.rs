//! Writing data files anew: only what is used, in large frames.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::{MovingChunk, ObjectUse};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::chunk_writer::Compression;
use crate::repository::data::{Codec, Content, FILE_LIMIT, FRAME_LIMIT, read_table};
use crate::repository::data_writer::{DataWriter, NewDataFile, NewFrame};
use crate::repository::frame_encoder::FrameEncoder;
use crate::repository::frames::{FrameFiles, Location};
use crate::repository::hash::Hash;
use crate::repository::in_order::in_order;
use crate::repository::lock::Gate;
use crate::repository::object::publish;
use crate::repository::run_reader::RunReader;
use crate::snapshot::gc::GcOptions;
use crate::snapshot::gc::choice::is_wasteful;
use crate::snapshot::handle::Repository;

/// The most files in one step.
const FILES: usize = 500;

/// Writes the used chunks of these files into new ones, a few files at a time: each step is committed, and the
/// old files are gone, before the next begins. Chunks that lie `beside` others keep the order that they have. Returns how many
/// files were written anew.
pub(super) fn rewrite(
    repository: &mut Repository,
    files: &[&ObjectUse],
    beside: &HashSet<Hash>,
    options: GcOptions,
    monitor: &dyn Monitor,
) -> Result<u64> {
    let steps = steps(files, options);
    monitor.begin("compacting", steps.iter().flatten().map(|file| file.live_raw).sum());
    for step in &steps {
        rewrite_step(repository, step, beside, options, monitor)?;
    }
    monitor.end();
    Ok(steps.iter().map(|step| step.len() as u64).sum())
}

/// Which files are written anew together.
pub(super) fn steps<'a>(files: &[&'a ObjectUse], options: GcOptions) -> Vec<Vec<&'a ObjectUse>> {
    let mut steps: Vec<Vec<&ObjectUse>> = Vec::new();
    let mut raw = 0;
    for file in files {
        match steps.last_mut() {
            Some(step) if raw + file.live_raw <= FILE_LIMIT && step.len() < FILES => step.push(file),
            _ => {
                steps.push(vec![file]);
                raw = 0;
            }
        }
        raw += file.live_raw;
    }
    // One whose company was too much for one step gains nothing by itself.
    steps.retain(|step| step.len() > 1 || step.iter().any(|file| is_wasteful(file, options)));
    steps
}

fn rewrite_step(
    repository: &mut Repository,
    files: &[&ObjectUse],
    beside: &HashSet<Hash>,
    options: GcOptions,
    monitor: &dyn Monitor,
) -> Result<()> {
    let rows: Vec<i64> = files.iter().map(|file| file.file.row).collect();
    let mut chunks = repository.catalog.chunks_to_move(&rows)?;
    chunks.sort_by_cached_key(|chunk| {
        let Location { hash, frame, start, .. } = &chunk.location;
        let file = || files.iter().position(|file| file.file.name == frame.object);
        (chunk.content, beside.contains(hash).then(|| (file(), frame.offset, *start)))
    });
    // What lies beside its past is seldom written, and stays: worth some time.
    let stays = chunks.iter().any(|chunk| beside.contains(&chunk.location.hash));
    let compression = if stays { Compression::SMALL } else { options.compression() };
    move_chunks(repository, &chunks, &rows, compression, monitor)?;
    super::unlink_unnamed(repository, monitor)?;
    Ok(())
}

/// Writes chunks into new files, in this order, and commits that they are there now, and that these old files aren't needed.
pub(super) fn move_chunks(
    repository: &mut Repository,
    chunks: &[MovingChunk],
    old_files: &[i64],
    compression: Compression,
    monitor: &dyn Monitor,
) -> Result<()> {
    let moved: HashMap<Hash, i64> = chunks.iter().map(|chunk| (chunk.location.hash, chunk.row)).collect();
    if moved.len() != chunks.len() {
        let catalog = repository.layout.catalog();
        return Err(damaged_catalog(format!("the catalog {} lists a chunk twice", catalog.display())));
    }
    let object_files = Arc::new(FrameFiles::new(&repository.layout, &repository.counters));
    let mut writer = DataWriter::new(&repository.layout, &repository.counters);
    in_order(
        &frames_of(chunks, compression),
        THREADS,
        || Worker {
            reader: ChunkReader::with_cache(Arc::clone(&object_files), 0),
            encoder: FrameEncoder::new(compression),
            raw: Vec::new(),
        },
        |worker, chunks| worker.frame(chunks, monitor),
        |chunks, (codec, bytes)| {
            monitor.check()?;
            let names = chunks.iter().map(|chunk| (chunk.location.hash, chunk.location.length)).collect();
            let raw = length_of(chunks);
            monitor.advance(raw as u64);
            let content = chunks.first().map_or(Content::Tail, |chunk| chunk.content);
            writer.write(NewFrame { content, codec, raw: raw as u32, chunks: names }, &bytes)
        },
    )?;
    let new_files = writer.finish()?;
    let records: Vec<_> = new_files.iter().map(NewDataFile::record).collect();
    let names: Vec<Hash> = records.iter().map(|(name, _, _)| *name).collect();
    publish(
        &repository.layout,
        new_files.into_iter().map(|data: NewDataFile| data.file).collect(),
        &repository.counters,
    )?;
    check_copies(repository, chunks, &names, monitor)?;

    // Nobody opens object files between the commit and the removal of those that it makes useless.
    let gate = Gate::exclusive(&repository.layout, monitor)?;
    repository.catalog.record_rewrite(&records, &moved, old_files)?;
    drop(gate);
    Ok(())
}

/// How many frames are made at once. Each takes its raw bytes, one frame that it reads from, its output and zstd's tables.
const THREADS: usize = 2;

/// Makes new frames, each whole, on a thread of its own.
struct Worker {
    reader: ChunkReader,
    encoder: FrameEncoder,
    raw: Vec<u8>,
}

impl Worker {
    fn frame(&mut self, chunks: &[MovingChunk], monitor: &dyn Monitor) -> Result<(Codec, Vec<u8>)> {
        monitor.check()?;
        let mut places = Vec::with_capacity(chunks.len());
        let mut length = 0;
        for chunk in chunks {
            places.push((length, &chunk.location));
            length += chunk.location.length as usize;
        }
        // What a damaged catalog says isn't believed.
        if length > FRAME_LIMIT {
            return Err(damaged_catalog("the catalog lists a chunk that is larger than any"));
        }
        // However the chunks of different frames alternate, each frame is read once.
        places.sort_by_key(|(_, location)| (location.frame.object.0, location.frame.offset, location.start));
        // Every byte of it is written.
        self.raw.resize(length, 0);
        for (start, location) in places {
            self.reader.with_chunk(location, |bytes| {
                // As long as its location says, or it would not have its hash.
                self.raw[start..start + bytes.len()].copy_from_slice(bytes);
                Ok(())
            })?;
        }
        if chunks.iter().all(MovingChunk::is_stored_as_it_is) {
            return Ok((Codec::Raw, self.raw.clone()));
        }
        self.encoder.compress_patiently(&mut self.raw, monitor)
    }
}

/// The chunks of each new frame: of one kind, and as many as fit.
fn frames_of(chunks: &[MovingChunk], compression: Compression) -> Vec<&[MovingChunk]> {
    let mut frames = Vec::new();
    let kind = |chunk: &MovingChunk| (chunk.content, chunk.is_stored_as_it_is());
    for same in chunks.chunk_by(|one, other| kind(one) == kind(other)) {
        let limit = same.first().map_or(0, |chunk| compression.limit(chunk.content));
        // As many as threads can make at the same time, and about equal, or the last one would be made alone.
        let total = length_of(same);
        let count = match total.div_ceil(limit.max(1)) {
            several if several > 1 => several.next_multiple_of(THREADS),
            one => one,
        };
        let (mut start, mut length, mut placed, mut made) = (0, 0, 0, 1);
        for (at, chunk) in same.iter().enumerate() {
            let next = chunk.location.length as usize;
            let has_its_share = made < count && placed + next / 2 > total / count * made;
            if length > 0 && (length + next > limit || has_its_share) {
                frames.push(&same[start..at]);
                (start, length) = (at, 0);
                made += 1;
            }
            length += next;
            placed += next;
        }
        frames.push(&same[start..]);
    }
    frames
}

fn damaged_catalog(what: impl Into<String>) -> Error {
    Error::damaged(what).hint("put the newest copy of catalog.db back; nothing was removed")
}

fn length_of(chunks: &[MovingChunk]) -> usize {
    chunks.iter().map(|chunk| chunk.location.length as usize).sum()
}

/// Reads every moved chunk back from the new files: the originals are about to be removed.
fn check_copies(repository: &Repository, chunks: &[MovingChunk], names: &[Hash], monitor: &dyn Monitor) -> Result<()> {
    let mut copies = Vec::new();
    for name in names {
        for frame in read_table(&repository.layout, name)? {
            copies.extend(Location::all_of(*name, &frame));
        }
    }
    let object_files = FrameFiles::new(&repository.layout, &repository.counters);
    RunReader::new(&object_files, &copies).check(&mut 0, |_| monitor.check())?;
    if copies.len() == chunks.len() {
        Ok(())
    } else {
        Err(Error::failed("the chunks that were written are not those that were read").hint("nothing was removed"))
    }
}
