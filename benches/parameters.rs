//! Which compression parameters suit which databases: the tables behind "Compression: what was measured" in
//! `docs/design.md`.
//!
//! `cargo bench --bench parameters -- [--only GROUP,...] [--runs N] [--mb N] [--set SETTING]... [FILE...]`
//!
//! Each FILE is something like a `Data.fs`; without any, two small ones are made. For each, a Markdown table: what
//! the bytes take, how fast they are compressed and decompressed, and what memory zstd takes. Groups: `frames`, `levels`,
//! `long`, `tables`, `threads`, `candidates`, `stages`; or any `--set level=1,hash=19,long=off,threads=workers`. Times are those of the fastest of N runs, on the first N megabytes.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use znap::filestorage::pickles::{Content, mapping};
use znap::filestorage::{Oid, Writer};
use znap::repository::chunk_writer::Compression;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::{CCtx, CParameter, compress_bound};

const MIB: usize = 1 << 20;
/// How much a reader hands over at a time.
const PIECE: usize = 64 << 10;

/// How long-distance matches are looked for; zero is zstd's own choice.
#[derive(Debug, Clone, Copy, Default)]
struct Long {
    min_match: u32,
    hash_rate: u32,
    hash: u32,
    bucket: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threads {
    /// One thread, one call per frame.
    One,
    /// Two threads, each with frames of its own.
    Pair,
    /// zstd's own two workers, one call per frame.
    Workers,
    /// zstd's own two workers, and the frame is handed over as it is read.
    Streamed,
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    frame: usize,
    window: u32,
    level: i32,
    long: Option<Long>,
    /// The tables of the matches nearby, zero is zstd's own choice.
    hash: u32,
    chain: u32,
    min_match: u32,
    threads: Threads,
    /// MiB, zero is zstd's own choice.
    job: u32,
    overlap: u32,
}

/// What saves did when this was written: everything is varied around it.
const CENTRE: Setting = Setting {
    frame: 64 * MIB,
    window: 26,
    level: 3,
    long: Some(Long { min_match: 0, hash_rate: 0, hash: 0, bucket: 0 }),
    hash: 0,
    chain: 0,
    min_match: 0,
    threads: Threads::One,
    job: 0,
    overlap: 0,
};

impl Setting {
    /// As znap compresses.
    fn of(chosen: Compression) -> Setting {
        let long = Long { min_match: 32, hash_rate: 7, hash: 0, bucket: chosen.long_bucket };
        Setting {
            level: chosen.level,
            hash: chosen.hash,
            chain: chosen.chain,
            min_match: chosen.match_length,
            long: Some(long),
            ..CENTRE
        }
    }

    /// From `level=1,hash=19,long=off`: the names are those of the fields.
    fn parse(text: &str) -> Setting {
        let mut setting = CENTRE;
        for part in text.split(',') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let number = || value.parse::<u32>().unwrap();
            let mut long = setting.long.unwrap_or_default();
            match name {
                "frame" => setting.frame = number() as usize * MIB,
                "window" => setting.window = number(),
                "level" => setting.level = value.parse().unwrap(),
                "hash" => setting.hash = number(),
                "chain" => setting.chain = number(),
                "min" => setting.min_match = number(),
                "job" => setting.job = number(),
                "overlap" => setting.overlap = number(),
                "long-match" => long.min_match = number(),
                "long-rate" => long.hash_rate = number(),
                "long-hash" => long.hash = number(),
                "long-bucket" => long.bucket = number(),
                "threads" => {
                    setting.threads = match value {
                        "pair" => Threads::Pair,
                        "workers" => Threads::Workers,
                        "streamed" => Threads::Streamed,
                        _ => Threads::One,
                    }
                }
                "long" if value == "off" => {}
                _ => panic!("what is {part}?"),
            }
            if name.starts_with("long") {
                setting.long = (value != "off").then_some(long);
            }
        }
        setting
    }

    fn parameters(&self) -> Vec<CParameter> {
        let mut list = vec![CParameter::WindowLog(self.window)];
        if let Some(long) = self.long {
            list.push(CParameter::EnableLongDistanceMatching(true));
            list.push(CParameter::LdmMinMatch(long.min_match));
            list.push(CParameter::LdmHashRateLog(long.hash_rate));
            list.push(CParameter::LdmHashLog(long.hash));
            list.push(CParameter::LdmBucketSizeLog(long.bucket));
        }
        list.push(CParameter::HashLog(self.hash));
        list.push(CParameter::ChainLog(self.chain));
        list.push(CParameter::MinMatch(self.min_match));
        if matches!(self.threads, Threads::Workers | Threads::Streamed) {
            list.push(CParameter::NbWorkers(2));
            list.push(CParameter::JobSize(self.job << 20));
            list.push(CParameter::OverlapSizeLog(self.overlap));
        }
        list
    }

    fn context(&self) -> CCtx<'static> {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(self.level)).unwrap();
        for parameter in self.parameters() {
            context.set_parameter(parameter).unwrap();
        }
        context
    }

    /// The frames, and what zstd's contexts take.
    fn compress(&self, parts: &[&[u8]]) -> (Vec<Vec<u8>>, usize) {
        match self.threads {
            Threads::One | Threads::Workers => single(self.context(), parts.iter().copied()),
            Threads::Pair => std::thread::scope(|scope| {
                let half = |first: usize| {
                    let context = self.context();
                    scope.spawn(move || single(context, parts.iter().copied().skip(first).step_by(2)))
                };
                let (even, odd) = (half(0), half(1));
                let (even, odd) = (even.join().unwrap(), odd.join().unwrap());
                ([even.0, odd.0].concat(), even.1 + odd.1)
            }),
            Threads::Streamed => {
                let mut context = self.context();
                let stream = |part: &&[u8]| {
                    let mut encoder = Encoder::with_context(Vec::new(), &mut context);
                    for piece in part.chunks(PIECE) {
                        encoder.write_all(piece).unwrap();
                    }
                    encoder.finish().unwrap()
                };
                (parts.iter().map(stream).collect(), context.sizeof())
            }
        }
    }
}

fn single<'a>(mut context: CCtx<'_>, parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, usize) {
    let mut output = Vec::new();
    let compress = |part: &[u8]| {
        output.clear();
        output.reserve(compress_bound(part.len()));
        context.compress2(&mut output, part).unwrap();
        output.as_slice().to_vec()
    };
    (parts.map(compress).collect(), context.sizeof())
}

struct Measured {
    raw: usize,
    size: usize,
    seconds: f64,
    /// Of processors, on average of all runs.
    busy: f64,
    back: f64,
    /// What zstd's contexts take; a frame's input and output are not in it.
    memory: usize,
}

impl Measured {
    fn of(setting: &Setting, parts: &[&[u8]], runs: usize) -> Measured {
        let raw = parts.iter().map(|part| part.len()).sum();
        let mut measured = Measured { raw, size: 0, seconds: f64::MAX, busy: 0.0, back: f64::MAX, memory: 0 };
        for _ in 0..runs {
            let (start, busy) = (Instant::now(), processor_seconds());
            let (compressed, memory) = setting.compress(parts);
            measured.busy += (processor_seconds() - busy) / runs as f64;
            measured.seconds = measured.seconds.min(start.elapsed().as_secs_f64());
            measured.memory = memory;
            measured.size = compressed.iter().map(Vec::len).sum();

            let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
            decompressor.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(31)).unwrap();
            let largest = parts.iter().map(|part| part.len()).max().unwrap_or(0);
            let mut output = vec![1; largest];
            let start = Instant::now();
            for frame in &compressed {
                decompressor.decompress_to_buffer(frame, &mut output[..]).unwrap();
            }
            measured.back = measured.back.min(start.elapsed().as_secs_f64());
        }
        measured
    }

    fn row(&self, what: &str) {
        let speed = |seconds: f64| match self.raw as f64 / 1e6 / seconds {
            speed if speed.is_finite() => format!("{speed:.0} MB/s"),
            _ => "-".into(),
        };
        println!(
            "| {what} | {:.2} MB | {:.2} % | {} | {} | {} | {:.0} MB |",
            self.size as f64 / 1e6,
            self.size as f64 / self.raw as f64 * 100.0,
            speed(self.seconds),
            speed(self.busy),
            speed(self.back),
            self.memory as f64 / 1e6,
        );
    }
}

/// What this process has used of processors, all threads together; not a number except on Linux.
fn processor_seconds() -> f64 {
    let status = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = status.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // In hundredths of a second.
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

fn in_frames(bytes: &[u8], frame: usize) -> Vec<&[u8]> {
    bytes.chunks(frame).collect()
}

/// The second half of a file as ten saves of different sizes.
fn in_stages(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = &bytes[bytes.len() / 2..];
    let unit = rest.len() / 18;
    [1, 2, 1, 3, 2, 1, 3, 1, 2, 2]
        .iter()
        .enumerate()
        .map(|(index, size)| {
            let stage;
            (stage, rest) = rest.split_at(if index == 9 { rest.len() } else { unit * size });
            stage
        })
        .collect()
}

type Rows = Vec<(String, Setting)>;

fn frames() -> Rows {
    [(4, 22), (16, 24), (64, 26), (128, 27)]
        .into_iter()
        .flat_map(|(mib, window)| {
            let setting = Setting { frame: mib * MIB, window, ..CENTRE };
            [
                (format!("frames of {mib} MiB"), setting),
                (format!("frames of {mib} MiB, nothing long"), Setting { long: None, ..setting }),
            ]
        })
        .collect()
}

fn levels() -> Rows {
    [1, 2, 3, 4, 5, 6, 7, 9, 12].map(|level| (format!("level {level}"), Setting { level, ..CENTRE })).into()
}

fn long() -> Rows {
    let with = |name: String, long| (name, Setting { long: Some(long), ..CENTRE });
    let mut rows = vec![with("zstd's own: match 64, rate 7, hash 19, bucket 4".into(), Long::default())];
    rows.extend(
        [16, 32, 48].map(|min_match| with(format!("match {min_match}"), Long { min_match, ..Long::default() })),
    );
    for hash_rate in [4, 5, 6] {
        let long = Long { hash_rate, ..Long::default() };
        rows.push(with(format!("rate {hash_rate}"), long));
        rows.push(with(format!("rate {hash_rate}, match 32"), Long { min_match: 32, ..long }));
    }
    for hash in [18, 20, 21, 22] {
        rows.push(with(format!("rate 7, hash {hash}"), Long { hash_rate: 7, hash, ..Long::default() }));
    }
    rows.push(with("rate 5, hash 19".into(), Long { hash_rate: 5, hash: 19, ..Long::default() }));
    rows.extend([3, 6, 8].map(|bucket| with(format!("bucket {bucket}"), Long { bucket, ..Long::default() })));
    rows
}

fn tables() -> Rows {
    let with = |level, hash, chain| Setting { level, hash, chain, ..CENTRE };
    let mut rows = Rows::new();
    for (level, hash, chain) in [
        (1, 17, 0),
        (1, 19, 0),
        (2, 18, 0),
        (2, 20, 0),
        (3, 18, 17),
        (3, 19, 18),
        (3, 20, 19),
        (3, 20, 20),
        (3, 22, 22),
        (5, 20, 18),
        (5, 21, 20),
        (7, 21, 20),
        (9, 22, 22),
    ] {
        rows.push((format!("level {level}, hash {hash}, chain {chain}"), with(level, hash, chain)));
    }
    rows
}

fn threads() -> Rows {
    let mut rows = Rows::new();
    let (saves, gc) = (Setting::of(Compression::FAST), Setting::of(Compression::SMALL));
    for (name, setting) in [("saves", saves), ("saves at first", CENTRE), ("gc --all", gc)] {
        for (how, threads) in [
            ("one thread", Threads::One),
            ("two threads with a frame each", Threads::Pair),
            ("two workers", Threads::Workers),
            ("two workers, streamed", Threads::Streamed),
        ] {
            rows.push((format!("{name}, {how}"), Setting { threads, ..setting }));
        }
        let setting = Setting { threads: Threads::Workers, ..setting };
        for job in [1, 4, 8, 16, 32] {
            rows.push((format!("{name}, workers, jobs of {job} MiB"), Setting { job, ..setting }));
        }
        for overlap in [1, 8, 9] {
            rows.push((format!("{name}, workers, overlap {overlap}"), Setting { overlap, ..setting }));
        }
        rows.push((format!("{name}, workers, jobs of 16 MiB, overlap 9"), Setting { job: 16, overlap: 9, ..setting }));
    }
    rows
}

/// The settings worth comparing.
fn candidates() -> Rows {
    let parsed = |name: &str, text: &str| (format!("{name}: {text}"), Setting::parse(text));
    vec![
        parsed("saves at first", "level=3"),
        parsed("saves, fastest", "level=1,hash=18,long=off"),
        ("saves and gc, as chosen".into(), Setting::of(Compression::FAST)),
        parsed("saves, smaller", "level=3,hash=19,chain=18,long-bucket=1"),
        parsed("gc, fast", "level=3,hash=20,chain=19,long-bucket=1"),
        parsed("gc, between", "level=7,hash=21,chain=20,long-rate=7,long-bucket=2"),
        ("gc --all, as chosen".into(), Setting::of(Compression::SMALL)),
        parsed("gc at first", "level=9"),
        parsed("gc, slow", "level=12,long-rate=7,long-bucket=2"),
    ]
}

/// As saves come, one frame each, and as gc puts them together.
fn stages(bytes: &[u8], runs: usize) {
    let stages = in_stages(bytes);
    let all = &bytes[bytes.len() / 2..];
    let whole = Setting { window: 27, threads: Threads::Streamed, ..CENTRE };
    Measured::of(&whole, &[all], runs).row("one stream, as `zstd -3 --long=27 -T2`");
    for (name, setting) in candidates() {
        if name.starts_with("saves") {
            Measured::of(&setting, &stages, runs).row(&name);
        } else {
            let setting = Setting { threads: Threads::Pair, ..setting };
            Measured::of(&setting, &in_frames(all, setting.frame), runs).row(&name);
        }
    }
}

type Group = (&'static str, fn() -> Rows);
const GROUPS: [Group; 6] = [
    ("frames", frames),
    ("levels", levels),
    ("long", long),
    ("tables", tables),
    ("threads", threads),
    ("candidates", candidates),
];

fn main() {
    let mut files = Vec::new();
    let mut only: Option<String> = None;
    let mut runs = 1;
    let mut sets = Vec::new();
    let mut most = usize::MAX;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only = arguments.next(),
            "--set" => sets.extend(arguments.next()),
            "--mb" => most = arguments.next().and_then(|number| number.parse().ok()).unwrap_or(most),
            "--runs" => runs = arguments.next().and_then(|number| number.parse().ok()).unwrap_or(1),
            // From cargo.
            "--bench" => {}
            file => files.push(PathBuf::from(file)),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    if files.is_empty() {
        files = vec![folder.path().join("pages.fs"), folder.path().join("images.fs")];
        pages(&files[0]);
        images(&files[1]);
        only = only.or(Some("levels,tables,stages".into()));
    }
    let wanted = |group: &str| only.as_ref().map_or(sets.is_empty(), |list| list.split(',').any(|name| name == group));
    for file in &files {
        let Ok(mut bytes) = fs::read(file) else {
            println!("{} can't be read", file.display());
            continue;
        };
        bytes.truncate(most.saturating_mul(1_000_000));
        println!("\n# {}: {:.0} MB\n", file.file_name().unwrap_or_default().display(), bytes.len() as f64 / 1e6);
        let title = |group: &str| {
            println!(
                "\n| {group} | takes | of it | compress | per core | decompress | memory |\n|---|---|---|---|---|---|---|"
            );
        };
        for (group, rows) in GROUPS.into_iter().filter(|(group, _)| wanted(group)) {
            title(group);
            for (name, setting) in rows() {
                let parts = in_frames(&bytes, setting.frame.min(bytes.len().max(1)));
                Measured::of(&setting, &parts, runs).row(&name);
            }
        }
        if !sets.is_empty() {
            title("settings");
        }
        for text in &sets {
            let setting = Setting::parse(text);
            Measured::of(&setting, &in_frames(&bytes, setting.frame), runs).row(text);
        }
        if wanted("stages") {
            title("stages");
            stages(&bytes, runs);
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0) * limit as u128) >> 64) as usize
    }

    fn text(&mut self, words: usize) -> String {
        let mut text = String::new();
        for _ in 0..words {
            // Few words are most of a text.
            let limit = 1 + self.below(3000);
            let word = self.below(limit);
            for letter in 0..3 + word % 7 {
                text.push(char::from(b"etaoinshrdlucmfw"[((word * 2654435761) >> (letter * 4)) % 16]));
            }
            text.push(' ');
        }
        text
    }
}

/// Pages that are edited, with a catalog's bucket that is written anew each time.
fn pages(path: &Path) {
    let mut random = Random(1);
    let mut writer = Writer::create(path).unwrap();
    let mut buckets: Vec<Vec<(String, String)>> =
        (0..60).map(|_| (0..40).map(|row| (format!("row-{row}"), random.text(60))).collect()).collect();
    while writer.end().offset < 16_000_000 {
        let mut transaction = writer.transaction().user("editor").description("edit");
        transaction = transaction.data(
            Oid(1000 + random.below(2000) as u64),
            mapping([("title", Content::Text(random.text(6))), ("text", Content::Text(random.text(300)))]),
        );
        for _ in 0..3 {
            let number = random.below(60);
            let row = random.below(40);
            buckets[number][row].1 = random.text(60);
            let items = buckets[number].iter().map(|(key, value)| (key.as_str(), Content::Text(value.clone())));
            transaction = transaction.data(Oid(1 + number as u64), mapping(items));
        }
        transaction.commit().unwrap();
    }
}

/// Images in records: they don't compress, but one in four is one that was there before, with another title.
fn images(path: &Path) {
    let mut random = Random(2);
    let mut writer = Writer::create(path).unwrap();
    let mut images: Vec<Vec<u8>> = Vec::new();
    while writer.end().offset < 16_000_000 {
        let number = if images.len() > 4 && random.below(4) == 0 {
            random.below(images.len())
        } else {
            let size = 20_000 + random.below(800_000);
            images.push((0..size).map(|_| random.below(256) as u8).collect());
            images.len() - 1
        };
        let state =
            mapping([("title", Content::Text(random.text(5))), ("data", Content::Bytes(images[number].clone()))]);
        writer.transaction().user("editor").description("upload").data(Oid(1 + number as u64), state).commit().unwrap();
    }
}
