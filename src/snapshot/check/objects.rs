//! The object files: are all there that the catalog names, of the right kind and length, with the frames and chunks that
//! it lists? And what else is there?

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;

use crate::error::{Error, IoContext, Result};
use crate::repository::catalog::{KnownFrame, ObjectFile};
use crate::repository::data::{Frame, read_table};
use crate::repository::frames::Location;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::BLOBS;
use crate::repository::lock::announced;
use crate::repository::manifest::Tombstone;
use crate::repository::object::{LARGEST_RECORD, ObjectKind, TEMPORARY, kind_of};
use crate::repository::plain::PlainFiles;
use crate::snapshot::gc::inventory::{Unnamed, catalog_is_older, unnamed};

use super::catalog::{Known, about_catalog};
use super::{Check, Finding, Subject, damage};

/// Compares what is in the folder of the object files with what the catalog names.
pub(super) fn check(check: &mut Check<'_>, known: &Known) -> Result<()> {
    // Those that are read anyway, and compared with more than this.
    let mut read_later = HashSet::from([known.repository.1]);
    for snapshot in &known.snapshots {
        read_later.insert(snapshot.snapshot.manifest);
        read_later.extend(snapshot.tombstone);
    }
    check.monitor.begin("looking at the object files", known.files.len() as u64);
    for file in &known.files {
        check.monitor.check()?;
        if matches!(file.kind, ObjectKind::Data | ObjectKind::Plain) {
            let reasons = match data_file(check, known, file) {
                Ok(reasons) => reasons,
                Err(error) => vec![clause(error)?],
            };
            if !reasons.is_empty() && !check.is_gone(&file.name)? {
                reasons.into_iter().for_each(|reason| check.add_damaged(file.name, reason));
            }
        } else {
            small_file(check, file, read_later.contains(&file.name))?;
        }
        check.monitor.advance(1);
    }
    check.monitor.end();
    others(check, known)
}

/// What is wrong with a data file, without reading all of it.
fn data_file(check: &Check<'_>, known: &Known, file: &ObjectFile) -> Result<Vec<String>> {
    let path = check.layout().place(file.kind, &file.name);
    let mut reasons = Vec::new();
    let length = match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![MISSING.into()]),
        result => result.at("look at", &path)?.len(),
    };
    if length != file.bytes {
        reasons.push(format!("it has {length} bytes instead of {}", file.bytes));
    }
    if file.kind == ObjectKind::Plain {
        return Ok(reasons);
    }
    match kind_of(&path) {
        Ok(ObjectKind::Data) => {}
        Ok(_) => reasons.push("it is of another kind than the catalog says".into()),
        Err(error) => reasons.push(clause(error)?),
    }
    match read_table(check.layout(), &file.name) {
        Ok(table) => reasons.extend(compare(&table, known.frames.get(&file.row).map_or(&[], Vec::as_slice))),
        Err(error) => reasons.push(clause(error)?),
    }
    Ok(reasons)
}

/// Looks at a file of another kind. What is in those that are read later is no matter here, only what the catalog says of
/// the file.
fn small_file(check: &mut Check<'_>, file: &ObjectFile, read_later: bool) -> Result<()> {
    let path = check.layout().object(&file.name);
    let length = fs::metadata(&path).map(|metadata| metadata.len()).ok();
    let kind = kind_of(&path);
    let is_known = length.is_some() && !kind.as_ref().is_err_and(|error| error.io_error().is_some());
    let as_listed = length == Some(file.bytes) && kind.is_ok_and(|kind| kind == file.kind);
    if as_listed && read_later {
        return Ok(());
    }
    let whole = length.is_some_and(|length| length <= LARGEST_RECORD)
        && fs::read(&path).is_ok_and(|bytes| Hash::of(&bytes) == file.name);
    let name = file.name.short();
    if check.is_gone(&file.name)? {
        return Ok(());
    }
    if whole && is_known && !as_listed {
        let what = format!("the catalog is wrong about object file {name}…: its kind, or its length");
        check.add(Finding { what, prevents_restore: false, ..about_catalog(Vec::new()) });
    } else if !whole && !read_later {
        let what = format!("object file {name}…, which only a catalog made anew would need, is missing or damaged");
        let finding = Finding::about(Subject::Tombstone);
        check.add(Finding { what, object_file: Some(file.name.to_string()), ..finding });
    }
    Ok(())
}

/// What is wrong with a file that isn't there.
pub(super) const MISSING: &str = "it is missing";

/// The part of an error about an object file that says what is wrong with it.
pub(super) fn clause(error: Error) -> Result<String> {
    let text = damage(error)?;
    Ok(match text.split_once(" is damaged: ") {
        Some((_, reason)) => reason.into(),
        None => text,
    })
}

/// How the frames and chunks of the catalog differ from a data file's own table.
fn compare(table: &[Frame], known: &[KnownFrame]) -> Option<String> {
    let same = table.len() == known.len()
        && table.iter().zip(known).all(|(frame, known)| {
            let at = &known.at;
            (frame.content, frame.codec, frame.offset, frame.stored, frame.raw)
                == (known.content, at.codec, at.offset, at.stored, at.raw)
        });
    if !same {
        return Some("the catalog lists other compressed blocks of it than its table".into());
    }
    // The catalog knows fewer chunks than there are: those that are used, and not stored elsewhere, too.
    let wrong = table.iter().zip(known).map(|(frame, known)| -> usize {
        let there: HashMap<u32, (Hash, u32)> = Location::all_of(known.at.object, frame)
            .map(|location| (location.start, (location.hash, location.length)))
            .collect();
        known.chunks.iter().filter(|chunk| there.get(&chunk.start) != Some(&(chunk.hash, chunk.length))).count()
    });
    match wrong.sum::<usize>() {
        0 => None,
        wrong => Some(format!("the catalog lists {wrong} chunks of it otherwise than its table")),
    }
}

/// Looks at the files that the catalog doesn't name.
fn others(check: &mut Check<'_>, known: &Known) -> Result<()> {
    let named: HashSet<Hash> = known.files.iter().map(|file| file.name).collect();
    let folder = check.layout().objects();
    let mut unnamed = Vec::new();
    for entry in fs::read_dir(&folder).at("read", &folder)? {
        check.monitor.check()?;
        let name = entry.at("read", &folder)?.file_name();
        let name = name.to_string_lossy();
        match Hash::from_hex(&name) {
            Some(hash) if named.contains(&hash) => {}
            Some(hash) => unnamed.push(hash),
            None if name.starts_with(TEMPORARY) => check.report.left_over_files += 1,
            None if name == BLOBS => {}
            None => check.report.unknown_files.push(name.into_owned()),
        }
    }
    let plain = PlainFiles::list(check.layout())?;
    check.report.left_over_files += plain.left_over.len() as u64;
    for (name, _) in plain.files.iter().filter(|(name, _)| !named.contains(name)) {
        // One that a save has just made, or that gc is about to remove.
        check.report.left_over_files += u64::from(!check.catalog().names(name)?);
    }
    if unnamed.is_empty() {
        return Ok(());
    }
    let now = Now::ask(check, known)?;
    for name in unnamed {
        check.monitor.check()?;
        other(check, &now, name)?;
    }
    Ok(())
}

/// What the catalog says now, of which the files are newer.
struct Now {
    /// The snapshots that it knows, deleted ones too as long as something of them is left.
    snapshots: HashSet<Uid>,
    /// Those that its tombstones are of.
    deleted: HashSet<Uid>,
}

impl Now {
    fn ask(check: &Check<'_>, known: &Known) -> Result<Self> {
        let ask = || -> Result<_> { Ok((check.catalog().known_snapshots()?, check.catalog().object_files()?)) };
        let (snapshots, files) = ask().or_else(|error| {
            damage(error)?;
            Ok((known.snapshots.iter().map(|known| known.snapshot.uid).collect(), known.files.clone()))
        })?;
        let tombstones = files.into_iter().filter(|file| file.kind == ObjectKind::Tombstone);
        let read = tombstones.filter_map(|file| Tombstone::read(check.layout(), &file.name).ok());
        Ok(Now {
            deleted: read.map(|tombstone| tombstone.snapshot).collect(),
            snapshots: snapshots.into_iter().collect(),
        })
    }
}

/// Looks at one. It may be one that a command has just written, or one that gc is about to remove.
fn other(check: &mut Check<'_>, now: &Now, name: Hash) -> Result<()> {
    // A save that is going on, or was killed, says which manifest it writes before it does.
    let is_announced = announced(check.layout()) == Some(name);
    if check.catalog().names(&name)? {
        return Ok(());
    }
    let layout = check.layout();
    let found = unnamed(layout, &name, &now.snapshots, |uid| Ok(now.deleted.contains(uid)));
    // Gone since the folder was read.
    if !layout.object(&name).exists() {
        return Ok(());
    }
    match found {
        Ok(Unnamed::LeftOver | Unnamed::Deletion(_)) => check.report.left_over_files += 1,
        Ok(Unnamed::Newer(_)) | Err(_) if is_announced => check.report.left_over_files += 1,
        // Of one that was saved meanwhile, a gc may have replaced the manifest already.
        Ok(Unnamed::Newer(manifest)) if check.catalog().knows(&manifest.uid)? => check.report.left_over_files += 1,
        Ok(Unnamed::Newer(manifest)) => {
            let what = catalog_is_older(layout, &manifest).to_string();
            let hint = "put the newest catalog.db back; or rebuild it with znap repair";
            check.add(Finding { what, hint: Some(hint.into()), ..about_catalog(vec![manifest.id.clone()]) });
        }
        Ok(Unnamed::Unknown) => check.report.unknown_files.push(name.to_string()),
        Err(error) => {
            let what = format!("{}; the catalog doesn't name it", damage(error)?);
            let hint = "if it isn't in a copy of .znap, remove it: nothing needs it";
            let finding = Finding::about(Subject::Manifest);
            check.add(Finding { what, object_file: Some(name.to_string()), hint: Some(hint.into()), ..finding });
        }
    }
    Ok(())
}
