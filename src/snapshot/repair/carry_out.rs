//! Doing it: everything new is durable before anything old goes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, IoContext, Result};
use crate::monitor::Monitor;
use crate::repository::chunk_writer::{ChunkWriter, Compression};
use crate::repository::counters::Counters;
use crate::repository::data::Content;
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::repository::lock::{Gate, WriterLock};
use crate::repository::manifest::Config;
use crate::repository::object::{Finished, HEADER, ObjectKind, ObjectWriter, open_regular, publish};
use crate::snapshot::repair::damaged;
use crate::snapshot::repair::examine::Examined;
use crate::snapshot::repair::objects::Stored;
use crate::snapshot::repair::old::Condition;
use crate::snapshot::repair::picture::Record;
use crate::snapshot::repair::rebuild::{build, put_in_place};
use crate::snapshot::repair::report::RepairReport;
use crate::snapshot::reserve;

/// Carries out what was worked out.
pub(super) fn carry_out(
    layout: &Layout,
    counters: &Arc<Counters>,
    examined: &mut Examined,
    lock: &mut WriterLock,
    report: &mut RepairReport,
    monitor: &dyn Monitor,
) -> Result<()> {
    create_missing(layout)?;
    if examined.needs_change() {
        let config = write_objects(layout, counters, examined, monitor)?;
        damaged::mark_lost(layout, &examined.lost)?;
        // Before anything can be deleted again.
        damaged::unmark(layout, &examined.found_again)?;
        build(layout, counters, &config, examined, monitor)?;
        // Nobody opens object files between the new catalog and the removal of those that it doesn't name.
        let _gate = Gate::exclusive(layout, monitor)?;
        let is_wrong = matches!(examined.condition, Condition::Damaged(_) | Condition::Outdated(_));
        // And one that is right, if it knows what the new one doesn't.
        let keep = is_wrong || !report.forgotten.is_empty();
        report.catalog_kept = put_in_place(layout, keep)?;
        damaged::move_away(layout, examined.objects.damaged.iter().map(|file| file.name))?;
    }
    if let (Some(name), Condition::Good) = (&examined.uncommitted, &examined.condition) {
        layout.disk().remove_if_there(&layout.object(name))?;
        layout.disk().sync_directory(&layout.objects())?;
    }
    if lock.left_over().is_some() {
        lock.settle()?;
    }
    // Space for the next time is welcome, but no reason to fail now.
    let _ = reserve::replenish(layout);
    Ok(())
}

/// Makes what a repository of which only the object files are left lacks.
fn create_missing(layout: &Layout) -> Result<()> {
    if !layout.gate().exists() {
        layout.create_file(&layout.gate())?;
    }
    let ignore = layout.root().join(".gitignore");
    if !ignore.exists() {
        layout.disk().write_at(&layout.create_file(&ignore)?, &ignore, b"*\n", 0)?;
    }
    Ok(())
}

/// Writes all object files that are to be there, and counts them among those that are.
fn write_objects(
    layout: &Layout,
    counters: &Arc<Counters>,
    examined: &mut Examined,
    monitor: &dyn Monitor,
) -> Result<Stored<Config>> {
    let mut data = Vec::new();
    if !examined.search.found.is_empty() {
        let mut writer = ChunkWriter::new(layout, counters, Compression::FAST);
        for (content, hash) in in_order(examined) {
            monitor.check()?;
            writer.append(content, hash, &examined.search.bytes(&hash)?)?;
        }
        data = writer.finish()?;
    }
    // Data files get their names first: no manifest may name what isn't there.
    let records: Vec<_> = data.iter().map(|new| new.record()).collect();
    let mut files: Vec<Finished> = data.into_iter().map(|new| new.file).collect();
    for (name, kind, path) in &examined.copies {
        files.push(copy_object(layout, counters, name, *kind, path, monitor)?);
    }
    let config = match &examined.config {
        Record::There(file) => *file,
        Record::New(config) => add(&mut files, config.write(layout)?, counters)?,
    };
    for chosen in &mut examined.picture.snapshots {
        if chosen.file.is_none() && chosen.is_needed() {
            chosen.file = Some(add(&mut files, chosen.manifest.write(layout)?, counters)?);
        }
        if let (Some(_), Some(Record::New(tombstone))) = (chosen.file, &chosen.tombstone) {
            chosen.tombstone = Some(Record::There(add(&mut files, tombstone.write(layout)?, counters)?));
        }
    }
    keep_replaced(layout, examined, &files)?;
    publish(layout, files, counters)?;
    for (name, bytes, frames) in records {
        examined.objects.data.push(Stored { file: (name, bytes), what: frames });
    }
    let what = match &examined.config {
        Record::New(config) => config.clone(),
        Record::There(_) => match examined.objects.configs.first() {
            Some(stored) => stored.what.clone(),
            None => return Err(Error::failed("the config that was there is not there any more")),
        },
    };
    Ok(Stored { file: config, what })
}

fn add(files: &mut Vec<Finished>, writer: ObjectWriter, counters: &Counters) -> Result<(Hash, u64)> {
    let file = writer.finish(counters)?;
    let name = (file.name, file.bytes);
    files.push(file);
    Ok(name)
}

/// The chunks that are to be written, those of a kind together, and those of a database in their order.
fn in_order(examined: &Examined) -> Vec<(Content, Hash)> {
    let wanted = &examined.search.wanted;
    let mut chunks: Vec<_> = examined
        .search
        .found
        .keys()
        .filter_map(|hash| wanted.get(hash).map(|wanted| (wanted.content, wanted.first_place(), *hash)))
        .collect();
    chunks.sort();
    chunks.into_iter().map(|(content, _, hash)| (content, hash)).collect()
}

/// Copies a whole object file under a temporary name.
fn copy_object(
    layout: &Layout,
    counters: &Counters,
    name: &Hash,
    kind: ObjectKind,
    path: &Path,
    monitor: &dyn Monitor,
) -> Result<Finished> {
    let changed = || Error::failed(format!("{} has changed meanwhile", path.display())).hint("try again");
    let mut source = open_regular(path).at("open", path)?.ok_or_else(changed)?;
    source.seek(SeekFrom::Start(HEADER as u64)).at("read", path)?;
    // It begins with the header of its kind: that was checked.
    let mut writer = ObjectWriter::create(layout, kind)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        monitor.check()?;
        let read = source.read(&mut buffer).at("read", path)?;
        if read == 0 {
            break;
        }
        writer.write(&buffer[..read])?;
    }
    let file = writer.finish(counters)?;
    if file.name != *name {
        return Err(changed());
    }
    Ok(file)
}

/// Keeps the damaged files whose names are about to be given to what is as it should be, and what is no file and has such a name.
fn keep_replaced(layout: &Layout, examined: &mut Examined, files: &[Finished]) -> Result<()> {
    let names: Vec<Hash> = files.iter().map(|file| file.name).collect();
    let (again, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut examined.objects.damaged).into_iter().partition(|file| names.contains(&file.name));
    examined.objects.damaged = others;
    examined.replaced.extend(again);
    let is_strange = |name: &&Hash| fs::symlink_metadata(layout.object(name)).is_ok_and(|there| !there.is_file());
    let strange = names.iter().filter(is_strange);
    let replaced: BTreeSet<Hash> = examined.replaced.iter().map(|file| file.name).chain(strange.copied()).collect();
    damaged::keep(layout, replaced.into_iter())
}
