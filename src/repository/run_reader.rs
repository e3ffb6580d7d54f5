//! Reads many chunks in a row, on several threads: while one frame is used, the next ones are decompressed and
//! their chunks checked.
//!
//! Memory: per thread one frame being made or waiting to be used, with what it is made from; one that is being used; of those
//! that will be needed again, because chunks alternate between frames, 128 MiB; and what a check was told to keep.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::repository::data::FRAME_LIMIT;
use crate::repository::frames::{FrameAt, FrameFiles, Location};
use crate::repository::in_order::in_order;

/// How many bytes of decompressed frames are kept for runs that will need them again.
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
    /// Whether it is the first run of its frame, and whether the last.
    first: bool,
    last: bool,
    /// The frame, decompressed, if it is kept: then these chunks were checked in just this copy of it.
    kept: Option<Arc<Vec<u8>>>,
}

/// A list of chunks, to be read in order.
pub struct RunReader<'a> {
    files: &'a FrameFiles,
    locations: Vec<&'a Location>,
    runs: Vec<Run>,
    /// How many bytes of frames that will be needed again are kept.
    recent: usize,
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
                _ => {
                    let (frame, chunks, bytes) = (location.frame, place..place + 1, start..end);
                    runs.push(Run { frame, chunks, bytes, first: true, last: true, kept: None });
                }
            }
        }
        let mut seen: HashMap<FrameAt, usize> = HashMap::new();
        for at in 0..runs.len() {
            if let Some(before) = seen.insert(runs[at].frame, at) {
                runs[at].first = false;
                runs[before].last = false;
            }
        }
        RunReader { files, locations, runs, recent: RECENT }
    }

    /// Checks every chunk against its hash, and keeps decompressed what fits the budget, which it reduces.
    /// `progress` hears of the bytes that were checked, and may stop it.
    pub fn check(&mut self, budget: &mut usize, mut progress: impl FnMut(usize) -> Result<()>) -> Result<()> {
        let mut kept: Vec<Option<Arc<Vec<u8>>>> = Vec::with_capacity(self.runs.len());
        let mut last: Option<Arc<Vec<u8>>> = None;
        self.frames(false, |run, frame| {
            progress(run.bytes.len())?;
            // Frames mostly come once, and else soon again. Loaded again it is another copy, checked by itself.
            let known = last.as_ref().is_some_and(|last| Arc::ptr_eq(last, frame));
            if !known && frame.len() <= *budget {
                *budget -= frame.len();
                last = Some(Arc::clone(frame));
            }
            kept.push(last.as_ref().filter(|last| Arc::ptr_eq(last, frame)).map(Arc::clone));
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
        self.frames(true, |run, frame| use_chunks(run.chunks.clone(), frame.get(run.bytes.clone()).unwrap_or_default()))
    }

    /// Gives every run and its frame, in which its chunks were checked, to `use_frame`, in order. If `again`, the room that
    /// a frame took is used again for others.
    fn frames(&self, again: bool, mut use_frame: impl FnMut(&Run, &Arc<Vec<u8>>) -> Result<()>) -> Result<()> {
        let room = Room::default();
        let threads = self.runs.iter().filter(|run| run.kept.is_none()).count().min(THREADS);
        in_order(
            &self.runs,
            threads,
            Vec::new,
            |compressed, run| self.frame(run, &room, compressed),
            |run, frame| {
                use_frame(run, &frame)?;
                if run.last && !run.first {
                    room.forget(&run.frame);
                }
                if again && let Some(spare) = Arc::into_inner(frame) {
                    lock(&room.spare).push(spare);
                }
                Ok(())
            },
        )
    }

    /// A run's frame, with the run's chunks checked.
    fn frame(&self, run: &Run, room: &Room, compressed: &mut Vec<u8>) -> Result<Arc<Vec<u8>>> {
        if let Some(frame) = &run.kept {
            return Ok(Arc::clone(frame));
        }
        let mut load = || -> Result<Arc<Vec<u8>>> {
            let mut raw = lock(&room.spare).pop().unwrap_or_default();
            self.files.load_into(&run.frame, compressed, &mut raw)?;
            Ok(Arc::new(raw))
        };
        let frame = if run.first && run.last {
            load()?
        } else {
            let slot = room.slot(&run.frame, self.recent);
            let mut slot = lock(&slot);
            match &*slot {
                Some(frame) => Arc::clone(frame),
                None => Arc::clone(slot.insert(load()?)),
            }
        };
        for location in &self.locations[run.chunks.clone()] {
            self.files.check(location, &frame)?;
        }
        Ok(frame)
    }
}

/// A frame that is there, or being made by who holds the lock.
type Slot = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// The room that frames take.
#[derive(Default)]
struct Room {
    /// The frames that will be used again, those that were used last at the end.
    recent: Mutex<VecDeque<(FrameAt, Slot)>>,
    /// Of frames that were used, to be filled again.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Room {
    /// The place of a frame, if need be in that of others: so many bytes of them are kept.
    fn slot(&self, at: &FrameAt, limit: usize) -> Slot {
        let mut slots = lock(&self.recent);
        if let Some((_, slot)) = slots.iter().find(|(other, _)| other == at) {
            return Arc::clone(slot);
        }
        let mut held: usize = slots.iter().map(|(at, _)| at.raw as usize).sum();
        while held + at.raw as usize > limit {
            match slots.pop_front() {
                Some((at, _)) => held -= at.raw as usize,
                None => break,
            }
        }
        let slot = Slot::default();
        slots.push_back((*at, Arc::clone(&slot)));
        slot
    }

    /// Says that a frame isn't needed any more.
    fn forget(&self, at: &FrameAt) {
        lock(&self.recent).retain(|(other, _)| other != at);
    }
}

/// Nothing that these locks guard can be left half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
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
        let layout = Layout::create(&dir.path().join(".znap"), Access::Private, &Disk::default()).unwrap();
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

    /// A disk may give other bytes the second time.
    #[test]
    fn p6_a_frame_that_is_kept_is_the_very_copy_that_was_checked() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join(".znap"), Access::Private, &Disk::default()).unwrap();
        let counters = Arc::new(Counters::default());
        // Doesn't compress, so that damage to the file is damage to one chunk.
        let mut seed = 1u64;
        let mut noise = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        let chunks: Vec<Vec<u8>> = (0..4).map(|_| (0..9000).map(|_| noise()).collect()).collect();
        let locations = stored(&layout, &counters, &chunks);
        let (first, second) = (&locations[0], &locations[1]);
        assert_eq!(first.frame, second.frame);
        assert!(first.frame.stored >= first.frame.raw, "it is stored as it is");
        let path = layout.object(&first.frame.object);
        let at = first.frame.offset + u64::from(second.start) + 500;
        let right = std::fs::read(&path).unwrap()[at as usize];
        // In place: another thread may be reading the file.
        let put = |byte: u8| {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[byte], at).unwrap();
        };
        put(right ^ 1);
        // The first chunk is right; the second one is damaged when the frame is loaded for the first, and whole when it is
        // loaded again, because another frame that is needed again took its place.
        let files = FrameFiles::new(&layout, &counters);
        let order = [first, &locations[2], second, &locations[2]];
        let mut reader = RunReader::new(&files, order);
        reader.recent = 0;
        let checked = reader.check(&mut (1 << 20), |_| {
            put(right);
            Ok(())
        });
        match checked.and_then(|()| read(&reader)) {
            Ok(bytes) => assert_eq!(bytes, [&chunks[0][..], &chunks[2], &chunks[1], &chunks[2]].concat(), "P6"),
            Err(error) => assert!(error.to_string().contains("does not match its hash"), "P6: {error}"),
        }
    }

    #[test]
    fn p6_a_wrong_chunk_is_never_given_and_what_stops_a_reader_stops_its_threads() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join(".znap"), Access::Private, &Disk::default()).unwrap();
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
