//! Large messages, each in a file of its own, so that one does not stand before a hundred small ones.
//!
//! A file is on disk, name and all, before the record that names it is written, and is removed after
//! the record that says DONE is on disk. What a crash leaves between the two is an orphan, which the
//! next start removes.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::io::IoSlice;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;

use crate::mail::content::Content;
use crate::mail::id::SpoolId;
use crate::spool::disk::Disk;
use crate::telemetry::events;

/// The directory of large messages.
#[derive(Debug, Clone)]
pub(super) struct Large {
    disk: Disk,
    directory: PathBuf,
}

impl Large {
    pub(super) fn new(disk: Disk, directory: PathBuf) -> Large {
        Large { disk, directory }
    }

    /// The file of this message.
    pub(super) fn path(&self, id: SpoolId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// Octets that are left on the file system.
    pub(super) fn free_space(&self) -> io::Result<u64> {
        self.disk.free_space(&self.directory)
    }

    /// Writes the message; it is on disk when this returns. After an error there is no file.
    pub(super) fn write(&self, id: SpoolId, content: &Content) -> io::Result<()> {
        let path = self.path(id);
        let written = self.disk.create(&path).and_then(|file| {
            let mut slices: Vec<_> = content.chunks().map(IoSlice::new).collect();
            self.disk.write(&file, &mut slices, 0)?;
            self.disk.sync(&file)?;
            self.disk.sync_directory(&self.directory)
        });
        if written.is_err() {
            self.remove(id);
        }
        written
    }

    /// Reads the message. None where it is not as it was written.
    pub(super) fn read(&self, id: SpoolId, checksum: u32) -> io::Result<Option<Content>> {
        let bytes = self.disk.read(&self.path(id))?;
        let sound = crc32c::crc32c(&bytes) == checksum;
        Ok(sound.then(|| Content::from(Bytes::from(bytes))))
    }

    /// Removes the file, if it is there.
    pub(super) fn remove(&self, id: SpoolId) {
        let path = self.path(id);
        if let Err(error) = self.disk.remove(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            events::spool_failed(&path, &error);
        }
    }

    /// Where the files are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The messages that have a file. Names that are no id are left alone.
    pub(super) fn names(&self) -> io::Result<HashSet<SpoolId>> {
        let mut names = HashSet::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse::<SpoolId>().ok()));
        }
        Ok(names)
    }
}
