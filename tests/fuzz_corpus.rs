//! Replays the corpora of the fuzz targets, and each target on some thousand changed copies of them, always the same: what
//! long runs found stays found. docs/reliability.md has the command for those.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

type Target = fn(&[u8]);

fn corpus_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

/// Keeps what a target panics on.
struct Input<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-panics", self.name));
            fs::write(&path, self.bytes).unwrap();
            eprintln!("{} panicked on what is kept in {}", self.name, path.display());
        }
    }
}

fn replay(name: &str, target: Target, changed: usize) {
    let mut corpus: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(corpus_of(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty());
    for (_, bytes) in &corpus {
        let _input = Input { name, bytes };
        target(bytes);
    }
    let corpus: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Random(name.bytes().fold(1, |seed, byte| seed * 31 + u64::from(byte)));
    for _ in 0..changed {
        let bytes = random.change(&corpus);
        let _input = Input { name, bytes: &bytes };
        target(&bytes);
    }
}

/// Numbers that are always the same, and changes made of them.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    fn change(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let length = self.below(9);
            let end = bytes.len().min(at + length);
            let number = [0, 1, 0x7f, 0xff, 0x8000, u64::from(u32::MAX), i64::MAX as u64, self.next()][self.below(8)];
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..end)),
                4 => drop(bytes.splice(at..at, self.next().to_le_bytes()[..length.min(8)].iter().copied())),
                5 => {
                    let width = 1 << self.below(4);
                    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
                    let number = if self.below(2) == 0 { &little[..width] } else { &big[8 - width..] };
                    drop(bytes.splice(at..bytes.len().min(at + width), number.iter().copied()));
                }
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    let (from, to) = (self.below(other.len() + 1), self.below(other.len() + 1));
                    drop(bytes.splice(at..end, other[from.min(to)..from.max(to)].iter().copied()));
                }
            }
        }
        bytes
    }
}

#[test]
fn p3_transactions() {
    replay("transactions", targets::transactions, 5000);
}

#[test]
fn p4_index() {
    replay("index", targets::index, 5000);
}

#[test]
fn p6_object_file() {
    replay("object_file", targets::object_file, 3000);
}

#[test]
fn p6_plan() {
    replay("plan", targets::plan, 250);
}

#[test]
fn ids() {
    replay("ids", targets::ids, 2000);
}

/// Makes the corpora that are there; add by hand what a long run has found.
#[test]
#[ignore = "makes files in tests/fuzz/corpus that are there"]
fn make_the_corpora() {
    for (name, inputs) in targets::corpora() {
        fs::create_dir_all(corpus_of(name)).unwrap();
        for (what, bytes) in inputs {
            fs::write(corpus_of(name).join(what), bytes).unwrap();
        }
    }
}
