//! ZConfig's syntax: sections, keys, `%define`, `%include`, and what `$` stands for.
//!
//! As ZConfig itself reads it, with two differences: any section and key is taken, because no schema says which there are; and a
//! value with a `$name` that isn't defined is an error only if the value is asked for.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, IoContext, Result};
use crate::filestorage::configuration::Environment;

/// No configuration is larger, includes more files, or has sections in sections as deep as this.
const LARGEST: u64 = 4 << 20;
const MOST_FILES: usize = 100;
const DEEPEST: usize = 50;
/// What a text may become once `$` in it is replaced, and all of them together: each `%define` could double the one before.
const LONGEST: usize = 64 << 10;
const LONGEST_TOGETHER: usize = 32 << 20;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<Path>,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)
    }
}

impl Place {
    /// An error about what stands here.
    pub fn error(&self, what: impl fmt::Display) -> Error {
        Error::usage(format!("{self}: {what}"))
    }
}

/// A section, or a whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its type, in lower case; empty for a whole configuration.
    pub kind: String,
    /// Its name, in lower case.
    pub name: Option<String>,
    /// Where it begins.
    pub place: Place,
    /// Its keys, in their order.
    pub keys: Vec<Key>,
    /// The sections in it.
    pub sections: Vec<Section>,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name, in lower case.
    pub name: String,
    /// Its value, or why `$` in it stands for nothing.
    pub value: Result<String, String>,
    /// Where it stands.
    pub place: Place,
}

impl Section {
    /// The values of a key, in their order.
    pub fn values(&self, name: &str) -> Result<Vec<(&str, &Place)>> {
        let keys = self.keys.iter().filter(|key| key.name == name);
        keys.map(|key| match &key.value {
            Ok(value) => Ok((value.as_str(), &key.place)),
            Err(reason) => Err(key.place.error(reason)),
        })
        .collect()
    }

    /// The value of a key that may be there once.
    pub fn value(&self, name: &str) -> Result<Option<&str>> {
        match self.values(name)?.as_slice() {
            [] => Ok(None),
            [(value, _)] => Ok(Some(value)),
            [_, (_, second), ..] => Err(second.error(format!("{name} is given twice"))),
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "<{} {name}>", self.kind),
            None => write!(f, "<{}>", self.kind),
        }
    }
}

/// Reads a configuration, with the files that it includes.
pub fn read(path: &Path, environment: Environment<'_>) -> Result<Section> {
    let place = Place { file: path.into(), line: 1 };
    let mut whole = Section { kind: String::new(), name: None, place, keys: Vec::new(), sections: Vec::new() };
    let mut reader = Reader { defines: HashMap::new(), environment, files: 0, depth: 0, replaced: 0 };
    reader.file(path, &mut whole)?;
    Ok(whole)
}

/// What is known on the way.
struct Reader<'a> {
    defines: HashMap<String, String>,
    environment: Environment<'a>,
    files: usize,
    depth: usize,
    /// How much all texts have become until now.
    replaced: usize,
}

impl Reader<'_> {
    /// Adds what a file has to a section.
    fn file(&mut self, path: &Path, into: &mut Section) -> Result<()> {
        let text = text_of(path)?;
        let file: Arc<Path> = path.into();
        let mut open: Vec<Section> = Vec::new();
        for (number, line) in text.split('\n').enumerate() {
            let place = Place { file: Arc::clone(&file), line: number + 1 };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix("</") {
                let kind = rest.strip_suffix('>').ok_or_else(|| place.error("a section's end has no >"))?;
                let kind = kind.trim_end().to_lowercase();
                let section = open.pop().filter(|section| section.kind == kind);
                let section = section.ok_or_else(|| place.error(format!("</{kind}> ends no section")))?;
                self.depth -= 1;
                open.last_mut().unwrap_or(into).sections.push(section);
            } else if let Some(rest) = line.strip_prefix('<') {
                let rest = rest.strip_suffix('>').ok_or_else(|| place.error("a section's beginning has no >"))?;
                let (rest, is_empty) = rest.strip_suffix('/').map_or((rest, false), |rest| (rest, true));
                let section = beginning(rest.trim_end(), place)?;
                if is_empty {
                    open.last_mut().unwrap_or(into).sections.push(section);
                    continue;
                }
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err(section.place.error("sections lie too deep in each other"));
                }
                open.push(section);
            } else if let Some(rest) = line.strip_prefix('%') {
                self.directive(rest, &place, open.last_mut().unwrap_or(into))?;
            } else {
                let (name, value) = key_and_value(line).ok_or_else(|| place.error("this is no key with a value"))?;
                let value = self.replaced(value);
                open.last_mut().unwrap_or(into).keys.push(Key { name: name.to_lowercase(), value, place });
            }
        }
        match open.pop() {
            None => Ok(()),
            Some(section) => Err(section.place.error(format!("{section} has no end in this file"))),
        }
    }

    fn directive(&mut self, text: &str, place: &Place, section: &mut Section) -> Result<()> {
        let (name, argument) = key_and_value(text).ok_or_else(|| place.error("there is no directive behind %"))?;
        if !matches!(name, "define" | "include" | "import") {
            return Err(place.error(format!("%{name} is no directive of ZConfig")));
        }
        if argument.is_empty() {
            return Err(place.error(format!("%{name} needs something behind it")));
        }
        match name {
            "define" => self.define(argument, place),
            "include" => {
                let name = self.replaced(argument).map_err(|reason| place.error(reason))?;
                let path = included(&name, &place.file).map_err(|reason| place.error(reason))?;
                self.files += 1;
                if self.files > MOST_FILES {
                    return Err(place.error("too many files are included: one includes itself"));
                }
                self.file(&path, section).map_err(|error| match error.io_error() {
                    Some(_) => error.context(place),
                    None => error,
                })
            }
            // What a package adds to the schema: none is needed here.
            _ => Ok(()),
        }
    }

    fn define(&mut self, argument: &str, place: &Place) -> Result<()> {
        let (name, value) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
        let (name, value) = (name.to_lowercase(), value.trim_start());
        if !matches!(split_name(&name), Some((_, ""))) {
            return Err(place.error(format!("{name} is no name for %define")));
        }
        // As ZConfig compares them: what it became with what is written here.
        if self.defines.get(&name).is_some_and(|before| before != value) {
            return Err(place.error(format!("%define gives {name} another value than before")));
        }
        let value = self.replaced(value).map_err(|reason| place.error(reason))?;
        self.defines.insert(name, value);
        Ok(())
    }

    /// A text with what is defined in place of `$name` and `${name}`, environment variables in place of `$(NAME)`, and `$` in
    /// place of `$$`.
    fn replaced(&mut self, text: &str) -> Result<String, String> {
        let result = self.with_values(text)?;
        self.replaced = self.replaced.saturating_add(result.len());
        if self.replaced > LONGEST_TOGETHER {
            return Err("what $ stands for makes the configuration too long".into());
        }
        Ok(result)
    }

    fn with_values(&self, text: &str) -> Result<String, String> {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            result.push_str(before);
            if let Some(behind) = behind.strip_prefix('$') {
                result.push('$');
                rest = behind;
                continue;
            }
            let (behind, end) = match behind.as_bytes().first() {
                Some(b'{') => (&behind[1..], "}"),
                Some(b'(') => (&behind[1..], ")"),
                _ => (behind, ""),
            };
            let (name, behind) = split_name(behind).ok_or("a $ has no name behind it; $$ stands for $ itself")?;
            rest = behind.strip_prefix(end).ok_or_else(|| format!("{end} is missing behind {name}"))?;
            match end {
                ")" => {
                    let value = (self.environment)(name);
                    result.push_str(&value.ok_or_else(|| format!("there is no environment variable {name}"))?);
                }
                _ => {
                    let value = self.defines.get(&name.to_lowercase());
                    result.push_str(value.ok_or_else(|| format!("{name} was not given a value with %define"))?);
                }
            }
            if result.len() > LONGEST {
                return Err(format!("what $ stands for makes this longer than {} KiB", LONGEST >> 10));
            }
        }
        result.push_str(rest);
        Ok(result)
    }
}

fn text_of(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).at("open the configuration", path)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).at("read the configuration", path)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{} is too large for a configuration", path.display()))
            .hint("name a zope.conf or a zeo.conf"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = good.filter(|byte| **byte == b'\n').count() + 1;
        Place { file: path.into(), line }.error("this is not UTF-8 text").hint("name a zope.conf or a zeo.conf")
    })
}

/// What `%include` names: seen from the file that it stands in, as ZConfig does.
fn included(name: &str, from: &Path) -> Result<PathBuf, String> {
    let path = name.strip_prefix("file://").unwrap_or(name);
    if path.contains("://") || path.starts_with("package:") {
        return Err(format!("znap includes files only, not {name}"));
    }
    // ZConfig takes it for a URL.
    if path.contains(['%', '#', '?']) {
        return Err(format!("znap includes no file with %, # or ? in its name, such as {name}"));
    }
    Ok(from.parent().unwrap_or(Path::new("")).join(path))
}

/// `kind` or `kind name`.
fn beginning(text: &str, place: Place) -> Result<Section> {
    let is_word = |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "()".contains(c));
    let (kind, name) = match text.split_once(char::is_whitespace) {
        Some((kind, name)) => (kind, Some(name.trim_start())),
        None => (text, None),
    };
    if !is_word(kind) || !name.is_none_or(is_word) {
        return Err(place.error("a section begins with <type> or <type name>"));
    }
    let name = name.map(str::to_lowercase);
    Ok(Section { kind: kind.to_lowercase(), name, place, keys: Vec::new(), sections: Vec::new() })
}

/// A key and what stands behind it. The key ends at a space, or at a bracket.
fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let end = line.find(|c: char| c.is_whitespace() || "()".contains(c)).unwrap_or(line.len());
    let (key, value) = line.split_at_checked(end)?;
    (!key.is_empty()).then(|| (key, value.trim_start()))
}

/// The name that a text begins with, and the rest.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if is_name { text.split_at_checked(end) } else { None }
}
