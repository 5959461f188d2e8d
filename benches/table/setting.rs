//! What all rows of a run share: the options and a folder on the disk that is measured.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Context;
use anyhow::Result;
use tempfile::TempDir;

use crate::options::Options;

pub(crate) struct Setting {
    pub(crate) options: Options,
    folder: TempDir,
    folders: AtomicUsize,
}

impl Setting {
    pub(crate) fn new(options: Options) -> Result<Setting> {
        let folder = TempDir::with_prefix_in("table-", &options.folder)
            .with_context(|| format!("cannot make a folder in {}", options.folder.display()))?;
        // Daemons that have given up root have to get in.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        Ok(Setting {
            options,
            folder,
            folders: AtomicUsize::new(0),
        })
    }

    /// A new folder of this run, called `NAME-NUMBER`.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.path().join(format!("{name}-{number}"));
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// Rounds in turn: one that warms up and is forgotten, and those that count.
pub(crate) fn rounds<T>(count: usize, mut round: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    round()?;
    (0..count).map(|_| round()).collect()
}
