//! Before gc drops anything: are all chunk lists and index lists what they were when they were saved? A list that has lost
//! a row would make gc drop a chunk that a snapshot needs.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Stream};
use crate::repository::hash::ListHash;
use crate::repository::manifest::ChunkName;
use crate::snapshot::anchor::damaged_list;
use crate::snapshot::blobs::lists::Lists;
use crate::snapshot::index_parts;

/// Checks every list that a snapshot needs against its hash; each row is read once. Ends at the first that is wrong.
pub(crate) fn check(catalog: &Catalog, monitor: &dyn Monitor) -> Result<()> {
    each(catalog, monitor, |_, _, checked| checked)
}

/// Gives `use_list` each stream with the chunks that it has of its own, and what is wrong with these or its index parts, as far as
/// a snapshot needs them. What only snapshots that are set aside need has gaps.
pub(crate) fn each(
    catalog: &Catalog,
    monitor: &dyn Monitor,
    mut use_list: impl FnMut(&Stream, &[(u64, ChunkName)], Result<()>) -> Result<()>,
) -> Result<()> {
    let streams = catalog.streams_with_deleted()?;
    let dispensable = dispensable(catalog, &streams)?;
    let reach = reach(&streams, &dispensable);
    let indexes = indexes(catalog, &streams, &dispensable)?;
    let blobs = Lists::read(catalog, &streams)?;
    let by_row: HashMap<i64, &Stream> = streams.iter().map(|stream| (stream.row, stream)).collect();
    for stream in &streams {
        monitor.check()?;
        let own = catalog.own_chunks(stream.row)?;
        let checked = match reach.get(&stream.row) {
            None => Ok(()),
            Some(&upto) => {
                let parent = stream.parent.and_then(|parent| by_row.get(&parent).copied());
                let parts = match indexes.contains(&stream.row) {
                    true => index_parts::own_parts(catalog, stream).map(|_| ()),
                    false => Ok(()),
                };
                let is_whole = || if dispensable.contains(&stream.snapshot) { Ok(()) } else { blobs.check(stream) };
                parts.and_then(|()| check_list(catalog, stream, parent, upto, &own)).and_then(|()| is_whole())
            }
        };
        use_list(stream, &own, checked)?;
    }
    Ok(())
}

/// The streams whose own index parts some snapshot needs.
pub(super) fn needed_indexes(catalog: &Catalog) -> Result<HashSet<i64>> {
    let streams = catalog.streams_with_deleted()?;
    indexes(catalog, &streams, &dispensable(catalog, &streams)?)
}

/// The snapshots, by their rows, of which only what others need has to be whole: those that were deleted or are set aside.
fn dispensable(catalog: &Catalog, streams: &[Stream]) -> Result<HashSet<i64>> {
    let set_aside = catalog.streams_set_aside()?;
    let mut dispensable = HashSet::new();
    for stream in streams {
        if set_aside.contains(&stream.row) || catalog.is_deleted(stream.snapshot)? {
            dispensable.insert(stream.snapshot);
        }
    }
    Ok(dispensable)
}

/// The streams, which come by sequence, whose own index parts are needed: a snapshot's own, and, as long as there is no
/// keyframe, those of what it builds on.
fn indexes(catalog: &Catalog, streams: &[Stream], dispensable: &HashSet<i64>) -> Result<HashSet<i64>> {
    let links = catalog.index_links()?;
    let keyframes: HashSet<i64> = links.iter().filter(|link| link.has_keyframe).map(|link| link.stream).collect();
    let mut needed = HashSet::new();
    for stream in streams.iter().rev() {
        if !dispensable.contains(&stream.snapshot) {
            needed.insert(stream.row);
        }
        if needed.contains(&stream.row) && !keyframes.contains(&stream.row) {
            needed.extend(stream.parent);
        }
    }
    Ok(needed)
}

/// How far each list is needed, by the stream's row, if it is: a snapshot's own whole, that of a dispensable one (these are rows
/// of snapshots) as far as those that build on it are. The streams come by sequence.
pub(crate) fn reach(streams: &[Stream], dispensable: &HashSet<i64>) -> HashMap<i64, u64> {
    let mut reach: HashMap<i64, u64> = HashMap::new();
    for stream in streams.iter().rev() {
        let upto = match reach.get(&stream.row) {
            _ if !dispensable.contains(&stream.snapshot) => stream.cut.offset,
            Some(upto) => *upto,
            None => continue,
        };
        reach.insert(stream.row, upto);
        if let Some(parent) = stream.parent {
            let kept = reach.entry(parent).or_default();
            *kept = upto.min(stream.kept_length).max(*kept);
        }
    }
    reach
}

/// Checks what a stream has of its own, up to an offset that is one of the two at which its hash is known.
fn check_list(
    catalog: &Catalog,
    stream: &Stream,
    parent: Option<&Stream>,
    upto: u64,
    own: &[(u64, ChunkName)],
) -> Result<()> {
    let damaged = || Err(damaged_list(stream));
    let base_length = catalog.generation(stream.generation)?.known.base_length;
    if upto <= base_length {
        // Nothing of it is needed, and what it builds on may be lost.
        return Ok(());
    }
    let (mut reached, mut hash) = match parent {
        None => (base_length, ListHash::default()),
        Some(parent) if stream.kept_length == parent.cut.offset => (parent.cut.offset, parent.list_hash),
        Some(parent) if stream.kept_length == parent.last_final.length => {
            (parent.last_final.length, parent.last_final.hash)
        }
        Some(_) => return damaged(),
    };
    if stream.kept_length != reached {
        return damaged();
    }
    for &(offset, name) in own {
        if reached == stream.last_final.length && hash != stream.last_final.hash {
            return damaged();
        }
        if reached >= upto {
            break;
        }
        if offset != reached {
            return damaged();
        }
        reached += u64::from(name.length);
        hash = hash.extended(name.length, &name.hash);
    }
    let expected = if upto == stream.cut.offset {
        stream.list_hash
    } else if upto == stream.last_final.length {
        stream.last_final.hash
    } else {
        // Its children keep no more than it keeps itself.
        return if upto <= stream.kept_length { Ok(()) } else { damaged() };
    };
    if upto <= stream.kept_length && upto != reached {
        return Ok(());
    }
    if reached == upto && hash == expected { Ok(()) } else { damaged() }
}
