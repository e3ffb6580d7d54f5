//! Writing data files anew: only what is used, in large frames, compressed harder.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::{MovingChunk, ObjectUse};
use crate::repository::chunk_writer::{ChunkWriter, Compression, NewDataFile};
use crate::repository::data::{FILE_LIMIT, read_table};
use crate::repository::frames::{FrameAt, FrameFiles, Location};
use crate::repository::hash::Hash;
use crate::repository::lock::Gate;
use crate::repository::object::publish;
use crate::repository::run_reader::RunReader;
use crate::snapshot::handle::Repository;

/// The most files in one step.
const FILES: usize = 500;

/// Writes the used chunks of these files into new ones, a few files at a time: each step is committed, and the
/// old files are gone, before the next begins.
pub(super) fn rewrite(repository: &mut Repository, files: &[&ObjectUse], monitor: &dyn Monitor) -> Result<()> {
    let mut step: Vec<&ObjectUse> = Vec::new();
    let mut raw = 0;
    monitor.begin("compacting", files.iter().map(|file| file.live_raw).sum());
    for file in files {
        if !step.is_empty() && (raw + file.live_raw > FILE_LIMIT || step.len() >= FILES) {
            rewrite_step(repository, &step, monitor)?;
            step.clear();
            raw = 0;
        }
        step.push(file);
        raw += file.live_raw;
    }
    if !step.is_empty() {
        rewrite_step(repository, &step, monitor)?;
    }
    monitor.end();
    Ok(())
}

fn rewrite_step(repository: &mut Repository, files: &[&ObjectUse], monitor: &dyn Monitor) -> Result<()> {
    let rows: Vec<i64> = files.iter().map(|file| file.file.row).collect();
    let chunks = repository.catalog.chunks_to_move(&rows)?;
    let object_files = FrameFiles::new(&repository.layout, &repository.counters);
    let reader = RunReader::new(&object_files, chunks.iter().map(|chunk| &chunk.location));
    let mut writer = ChunkWriter::new(&repository.layout, &repository.counters, Compression::GC);
    reader.each(|places, mut bytes| {
        for chunk in chunks.get(places).unwrap_or_default() {
            monitor.check()?;
            let length = (chunk.location.length as usize).min(bytes.len());
            writer.append(chunk.content, chunk.location.hash, &bytes[..length])?;
            bytes = &bytes[length..];
            monitor.advance(length as u64);
        }
        Ok(())
    })?;
    let new_files = writer.finish()?;
    let moved: HashMap<Hash, i64> = chunks.iter().map(|chunk| (chunk.location.hash, chunk.row)).collect();
    let records: Vec<_> = new_files.iter().map(NewDataFile::record).collect();
    let names: Vec<Hash> = records.iter().map(|(name, _, _)| *name).collect();
    publish(
        &repository.layout,
        new_files.into_iter().map(|data: NewDataFile| data.file).collect(),
        &repository.counters,
    )?;
    check_copies(repository, &chunks, &names, monitor)?;

    // Nobody opens object files between the commit and the removal of those that it makes useless.
    let gate = Gate::exclusive(&repository.layout)?;
    repository.catalog.record_rewrite(&records, &moved, &rows)?;
    drop(gate);
    super::unlink_unnamed(repository)?;
    Ok(())
}

/// Reads every moved chunk back from the new files: the originals are about to be removed.
fn check_copies(repository: &Repository, chunks: &[MovingChunk], names: &[Hash], monitor: &dyn Monitor) -> Result<()> {
    let mut copies = Vec::new();
    for name in names {
        for frame in read_table(&repository.layout, name)? {
            let at = FrameAt {
                object: *name,
                offset: frame.offset,
                stored: frame.stored,
                raw: frame.raw,
                codec: frame.codec,
            };
            let mut start = 0;
            for (hash, length) in frame.chunks {
                copies.push(Location { hash, length, frame: at, start });
                start += length;
            }
        }
    }
    let object_files = FrameFiles::new(&repository.layout, &repository.counters);
    RunReader::new(&object_files, &copies).each(|_, _| monitor.check())?;
    if copies.len() == chunks.len() {
        Ok(())
    } else {
        Err(Error::failed("the chunks that were written are not those that were read").hint("nothing was removed"))
    }
}
