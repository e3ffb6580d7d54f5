//! Reads many chunks in a row, on several threads: while one frame is used, the next ones are decompressed and
//! their chunks checked.
//!
//! Memory: per thread one frame being made, and one waiting to be used; the two last ones, because chunks may alternate
//! between an old frame and a new one; and what a check was told to keep.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::repository::data::FRAME_LIMIT;
use crate::repository::frames::{FrameAt, FrameFiles, Location};
use crate::repository::in_order::in_order;

/// How many bytes of decompressed frames are kept for the runs that follow.
const RECENT: usize = 2 * FRAME_LIMIT;

/// The most threads that decompress.
const THREADS: usize = 3;

/// Chunks of a list, one behind the other, that lie one behind the other in one frame.
struct Run {
    frame: FrameAt,
    /// Their places in the list.
    chunks: Range<usize>,
    /// Their bytes' place in the frame.
    bytes: Range<usize>,
    /// The frame, decompressed, if it is kept: then these chunks of it were checked.
    kept: Option<Arc<Vec<u8>>>,
}

/// A list of chunks, to be read in order.
pub struct RunReader<'a> {
    files: &'a FrameFiles,
    locations: Vec<&'a Location>,
    runs: Vec<Run>,
}

impl<'a> RunReader<'a> {
    /// For these chunks.
    pub fn new(files: &'a FrameFiles, locations: impl IntoIterator<Item = &'a Location>) -> Self {
        let locations: Vec<&Location> = locations.into_iter().collect();
        let mut runs: Vec<Run> = Vec::new();
        for (place, location) in locations.iter().enumerate() {
            let start = location.start as usize;
            let end = start + location.length as usize;
            match runs.last_mut() {
                Some(run) if run.frame == location.frame && run.bytes.end == start => {
                    run.chunks.end = place + 1;
                    run.bytes.end = end;
                }
                _ => runs.push(Run { frame: location.frame, chunks: place..place + 1, bytes: start..end, kept: None }),
            }
        }
        RunReader { files, locations, runs }
    }

    /// Checks every chunk against its hash, and keeps decompressed what fits the budget, which it reduces.
    /// `progress` hears of the bytes that were checked, and may stop it.
    pub fn check(&mut self, budget: &mut usize, mut progress: impl FnMut(usize) -> Result<()>) -> Result<()> {
        let mut kept: Vec<Option<Arc<Vec<u8>>>> = Vec::with_capacity(self.runs.len());
        let mut last: Option<(FrameAt, Arc<Vec<u8>>)> = None;
        self.frames(|run, frame| {
            progress(run.bytes.len())?;
            // Frames mostly come once, and else soon again.
            let known = last.as_ref().is_some_and(|(at, _)| *at == run.frame);
            if !known && frame.len() <= *budget {
                *budget -= frame.len();
                last = Some((run.frame, Arc::clone(frame)));
            }
            kept.push(last.as_ref().filter(|(at, _)| *at == run.frame).map(|(_, frame)| Arc::clone(frame)));
            Ok(())
        })?;
        for (run, kept) in self.runs.iter_mut().zip(kept) {
            run.kept = kept;
        }
        Ok(())
    }

    /// Gives all chunks to `use_chunks`, in order, a run at a time: their places in the list, and their bytes, one behind the other,
    /// checked.
    pub fn each(&self, mut use_chunks: impl FnMut(Range<usize>, &[u8]) -> Result<()>) -> Result<()> {
        self.frames(|run, frame| use_chunks(run.chunks.clone(), frame.get(run.bytes.clone()).unwrap_or_default()))
    }

    /// Gives every run and its frame, in which its chunks were checked, to `use_frame`, in order.
    fn frames(&self, mut use_frame: impl FnMut(&Run, &Arc<Vec<u8>>) -> Result<()>) -> Result<()> {
        let recent = Recent::default();
        in_order(
            &self.runs,
            THREADS,
            Vec::new,
            |compressed, run| self.frame(run, &recent, compressed),
            |run, frame| use_frame(run, &frame),
        )
    }

    /// A run's frame, with the run's chunks checked.
    fn frame(&self, run: &Run, recent: &Recent, compressed: &mut Vec<u8>) -> Result<Arc<Vec<u8>>> {
        if let Some(frame) = &run.kept {
            return Ok(Arc::clone(frame));
        }
        let slot = recent.slot(&run.frame);
        let mut slot = lock(&slot);
        let frame = match &*slot {
            Some(frame) => Arc::clone(frame),
            None => Arc::clone(slot.insert(Arc::new(self.files.load(&run.frame, compressed)?))),
        };
        drop(slot);
        for location in &self.locations[run.chunks.clone()] {
            self.files.check(location, &frame)?;
        }
        Ok(frame)
    }
}

/// A frame that is there, or being made by who holds the lock.
type Slot = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// The frames that were used last.
#[derive(Default)]
struct Recent(Mutex<VecDeque<(FrameAt, Slot)>>);

impl Recent {
    /// The place of a frame.
    fn slot(&self, at: &FrameAt) -> Slot {
        let mut slots = lock(&self.0);
        if let Some((_, slot)) = slots.iter().find(|(other, _)| other == at) {
            return Arc::clone(slot);
        }
        let mut held: usize = slots.iter().map(|(at, _)| at.raw as usize).sum();
        while held + at.raw as usize > RECENT {
            match slots.pop_front() {
                Some((at, _)) => held -= at.raw as usize,
                None => break,
            }
        }
        let slot = Slot::default();
        slots.push_back((*at, Arc::clone(&slot)));
        slot
    }
}

/// Nothing that these locks guard can be left half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::repository::chunk_writer::{ChunkWriter, Compression};
    use crate::repository::counters::Counters;
    use crate::repository::data::{Content, read_table};
    use crate::repository::hash::Hash;
    use crate::repository::layout::{Access, Layout};
    use crate::repository::object::publish;

    /// Stores chunks, a few to a frame, and returns where they are.
    fn stored(layout: &Layout, counters: &Arc<Counters>, chunks: &[Vec<u8>]) -> Vec<Location> {
        let mut writer =
            ChunkWriter::new(layout, counters, Compression { level: 1, frame: 20_000, ..Compression::FAST });
        for chunk in chunks {
            writer.append(Content::Tail, Hash::of(chunk), chunk).unwrap();
        }
        let files = writer.finish().unwrap();
        let names: Vec<Hash> = files.iter().map(|file| file.file.name).collect();
        publish(layout, files.into_iter().map(|file| file.file).collect(), counters).unwrap();
        let mut locations = Vec::new();
        for object in names {
            for frame in read_table(layout, &object).unwrap() {
                locations.extend(Location::all_of(object, &frame));
            }
        }
        locations
    }

    fn chunk(number: usize) -> Vec<u8> {
        (0..3000 + number * 10).map(|at| (number * 31 + at * at / 7) as u8).collect()
    }

    fn read(reader: &RunReader<'_>) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut next = 0;
        reader.each(|places, bytes| {
            assert_eq!(places.start, next);
            next = places.end;
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn chunks_come_in_order_and_frames_are_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join(".znap"), Access::Private).unwrap();
        let counters = Arc::new(Counters::default());
        let chunks: Vec<Vec<u8>> = (0..60).map(chunk).collect();
        let locations = stored(&layout, &counters, &chunks);
        assert_eq!(locations.len(), chunks.len());
        let frames: u64 = {
            let mut frames: Vec<FrameAt> = locations.iter().map(|location| location.frame).collect();
            frames.dedup();
            assert!(frames.len() > 5);
            frames.iter().map(|frame| u64::from(frame.stored)).sum()
        };
        // As they are, and with those of the second frame between those of the others.
        let mut mixed: Vec<usize> = (0..chunks.len()).collect();
        for at in (0..chunks.len()).step_by(4) {
            mixed[at] = 7 + at % 5;
        }
        for order in [(0..chunks.len()).collect(), mixed] {
            let files = FrameFiles::new(&layout, &counters);
            let expected: Vec<u8> = order.iter().flat_map(|&number| chunks[number].clone()).collect();
            let mut reader = RunReader::new(&files, order.iter().map(|&number| &locations[number]));
            let before = counters.counts().object_bytes_read;
            assert_eq!(read(&reader).unwrap(), expected);
            assert_eq!(counters.counts().object_bytes_read - before, frames);
            let mut budget = 1 << 20;
            let mut checked = 0;
            reader
                .check(&mut budget, |bytes| {
                    checked += bytes;
                    Ok(())
                })
                .unwrap();
            assert_eq!(checked, expected.len());
            assert!(budget < 1 << 20);
            let before = counters.counts().object_bytes_read;
            assert_eq!(read(&reader).unwrap(), expected);
            assert_eq!(counters.counts().object_bytes_read, before, "all of it was kept");
        }
    }

    #[test]
    fn p6_a_wrong_chunk_is_never_given_and_what_stops_a_reader_stops_its_threads() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join(".znap"), Access::Private).unwrap();
        let counters = Arc::new(Counters::default());
        let chunks: Vec<Vec<u8>> = (0..60).map(chunk).collect();
        let mut locations = stored(&layout, &counters, &chunks);
        let files = FrameFiles::new(&layout, &counters);
        let mut seen = 0;
        let stopped = RunReader::new(&files, &locations).each(|_, _| {
            seen += 1;
            if seen == 3 { Err(Error::failed("enough")) } else { Ok(()) }
        });
        assert_eq!((stopped.unwrap_err().to_string(), seen), ("enough".into(), 3));
        locations[40].hash = Hash::of(b"another");
        let mut reader = RunReader::new(&files, &locations);
        let mut reached = 0;
        let error = reader.each(|places, _| {
            reached = places.end;
            Ok(())
        });
        assert!(error.unwrap_err().to_string().contains("does not match its hash"));
        assert!(reached <= 40, "P6");
        assert!(reader.check(&mut 0, |_| Ok(())).is_err());
    }
}
