//! Policies on disk, so that a restart does not forget what a domain has asked for: a file each, named
//! as the domain, for our user alone. What cannot be read is as good as not there.

use std::fs;
use std::fs::DirBuilder;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

use super::Kept;
use super::policy::Policy;
use crate::mail::address::Domain;

/// So many files are kept; the policies of more domains live in memory.
const MOST_FILES: usize = 10_000;

/// A folder of policies.
#[derive(Debug, Clone)]
pub(super) struct Shelf(PathBuf);

/// What a file holds, in JSON.
#[derive(Serialize, Deserialize)]
struct File {
    id: String,
    /// Seconds since 1970.
    fetched: u64,
    policy: String,
}

impl Shelf {
    /// Makes the folder where it is not there.
    pub(super) fn open(folder: PathBuf) -> io::Result<Shelf> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        Ok(Shelf(folder))
    }

    /// All policies that still count; the others are deleted. Blocks.
    pub(super) fn load(&self) -> io::Result<Vec<(Domain, Kept)>> {
        let mut loaded = Vec::new();
        for entry in fs::read_dir(&self.0)?.take(MOST_FILES) {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let domain = name.and_then(|name| Domain::parse(name).ok());
            match (domain, read(&path)) {
                (Some(domain), Some(kept)) if kept.counts() => loaded.push((domain, kept)),
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(loaded)
    }

    /// Writes a policy in the place of the one before. Blocks.
    pub(super) fn keep(&self, domain: &Domain, kept: &Kept) -> io::Result<()> {
        let path = self.0.join(domain.as_str());
        if !path.exists() && fs::read_dir(&self.0)?.count() >= MOST_FILES {
            return Ok(());
        }
        let since = kept.fetched.duration_since(SystemTime::UNIX_EPOCH);
        let file = File {
            id: kept.id.clone().into_string(),
            fetched: since.unwrap_or_default().as_secs(),
            policy: kept.policy.text.clone().into_string(),
        };
        // No domain has a name with this at its end.
        let new = self.0.join(format!("{domain}+"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&new)?.write_all(&serde_json::to_vec(&file)?)?;
        fs::rename(new, path)
    }
}

fn read(path: &Path) -> Option<Kept> {
    let file: File = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let fetched = std::time::Duration::from_secs(file.fetched);
    Some(Kept {
        id: file.id.into_boxed_str(),
        fetched: SystemTime::UNIX_EPOCH.checked_add(fetched)?,
        policy: Policy::parse(&file.policy).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn kept(max_age: u64, fetched: SystemTime) -> Kept {
        let text = format!("version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: {max_age}\n");
        Kept {
            id: "1".into(),
            fetched,
            policy: Policy::parse(&text).unwrap(),
        }
    }

    #[test]
    fn what_counts_comes_back_and_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path().join("mta-sts")).unwrap();
        let path = |name: &str| folder.path().join("mta-sts").join(name);
        let [good, old] = ["good.example", "old.example"].map(|name| Domain::parse(name).unwrap());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let yesterday = Duration::from_secs(now.unwrap().as_secs() - 86_400);
        let yesterday = SystemTime::UNIX_EPOCH + yesterday;
        shelf.keep(&good, &kept(90_000, yesterday)).unwrap();
        shelf.keep(&old, &kept(80_000, yesterday)).unwrap();
        fs::write(path("torn.example"), "{").unwrap();
        let mode = fs::metadata(path("good.example"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(shelf.load().unwrap(), [(good, kept(90_000, yesterday))]);
        assert_eq!(fs::read_dir(path("")).unwrap().count(), 1);
    }
}
