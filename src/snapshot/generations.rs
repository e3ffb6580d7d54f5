//! Which life of a database a file is in. A pack begins a new one, and so does a conversion to another magic: a generation.
//!
//! A file is known by its content: it begins with the base of one generation. Where a generation has none, because all of the file is in
//! its tail, any file with its magic may be of it.

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
use crate::snapshot::anchor::{Recognition, base_check, is_of, is_packed, nearest, old_path, recognise, refusal};
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
pub(crate) fn life_of(catalog: &Catalog, database: &Database, file: &DataFile) -> Result<Life> {
    if let Some(generation) = known_life_of(catalog, database, file)? {
        return Ok(Life::Known(generation));
    }
    let known = &database.generation.known;
    let mut recognition = recognise(file, known)?;
    // What was imported, restored and then packed is older than what is known of the file.
    let old = old_path(file.path());
    if !matches!(recognition, Recognition::Packed { .. })
        && is_packed(file)?
        && let Ok(before) = DataFile::open(&old)
        && known_life_of(catalog, database, &before)?.is_some_and(|life| life.known.is_from_elsewhere())
    {
        recognition = Recognition::Packed { old: Some(old) };
    }
    match (&recognition, refusal(file.path(), &recognition, known)) {
        (_, None) => Ok(Life::Known(database.generation.clone())),
        (Recognition::Packed { .. } | Recognition::Converted { .. }, Some(error)) => Ok(Life::New(recognition, error)),
        (_, Some(error)) => Err(error),
    }
}

/// The generation of a file, if it is in one that has begun before.
pub(crate) fn known_life_of(catalog: &Catalog, database: &Database, file: &DataFile) -> Result<Option<GenerationRow>> {
    let mut generations = catalog.generations(database.row)?;
    // Those with a base first: it tells them apart. The present one before others.
    let is_whole = |generation: &GenerationRow| generation.known.base_length <= FIRST_TRANSACTION;
    generations.sort_by_key(|other| (is_whole(other), other.row != database.generation.row));
    for generation in generations {
        if !is_of(file, &generation.known)? {
            continue;
        }
        let is_sure = !is_whole(&generation)
            || generation.row == database.generation.row
            || nearest(file, file.size()?, catalog, generation.row)?
                .is_some_and(|stream| stream.cut.offset > FIRST_TRANSACTION);
        if is_sure {
            return Ok(Some(generation));
        }
    }
    Ok(None)
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
pub(crate) fn in_its_life(catalog: &Catalog, database: Database, file: &DataFile) -> Result<Database> {
    match life_of(catalog, &database, file)? {
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
