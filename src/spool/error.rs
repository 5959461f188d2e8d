//! What can go wrong in the spool.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;

use crate::mail::id::SpoolId;

/// The spool could not do what was asked. To a client, `Full` is a 452 and each other one a 451.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the spool's disk is full ({free} are free, {floor} are kept free)")]
    Full { free: ByteSize, floor: ByteSize },
    #[error(
        "the spool {} is in use by another gatepost ({holder}); stop that one, or give this one a data directory of its own",
        .directory.display()
    )]
    Locked { directory: PathBuf, holder: String },
    #[error("the spool cannot use {}", .path.display())]
    Directory {
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error(
        "{} is of version {found} of the spool's format and this program knows version {ours}; use the program that wrote it",
        .path.display()
    )]
    OtherVersion {
        path: PathBuf,
        found: u32,
        ours: u32,
    },
    #[error("cannot append to {}", .path.display())]
    Append {
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error("there is no message {id} in the spool")]
    Unknown { id: SpoolId },
    #[error("message {id} is in the spool already")]
    Taken { id: SpoolId },
    #[error("message {id} in the spool is damaged")]
    Damaged { id: SpoolId },
    #[error("the envelope or the message is too large for the spool")]
    TooLarge,
    #[error("the spool is closed")]
    Closed,
}

impl Error {
    /// What was attempted and why it failed, in one line of the log.
    pub(super) fn in_full(&self) -> String {
        let source = std::error::Error::source(self);
        source.map_or(self.to_string(), |source| format!("{self}: {source}"))
    }

    pub(super) fn append(path: PathBuf, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full {
                free: ByteSize(0),
                floor: ByteSize(0),
            },
            _ => Error::Append {
                path,
                source: Arc::new(source),
            },
        }
    }

    pub(super) fn read(path: PathBuf, source: io::Error) -> Error {
        Error::Read {
            path,
            source: Arc::new(source),
        }
    }

    pub(super) fn directory(path: &Path, source: io::Error) -> Error {
        Error::Directory {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}
