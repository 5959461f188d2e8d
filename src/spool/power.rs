//! What a power cut leaves: of what was not synced, anything.
//!
//! Octets are kept or lost in sectors of 512, each as it was after any write since the last sync.
//! Names made, changed and removed since the directory was synced come to the disk or not, each by
//! itself, but none without those before it that it builds on. What a failed sync has dropped stays
//! lost when a later one succeeds, until it is written again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::spool::disk::Call;

const SECTOR: usize = 512;

type Inode = u64;
type Octets = [u8; SECTOR];

/// What could be lost.
#[derive(Debug)]
pub(super) struct Unsynced {
    chance: StdRng,
    files: BTreeMap<Inode, Writes>,
    names: Vec<Change>,
    /// A link to each file that has a change of name, so that it can come back.
    links: Option<TempDir>,
}

/// What was written to a file.
#[derive(Debug)]
struct Writes {
    file: File,
    /// What sectors held before, oldest first: the first is on disk.
    before: BTreeMap<u64, Vec<Octets>>,
    lengths: Vec<u64>,
    /// Sectors that a failed sync dropped. The kernel takes them for written.
    dropped: BTreeSet<u64>,
}

/// A change of a name: which file it meant before, and which after.
#[derive(Debug)]
struct Change(Vec<(PathBuf, Option<Inode>, Option<Inode>)>);

fn inode(file: &File) -> Inode {
    file.metadata().unwrap().ino()
}

fn meant_by(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().map(|file| file.ino())
}

impl Unsynced {
    pub(super) fn new(seed: u64) -> Unsynced {
        Unsynced {
            chance: StdRng::seed_from_u64(seed),
            files: BTreeMap::new(),
            names: Vec::new(),
            links: None,
        }
    }

    /// This call is made now.
    pub(super) fn called(&mut self, call: Call<'_>) {
        match call {
            Call::Sync(file) => self.sync(file),
            Call::Forget(file) => self.forget(file),
            Call::SyncDirectory(directory) => self.sync_names(directory),
            Call::Allocate(file) => self.writes(file).length_changes(),
            Call::Create(path) => self.create(path),
            Call::Rename(from, to) => self.rename(from, to),
            Call::Remove(path) => self.remove(path),
            Call::Open | Call::Read => (),
        }
    }

    /// This call fails now. A sync that does has dropped some of what it was to bring to disk.
    pub(super) fn failed(&mut self, call: Call<'_>) {
        if let Call::Sync(file) = call {
            let share = self.share();
            if let Some(writes) = self.files.get_mut(&inode(file)) {
                for sector in writes.before.keys() {
                    if self.chance.random_bool(share) {
                        writes.dropped.insert(*sector);
                    }
                }
            }
        }
    }

    /// These octets are written now.
    pub(super) fn write(&mut self, file: &File, offset: u64, length: usize) {
        if length == 0 {
            return;
        }
        let end = offset + length as u64;
        let writes = self.writes(file);
        if end > writes.file.metadata().unwrap().len() {
            writes.length_changes();
        }
        for sector in offset / SECTOR as u64..end.div_ceil(SECTOR as u64) {
            writes.sector_changes(sector);
        }
    }

    /// The power goes.
    pub(super) fn cut(&mut self) {
        self.cut_names();
        let share = self.share();
        for (_, writes) in std::mem::take(&mut self.files) {
            for (sector, before) in writes.before {
                let dropped = writes.dropped.contains(&sector);
                if dropped || !self.chance.random_bool(share) {
                    let kept = before[self.chance.random_range(0..before.len())];
                    writes
                        .file
                        .write_all_at(&kept, sector * SECTOR as u64)
                        .unwrap();
                }
            }
            if let Some(length) = writes.lengths.first()
                && !self.chance.random_bool(share)
            {
                writes.file.set_len(*length).unwrap();
            }
        }
    }

    /// How much comes to the disk, often all or nothing.
    fn share(&mut self) -> f64 {
        [0.0, 0.1, 0.5, 0.9, 1.0][self.chance.random_range(0..5)]
    }

    fn writes(&mut self, file: &File) -> &mut Writes {
        self.files.entry(inode(file)).or_insert_with(|| Writes {
            file: file.try_clone().unwrap(),
            before: BTreeMap::new(),
            lengths: Vec::new(),
            dropped: BTreeSet::new(),
        })
    }

    fn sync(&mut self, file: &File) {
        if let Some(writes) = self.files.get_mut(&inode(file)) {
            let dropped = std::mem::take(&mut writes.dropped);
            writes.before.retain(|sector, _| dropped.contains(sector));
            writes.dropped = dropped;
            writes.lengths.clear();
            if writes.before.is_empty() {
                self.files.remove(&inode(file));
            }
        }
    }

    /// What a failed sync dropped is read as the disk has it.
    fn forget(&mut self, file: &File) {
        if let Some(writes) = self.files.get_mut(&inode(file)) {
            for sector in std::mem::take(&mut writes.dropped) {
                let before = writes.before.remove(&sector).unwrap();
                let kept = before[self.chance.random_range(0..before.len())];
                let place = sector * SECTOR as u64;
                writes.file.write_all_at(&kept, place).unwrap();
            }
        }
    }

    /// Makes the file, if it is not there, so that it is known by its number.
    fn create(&mut self, path: &Path) {
        let there = meant_by(path);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .unwrap();
        match there {
            Some(_) => {
                let length = file.metadata().unwrap().len();
                let writes = self.writes(&file);
                (0..length.div_ceil(SECTOR as u64)).for_each(|at| writes.sector_changes(at));
                writes.length_changes();
            }
            None => {
                // An earlier file of this number is gone for good.
                self.files.remove(&inode(&file));
                self.link(path);
                let change = (path.to_owned(), None, Some(inode(&file)));
                self.names.push(Change(vec![change]));
            }
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let (moved, replaced) = (meant_by(from), meant_by(to));
        self.link(from);
        self.link(to);
        self.names.push(Change(vec![
            (from.to_owned(), moved, None),
            (to.to_owned(), replaced, moved),
        ]));
    }

    fn remove(&mut self, path: &Path) {
        if let Some(removed) = meant_by(path) {
            self.link(path);
            let change = (path.to_owned(), Some(removed), None);
            self.names.push(Change(vec![change]));
        }
    }

    fn link(&mut self, path: &Path) {
        let beside = path.parent().unwrap().parent().unwrap();
        let links = self
            .links
            .get_or_insert_with(|| TempDir::new_in(beside).unwrap());
        if let Some(file) = meant_by(path) {
            let link = links.path().join(file.to_string());
            if !link.exists() {
                fs::hard_link(path, link).unwrap();
            }
        }
    }

    fn sync_names(&mut self, directory: &Path) {
        self.names
            .retain(|change| change.0[0].0.parent() != Some(directory));
        self.unlink();
    }

    /// Lets go of the files that no change of a name can bring back.
    fn unlink(&mut self) {
        let Some(links) = &self.links else { return };
        let changes = self.names.iter().flat_map(|change| &change.0);
        let needed: BTreeSet<_> = changes.flat_map(|change| [change.1, change.2]).collect();
        for link in fs::read_dir(links.path()).unwrap() {
            let link = link.unwrap().path();
            if !needed.contains(&meant_by(&link)) {
                fs::remove_file(link).unwrap();
            }
        }
    }

    /// Takes all changes of names back, then makes those again that have come to the disk.
    fn cut_names(&mut self) {
        let mut names = BTreeMap::new();
        for change in self.names.iter().rev() {
            for (path, before, _) in &change.0 {
                names.insert(path.clone(), *before);
            }
        }
        let share = self.share();
        let mut lost = BTreeSet::new();
        for change in std::mem::take(&mut self.names) {
            let builds_on_lost = change.0.iter().any(|(path, ..)| lost.contains(path));
            let kept = !builds_on_lost && self.chance.random_bool(share);
            for (path, _, after) in change.0 {
                if kept {
                    names.insert(path, after);
                } else {
                    lost.insert(path);
                }
            }
        }
        for path in names.keys() {
            let _ = fs::remove_file(path);
        }
        for (path, file) in names {
            if let (Some(links), Some(file)) = (&self.links, file) {
                fs::hard_link(links.path().join(file.to_string()), path).unwrap();
            }
        }
        self.unlink();
    }
}

impl Writes {
    fn length_changes(&mut self) {
        self.lengths.push(self.file.metadata().unwrap().len());
    }

    fn sector_changes(&mut self, sector: u64) {
        let mut octets = [0; SECTOR];
        let mut read = 0;
        while let Ok(more @ 1..) = self
            .file
            .read_at(&mut octets[read..], sector * SECTOR as u64 + read as u64)
        {
            read += more;
        }
        self.before.entry(sector).or_default().push(octets);
        self.dropped.remove(&sector);
    }
}
