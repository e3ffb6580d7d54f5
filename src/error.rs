//! The one error type of the crate.
//!
//! An error says what was being done, to which file, what is wrong and, where a user can act, what to
//! do instead (`hint`). Its [`Kind`] decides the exit code of the program; see [`Kind::exit_code`].

use std::fmt;
use std::io;
use std::path::Path;

/// What a function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it was: the part of an error that a caller may act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It failed, or was refused because it would have lost something.
    Failed,
    /// What was asked makes no sense (a bad id, contradictory arguments).
    Usage,
    /// The repository is damaged: a file in it is missing or not what it should be.
    Damaged,
    /// A database is open elsewhere, or another znap is writing to the repository.
    Busy,
    /// There is no such snapshot, repository or database.
    NotFound,
    /// A signal arrived (its number), at a place where nothing is half-done.
    Interrupted(i32),
}

impl Kind {
    /// The documented exit code of the program for this kind of failure.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Damaged => 3,
            Kind::Busy => 4,
            Kind::NotFound => 5,
            // 128 + signal number, as shells have it: 129, 130 or 143.
            Kind::Interrupted(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
        }
    }
}

/// An error of any operation of this crate.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind with a message of one sentence, without a full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), hint: None, source: None }))
    }

    /// [`Kind::Failed`]: it failed, or was refused.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// [`Kind::Usage`]: it can't be asked like that.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// [`Kind::Damaged`]: the repository isn't as it should be.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(Kind::Damaged, message)
    }

    /// [`Kind::Busy`]: in use, or locked.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    /// [`Kind::NotFound`]: no such snapshot, repository or database.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// An I/O error: what was being done (a phrase such as "read", "create the folder") and to which file.
    pub fn io(action: &str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let mut error = Self::failed(format!("cannot {action} {}", path.as_ref().display()));
        error.0.source = Some(Box::new(source));
        error
    }

    /// An error of SQLite on the catalog at this path.
    pub fn catalog(action: &str, path: impl AsRef<Path>, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let kind = match source.sqlite_error_code() {
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Kind::Damaged,
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Kind::Busy,
            // A value that nothing here would have written.
            None if matches!(
                source,
                rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
                    | rusqlite::Error::InvalidColumnType(..)
            ) =>
            {
                Kind::Damaged
            }
            _ => Kind::Failed,
        };
        let path = path.as_ref().display();
        let mut error = Self::new(kind, format!("cannot {action} in the catalog {path}"));
        match kind {
            Kind::Busy => error = error.hint("another program holds a lock on it; wait for it, or close it"),
            Kind::Damaged => {
                error = error.hint("put catalog.db back from a copy; or rebuild it with znap repair");
            }
            _ => {}
        }
        error.0.source = Some(Box::new(source));
        error
    }

    /// Adds what the user can do about it: an imperative sentence without a full stop.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Puts words in front of the message, such as the database it is about.
    #[must_use]
    pub fn context(mut self, prefix: impl fmt::Display) -> Self {
        self.0.message = format!("{prefix}: {}", self.0.message);
        self
    }

    /// What sort of failure it was.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What the user can do about it, if anything is known.
    pub fn hint_text(&self) -> Option<&str> {
        match &self.0.hint {
            Some(hint) => Some(hint),
            None if self.is_no_space() => {
                Some("free some space and try again; znap delete ID and znap gc free some in .znap")
            }
            None => None,
        }
    }

    /// The error of the operating system behind this one, if there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.0.source.as_ref()?.downcast_ref::<io::Error>()
    }

    /// Whether a full disk or an exhausted quota is the cause.
    pub fn is_no_space(&self) -> bool {
        if let Some(error) = self.io_error() {
            return matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        }
        self.sqlite_code() == Some(rusqlite::ErrorCode::DiskFull)
    }

    /// Whether SQLite couldn't read the catalog, because the disk can't.
    pub fn is_catalog_unreadable(&self) -> bool {
        self.sqlite_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
    }

    fn sqlite_code(&self) -> Option<rusqlite::ErrorCode> {
        self.0.source.as_ref()?.downcast_ref::<rusqlite::Error>()?.sqlite_error_code()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// Gives an I/O result the path and the operation that it was about.
pub trait IoContext<T> {
    /// Turns the error into one that says "cannot `action` `path`".
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::io(action, path, error))
    }
}

impl<T> IoContext<T> for Result<T, rustix::io::Errno> {
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::io(action, path, error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_that_the_disk_cannot_read_is_told_from_one_that_cannot_be_opened() {
        let error = |code| {
            let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            Error::catalog("read", "catalog.db", failure)
        };
        assert!(error(rusqlite::ffi::SQLITE_IOERR_READ).is_catalog_unreadable());
        assert!(!error(rusqlite::ffi::SQLITE_CANTOPEN).is_catalog_unreadable());
        assert!(error(rusqlite::ffi::SQLITE_FULL).is_no_space());
    }
}
