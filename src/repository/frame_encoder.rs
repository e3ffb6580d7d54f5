//! Compresses frames with zstd, on threads of zstd's own, as they come in.
//!
//! A frame of some size is streamed: while one piece is read, cut and hashed, zstd's workers compress those before
//! it, and what comes out goes to the file at once. Neither the frame nor its output is held here; zstd holds the
//! window. What fits one piece is compressed in one go, in tables of its own size.

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective::{self, ZSTD_e_continue, ZSTD_e_end};
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use crate::error::{Error, Result};
use crate::repository::data::FRAME_LIMIT;
use crate::repository::object::ObjectWriter;

/// What of a frame is worth a stream; less is compressed in one go.
pub(super) const STREAM_FROM: usize = 2 << 20;

/// How much of a frame a worker compresses at a time. Matches from before it are found by long-distance
/// matching only, so small jobs compress badly, and large ones leave workers idle at a frame's end.
const JOB: u32 = 8 << 20;

/// How much output is gathered before it is written.
const OUTPUT: usize = 256 << 10;

/// The most threads that compress. Each has tables of its own, so this bounds memory.
const WORKERS: usize = 4;

/// Compresses one frame after the other.
pub(super) struct FrameEncoder {
    level: i32,
    /// For frames in one go.
    small: Option<zstd::bulk::Compressor<'static>>,
    /// For streamed frames; its workers start with the first of them.
    streaming: Option<CCtx<'static>>,
    output: Vec<u8>,
}

impl FrameEncoder {
    /// One of this level; zstd's memory is reserved when it is first needed.
    pub(super) fn new(level: i32) -> Self {
        FrameEncoder { level, small: None, streaming: None, output: Vec::new() }
    }

    /// Compresses a whole frame. The result is valid until the next call.
    pub(super) fn compress(&mut self, raw: &[u8]) -> Result<&[u8]> {
        let compressor = match &mut self.small {
            Some(compressor) => compressor,
            none => {
                let prepare = || -> std::io::Result<_> {
                    let mut compressor = zstd::bulk::Compressor::new(self.level)?;
                    for parameter in matching() {
                        compressor.set_parameter(parameter)?;
                    }
                    Ok(compressor)
                };
                none.insert(prepare().map_err(|error| failed(&error.to_string()))?)
            }
        };
        self.output.clear();
        self.output.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        compressor.compress_to_buffer(raw, &mut self.output).map_err(|error| failed(&error.to_string()))?;
        Ok(&self.output)
    }

    /// Feeds more of a streamed frame; what comes out is written.
    pub(super) fn feed(&mut self, raw: &[u8], writer: &mut ObjectWriter) -> Result<()> {
        self.run(raw, ZSTD_e_continue, writer)
    }

    /// Ends the streamed frame: waits for the workers, and writes the rest of it.
    pub(super) fn end(&mut self, writer: &mut ObjectWriter) -> Result<()> {
        self.run(&[], ZSTD_e_end, writer)
    }

    fn run(&mut self, raw: &[u8], directive: ZSTD_EndDirective, writer: &mut ObjectWriter) -> Result<()> {
        let context = match &mut self.streaming {
            Some(context) => context,
            none => none.insert(streaming_context(self.level).map_err(|code| failed(get_error_name(code)))?),
        };
        let mut input = InBuffer::around(raw);
        loop {
            self.output.clear();
            self.output.reserve(OUTPUT);
            let mut output = OutBuffer::around(&mut self.output);
            let left = context
                .compress_stream2(&mut output, &mut input, directive)
                .map_err(|code| failed(get_error_name(code)))?;
            writer.write(output.as_slice())?;
            let done = match directive {
                ZSTD_e_continue => input.pos() == raw.len(),
                _ => left == 0,
            };
            if done {
                return Ok(());
            }
        }
    }
}

fn failed(reason: &str) -> Error {
    Error::failed(format!("cannot compress: {reason}"))
}

/// Long-distance matching over the whole frame, because ZODB rewrites whole records and near-copies lie
/// megabytes apart (docs/design.md).
fn matching() -> [CParameter; 2] {
    [CParameter::EnableLongDistanceMatching(true), CParameter::WindowLog(FRAME_LIMIT.ilog2())]
}

fn streaming_context(level: i32) -> std::result::Result<CCtx<'static>, usize> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS);
    let mut context = CCtx::create();
    context.reset(ResetDirective::SessionAndParameters)?;
    context.set_parameter(CParameter::CompressionLevel(level))?;
    for parameter in matching() {
        context.set_parameter(parameter)?;
    }
    context.set_parameter(CParameter::NbWorkers(workers as u32))?;
    context.set_parameter(CParameter::JobSize(JOB))?;
    Ok(context)
}
