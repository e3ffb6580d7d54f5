//! Databases are found where Zope's and ZEO's configuration has them; the real ZConfig, ZODB and ZEO say where that is.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Sandbox, Zodb, zodb};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use znap::error::Kind;
use znap::filestorage::configuration::{Key, Section, find, parse};

/// What the environment is here.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn tree(section: &Section) -> Value {
    let keys: Vec<Value> = section
        .keys
        .iter()
        .map(|key| json!([key.name, key.value.as_ref().expect("it stands for something")]))
        .collect();
    json!([section.kind, section.name, keys, section.sections.iter().map(tree).collect::<Vec<_>>()])
}

/// The first key whose value can't be told.
fn unknown(section: &Section) -> Option<&Key> {
    let own = section.keys.iter().find(|key| key.value.is_err());
    own.into_iter().chain(section.sections.iter().filter_map(unknown)).min_by_key(|key| key.place.line)
}

/// Reads a file as ZConfig does, or refuses the line that it refuses.
fn compare(oracle: &mut Zodb, path: &Path) {
    let said = oracle.run(&["zconfig", path.to_str().unwrap()]);
    let found = parse::read(path, &environment);
    let text = || fs::read_to_string(path).unwrap();
    let line = said["line"].as_u64().filter(|line| *line > 0);
    match (&found, said["error"].as_str()) {
        (Ok(section), None) => assert_eq!(tree(section), said["tree"], "{}", text()),
        (Ok(section), Some(error)) => {
            let key = unknown(section).unwrap_or_else(|| panic!("taken, but {error}:\n{}", text()));
            assert!(line.is_none_or(|line| line == key.place.line as u64), "{key:?}, but {error}:\n{}", text());
        }
        (Err(error), None) => panic!("{error}, but ZConfig takes it:\n{}", text()),
        (Err(error), Some(other)) => {
            assert_eq!(error.kind(), Kind::Usage, "{error}");
            let words = error.to_string();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(words.contains(name) && !words.contains('\n'), "one line that names the file: {words}");
            // What `$` stands for is asked later, and where a section began that has no end says more.
            if other.contains("unclosed") {
                assert!(words.contains("has no end"), "{words}, but {other}");
            } else if let Some(line) = line.filter(|_| !other.contains("no replacement")) {
                assert!(words.contains(&format!("line {line}:")), "{words}, but {other}:\n{}", text());
            }
        }
    }
}

#[test]
fn zconfig_reads_the_same() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.file("more")).unwrap();
    fs::write(
        sandbox.file("more/included.conf"),
        "%define Deeper ${where}/deeper\ninner $deeper\n%include last.conf\n",
    )
    .unwrap();
    fs::write(sandbox.file("more/last.conf"), "<Last Name/>\n").unwrap();
    let path = sandbox.file("zope.conf");
    fs::write(
        &path,
        "# a comment\n%define WHERE /srv/zope\n%define where /srv/zope\n\n  Path $Where/Data.fs  # no comment\r\n\
         price 5$$\nhome $(PATH)\nempty\n%import zc.zlibstorage\n<Zodb_DB  Main >\n%include more/included.conf\n\
         key(odd) value\n  <a/>\n <b C />\n</ZODB_db >\nlast ${WHERE}x$Where-y\n",
    )
    .unwrap();
    let mut oracle = Zodb::start();
    compare(&mut oracle, &path);
    let found = parse::read(&path, &environment).unwrap();
    assert_eq!(found.value("path").unwrap(), Some("/srv/zope/Data.fs  # no comment"));
    assert_eq!(found.sections[0].value("inner").unwrap(), Some("/srv/zope/deeper"));
}

/// Lines of which configurations, and nonsense, are made.
const LINES: [&str; 45] = [
    "",
    "# c",
    "<a>",
    "<A b>",
    "</a>",
    "</A >",
    "<a/>",
    "<a b/>",
    "<b  c>",
    "</b>",
    "</c>",
    "<",
    ">",
    "<>",
    "</",
    "</>",
    "<a",
    "a>",
    "< a>",
    "</ a>",
    "<a b c>",
    "<a (b)>",
    "%",
    "%define",
    "%define x 1",
    "%define X 2",
    "%define x $y",
    "%define y ${x}/z",
    "%define 1 x",
    "%define z",
    "% define x 1",
    "%Define x 1",
    "%include",
    "%include other.conf",
    "%include $y",
    "%import",
    "%import some.thing",
    "k $x",
    "K ${y} v",
    "k $$x $",
    "k ${x",
    "k $(PATH",
    "k $(NO_SUCH_NAME)",
    "(k) v",
    "k\tv = w",
];

#[test]
fn nonsense_is_refused_where_zconfig_refuses_it() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.file("other.conf"), "%define other 1\nk v\n<o>\n</o>\n").unwrap();
    let path = sandbox.file("zope.conf");
    let oracle = RefCell::new(Zodb::start());
    let lines = prop::collection::vec(prop::sample::select(&LINES[..]), 0..10);
    let mut runner = TestRunner::new(Config { cases: 500, failure_persistence: None, ..Config::default() });
    runner
        .run(&lines, |lines| {
            fs::write(&path, lines.join("\n")).unwrap();
            compare(&mut oracle.borrow_mut(), &path);
            Ok(())
        })
        .unwrap();
    let mut runner = TestRunner::new(Config { cases: 500, failure_persistence: None, ..Config::default() });
    runner
        .run(&"([%<$/>{}() \ta-c1#]{0,12}\n){0,4}", |text| {
            fs::write(&path, text).unwrap();
            compare(&mut oracle.borrow_mut(), &path);
            Ok(())
        })
        .unwrap();
}

/// A site in a directory: its configurations, and what real ZODB or ZEO makes of one.
struct Site {
    sandbox: Sandbox,
}

impl Site {
    fn new(files: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.file("var")).unwrap();
        for (name, text) in files {
            fs::write(sandbox.file(name), text.replace("[DIR]", sandbox.path().to_str().unwrap())).unwrap();
        }
        Site { sandbox }
    }

    /// What real software opens: names, files, directories of blobs.
    fn opened(&self, command: &str, name: &str) -> Value {
        zodb(&[command, self.sandbox.file(name).to_str().unwrap()])
    }

    /// What znap finds, in the same form.
    fn found(&self, names: &[&str]) -> (Value, Vec<String>) {
        let files: Vec<PathBuf> = names.iter().map(|name| self.sandbox.file(name)).collect();
        let site = find(&files, &environment).unwrap();
        let databases = site.databases.iter().map(|database| {
            let blobs = database.blobs.as_ref().map(|directory| self.sandbox.file(directory));
            json!([database.name, self.sandbox.file(&database.file), blobs])
        });
        (databases.collect(), site.notes)
    }

    /// The message of `init --zope-conf`, which exits with this code.
    fn refused(&self, names: &[&str], code: i32) -> String {
        let args = names.iter().flat_map(|name| ["--zope-conf", name]);
        let output = self.sandbox.znap(&["init"].into_iter().chain(args).collect::<Vec<_>>());
        assert_eq!(output.code, code, "{output:?}");
        assert!(!self.sandbox.file(".znap").exists());
        output.stderr
    }
}

/// As buildout writes it, with what else ZODB has.
const ZOPE_CONF: &str = "\
%define INSTANCE [DIR]
%define VAR $INSTANCE/var
instancehome $INSTANCE
%import zc.zlibstorage
<zodb_db main>
    cache-size 30000
    <blobstorage>
      blob-dir $VAR/blobstorage
      <zlibstorage>
        <filestorage>
          path ${VAR}/Data.fs
        </filestorage>
      </zlibstorage>
    </blobstorage>
    mount-point /
</zodb_db>
%include more.conf
<zodb_db temporary>
    <temporarystorage>
      name temporary storage for sessioning
    </temporarystorage>
    mount-point /temp_folder
    container-class Products.TemporaryFolder.TemporaryContainer
</zodb_db>
";

const MORE_CONF: &str = "\
<zodb_db Catalog>
    mount-point /catalog
    <FileStorage>
      PATH var/catalog.fs
      blob-dir var/catalog-blobs
    </FileStorage>
</zodb_db>
<zodb_db demo>
    mount-point /demo
    <demostorage>
      <filestorage>
        path $VAR/base.fs
      </filestorage>
      <filestorage changes>
        path $VAR/changes.fs
      </filestorage>
    </demostorage>
</zodb_db>
";

#[test]
fn zope_opens_the_same_files() {
    let site = Site::new(&[("zope.conf", ZOPE_CONF), ("more.conf", MORE_CONF)]);
    let opened = site.opened("zope-conf", "zope.conf");
    let (found, notes) = site.found(&["zope.conf"]);
    assert_eq!(found, opened);
    assert_eq!(found.as_array().unwrap().len(), 3, "{found}");
    assert!(
        notes.iter().any(|note| note.starts_with("<zodb_db temporary>") && note.contains("in memory")),
        "{notes:?}"
    );
    assert!(notes.iter().any(|note| note.contains("the file of its changes is tracked: ")), "{notes:?}");
    // And znap starts with them.
    let output = site.sandbox.znap(&["init", "--zope-conf", "zope.conf"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("<zodb_db temporary> (zope.conf, line 18) is kept in memory"), "{output:?}");
    let status: Value = serde_json::from_str(&site.sandbox.znap_ok(&["status", "--json"])).unwrap();
    let names: Vec<&str> =
        status["databases"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["main", "catalog", "demo"]);
    assert_eq!(status["databases"][1]["path"], "var/catalog.fs");
    site.sandbox.znap_ok(&["save", "one"]);
}

const ZEO_CONF: &str = "\
<zeo>
  address 127.0.0.1:8100
</zeo>
<blobstorage 1>
  blob-dir var/blobs
  <filestorage>
    path var/Data.fs
  </filestorage>
</blobstorage>
<filestorage Other>
  path var/other.fs
</filestorage>
<runner>
  program true
</runner>
";

const CLIENT_CONF: &str = "\
<zodb_db main>
    mount-point /
    <zeoclient>
      server localhost:8100
      storage 1
      blob-dir [DIR]/cache
    </zeoclient>
</zodb_db>
";

#[test]
fn zeo_opens_the_same_files() {
    let site = Site::new(&[("zeo.conf", ZEO_CONF), ("zope.conf", CLIENT_CONF)]);
    let opened = site.opened("zeo-conf", "zeo.conf");
    assert_eq!(site.found(&["zeo.conf"]).0, opened);
    assert_eq!(opened.as_array().unwrap().len(), 2, "{opened}");
    // The client's database is the server's, under the client's name, in whichever order they are named.
    let expected = json!([["main", opened[0][1], opened[0][2]]]);
    assert_eq!(site.found(&["zope.conf", "zeo.conf"]).0, expected);
    assert_eq!(site.found(&["zeo.conf", "zope.conf"]).0, expected);
    // One of several servers that have the same.
    let more = CLIENT_CONF.replace("server localhost:8100", "server db.example.org:8100\n      server localhost:8100");
    fs::write(site.sandbox.file("more.conf"), more.replace("[DIR]", ".")).unwrap();
    assert_eq!(site.found(&["more.conf", "zeo.conf"]).0, expected);
    let alone = site.refused(&["zope.conf"], 2);
    assert!(alone.contains("zope.conf, line 4: the database is kept by the ZEO server localhost:8100"), "{alone}");
    assert!(alone.contains("hint: on the host of that ZEO server, name its configuration too"), "{alone}");
    for (from, to, words) in [
        ("localhost:8100", "localhost:8200", "it is not the one of zeo.conf on this host"),
        ("localhost:8100", "db.example.org:8100", "it is not the one of zeo.conf on this host"),
        ("localhost:8100", "localhost", "is no address of a ZEO server"),
        ("storage 1", "storage 7", "zeo.conf serves no storage called 7"),
    ] {
        let other = Site::new(&[("zeo.conf", ZEO_CONF), ("zope.conf", &CLIENT_CONF.replace(from, to))]);
        let refused = other.refused(&["zope.conf", "zeo.conf"], 2);
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn what_znap_cannot_take_is_named() {
    let database = |storage: &str| format!("# first\n<zodb_db main>\n{storage}\n</zodb_db>\n");
    for (storage, words) in [
        (
            "<relstorage>\n<postgresql>\ndsn $nothing\n</postgresql>\n</relstorage>",
            "line 3: RelStorage is not supported yet: <relstorage>",
        ),
        (
            "<blobstorage>\nblob-dir b\n<relstorage x>\n</relstorage>\n</blobstorage>",
            "line 5: RelStorage is not supported yet",
        ),
        ("<directorystorage>\n</directorystorage>", "line 3: znap doesn't know the storage <directorystorage>"),
        ("", "line 2: <zodb_db main> has no storage in it"),
        ("<filestorage/>\n<filestorage/>", "line 4: <zodb_db main> has a second storage"),
        ("<filestorage/>", "line 3: <filestorage> has no path"),
        ("<filestorage>\npath a\npath b\n</filestorage>", "line 5: path is given twice"),
        ("<filestorage>\npath $here/Data.fs\n</filestorage>", "line 4: here was not given a value with %define"),
        ("<filestorage>\npath ~someone/Data.fs\n</filestorage>", "line 3: it can't be told where ~someone/Data.fs is"),
        ("<blobstorage>\n<filestorage/>\n</blobstorage>", "line 3: <blobstorage> has no blob-dir"),
        ("<mappingstorage/>", "no database of zope.conf is kept in a file"),
        ("%include zope.conf", "line 2: sections lie too deep"),
        ("%include missing.conf", "line 3: cannot open the configuration missing.conf"),
        ("%include http://example.org/zope.conf", "line 3: znap includes files only"),
    ] {
        let site = Site::new(&[("zope.conf", &database(storage))]);
        let code = if storage.contains("missing") { 1 } else { 2 };
        let refused = site.refused(&["zope.conf"], code);
        assert!(refused.contains(words), "{words:?} is not in {refused}");
    }
    let site =
        Site::new(&[("zope.conf", &database("<filestorage>\npath var/Data.fs\n</filestorage>")), ("other", "a b\n")]);
    let missing = site.refused(&["zope.conf"], 5);
    assert!(missing.contains("zope.conf, line 2: ") && missing.contains("seen from here"), "{missing}");
    assert!(site.refused(&["other"], 2).contains("other has neither a <zodb_db> nor a <zeo> section"));
    fs::write(site.sandbox.file("loop"), "%include loop\n").unwrap();
    assert!(site.refused(&["loop"], 2).contains("loop, line 1: too many files are included"));
    fs::write(site.sandbox.file("binary"), b"a b\n\xff\xfe\n").unwrap();
    assert!(site.refused(&["binary"], 2).contains("binary, line 2: this is not UTF-8 text"));
    fs::write(site.sandbox.file("deep"), "<a>\n".repeat(100_000)).unwrap();
    assert!(site.refused(&["deep"], 2).contains("deep, line 51: sections lie too deep"));
    fs::write(site.sandbox.file("large"), "# nothing\n".repeat(500_000)).unwrap();
    assert!(site.refused(&["large"], 2).contains("large is too large"));
}

/// Each line could double what the one before stands for.
#[test]
fn what_is_defined_stays_short() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("zope.conf");
    let lines = (1..26).map(|number| format!("%define b{number} $b{0}$b{0}\n", number - 1));
    fs::write(&path, format!("%define b0 xx\n{}", lines.collect::<String>())).unwrap();
    let error = parse::read(&path, &environment).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("zope.conf, line 17: ") && error.to_string().contains("64 KiB"), "{error}");
    // Nor may many of them together be long.
    let long = format!("%define long {}\n", "x".repeat(60_000));
    fs::write(&path, format!("{long}{}", "key $long\n".repeat(2000))).unwrap();
    let found = parse::read(&path, &environment).unwrap();
    let bytes: usize = found.keys.iter().map(|key| key.value.as_ref().map_or(0, String::len)).sum();
    assert!(bytes > 10_000_000 && bytes < 40_000_000, "{bytes}");
    assert!(found.values("key").unwrap_err().to_string().contains("too long"));
}
