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
    /// There is less room than is kept free, or the system says that there is none.
    #[error("the spool's disk is full ({free} are free, {floor} are kept free)")]
    Full {
        /// What there is. 0 where the system said so.
        free: ByteSize,
        /// What is to be left. 0 where the system said so.
        floor: ByteSize,
    },
    /// Another process has the spool's lock.
    #[error(
        "the spool {} is in use by another gatepost ({holder}); stop that one, or give this one a data directory of its own",
        .directory.display()
    )]
    Locked {
        /// The spool.
        directory: PathBuf,
        /// Who that process is, as it wrote it down.
        holder: String,
    },
    /// A file or folder of the spool could not be made, opened or read when it was opened.
    #[error("the spool cannot use {}", .path.display())]
    Directory {
        /// Which of them.
        path: PathBuf,
        /// What the system says of it.
        source: Arc<io::Error>,
    },
    /// The spool was written in a format that this program does not know.
    #[error(
        "{} is of version {found} of the spool's format and this program knows version {ours}; use the program that wrote it",
        .path.display()
    )]
    OtherVersion {
        /// The file that says so.
        path: PathBuf,
        /// The version that it names.
        found: u32,
        /// The version that we write.
        ours: u32,
    },
    /// A write or its sync failed, so nothing is promised of what was to be written.
    #[error("cannot append to {}", .path.display())]
    Append {
        /// The file that was written to.
        path: PathBuf,
        /// What the system says of it.
        source: Arc<io::Error>,
    },
    /// A message on disk could not be read now.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file that it is in.
        path: PathBuf,
        /// What the system says of it.
        source: Arc<io::Error>,
    },
    /// A file or folder outside of the spool, of an export or import, could not be made, opened, read
    /// or written.
    #[error("cannot use {}", .path.display())]
    Outside {
        /// Which of them.
        path: PathBuf,
        /// What the system says of it.
        source: Arc<io::Error>,
    },
    /// It was never stored, or is done and gone.
    #[error("there is no message {id} in the spool")]
    Unknown {
        /// What was asked for.
        id: SpoolId,
    },
    /// A message is stored once.
    #[error("message {id} is in the spool already")]
    Taken {
        /// Whose second copy was refused.
        id: SpoolId,
    },
    /// What is on disk is not what was written there.
    #[error("message {id} in the spool is damaged")]
    Damaged {
        /// What was asked for.
        id: SpoolId,
    },
    /// No record of the spool can hold it, now or later.
    #[error("the envelope or the message is too large for the spool")]
    TooLarge,
    /// The spool was closed, or its thread has ended.
    #[error("the spool is closed")]
    Closed,
}

impl Error {
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

    pub(super) fn outside(path: &Path, source: io::Error) -> Error {
        Error::Outside {
            path: path.to_owned(),
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
