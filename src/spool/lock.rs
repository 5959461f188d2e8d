//! The lock file: one process at a time has a spool directory.

use std::fs::File;
use std::fs::TryLockError;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::spool::Error;
use crate::spool::disk::Disk;
use crate::telemetry::events;

/// Takes the directory, which is made where it is missing, for us alone, for as long as the file is
/// open.
pub(super) fn take(disk: &Disk, directory: &Path) -> Result<File, Error> {
    let (segments, large) = (directory.join("segments"), directory.join("large"));
    for path in [directory, &segments, &large] {
        disk.create_directory(path)
            .map_err(|e| Error::directory(path, e))?;
    }
    let path = directory.join("lock");
    let (file, holder) = disk
        .open_lock(&path)
        .map_err(|e| Error::directory(&path, e))?;
    match file.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Locked {
                directory: directory.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(Error::directory(&path, error)),
    }
    // For the message of the one who finds it locked; mail can go out of a full disk without it.
    let holder = format!("process {}\n", std::process::id());
    let written = file.set_len(0);
    let written = written.and_then(|()| file.write_all_at(holder.as_bytes(), 0));
    if let Err(error) = written {
        events::spool_failed(&path, &error);
    }
    Ok(file)
}
