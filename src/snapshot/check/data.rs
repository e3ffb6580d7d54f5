//! The data files, read whole: each has the hash that is its name, every frame decompresses, and every chunk has its hash.
//!
//! Each byte is read once. Frames are decompressed and their chunks hashed on several threads, and the file's own hash is made of
//! the same bytes beside that.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::error::{Error, IoContext, Kind, Result};
use crate::repository::catalog::{KnownChunk, KnownFrame, ObjectFile};
use crate::repository::counters::Counters;
use crate::repository::data::Codec;
use crate::repository::hash::Hash;
use crate::repository::in_order::in_order;
use crate::repository::object::{ObjectKind, open_object};
use crate::repository::plain::open_plain;

use super::catalog::Known;
use super::objects::{MISSING, clause};
use super::progress::Progress;
use super::report::DataCheck;
use super::{Check, DamagedFile};

/// How many files are open at once, and about how many bytes they have.
const FILES: usize = 100;
const BYTES: u64 = 256 << 20;
/// The most threads that decompress; the one that hashes whole files comes to that.
const THREADS: usize = 2;
/// How many bytes are read at once of what is no frame.
const PIECE: u64 = 4 << 20;

/// Reads all data files, in the order of their names; until the deadline, if there is one, and then goes on after the one
/// at which the check before has stopped. At least one file is read.
pub(super) fn check(check: &mut Check<'_>, known: &Known, deadline: Option<Instant>) -> Result<()> {
    let files: Vec<&ObjectFile> =
        known.files.iter().filter(|file| matches!(file.kind, ObjectKind::Data | ObjectKind::Plain)).collect();
    let progress = deadline.and_then(|_| Progress::read(check.layout(), known.repository.0));
    let mut again: HashSet<Hash> = check.damaged.keys().copied().collect();
    let mut after = None;
    if let Some(progress) = &progress {
        after = Some(progress.after);
        again.extend(&progress.damaged);
    }
    // What was damaged the last time comes first, so that it isn't forgotten over the rest.
    let before = |file: &&ObjectFile| after.is_some_and(|after| file.name <= after);
    let again: Vec<&ObjectFile> =
        files.iter().copied().filter(|file| before(file) && again.contains(&file.name)).collect();
    let rest: Vec<&ObjectFile> = files.into_iter().filter(|file| !before(file)).collect();

    let mut report = DataCheck { went_on: after.is_some(), ..DataCheck::default() };
    check.monitor.begin("reading the object files", bytes_of(again.iter().chain(&rest).copied()));
    let mut read = |file: &ObjectFile| {
        report.files += 1;
        report.bytes = report.bytes.saturating_add(file.bytes);
    };
    read_files(check, known, &again, |file| {
        read(file);
        true
    })?;
    let mut last = None;
    let ended = read_files(check, known, &rest, |file| {
        read(file);
        last = Some(file.name);
        deadline.is_none_or(|deadline| Instant::now() < deadline)
    });
    check.monitor.end();
    let interrupted = match ended {
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) && deadline.is_some() => Some(error),
        ended => {
            if ended? {
                last = None;
                after = None;
            }
            None
        }
    };
    let stopped = last.or(if interrupted.is_some() { after } else { None });
    if let Some(stopped) = stopped {
        let left: Vec<&ObjectFile> = rest.into_iter().filter(|file| file.name > stopped).collect();
        (report.files_left, report.bytes_left) = (left.len() as u64, bytes_of(left.iter().copied()));
    }
    let remembered = match stopped.filter(|_| report.files_left > 0) {
        Some(after) => {
            Progress::new(known.repository.0, after, check.damaged.keys().copied().collect()).write(check.layout())
        }
        // All was read, by this check or those before it.
        None => Progress::forget(check.layout()),
    };
    match (interrupted, remembered) {
        (Some(error), _) => return Err(error),
        (None, Err(error)) => report.not_remembered = Some(error.to_string()),
        (None, Ok(())) => {}
    }
    check.report.data = Some(report);
    Ok(())
}

/// How long files are, as the catalog says, which may be anything.
pub(super) fn bytes_of<'a>(files: impl Iterator<Item = &'a ObjectFile>) -> u64 {
    files.fold(0, |sum, file| sum.saturating_add(file.bytes))
}

/// Reads those data files in which something is wrong, to find out what can still be had of them: unless they were read
/// already, because all of the data was.
pub(super) fn look_closer(check: &mut Check<'_>, known: &Known) -> Result<()> {
    let is_open = |file: &&ObjectFile| check.damaged.get(&file.name).is_some_and(|damaged| !damaged.looked_closer);
    let damaged: Vec<&ObjectFile> = known.files.iter().filter(is_open).collect();
    if damaged.is_empty() {
        return Ok(());
    }
    check.monitor.begin("reading what is damaged", bytes_of(damaged.iter().copied()));
    read_files(check, known, &damaged, |_| true)?;
    check.monitor.end();
    Ok(())
}

/// An open data file, and what the catalog says is in it.
struct Opened<'k> {
    file: &'k ObjectFile,
    frames: &'k [KnownFrame],
    handle: File,
    length: u64,
}

/// A piece of work: bytes of a file that are read at once.
struct Segment<'o, 'k> {
    of: &'o Opened<'k>,
    bytes: Range<u64>,
    /// The frame that they are, if they are one.
    frame: Option<&'k KnownFrame>,
    /// Whether they follow the bytes of the segment before, and so are the next ones of the whole file.
    in_line: bool,
    last: bool,
}

/// What came of a segment.
struct Piece {
    bytes: Vec<u8>,
    /// Why it isn't as it should be.
    reason: Option<String>,
    /// Which of the frame's chunks are lost.
    lost: Vec<usize>,
}

/// Reads files; `done` hears of each that was read, and says whether to go on. Returns whether all were read. Those that
/// gc has removed are skipped.
fn read_files(
    check: &mut Check<'_>,
    known: &Known,
    files: &[&ObjectFile],
    mut done: impl FnMut(&ObjectFile) -> bool,
) -> Result<bool> {
    let mut rest = files;
    while !rest.is_empty() {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some((file, others)) = rest.split_first()
            && (group.is_empty() || (group.len() < FILES && bytes + file.bytes <= BYTES))
        {
            rest = others;
            bytes += file.bytes;
            group.extend(open(check, known, file)?);
        }
        let (found, goes_on) = read_group(check, &group, &mut done);
        for (name, file) in found {
            let entry = check.damaged.entry(name).or_default();
            let known_reasons = std::mem::take(&mut entry.reasons);
            *entry = file;
            // What was found without reading all of it is more precise.
            entry.reasons.splice(0..0, known_reasons);
            entry.reasons.dedup();
        }
        if !goes_on? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens a file; `None` if it isn't there, which is noted if the catalog still names it.
fn open<'k>(check: &mut Check<'_>, known: &'k Known, file: &'k ObjectFile) -> Result<Option<Opened<'k>>> {
    let path = check.layout().place(file.kind, &file.name);
    let frames = known.frames.get(&file.row).map_or(&[][..], Vec::as_slice);
    let opened = match file.kind {
        ObjectKind::Plain => open_plain(check.layout(), &file.name),
        _ => open_object(check.layout(), &file.name),
    };
    let opened = opened.and_then(|handle| Ok((handle.metadata().at("look at", &path)?.len(), handle)));
    match opened {
        Ok((length, handle)) => Ok(Some(Opened { file, frames, handle, length })),
        Err(error) => {
            let reason = clause(error)?;
            if !check.is_gone(&file.name)? {
                let damaged = check.damaged.entry(file.name).or_default();
                if !damaged.reasons.iter().any(|known| known == MISSING || *known == reason) {
                    damaged.reasons.push(reason);
                }
                damaged.lost = frames.iter().flat_map(|frame| &frame.chunks).copied().collect();
                damaged.looked_closer = true;
            }
            Ok(None)
        }
    }
}

/// What is wrong with files, and whether to go on; or why that can't be.
type Found = (Vec<(Hash, DamagedFile)>, Result<bool>);

/// Reads the files of a group. Those in which something is wrong, or was known to be, are returned.
fn read_group(check: &Check<'_>, group: &[Opened<'_>], done: &mut impl FnMut(&ObjectFile) -> bool) -> Found {
    let segments: Vec<Segment<'_, '_>> = group.iter().flat_map(segments_of).collect();
    let mut found = Vec::new();
    let mut stopped = false;
    let mut hasher = blake3::Hasher::new();
    let mut file = DamagedFile { looked_closer: true, ..DamagedFile::default() };
    let counters = &check.repository.counters;
    let ended = in_order(
        &segments,
        THREADS,
        Vec::new,
        |raw, segment| Ok(read(segment, raw, counters)),
        |segment, piece| {
            check.monitor.check()?;
            check.monitor.advance(piece.bytes.len() as u64);
            if segment.in_line {
                hasher.update(&piece.bytes);
            }
            file.reasons.extend(piece.reason);
            for (place, chunk) in segment.frame.iter().flat_map(|frame| frame.chunks.iter().enumerate()) {
                let list = if piece.lost.contains(&place) { &mut file.lost } else { &mut file.whole };
                list.push(*chunk);
            }
            if segment.last {
                let name = segment.of.file.name;
                if Hash(*hasher.finalize().as_bytes()) != name {
                    let linked = "; the blob that it is the file of, too, was perhaps changed in place";
                    let more = if segment.of.file.kind == ObjectKind::Plain { linked } else { "" };
                    file.reasons.push(format!("its content does not match its name{more}"));
                }
                hasher.reset();
                let file = std::mem::replace(&mut file, DamagedFile { looked_closer: true, ..DamagedFile::default() });
                if !file.reasons.is_empty() || check.damaged.contains_key(&name) {
                    found.push((name, file));
                }
                if !done(segment.of.file) {
                    stopped = true;
                    return Err(Error::failed("it is time to stop"));
                }
            }
            Ok(())
        },
    );
    (found, if stopped { Ok(false) } else { ended.map(|()| true) })
}

/// The pieces in which a file is read: its frames, and what is between them. Frames that aren't one behind the other are not
/// read: a catalog that lists the same bytes again and again would keep this busy for ever.
fn segments_of<'o, 'k>(of: &'o Opened<'k>) -> Vec<Segment<'o, 'k>> {
    let mut segments = Vec::new();
    let mut reached = 0;
    let between = |segments: &mut Vec<Segment<'o, 'k>>, range: Range<u64>| {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + PIECE);
            segments.push(Segment { of, bytes: start..end, frame: None, in_line: true, last: false });
            start = end;
        }
    };
    for frame in of.frames {
        let start = frame.at.offset;
        let end = start.saturating_add(u64::from(frame.at.stored));
        let in_line = start >= reached && end <= of.length && frame.at.is_possible();
        if in_line {
            between(&mut segments, reached..start);
            reached = end;
        }
        segments.push(Segment { of, bytes: start..end, frame: Some(frame), in_line, last: false });
    }
    between(&mut segments, reached..of.length);
    if segments.is_empty() {
        segments.push(Segment { of, bytes: 0..0, frame: None, in_line: true, last: true });
    }
    if let Some(last) = segments.last_mut() {
        last.last = true;
    }
    segments
}

/// Reads a segment. `raw` is room to decompress into, to be used again.
fn read(segment: &Segment<'_, '_>, raw: &mut Vec<u8>, counters: &Counters) -> Piece {
    let all = || (0..segment.frame.map_or(0, |frame| frame.chunks.len())).collect();
    let lost = |bytes, reason| Piece { bytes, reason: Some(reason), lost: all() };
    let Range { start, end } = segment.bytes;
    if segment.frame.is_some_and(|frame| !frame.at.is_possible()) {
        return lost(Vec::new(), format!("the catalog lists an impossible compressed block at offset {start}"));
    }
    if end > segment.of.length {
        return lost(Vec::new(), format!("the compressed block at offset {start} is not all there"));
    }
    if !segment.in_line {
        return lost(
            Vec::new(),
            format!("the catalog lists a compressed block at offset {start} that begins within another"),
        );
    }
    // At most what a frame may have.
    let mut bytes = vec![0; (end - start) as usize];
    if let Err(error) = segment.of.handle.read_exact_at(&mut bytes, start) {
        return lost(bytes, format!("it cannot be read at offset {start}: {error}"));
    }
    counters.read(bytes.len() as u64);
    let Some(frame) = segment.frame else {
        return Piece { bytes, reason: None, lost: Vec::new() };
    };
    let content = match frame.at.codec {
        Codec::Raw => &bytes,
        Codec::Zstd if frame.at.decompress(&bytes, raw) => &*raw,
        Codec::Zstd => return lost(bytes, format!("the compressed block at offset {start} does not decompress")),
    };
    let is_lost = |(_, chunk): &(usize, &KnownChunk)| {
        let from = chunk.start as usize;
        let there = from.checked_add(chunk.length as usize).and_then(|end| content.get(from..end));
        there.is_none_or(|there| Hash::of(there) != chunk.hash)
    };
    let lost: Vec<usize> = frame.chunks.iter().enumerate().filter(is_lost).map(|(place, _)| place).collect();
    let reason = match lost.len() {
        0 => None,
        1 => Some(format!("a chunk in the compressed block at offset {start} does not match its hash")),
        more => Some(format!("{more} chunks in the compressed block at offset {start} do not match their hashes")),
    };
    Piece { bytes, reason, lost }
}
