//! Compresses frames with zstd.
//!
//! What fits one piece is compressed in one go, in tables of its own size. Anything larger comes in piece by piece: a thread
//! compresses it meanwhile. A frame has one thread, because zstd's own workers cut it into jobs that
//! hardly know what comes before them, and so compress near-copies badly (docs/design.md); two frames at once use two cores.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective::{ZSTD_e_continue, ZSTD_e_end};
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, compress_bound, get_error_name};

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::repository::chunk_writer::Compression;
use crate::repository::data::{Codec, FRAME_LIMIT};

/// From how many bytes on a frame is worth a thread.
pub(super) const FILL_FROM: usize = 3 << 20;

/// How many bytes a thread is given at a time, and a little more.
const PIECE: usize = 256 << 10;

/// How many pieces may wait where one frame is all there is: the few buffers are used again and again.
const FEW: usize = 16;
/// And where another frame follows, which can begin only when all of this one has been handed over.
const MANY: usize = FRAME_LIMIT / PIECE;

/// How often the monitor is asked while a frame is compressed.
const OFTEN: Duration = Duration::from_millis(50);

/// Makes what compresses frames, and keeps it for the next ones.
pub(crate) struct FrameEncoder {
    compression: Compression,
    whole: Option<Context>,
    spare: Vec<Context>,
    queue: usize,
}

impl FrameEncoder {
    /// zstd's memory is reserved when it is first needed.
    pub(crate) fn new(compression: Compression) -> Self {
        FrameEncoder { compression, whole: None, spare: Vec::new(), queue: MANY }
    }

    /// Says that there will be one frame only.
    pub(crate) fn expect_one(&mut self) {
        self.queue = FEW;
    }

    /// Compresses a whole frame, if that makes it smaller.
    pub(crate) fn compress(&mut self, raw: &[u8]) -> Result<(Codec, Vec<u8>)> {
        match &mut self.whole {
            Some(context) => context,
            none => none.insert(Context::new(&self.compression)?),
        }
        .compress(raw)
    }

    /// The same for a frame that may take seconds: often asks the monitor whether to wait on. If not, the thread that
    /// compresses it is left to end by itself. The frame's room is given back.
    pub(crate) fn compress_patiently(&mut self, raw: &mut Vec<u8>, monitor: &dyn Monitor) -> Result<(Codec, Vec<u8>)> {
        let mut context = match self.whole.take() {
            Some(context) => context,
            None => Context::new(&self.compression)?,
        };
        let (sender, receiver) = channel();
        let frame = std::mem::take(raw);
        let work = move || {
            let compressed = context.compress(&frame);
            // Nobody may be waiting any more.
            let _ = sender.send((context, frame, compressed));
        };
        std::thread::Builder::new().spawn(work).map_err(no_thread)?;
        loop {
            match receiver.recv_timeout(OFTEN) {
                Ok((context, frame, compressed)) => {
                    self.whole = Some(context);
                    *raw = frame;
                    return compressed;
                }
                Err(RecvTimeoutError::Timeout) => monitor.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(stopped()),
            }
        }
    }

    /// Begins a frame that comes in piece by piece.
    pub(super) fn open(&mut self) -> Result<OpenFrame> {
        let context = match self.spare.pop() {
            Some(context) => context,
            None => Context::new(&self.compression)?,
        };
        let (sender, receiver) = sync_channel(self.queue);
        let (give_back, used) = channel();
        let thread = std::thread::Builder::new()
            .spawn(move || context.compress_pieces(receiver, give_back))
            .map_err(no_thread)?;
        Ok(OpenFrame { sender, used, thread, piece: Vec::new() })
    }

    /// Waits for a frame that has ended, and returns it compressed.
    pub(super) fn finish(&mut self, ended: EndedFrame) -> Result<Vec<u8>> {
        let (context, compressed) = ended.0.join().map_err(|_| stopped())??;
        self.spare.push(context);
        Ok(compressed)
    }
}

/// A frame that is compressed while it comes in. Dropped before its end, its thread compresses what waits, and ends.
pub(super) struct OpenFrame {
    sender: SyncSender<Vec<u8>>,
    /// Pieces that were compressed, to be filled again.
    used: Receiver<Vec<u8>>,
    thread: JoinHandle<Result<(Context, Vec<u8>)>>,
    piece: Vec<u8>,
}

/// A frame that has come in whole; its thread goes on.
pub(super) struct EndedFrame(JoinHandle<Result<(Context, Vec<u8>)>>);

impl OpenFrame {
    /// Feeds more of the frame.
    pub(super) fn feed(&mut self, raw: &[u8]) {
        self.piece.extend_from_slice(raw);
        if self.piece.len() >= PIECE {
            let mut next = self.used.try_recv().unwrap_or_default();
            next.clear();
            let piece = std::mem::replace(&mut self.piece, next);
            // It only stops early if it failed, which [`FrameEncoder::finish`] tells.
            let _ = self.sender.send(piece);
        }
    }

    /// Says that this was all.
    pub(super) fn end(self) -> EndedFrame {
        if !self.piece.is_empty() {
            let _ = self.sender.send(self.piece);
        }
        EndedFrame(self.thread)
    }
}

/// What zstd is told.
pub(crate) fn parameters(compression: &Compression) -> [CParameter; 9] {
    [
        CParameter::CompressionLevel(compression.level),
        CParameter::WindowLog(FRAME_LIMIT.ilog2()),
        CParameter::HashLog(compression.hash),
        CParameter::ChainLog(compression.chain),
        CParameter::MinMatch(compression.match_length),
        CParameter::EnableLongDistanceMatching(true),
        // As quick levels have it: looking more often costs time and finds little. Shorter matches than zstd's 64 are worth it.
        CParameter::LdmHashRateLog(7),
        CParameter::LdmMinMatch(32),
        CParameter::LdmBucketSizeLog(compression.long_bucket),
    ]
}

/// A zstd context with its parameters.
struct Context(CCtx<'static>);

impl Context {
    fn new(compression: &Compression) -> Result<Self> {
        let mut context = CCtx::try_create().ok_or_else(|| Error::failed("there is no memory to compress with"))?;
        for parameter in parameters(compression) {
            context.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Context(context))
    }

    fn compress(&mut self, raw: &[u8]) -> Result<(Codec, Vec<u8>)> {
        let mut output = Vec::with_capacity(compress_bound(raw.len()));
        self.0.compress2(&mut output, raw).map_err(failed)?;
        Ok(if output.len() < raw.len() { (Codec::Zstd, output) } else { (Codec::Raw, raw.to_vec()) })
    }

    fn compress_pieces(mut self, pieces: Receiver<Vec<u8>>, give_back: Sender<Vec<u8>>) -> Result<(Self, Vec<u8>)> {
        let mut compressed = Vec::new();
        for piece in pieces {
            let mut input = InBuffer::around(&piece);
            while input.pos() < piece.len() {
                self.step(&mut compressed, &mut input, false)?;
            }
            // Nobody needs it any more once all has come in.
            let _ = give_back.send(piece);
        }
        while self.step(&mut compressed, &mut InBuffer::around(&[]), true)? > 0 {}
        Ok((self, compressed))
    }

    fn step(&mut self, compressed: &mut Vec<u8>, input: &mut InBuffer<'_>, end: bool) -> Result<usize> {
        compressed.reserve(PIECE);
        let at = compressed.len();
        let mut output = OutBuffer::around_pos(compressed, at);
        let directive = if end { ZSTD_e_end } else { ZSTD_e_continue };
        self.0.compress_stream2(&mut output, input, directive).map_err(failed)
    }
}

fn failed(code: usize) -> Error {
    Error::failed(format!("cannot compress: {}", get_error_name(code)))
}

fn no_thread(error: std::io::Error) -> Error {
    Error::failed(format!("cannot start a thread that compresses: {error}"))
}

fn stopped() -> Error {
    Error::failed("a thread that compresses stopped unexpectedly")
}
