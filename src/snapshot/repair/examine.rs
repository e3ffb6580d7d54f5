//! Working out what is wrong, and what can be done about it. Changes nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, KnownSnapshot, ObjectFile, Registration};
use crate::repository::counters::Counters;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;
use crate::repository::lock::WriterLock;
use crate::repository::manifest::Config;
use crate::repository::object::ObjectKind;
use crate::snapshot::id;
use crate::snapshot::links;
use crate::snapshot::repair::blob_lists::{self, LostBlobs};
use crate::snapshot::repair::damaged;
use crate::snapshot::repair::indexes;
use crate::snapshot::repair::objects::{DamagedFile, Found, Objects, examine as examine_file};
use crate::snapshot::repair::old::{Condition, Old, ask};
use crate::snapshot::repair::picture::{Aside, Chosen, Judgement, Picture, Record, own_chunks, parts};
use crate::snapshot::repair::records::{self, Again, again};
use crate::snapshot::repair::report::{DamagedObject, RepairOptions, RepairReport, SetAside, word};
use crate::snapshot::repair::search::{Search, databases};
use crate::snapshot::set_aside::in_words;

/// What was found out.
pub(super) struct Examined {
    pub(super) condition: Condition,
    /// What is there, and what is about to be copied.
    pub(super) objects: Objects,
    /// Whole object files that are to be copied: name, what they hold, where from.
    pub(super) copies: Vec<(Hash, ObjectKind, PathBuf)>,
    /// Damaged files that are about to be replaced by what is as it should be.
    pub(super) replaced: Vec<DamagedFile>,
    /// Files that the catalog names, and that are nowhere.
    missing: Vec<ObjectFile>,
    pub(super) config: Record<Config>,
    pub(super) picture: Picture,
    pub(super) search: Search,
    /// Folders of object files that the user has named.
    pub(super) folders: Vec<PathBuf>,
    lost_blobs: LostBlobs,
    pub(super) registered: Vec<Registration>,
    pub(super) sequence: u64,
    /// The manifest of a save that was killed before it committed.
    pub(super) uncommitted: Option<Hash>,
    /// Records that were lost before, and of which there is a copy now.
    pub(super) found_again: Vec<Hash>,
    /// Records that nobody can make again.
    pub(super) lost: Vec<Hash>,
    aside: Vec<Aside>,
    back: Vec<String>,
    forgotten: Vec<String>,
    /// The ids of snapshots that only the catalog has.
    alone: Vec<String>,
    /// What the catalog says of files: what they hold, and whether that is needed, or there again.
    known: HashMap<Hash, (ObjectKind, bool)>,
    catalog_knows: bool,
    repository: Uid,
}

/// Where the user has copies.
struct Copies {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Copies {
    fn of(paths: &[PathBuf]) -> Result<Self> {
        let mut copies = Copies { folders: Vec::new(), files: Vec::new() };
        for path in paths {
            if path.join("objects").is_dir() {
                copies.folders.push(path.join("objects"));
            } else if path.is_dir() {
                copies.folders.push(path.clone());
            } else if path.is_file() {
                copies.files.push(path.clone());
            } else {
                return Err(Error::not_found(format!("there is no file or directory {}", path.display()))
                    .hint("name a copy of a Data.fs, another .znap, or a folder with object files"));
            }
        }
        Ok(copies)
    }
}

/// Reads and compares everything.
pub(super) fn examine(
    layout: &Layout,
    counters: &Arc<Counters>,
    options: &RepairOptions,
    lock: &WriterLock,
    monitor: &dyn Monitor,
) -> Result<Examined> {
    let copies_of = Copies::of(&options.from)?;
    let damaged_folders = damaged::folders(layout)?;
    let lost_before = damaged::lost(layout)?;
    let mut objects = Objects::read(&layout.objects(), monitor)?;
    let mut old = Old::open(layout, counters)?;
    let repository = repository_of(&objects, &mut old, layout)?;
    objects.expel_others(repository);
    objects.expel_contradictions();
    objects.locate_chunks();
    let announced = lock.left_over();
    old.compare(repository, &objects, announced, monitor)?;
    let named: Vec<ObjectFile> = ask(&mut old, Catalog::object_files)?;
    // Only a good catalog can tell.
    let uncommitted =
        announced.filter(|name| old.condition == Condition::Good && !named.iter().any(|file| file.name == *name));
    objects.manifests.retain(|stored| Some(stored.file.0) != uncommitted);

    let there = objects.names();
    let is_missing = |file: &&ObjectFile| file.kind != ObjectKind::Plain && !there.contains(&file.name);
    let mut missing: Vec<ObjectFile> = named.iter().filter(is_missing).cloned().collect();
    if !old.is_current() {
        missing.clear();
    }
    let (copies, replaced) = take_copies(&mut objects, &mut missing, &lost_before, &copies_of, repository, monitor)?;
    let known_snapshots: Vec<KnownSnapshot> = ask(&mut old, Catalog::all_snapshots)?;
    let mut again = again(&mut old, repository, &objects, &known_snapshots)?;
    let config = match objects.configs.first() {
        Some(stored) => Record::There(stored.file),
        None => {
            let created = ask(&mut old, Catalog::created)?.or_else(|| first_began(&objects)).unwrap_or(0);
            Record::New(records::config(repository, created))
        }
    };
    let mut sequence = ask(&mut old, |catalog| catalog.identity().map(|(_, sequence)| sequence))?;
    let given = objects.manifests.iter().map(|stored| stored.what.sequence);
    let given = given.chain(objects.tombstones.iter().map(|stored| stored.what.sequence));
    sequence = given.fold(sequence, u64::max);
    let registered = ask(&mut old, registrations)?;
    let manifests: HashSet<Hash> = match old.condition {
        Condition::Good => known_snapshots.iter().map(|known| known.snapshot.manifest).collect(),
        _ => HashSet::new(),
    };

    let (mut picture, search, Judgement { aside, back }) = loop {
        let mut picture = Picture::new(&objects, &again, &manifests, sequence);
        let mut search = Search::new(&picture, &objects, layout, counters);
        let files = databases(&picture, layout);
        search.in_damaged(&objects, old.catalog.as_ref(), monitor)?;
        for folder in &damaged_folders {
            search.sources.damaged_files += search.in_folder(folder, monitor)?;
        }
        search.in_databases(&files, monitor)?;
        for file in links::paths(layout)? {
            search.sources.databases += search.in_file(&file, None, monitor)?;
        }
        for folder in &copies_of.folders {
            search.sources.copies += search.in_folder(folder, monitor)?;
        }
        for file in &copies_of.files {
            search.sources.copies += search.in_file(file, None, monitor)?;
        }
        indexes::make_again(&mut picture, &objects, &mut search, &files, monitor)?;
        let judgement = picture.judge(|hash| objects.has(hash) || search.found.contains_key(hash));
        let doubtful = judgement.aside.iter().map(|one| &picture.snapshots[one.at].manifest);
        let gone: Vec<(Uid, String)> = doubtful
            .filter(|manifest| again.doubtful.contains(&manifest.uid))
            .map(|manifest| (manifest.uid, manifest.id.clone()))
            .collect();
        if gone.is_empty() {
            break (picture, search, judgement);
        }
        for (uid, id) in gone {
            again.manifests.retain(|manifest| manifest.uid != uid);
            again.alone.remove(&uid);
            again.forgotten.push(id);
        }
    };
    let lost_blobs = blob_lists::settle(&mut picture, |hash| objects.has(hash) || search.found.contains_key(hash));
    let Again { forgotten, made, alone, .. } = again;
    let known = named.iter().map(|file| (file.name, (file.kind, made.contains(&file.name)))).collect();
    let is_alone = |chosen: &&Chosen| alone.contains(&chosen.manifest.uid);
    let alone = picture.snapshots.iter().filter(is_alone).map(|chosen| chosen.manifest.id.clone()).collect();
    let there = objects.files();
    let found_again = lost_before.into_iter().filter(|name| there.contains_key(name)).collect();
    Ok(Examined {
        catalog_knows: old.is_current(),
        condition: old.condition,
        objects,
        copies,
        replaced,
        missing,
        config,
        picture,
        search,
        folders: copies_of.folders,
        lost_blobs,
        registered,
        sequence,
        uncommitted,
        found_again,
        lost: Vec::new(),
        aside,
        back,
        forgotten,
        alone,
        known,
        repository,
    })
}

/// The identity that most of the object files name.
fn repository_of(objects: &Objects, old: &mut Old, layout: &Layout) -> Result<Uid> {
    let configs = objects.configs.iter().map(|stored| stored.what.repository);
    let manifests = objects.manifests.iter().map(|stored| stored.what.repository);
    let tombstones = objects.tombstones.iter().map(|stored| stored.what.repository);
    let mut votes: HashMap<Uid, usize> = HashMap::new();
    for uid in configs.chain(manifests).chain(tombstones) {
        *votes.entry(uid).or_default() += 1;
    }
    if let Some((uid, _)) = votes.into_iter().max_by_key(|(uid, votes)| (*votes, *uid)) {
        return Ok(uid);
    }
    let known: Option<Uid> = ask(old, |catalog| catalog.repository().map(|(uid, _)| Some(uid)))?;
    known.ok_or_else(|| {
        Error::damaged(format!("no object file in {} says what repository this was", layout.objects().display()))
            .hint("put .znap back from a copy")
    })
}

/// When init saw the first database: it notes the same time in the config.
fn first_began(objects: &Objects) -> Option<i64> {
    let entries = objects.manifests.iter().flat_map(|stored| &stored.what.databases);
    entries.map(|entry| entry.generation.began).min()
}

fn registrations(catalog: &Catalog) -> Result<Vec<Registration>> {
    let databases = catalog.databases()?.into_iter();
    let registration = |database: crate::repository::catalog::Database| Registration {
        uid: database.uid,
        name: database.name,
        path: database.path,
        generation: database.generation.known,
        keep_base: database.keep_base,
        tracked: database.tracked,
        blobs: database.blobs,
    };
    Ok(databases.map(registration).collect())
}

type Taken = (Vec<(Hash, ObjectKind, PathBuf)>, Vec<DamagedFile>);

/// Finds whole copies of damaged and missing object files, and of those that were lost before, and counts them among those that
/// are there.
fn take_copies(
    objects: &mut Objects,
    missing: &mut Vec<ObjectFile>,
    lost_before: &[Hash],
    copies: &Copies,
    repository: Uid,
    monitor: &dyn Monitor,
) -> Result<Taken> {
    let (mut taken, mut replaced) = (Vec::new(), Vec::new());
    let whole = objects.files();
    let wanted = objects.damaged.iter().map(|file| file.name).chain(missing.iter().map(|file| file.name));
    let wanted: BTreeSet<Hash> = wanted.chain(lost_before.iter().copied()).collect();
    for name in wanted.into_iter().filter(|name| !whole.contains_key(name)) {
        for folder in &copies.folders {
            let path = folder.join(name.to_string());
            if fs::symlink_metadata(&path).is_err() {
                continue;
            }
            let (bytes, found) = examine_file(&path, &name, monitor)?;
            let kind = match &found {
                Found::Data(_) => ObjectKind::Data,
                Found::Manifest(_) => ObjectKind::Manifest,
                Found::Tombstone(_) => ObjectKind::Tombstone,
                Found::Config(_) => ObjectKind::Config,
                Found::Unknown | Found::Damaged(_) => continue,
            };
            objects.add(name, bytes, found);
            taken.push((name, kind, path));
            missing.retain(|file| file.name != name);
            replaced.extend(objects.damaged.iter().filter(|file| file.name == name).cloned());
            objects.damaged.retain(|file| file.name != name);
            break;
        }
    }
    objects.expel_others(repository);
    objects.expel_contradictions();
    objects.locate_chunks();
    // What is no better than what is there stays away.
    let is_expelled = |name: &Hash| objects.damaged.iter().any(|file| file.name == *name);
    taken.retain(|(name, ..)| !is_expelled(name));
    replaced.retain(|file: &DamagedFile| !is_expelled(&file.name));
    Ok((taken, replaced))
}

impl Examined {
    /// The repository's identity.
    pub(super) fn repository(&self) -> Uid {
        self.repository
    }

    /// Whether anything has to be changed.
    pub(super) fn needs_change(&self) -> bool {
        self.condition != Condition::Good
            || self.picture.snapshots.iter().any(Chosen::lacks_record)
            || !self.objects.damaged.is_empty()
            || !self.replaced.is_empty()
            || !self.missing.is_empty()
            || !self.copies.is_empty()
            || !self.search.found.is_empty()
            || matches!(self.config, Record::New(_))
    }

    /// What is to be said about it.
    pub(super) fn report(&self) -> Result<RepairReport> {
        let mut lost: HashSet<Hash> = self.lost_blobs.chunks.clone();
        for (_, _, entry, upto) in self.picture.entries() {
            let own = own_chunks(entry).filter(|(offset, _)| *offset < upto);
            let pieces = parts(entry).flat_map(|(_, part)| &part.chunks);
            let all = own.map(|(_, chunk)| chunk.hash).chain(pieces.map(|chunk| chunk.hash));
            lost.extend(all.filter(|hash| !self.objects.has(hash) && !self.search.found.contains_key(hash)));
        }
        let mut damaged_files: Vec<DamagedObject> = Vec::new();
        for file in &self.replaced {
            damaged_files.push(self.damaged(file.name, file.kind, &file.reason, Some(true), &lost));
        }
        for file in &self.objects.damaged {
            let from_table = file.frames.as_ref().map(|frames| {
                let mut chunks = frames.iter().flat_map(|frame| &frame.chunks);
                chunks.all(|(hash, _)| !lost.contains(hash))
            });
            damaged_files.push(self.damaged(file.name, file.kind, &file.reason, from_table, &lost));
        }
        for (name, kind, _) in
            self.copies.iter().filter(|(name, ..)| !self.replaced.iter().any(|file| file.name == *name))
        {
            damaged_files.push(self.damaged(*name, Some(*kind), "it is missing", Some(true), &lost));
        }
        for file in &self.missing {
            damaged_files.push(self.damaged(file.name, Some(file.kind), "it is missing", None, &lost));
        }
        let set_aside = self.aside.iter().map(|one| {
            let manifest = &self.picture.snapshots[one.at].manifest;
            let databases = manifest.databases.iter().zip(&one.gaps);
            let missing =
                databases.filter_map(|(entry, gaps)| in_words(&entry.name, &gaps.ranges, gaps.index)).collect();
            SetAside { id: manifest.id.clone(), missing, before: one.before }
        });
        let ids: HashSet<&str> = self.objects.manifests.iter().map(|stored| stored.what.id.as_str()).collect();
        let live = || self.picture.snapshots.iter().filter(|chosen| !chosen.is_deleted());
        Ok(RepairReport {
            catalog_problem: match &self.condition {
                Condition::Good => None,
                Condition::Missing => Some("it is missing".into()),
                Condition::Damaged(reason) => Some(reason.clone()),
                Condition::Outdated(reason) => Some(format!("it is older than the object files: {reason}")),
            },
            catalog_rebuilt: self.needs_change(),
            snapshots: live().filter(|chosen| !chosen.manifest.id.starts_with(id::BASE)).count() as u64,
            damaged_files,
            found: self.search.sources,
            chunks_lost: lost.len() as u64,
            blobs_lost: self.lost_blobs.blobs.len() as u64,
            set_aside: set_aside.collect(),
            brought_back: self.back.clone(),
            renamed: live()
                .map(|chosen| chosen.manifest.id.clone())
                .filter(|id| id.contains('+') && !ids.contains(id.as_str()))
                .collect(),
            forgotten: self.forgotten.clone(),
            from_catalog: self.alone.clone(),
            unknown_files: self.objects.unknown.clone(),
            ..RepairReport::default()
        })
    }

    fn damaged(
        &self,
        name: Hash,
        kind: Option<ObjectKind>,
        problem: &str,
        made_good: Option<bool>,
        lost: &HashSet<Hash>,
    ) -> DamagedObject {
        let known = self.known.get(&name);
        let kind = kind.or(known.map(|(kind, _)| *kind));
        let made_good = made_good.unwrap_or(match (kind, known) {
            (Some(ObjectKind::Config), _) => true,
            (Some(ObjectKind::Data), _) => lost.is_empty(),
            // A good catalog knows every manifest that is there: this one's is not.
            (Some(ObjectKind::Tombstone), Some((_, made))) => *made || self.condition == Condition::Good,
            (_, Some((_, made))) => *made,
            // A catalog that knows all has no need of it.
            (_, None) => self.catalog_knows,
        });
        DamagedObject { name: name.to_string(), kind: word(kind), problem: problem.into(), made_good }
    }
}
