//! The calls to the file system that durability rests on, in one place.
//!
//! Each says in its doc what it promises. In tests each can be told to fail, and the power can be cut
//! between any two of them (`faults`); outside tests a [`Disk`] is nothing.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::PosixFadviseAdvice;
use nix::fcntl::posix_fadvise;
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
#[cfg(not(test))]
use nix::sys::uio::pwritev;

/// What one `pwritev` takes (IOV_MAX).
const SLICES: usize = 1024;

/// A call that is about to be made, for the tests, which may have it fail.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "only tests look at what is called")
)]
pub(super) enum Call<'a> {
    Sync(&'a File),
    Forget(&'a File),
    SyncDirectory(&'a Path),
    Allocate(&'a File),
    Create(&'a Path),
    Open,
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    Read,
}

/// The file system as the spool uses it.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: std::sync::Arc<std::sync::Mutex<super::faults::Faults>>,
}

impl Disk {
    /// Writes all of `slices` at `offset`. After an error any part of them may stand there.
    pub(super) fn write(
        &self,
        file: &File,
        mut slices: &mut [IoSlice<'_>],
        offset: u64,
    ) -> io::Result<()> {
        let mut offset = i64::try_from(offset).map_err(io::Error::other)?;
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.put(file, &slices[..slices.len().min(SLICES)], offset) {
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
        self.before(Call::Sync(file))?;
        file.sync_data()
    }

    /// What others wrote to the file is on disk when this returns. After an error, too, it is read
    /// as the disk has it: after a sync that failed, here or in another process, the kernel would
    /// give what it has in memory and could not write.
    pub(super) fn settle(&self, file: &File) -> io::Result<()> {
        let synced = self.sync(file);
        self.before(Call::Forget(file))?;
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        synced
    }

    /// The names in the directory are on disk when this returns.
    pub(super) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.before(Call::SyncDirectory(directory))?;
        File::open(directory)?.sync_all()
    }

    /// Gives the file this length and takes all of its space now, so that no write in it can find the
    /// disk full.
    pub(super) fn allocate(&self, file: &File, length: u64) -> io::Result<()> {
        let whole = i64::try_from(length).map_err(io::Error::other)?;
        loop {
            let allocated = self.before(Call::Allocate(file)).and_then(|()| {
                file.set_len(length)?;
                Ok(posix_fallocate(file, 0, whole)?)
            });
            match allocated {
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

    /// A file that only we may read, emptied where it was there. Its name is on disk once the
    /// directory is synced, as with the next two.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.before(Call::Create(path))?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    }

    /// Gives the file another name in its directory, in place of one that has it.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Call::Rename(from, to))?;
        fs::rename(from, to)
    }

    /// Removes the file.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(Call::Remove(path))?;
        fs::remove_file(path)
    }

    /// A file that is there, to be read and written over.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        self.before(Call::Open)?;
        File::options().read(true).write(true).open(path)
    }

    /// All of the file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.before(Call::Read)?;
        fs::read(path)
    }

    /// Fills the buffer with what stands at `offset`.
    pub(super) fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.before(Call::Read)?;
        file.read_exact_at(buffer, offset)
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
    fn before(&self, _call: Call<'_>) -> io::Result<()> {
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests have it fail")]
    fn put(&self, file: &File, slices: &[IoSlice<'_>], offset: i64) -> nix::Result<usize> {
        pwritev(file, slices, offset)
    }
}
