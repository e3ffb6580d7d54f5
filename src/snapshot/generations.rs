//! Which life of a database a file is in. A pack begins a new one, and so does a conversion to another magic: a generation.
//!
//! A file is known by its content: it begins with the base of one generation. Where a generation has none, because all of the file is in
//! its tail, it begins with a snapshot of it; and a file that begins with nothing known is taken for what became of the one that
//! was there, unless that lies beside it, packed.

use std::path::Path;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::filestorage::{
    Cut, DataFile, FIRST_TRANSACTION, Position, Source, Tid, find_cut, index_path, scan, transaction_ending_at,
    usable_index,
};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Database, GenerationRow};
use crate::repository::hash::Uid;
use crate::repository::manifest::Generation;
use crate::snapshot::anchor::{
    Recognition, base_check, is_of, is_packed, is_unreadable, nearest, old_path, recognise, refusal, unless_unreadable,
};
use crate::snapshot::database;
use crate::snapshot::handle::Repository;

/// A file up to this size is kept whole: its base is only the magic, and its snapshots need nothing
/// but the repository.
pub const KEPT_WHOLE: u64 = 1 << 20;

/// The life that a file is in.
pub(crate) enum Life {
    /// It has begun before.
    Known(GenerationRow),
    /// It was begun by what happened to the file since; and what to say where it must have begun before.
    New(Recognition, Error),
}

/// Finds the generation of a file; an error if it isn't the file that was tracked, nor one that a pack made of it.
pub(crate) fn life_of(repository: &Repository, database: &Database, file: &DataFile) -> Result<Life> {
    let catalog = &repository.catalog;
    if let Some(generation) = known_life_of(catalog, database, file)? {
        return Ok(Life::Known(generation));
    }
    let known = &database.generation.known;
    let old = old_path(file.path());
    let recognition = match recognise(file, known, Some(repository.layout.base(&known.uid)))? {
        // What begins with nothing, as any file does: `known_life_of` has seen that it was packed.
        Recognition::Same => Recognition::Packed { old: Some(old) },
        other @ Recognition::Packed { .. } => other,
        _ if is_made_of_import(catalog, database, file, &old)? => Recognition::Packed { old: Some(old) },
        other => other,
    };
    match (&recognition, refusal(file.path(), &recognition, known)) {
        (_, None) => Ok(Life::Known(database.generation.clone())),
        (Recognition::Packed { .. } | Recognition::Converted { .. }, Some(error)) => Ok(Life::New(recognition, error)),
        (_, Some(error)) => Err(error),
    }
}

/// Whether a pack has made a file of what was imported and restored, and lies beside it now: that is older than what is known of the file.
fn is_made_of_import(catalog: &Catalog, database: &Database, file: &DataFile, old: &Path) -> Result<bool> {
    if !is_packed(file)? {
        return Ok(false);
    }
    let Ok(old) = DataFile::open(old) else { return Ok(false) };
    Ok(known_life_of(catalog, database, &old)?.is_some_and(|life| life.known.is_from_elsewhere()))
}

/// The generation of a file, if it is in one that has begun before.
pub(crate) fn known_life_of(catalog: &Catalog, database: &Database, file: &DataFile) -> Result<Option<GenerationRow>> {
    let mut generations = catalog.generations(database.row)?;
    let is_only = generations.len() == 1;
    // Those with a base first: it tells them apart. The present one before others.
    generations.sort_by_key(|other| (is_whole(other), other.row != database.generation.row));
    for generation in generations {
        let is_sure = |file| Ok(!is_whole(&generation) || begins_saved(catalog, &generation, file)?);
        if !(is_only && is_whole(&generation)) && is_of(file, &generation.known)? && is_sure(file)? {
            return Ok(Some(generation));
        }
    }
    // Whatever has become of a file that is known by its snapshots alone, it is that file; unless it was packed.
    let present = &database.generation;
    if is_whole(present) && is_of(file, &present.known)? && !is_packed_over(catalog, present, file)? {
        return Ok(Some(present.clone()));
    }
    Ok(None)
}

/// Whether a generation has no base: all of the file is in its tail.
fn is_whole(generation: &GenerationRow) -> bool {
    generation.known.base_length <= FIRST_TRANSACTION
}

/// Whether a file begins with a snapshot of this generation that has any transaction.
fn begins_saved(catalog: &Catalog, generation: &GenerationRow, file: &DataFile) -> Result<bool> {
    let nearest = nearest(file, file.size()?, catalog, generation.row)?;
    Ok(nearest.is_some_and(|stream| stream.cut.offset > FIRST_TRANSACTION))
}

/// Whether a pack has made a file of what lies beside it now, and that is what a generation without a base has snapshots of.
fn is_packed_over(catalog: &Catalog, generation: &GenerationRow, file: &DataFile) -> Result<bool> {
    if !is_packed(file)? || begins_saved(catalog, generation, file)? {
        return Ok(false);
    }
    let is_before = |old: DataFile| Ok(is_of(&old, &generation.known)? && begins_saved(catalog, generation, &old)?);
    match DataFile::open(old_path(file.path())) {
        // What can't be read may be it, and a life more costs little.
        Ok(old) => Ok(unless_unreadable(is_before(old))?.unwrap_or(true)),
        Err(error) => Ok(is_unreadable(&error)),
    }
}

/// Records for each database which life its file is in, if that isn't the one that is recorded: a restore went over a pack, or somebody
/// put a file back. What a pack makes of it then is told by comparing with that life. No reason to fail for what has come so far.
pub(crate) fn record_lives(repository: &mut Repository) -> Result<()> {
    for database in repository.catalog.databases()? {
        let life = DataFile::open(repository.path_of(&database))
            .and_then(|file| known_life_of(&repository.catalog, &database, &file));
        if let Ok(Some(life)) = life
            && life.row != database.generation.row
            // Every file with the same magic would be of one that begins with nothing: see `life_of` for how it is known.
            && !life.known.is_from_elsewhere()
        {
            repository.catalog.set_generation(database.row, life.row)?;
        }
    }
    Ok(())
}

/// The database in the life that its file is in, which must have begun before.
pub(crate) fn in_its_life(repository: &Repository, database: Database, file: &DataFile) -> Result<Database> {
    match life_of(repository, &database, file)? {
        Life::Known(generation) => Ok(Database { generation, ..database }),
        Life::New(_, error) => Err(error),
    }
}

/// A generation that begins now, and what was found on the way.
pub(crate) struct Beginning {
    pub(crate) generation: Generation,
    /// The end of the last complete transaction.
    pub(crate) cut: Cut,
    /// What was odd.
    pub(crate) warnings: Vec<String>,
    /// Why the index beside the file couldn't be used, and all of the file was read.
    pub(crate) index: Option<String>,
}

/// Finds the end of a file's last transaction and records how to recognise it.
pub(crate) fn begin(file: &DataFile, number: u32, monitor: &dyn Monitor) -> Result<Beginning> {
    let size = file.size()?;
    let (start, index) = match usable_index(file, &index_path(file.path()))? {
        Ok(index) => {
            let tid = transaction_ending_at(file, index.position())?.map_or(Tid(0), |header| header.tid);
            (Position { offset: index.position(), tid }, None)
        }
        Err(unusable) => (Position::START, Some(unusable.to_string())),
    };
    let cut = find_cut(file, start, size, monitor)?;
    monitor.begin("reading the database", cut.offset - start.offset);
    let summary = scan(file, start, cut.offset, &mut (), monitor)?;
    monitor.end();
    let base_length = if cut.offset <= KEPT_WHOLE { FIRST_TRANSACTION } else { cut.offset };
    database::check_tid(file.path(), cut.tid)?;
    let last = transaction_ending_at(file, base_length)?;
    let (base_check_length, base_check) = base_check(file, base_length)?;
    let generation = Generation {
        uid: Uid::random()?,
        number,
        began: Timestamp::now().as_microsecond(),
        magic: file.magic().to_string(),
        base_length,
        base_tid: last.map_or(0, |header| header.tid.0),
        base_last_length: last.map_or(0, |header| header.end() - header.position),
        base_check_length,
        base_check,
    };
    Ok(Beginning { generation, cut, warnings: database::warning_lines(&summary.warnings), index })
}
