//! The databases that a configuration names.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::filestorage::configuration::address::Address;
use crate::filestorage::configuration::{Environment, Place, Section, parse};

/// Sections of a zeo.conf that are no storages.
const NO_STORAGES: [&str; 3] = ["zeo", "runner", "eventlog"];
/// Storages that are in each other, or ZEO servers that ask each other, are no deeper than this.
const DEEPEST: usize = 50;

/// What some configurations name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfiguredSite {
    /// The databases that are files, in their order.
    pub databases: Vec<ConfiguredDatabase>,
    /// What was chosen or left out, and why.
    pub notes: Vec<String>,
}

/// A database in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredDatabase {
    /// Its name there.
    pub name: Option<String>,
    /// Its file. A relative path is seen from the directory that the server is started in.
    pub file: PathBuf,
    /// The directory of its blobs.
    pub blobs: Option<PathBuf>,
    /// Where it stands.
    pub place: Place,
}

/// A ZEO server's configuration.
struct Server {
    file: PathBuf,
    address: Address,
    storages: Vec<Section>,
}

/// What a storage's section comes to.
enum Storage {
    File { file: PathBuf, blobs: Option<PathBuf> },
    Memory,
}

/// Finds the databases in a `zope.conf`; where it is a client of a ZEO server, in the `zeo.conf` beside it. Without a `zope.conf`, all
/// that the ZEO servers serve.
pub fn find(files: &[PathBuf], environment: Environment<'_>) -> Result<ConfiguredSite> {
    let mut finder = Finder { servers: Vec::new(), environment, site: ConfiguredSite::default() };
    let mut databases = Vec::new();
    for file in files {
        let whole = parse::read(file, environment)?;
        let is_database = |section: &Section| matches!(section.kind.as_str(), "zodb_db" | "zodb");
        if let Some(zeo) = whole.sections.iter().find(|section| section.kind == "zeo") {
            finder.servers.push(server(file, zeo, &whole)?);
        } else if whole.sections.iter().any(is_database) {
            databases.extend(whole.sections.into_iter().filter(is_database));
        } else {
            return Err(Error::usage(format!("{} has neither a <zodb_db> nor a <zeo> section", file.display()))
                .hint("name a zope.conf or a zeo.conf"));
        }
    }
    if databases.is_empty() {
        for storage in finder.servers.iter().flat_map(|server| server.storages.clone()).collect::<Vec<_>>() {
            finder.add(&storage, &storage)?;
        }
    }
    for database in &databases {
        finder.add(database, only_storage(database)?)?;
    }
    if finder.site.databases.is_empty() {
        let named: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        return Err(Error::usage(format!("no database of {} is kept in a file", named.join(", "))));
    }
    Ok(finder.site)
}

struct Finder<'a> {
    servers: Vec<Server>,
    environment: Environment<'a>,
    site: ConfiguredSite,
}

impl Finder<'_> {
    /// Adds the database that a section is, whose storage is another one, or the same.
    fn add(&mut self, database: &Section, storage: &Section) -> Result<()> {
        let about = format!("{database} ({})", database.place);
        match self.storage(storage, None, 0)? {
            Storage::Memory => self.site.notes.push(format!("{about} is kept in memory, and left out")),
            // Two clients of one server have the same databases.
            Storage::File { file, .. } if self.site.databases.iter().any(|other| other.file == file) => {
                self.site.notes.push(format!("{about} is in {}, which was named already", file.display()));
            }
            Storage::File { file, blobs } => {
                let (name, place) = (database.name.clone(), database.place.clone());
                self.site.databases.push(ConfiguredDatabase { name, file, blobs, place });
            }
        }
        Ok(())
    }

    /// What a storage comes to. Of several blob directories, the outermost is used.
    fn storage(&mut self, section: &Section, blobs: Option<PathBuf>, depth: usize) -> Result<Storage> {
        if depth > DEEPEST {
            return Err(section.place.error("this ZEO server asks itself"));
        }
        match section.kind.as_str() {
            "filestorage" => {
                let file = required(section, "path")?;
                let own = section.value("blob-dir")?.filter(|directory| !directory.is_empty());
                let own = own.map(|directory| self.expanded(directory, section)).transpose()?;
                Ok(Storage::File { file: self.expanded(file, section)?, blobs: blobs.or(own) })
            }
            "blobstorage" => {
                let own = PathBuf::from(required(section, "blob-dir")?);
                self.storage(only_storage(section)?, blobs.or(Some(own)), depth + 1)
            }
            "zlibstorage" | "serverzlibstorage" => self.storage(only_storage(section)?, blobs, depth + 1),
            "demostorage" => self.demo_storage(section, blobs, depth),
            "zeoclient" | "clientstorage" => {
                let storage = self.served(section)?;
                // The client's own blob-dir is a cache, or the server's seen from here.
                self.storage(&storage, None, depth + 1)
            }
            "temporarystorage" | "mappingstorage" => Ok(Storage::Memory),
            "relstorage" => Err(section
                .place
                .error(format!("RelStorage is not supported yet: {section}"))
                .hint("name the FileStorages that znap is to look after: znap init var/filestorage/Data.fs")),
            _ => Err(section.place.error(format!("znap doesn't know the storage {section}")).hint(
                "name the files, if they are FileStorages: znap init var/filestorage/Data.fs --blobs var/blobstorage",
            )),
        }
    }

    /// What is written goes to the changes, and the base stays as it is. Without changes, or with changes in memory, the base is all
    /// there is.
    fn demo_storage(&mut self, section: &Section, blobs: Option<PathBuf>, depth: usize) -> Result<Storage> {
        let (mut changes, mut base) = (None, None);
        for inner in &section.sections {
            let part = if inner.name.as_deref() == Some("changes") { &mut changes } else { &mut base };
            if part.replace(inner).is_some() {
                return Err(inner.place.error(format!("{section} has one storage too many")));
            }
        }
        for (part, what) in [(changes, "changes"), (base, "base")] {
            if let Some(part) = part
                && let Storage::File { file, blobs } = self.storage(part, blobs.clone(), depth + 1)?
            {
                self.site.notes.push(format!(
                    "of {section} ({}), the file of its {what} is tracked: {}",
                    section.place,
                    file.display()
                ));
                return Ok(Storage::File { file, blobs });
            }
        }
        Ok(Storage::Memory)
    }

    /// The storage that a ZEO client asks for, in the configuration of its server.
    fn served(&self, client: &Section) -> Result<Section> {
        let servers = client.values("server")?;
        let (asked, place) = *servers.first().ok_or_else(|| client.place.error(format!("{client} has no server")))?;
        let wanted = client.value("storage")?.unwrap_or("1");
        let mut addresses = Vec::new();
        for (text, place) in &servers {
            addresses.push(
                Address::parse(text).ok_or_else(|| {
                    place.error(format!("{text} is no address of a ZEO server, such as localhost:8100"))
                })?,
            );
        }
        let hint = "on the host of that ZEO server, name its configuration too: --zope-conf zeo.conf";
        let reached = |server: &&Server| addresses.iter().any(|address| address.reaches(&server.address));
        let found = self.servers.iter().find(reached);
        let server = found.ok_or_else(|| {
            let what = match self.servers.as_slice() {
                [] => "its configuration was not named".to_string(),
                servers => {
                    let named: Vec<String> = servers.iter().map(|server| server.file.display().to_string()).collect();
                    format!("it is not the one of {} on this host", named.join(", "))
                }
            };
            place.error(format!("the database is kept by the ZEO server {asked}, and {what}")).hint(hint)
        })?;
        let storage = server.storages.iter().find(|storage| storage.name.as_deref().unwrap_or("1") == wanted);
        storage.cloned().ok_or_else(|| {
            client.place.error(format!("{} serves no storage called {wanted}", server.file.display())).hint(hint)
        })
    }

    /// A path with the home directory in place of `~`, as ZODB takes a FileStorage's.
    fn expanded(&self, path: &str, section: &Section) -> Result<PathBuf> {
        let Some(rest) = path.strip_prefix('~') else { return Ok(path.into()) };
        match (self.environment)("HOME").filter(|_| rest.is_empty() || rest.starts_with('/')) {
            Some(home) => Ok(Path::new(&home).join(rest.trim_start_matches('/'))),
            None => {
                Err(section.place.error(format!("it can't be told where {path} is")).hint("write the path out there"))
            }
        }
    }
}

fn server(file: &Path, zeo: &Section, whole: &Section) -> Result<Server> {
    let address = required(zeo, "address")?;
    let address = Address::parse(address)
        .ok_or_else(|| zeo.place.error(format!("{address} is no address to listen on, such as localhost:8100")))?;
    let is_storage = |section: &&Section| !NO_STORAGES.contains(&section.kind.as_str());
    let storages = whole.sections.iter().filter(is_storage).cloned().collect();
    Ok(Server { file: file.to_path_buf(), address, storages })
}

fn required<'a>(section: &'a Section, key: &str) -> Result<&'a str> {
    let value = section.value(key)?.filter(|value| !value.is_empty());
    value.ok_or_else(|| section.place.error(format!("{section} has no {key}")))
}

fn only_storage(section: &Section) -> Result<&Section> {
    match section.sections.as_slice() {
        [only] => Ok(only),
        [] => Err(section.place.error(format!("{section} has no storage in it"))),
        [_, second, ..] => Err(second.place.error(format!("{section} has a second storage"))),
    }
}
