//! Before gc drops anything: are all chunk lists and index lists what they were when they were saved? A list that has lost
//! a row would make gc drop a chunk that a snapshot needs.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Stream};
use crate::repository::hash::ListHash;
use crate::snapshot::anchor::damaged_list;
use crate::snapshot::index_parts;

/// Checks every list that a snapshot needs against its hash; each row is read once. What only snapshots that are set aside
/// need has gaps.
pub(crate) fn check(catalog: &Catalog, monitor: &dyn Monitor) -> Result<()> {
    let streams = catalog.streams_with_deleted()?;
    // How far each list is needed: a snapshot's own whole, a deleted one's as far as those that build on it are.
    let mut reach: HashMap<i64, u64> = HashMap::new();
    let set_aside: HashSet<i64> = catalog.streams_set_aside()?;
    for stream in streams.iter().rev() {
        let own = !set_aside.contains(&stream.row) && !catalog.is_deleted(stream.snapshot)?;
        let upto = if own { stream.cut.offset } else { reach.get(&stream.row).copied().unwrap_or(0) };
        if !own && !reach.contains_key(&stream.row) {
            continue;
        }
        reach.insert(stream.row, upto);
        if let Some(parent) = stream.parent {
            let kept = reach.entry(parent).or_default();
            *kept = upto.min(stream.kept_length).max(*kept);
        }
    }
    let by_row: HashMap<i64, &Stream> = streams.iter().map(|stream| (stream.row, stream)).collect();
    for stream in &streams {
        monitor.check()?;
        let Some(&upto) = reach.get(&stream.row) else { continue };
        index_parts::own_parts(catalog, stream)?;
        check_list(catalog, stream, stream.parent.and_then(|parent| by_row.get(&parent).copied()), upto)?;
    }
    Ok(())
}

/// Checks what a stream has of its own, up to an offset that is one of the two at which its hash is known.
fn check_list(catalog: &Catalog, stream: &Stream, parent: Option<&Stream>, upto: u64) -> Result<()> {
    let damaged = || Err(damaged_list(stream));
    let base_length = catalog.generation(stream.generation)?.known.base_length;
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
    for (offset, name) in catalog.own_chunks(stream.row)? {
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
