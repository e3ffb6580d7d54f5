//! How fast content-defined chunking is: the rule that znap uses next to the obvious alternative, and next to
//! hashing what it cuts. `cargo bench --bench chunking`.

use divan::{Bencher, counter::BytesCount};
use znap::repository::chunker;

const SIZE: usize = 48 << 20;

fn main() {
    divan::main();
}

fn noise() -> Vec<u8> {
    let mut state = 42u64;
    (0..SIZE)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

#[divan::bench]
fn mincdc_as_used(bencher: Bencher<'_, '_>) {
    let bytes = noise();
    bencher.counter(BytesCount::new(SIZE)).bench(|| {
        let mut rest = &bytes[..];
        let mut count = 0;
        while let Some(length) = chunker::first_cut(rest) {
            rest = &rest[length..];
            count += 1;
        }
        count
    });
}

#[divan::bench]
fn fastcdc_64_kib(bencher: Bencher<'_, '_>) {
    let bytes = noise();
    bencher
        .counter(BytesCount::new(SIZE))
        .bench(|| fastcdc::v2020::FastCDC::new(&bytes, 16 << 10, 64 << 10, 256 << 10).count());
}

#[divan::bench]
fn blake3_of_64_kib(bencher: Bencher<'_, '_>) {
    let bytes = noise();
    bencher
        .counter(BytesCount::new(SIZE))
        .bench(|| bytes.chunks(64 << 10).map(|chunk| blake3::hash(chunk).as_bytes()[0]).fold(0u8, u8::wrapping_add));
}
