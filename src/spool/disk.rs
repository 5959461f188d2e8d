//! The few calls to the file system that durability rests on, in one place.
//!
//! Each says in its doc what it promises. In tests a [`Disk`] can be told to fail a call to come;
//! outside tests it is nothing.

use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use nix::sys::uio::pwritev;

/// What one `pwritev` takes (IOV_MAX).
const SLICES: usize = 1024;

/// The calls that a test can have fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Write,
    Sync,
    Allocate,
    SyncDirectory,
}

/// The file system as the spool uses it.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    faults: std::sync::Arc<std::sync::Mutex<Vec<(Call, i32)>>>,
}

impl Disk {
    /// Writes all of `slices` at `offset`. After an error any part of them may stand there.
    pub(super) fn write(
        &self,
        file: &File,
        mut slices: &mut [IoSlice<'_>],
        offset: u64,
    ) -> io::Result<()> {
        self.trip(Call::Write)?;
        let mut offset = i64::try_from(offset).map_err(io::Error::other)?;
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match pwritev(file, &slices[..slices.len().min(SLICES)], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as i64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(nix::errno::Errno::EINTR) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What was written to the file is on disk when this returns. Never call it again after an
    /// error: the kernel may have dropped what could not be written, and would say that all is well.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.trip(Call::Sync)?;
        file.sync_data()
    }

    /// The names in the directory are on disk when this returns.
    pub(super) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.trip(Call::SyncDirectory)?;
        File::open(directory)?.sync_all()
    }

    /// Takes the space of the whole file now, so that no write in it can find the disk full.
    pub(super) fn allocate(&self, file: &File, length: u64) -> io::Result<()> {
        let length = i64::try_from(length).map_err(io::Error::other)?;
        loop {
            let allocated = self.trip(Call::Allocate);
            match allocated.and_then(|()| Ok(posix_fallocate(file, 0, length)?)) {
                // A signal to the process (a reload) came meanwhile.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                allocated => return allocated,
            }
        }
    }

    /// Octets that are left for us on the file system.
    pub(super) fn free_space(&self, directory: &Path) -> io::Result<u64> {
        let stat = statvfs(directory)?;
        Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
    }

    /// A file that only we may read, emptied where it was there.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    }

    /// A directory that only we may enter, and those above it; on disk when this returns.
    pub(super) fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let parent = parent.unwrap_or(Path::new("."));
        self.create_directory(parent)?;
        DirBuilder::new().mode(0o700).create(path)?;
        self.sync_directory(parent)
    }

    /// Opens the lock file, and reads what the one who may hold it wrote there.
    pub(super) fn open_lock(&self, path: &Path) -> io::Result<(File, String)> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut holder = String::new();
        file.read_to_string(&mut holder)?;
        Ok((file, holder.trim().to_owned()))
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "tests have it fail"
    )]
    fn trip(&self, _call: Call) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn trip(&self, call: Call) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        match faults.iter().position(|(due, _)| *due == call) {
            Some(at) => Err(io::Error::from_raw_os_error(faults.remove(at).1)),
            None => Ok(()),
        }
    }

    /// The next call of this kind fails with this error number; each time this was said, once.
    #[cfg(test)]
    pub(super) fn fail_next(&self, call: Call, error: nix::errno::Errno) {
        self.faults.lock().unwrap().push((call, error as i32));
    }

    /// No call fails from now on.
    #[cfg(test)]
    pub(super) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }
}
