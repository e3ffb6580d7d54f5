//! Writing `Data.fs.index`, byte for byte as ZODB 6 does, from sorted streams of entries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

use super::index_pickle::{BUCKET_END, END, dump_bucket_start, dump_number};
use super::tid::Oid;
use crate::error::{Error, Result};

/// Offsets in an index have six bytes.
const OFFSET_LIMIT: u64 = 1 << 48;

/// Writes an index in one go. Holds the objects of one bucket in memory: at most 512 KiB.
#[derive(Debug)]
pub struct IndexWriter<W: Write> {
    out: W,
    prefix: u64,
    last: Option<u64>,
    suffixes: Vec<u8>,
    offsets: Vec<u8>,
}

impl<W: Write> IndexWriter<W> {
    /// Begins an index of a data file of so many bytes. Writes in large pieces only where there are many
    /// objects, so give it a buffered writer.
    pub fn new(mut out: W, position: u64) -> Result<IndexWriter<W>> {
        out.write_all(&dump_number(position)).map_err(failed)?;
        Ok(IndexWriter { out, prefix: 0, last: None, suffixes: Vec::new(), offsets: Vec::new() })
    }

    /// Adds an object. Each oid must be greater than the one before, and the offset less than 2^48.
    pub fn push(&mut self, oid: u64, offset: u64) -> Result<()> {
        if let Some(last) = self.last.filter(|last| *last >= oid) {
            return Err(Error::failed(format!(
                "object {} comes after object {} in what should be a sorted index",
                Oid(oid),
                Oid(last)
            )));
        }
        if offset >= OFFSET_LIMIT {
            return Err(Error::failed(format!(
                "the record of object {} at offset {offset} is beyond what an index can hold (256 TiB)",
                Oid(oid)
            )));
        }
        if self.last.is_none() || self.prefix != oid >> 16 {
            self.flush_bucket()?;
            self.prefix = oid >> 16;
        }
        self.last = Some(oid);
        self.suffixes.extend(&oid.to_be_bytes()[6..]);
        self.offsets.extend(&offset.to_be_bytes()[2..]);
        Ok(())
    }

    /// Ends the index and hands back what it was written to, not flushed.
    pub fn finish(mut self) -> Result<W> {
        self.flush_bucket()?;
        self.out.write_all(&END).map_err(failed)?;
        Ok(self.out)
    }

    fn flush_bucket(&mut self) -> Result<()> {
        if self.suffixes.is_empty() {
            return Ok(());
        }
        // At most 65,536 objects.
        let length = u32::try_from(self.suffixes.len() + self.offsets.len()).unwrap_or(u32::MAX);
        let start = dump_bucket_start(self.prefix, length);
        for part in [&start[..], &self.suffixes, &self.offsets, &BUCKET_END] {
            self.out.write_all(part).map_err(failed)?;
        }
        self.suffixes.clear();
        self.offsets.clear();
        Ok(())
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("write", "the index", error)
}

/// Merges several layers of (oid, offset), each sorted by oid, into one. Where layers have the same oid,
/// the last of them counts. Ends after the first error of a layer. Holds one entry of each layer.
pub fn merge<I>(layers: Vec<I>) -> Merge<I>
where
    I: Iterator<Item = Result<(u64, u64)>>,
{
    Merge { heap: BinaryHeap::with_capacity(layers.len()), layers, lead: None, started: false }
}

/// What [`merge`] returns.
pub struct Merge<I> {
    layers: Vec<I>,
    /// The next entry of the layer that gave the last one. Where one layer has most entries, as a keyframe has, it mostly
    /// comes next again, and the heap is left alone.
    lead: Option<Head>,
    /// The next entry of each other layer: the smallest oid first, and of the same oid the last layer first.
    heap: BinaryHeap<Reverse<Head>>,
    started: bool,
}

/// A layer's next entry: oid, layer, offset.
type Head = (u64, Reverse<usize>, u64);

impl<I: Iterator<Item = Result<(u64, u64)>>> Merge<I> {
    fn next_of(&mut self, layer: usize) -> Result<Option<Head>> {
        let next = self.layers.get_mut(layer).and_then(Iterator::next).transpose()?;
        Ok(next.map(|(oid, offset)| (oid, Reverse(layer), offset)))
    }

    fn push(&mut self, layer: usize) -> Result<()> {
        let next = self.next_of(layer)?;
        self.heap.extend(next.map(Reverse));
        Ok(())
    }

    fn step(&mut self) -> Result<Option<(u64, u64)>> {
        if !self.started {
            self.started = true;
            (0..self.layers.len()).try_for_each(|layer| self.push(layer))?;
        }
        if let Some(lead) = self.lead.take() {
            let (oid, Reverse(layer), offset) = lead;
            if self.heap.peek().is_none_or(|Reverse(other)| oid < other.0) {
                self.lead = self.next_of(layer)?;
                return Ok(Some((oid, offset)));
            }
            self.heap.push(Reverse(lead));
        }
        let Some(Reverse((oid, Reverse(layer), offset))) = self.heap.pop() else {
            return Ok(None);
        };
        while let Some(&Reverse((next, Reverse(other), _))) = self.heap.peek()
            && next == oid
        {
            self.heap.pop();
            self.push(other)?;
        }
        self.lead = self.next_of(layer)?;
        Ok(Some((oid, offset)))
    }
}

impl<I: Iterator<Item = Result<(u64, u64)>>> Iterator for Merge<I> {
    type Item = Result<(u64, u64)>;

    fn next(&mut self) -> Option<Result<(u64, u64)>> {
        let step = self.step();
        if step.is_err() {
            self.layers.clear();
            self.heap.clear();
            self.lead = None;
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::IndexFile;
    use super::*;

    fn written(position: u64, entries: &[(u64, u64)]) -> Vec<u8> {
        let mut writer = IndexWriter::new(Vec::new(), position).unwrap();
        for (oid, offset) in entries {
            writer.push(*oid, *offset).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn the_bytes_are_those_of_zodb() {
        let mut expected = b"\x80\x03M\xc2\x05.\x80\x03C\x06\0\0\0\0\0\0C\x28".to_vec();
        expected.extend(b"\0\0\0\x01\0\x02\0\x03\0\x04");
        let entries: Vec<(u64, u64)> = (0..5).map(|oid| (oid, 100 + oid)).collect();
        for (_, offset) in &entries {
            expected.extend(&offset.to_be_bytes()[2..]);
        }
        expected.extend(b"\x86.\x80\x03N.");
        assert_eq!(written(1474, &entries), expected);
        assert_eq!(written(4, &[]), b"\x80\x03K\x04.\x80\x03N.");
    }

    #[test]
    fn what_is_written_is_read() {
        let entries: Vec<(u64, u64)> = (0..70_000)
            .map(|n| (n, n * 50 + 4))
            .chain([(1 << 40, 7), (u64::MAX - 1, (1 << 48) - 1), (u64::MAX, 9)])
            .collect();
        let bytes = written(1 << 41, &entries);
        let index = IndexFile::parse(bytes.clone()).unwrap();
        assert_eq!((index.position(), index.len()), (1 << 41, 70_003));
        assert!(!index.is_empty());
        assert!(index.iter().eq(entries.iter().copied()));
        for (oid, offset) in &entries {
            assert_eq!(index.get(*oid), Some(*offset));
        }
        assert_eq!((index.get(70_000), index.get(1 << 33), index.get(u64::MAX - 2)), (None, None, None));
        assert_eq!(index.sample(1_000_000).count(), 70_003);
        let sample: Vec<_> = index.sample(200).collect();
        assert!((195..=200).contains(&sample.len()), "{}", sample.len());
        assert!(sample.windows(2).all(|pair| pair[1].0 > pair[0].0 + 300 || pair[1].0 > 70_000));
        // ZODB ignores an index without its end, or whose entries don't fit.
        for length in 0..bytes.len().min(40) {
            assert!(IndexFile::parse(bytes[..length].to_vec()).is_none());
        }
        assert!(IndexFile::parse(bytes[..bytes.len() - 1].to_vec()).is_none());
    }

    #[test]
    fn out_of_order_or_too_far_is_refused() {
        let mut writer = IndexWriter::new(Vec::new(), 4).unwrap();
        writer.push(5, 4).unwrap();
        assert!(writer.push(5, 4).is_err());
        assert!(writer.push(6, 1 << 48).is_err());
    }

    #[test]
    fn later_layers_override_earlier_ones() {
        let layer = |entries: &[(u64, u64)]| entries.iter().copied().map(Ok).collect::<Vec<_>>().into_iter();
        let merged: Vec<_> = merge(vec![
            layer(&[(1, 10), (2, 10), (3, 10), (9, 10)]),
            layer(&[]),
            layer(&[(2, 20), (3, 20), (4, 20)]),
            layer(&[(0, 30), (3, 30)]),
        ])
        .map(Result::unwrap)
        .collect();
        assert_eq!(merged, [(0, 30), (1, 10), (2, 20), (3, 30), (4, 20), (9, 10)]);
        let broken = vec![vec![Ok((1, 1)), Err(Error::failed("broken")), Ok((3, 3))].into_iter()];
        assert_eq!(merge(broken).filter(Result::is_err).count(), 1);
    }
}
