//! Snapshots that repair has set aside: nobody has all that they need. They are listed, and can be deleted; all else refuses.

use crate::error::{Error, Result};
use crate::repository::catalog::{Catalog, Snapshot, Stream};
use crate::repository::manifest::DAMAGED;
use crate::snapshot::handle::Repository;
use crate::snapshot::index_parts;

/// How many ranges are named.
const NAMED: usize = 3;

/// Refuses a snapshot that is set aside, naming what is missing.
pub(crate) fn refuse_set_aside(repository: &Repository, snapshot: &Snapshot) -> Result<()> {
    if snapshot.kind != DAMAGED {
        return Ok(());
    }
    let mut missing = Vec::new();
    let databases = repository.catalog.databases()?;
    for stream in repository.catalog.streams_of(snapshot.row)? {
        let database = databases.iter().find(|database| database.row == stream.database);
        let name = database.map_or("a database", |database| database.name.as_str());
        let gaps = gaps(&repository.catalog, &stream)?;
        let index = index_parts::sources(&repository.catalog, &stream).is_err();
        missing.extend(in_words(name, &gaps, index));
    }
    let words = if missing.is_empty() { "a part of it".into() } else { missing.join("; ") };
    let id = &snapshot.name;
    Err(Error::damaged(format!("snapshot {id} is damaged: nobody has {words}")).hint(format!(
        "znap repair --from PATH brings it back if PATH, a copy of the database or of .znap, has that; znap delete {id} forgets it"
    )))
}

/// What is missing of one database, in words; nothing if nothing is.
pub(crate) fn in_words(name: &str, gaps: &[(u64, u64)], index: bool) -> Option<String> {
    let mut words: Vec<String> =
        gaps.iter().take(NAMED).map(|(from, to)| format!("bytes {from} to {to} of {name}")).collect();
    if gaps.len() > NAMED {
        words.push(format!("{} more ranges of it", gaps.len() - NAMED));
    }
    if index {
        words.push(format!("the index of {name}"));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

/// The ranges of a stream that no chunk in the catalog covers.
fn gaps(catalog: &Catalog, stream: &Stream) -> Result<Vec<(u64, u64)>> {
    let mut reached = catalog.generation(stream.generation)?.known.base_length;
    let mut gaps = Vec::new();
    for chunk in catalog.stream_chunks(stream.row, reached, stream.cut.offset)? {
        if chunk.offset > reached {
            gaps.push((reached, chunk.offset));
        }
        reached = reached.max(chunk.end());
    }
    if reached < stream.cut.offset {
        gaps.push((reached, stream.cut.offset));
    }
    Ok(gaps)
}
