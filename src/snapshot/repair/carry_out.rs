//! Doing it: everything new is durable before anything old goes.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
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
use crate::repository::object::{Finished, HEADER, ObjectKind, ObjectWriter, publish};
use crate::snapshot::repair::examine::Examined;
use crate::snapshot::repair::objects::Stored;
use crate::snapshot::repair::old::Condition;
use crate::snapshot::repair::picture::Record;
use crate::snapshot::repair::rebuild::{build, copy, put_in_place};
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
        build(layout, counters, &config, examined, monitor)?;
        // Nobody opens object files between the new catalog and the removal of those that it doesn't name.
        let _gate = Gate::exclusive(layout, monitor)?;
        let keep = matches!(examined.condition, Condition::Damaged(_) | Condition::Outdated(_));
        report.catalog_kept = put_in_place(layout, keep)?;
        move_damaged(layout, examined)?;
    }
    if let Some(name) = &examined.uncommitted {
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
        if chosen.is_deleted() && chosen.reach.iter().all(Option::is_none) {
            continue;
        }
        if chosen.file.is_none() {
            chosen.file = Some(add(&mut files, chosen.manifest.write(layout)?, counters)?);
        }
        if let Some(Record::New(tombstone)) = &chosen.tombstone {
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
    let mut source = File::open(path).at("open", path)?;
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
        return Err(Error::failed(format!("{} has changed meanwhile", path.display())).hint("try again"));
    }
    Ok(file)
}

/// Keeps a copy of the damaged files whose names are about to be given to what is as it should be.
fn keep_replaced(layout: &Layout, examined: &mut Examined, files: &[Finished]) -> Result<()> {
    let names: Vec<Hash> = files.iter().map(|file| file.name).collect();
    let (again, damaged) =
        std::mem::take(&mut examined.objects.damaged).into_iter().partition(|file| names.contains(&file.name));
    examined.objects.damaged = damaged;
    examined.replaced.extend::<Vec<_>>(again);
    for file in &examined.replaced {
        let to = place_for(layout, &file.name)?;
        copy(layout, &layout.object(&file.name), &to)?;
    }
    if !examined.replaced.is_empty() {
        layout.disk().sync_directory(&layout.damaged())?;
    }
    Ok(())
}

/// Moves the damaged files, of which nothing is needed any more, out of the way.
fn move_damaged(layout: &Layout, examined: &Examined) -> Result<()> {
    let disk = layout.disk();
    for file in &examined.objects.damaged {
        disk.rename(&layout.object(&file.name), &place_for(layout, &file.name)?)?;
    }
    if !examined.objects.damaged.is_empty() {
        // There first, so that they are never nowhere.
        disk.sync_directory(&layout.damaged())?;
        disk.sync_directory(&layout.objects())?;
    }
    Ok(())
}

/// A free name for a damaged file; makes the folder if need be, like that of the object files.
fn place_for(layout: &Layout, name: &Hash) -> Result<PathBuf> {
    let folder = layout.damaged();
    if !folder.exists() {
        let model = fs::metadata(layout.objects()).at("look at", layout.objects())?;
        DirBuilder::new().mode(0o700).create(&folder).at("create", &folder)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&folder, Some(model.uid()), Some(model.gid())).at("set the owner of", &folder)?;
        }
        fs::set_permissions(&folder, model.permissions()).at("set the mode of", &folder)?;
        layout.disk().sync_directory(layout.root())?;
    }
    let plain = folder.join(name.to_string());
    let numbered = (2..).map(|number| folder.join(format!("{name}.{number}")));
    let free = std::iter::once(plain).chain(numbered).find(|path| fs::symlink_metadata(path).is_err());
    free.ok_or_else(|| Error::failed(format!("there is no free name in {}", folder.display())))
}
