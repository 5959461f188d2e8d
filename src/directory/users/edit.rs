//! Changes to the file of users: a line more, another or none. All other lines, comments among them, stay
//! as they are.
//!
//! The file is written anew beside the old one, synced and put in its place, so that whoever reads it sees
//! the one or the other. It is for its owner alone. Two changes at once would lose one of them, so there is
//! a lock.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use super::file::Error;
use super::file::Reason;
use super::file::check_grant;
use super::file::check_name;
use super::file::parse;
use super::password::Password;
use crate::smtp::sasl::scram;

/// What is to become of one user's line.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new line.
    Add {
        /// The user's first password.
        password: NewPassword,
        /// `also=`, as it is to stand there.
        also: Vec<String>,
    },
    /// Another password; what else stands in the line stays.
    Password(NewPassword),
    /// No line.
    Remove,
}

/// A password as it is to stand in the file.
#[derive(Debug, Clone)]
pub struct NewPassword {
    password: Password,
    scram: Option<scram::Keys>,
}

/// Whether keys for SCRAM are kept beside a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scram {
    /// They are.
    Kept,
    /// They are not, so that SCRAM is offered to nobody.
    Left,
}

impl NewPassword {
    /// Hashes it, which takes some ten milliseconds.
    pub fn hash(password: &str, scram: Scram) -> Result<NewPassword, Error> {
        let keys = || {
            let salt: [u8; 16] = rand::random();
            scram::Keys::of(password.as_bytes(), salt.to_vec(), scram::ITERATIONS)
        };
        Ok(NewPassword {
            password: Password::make(password.as_bytes()).map_err(Reason::Password)?,
            scram: (scram == Scram::Kept).then(keys),
        })
    }

    /// Its words in a line.
    fn words(&self) -> impl Iterator<Item = String> {
        let scram = self.scram.as_ref().map(|keys| format!("scram={keys}"));
        [Some(self.password.as_str().to_owned()), scram]
            .into_iter()
            .flatten()
    }
}

/// Makes a change for the user `name` in the file at `path`, which is made where there is none. `owner` is
/// whose a new file is to be, where it is not to be ours. Blocks, and waits for whoever else changes it.
pub fn change(
    path: &Path,
    name: &str,
    change: &Change,
    owner: Option<(u32, u32)>,
) -> Result<(), Error> {
    check_name(name)?;
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let folder = lock(path).map_err(failed)?;
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            let path = path.to_owned();
            return Err(Error::Read { path, source });
        }
    };
    let new = changed(&old, name, change)?;
    parse(&new).map_err(|(line, reason)| Error::Line {
        path: path.to_owned(),
        line,
        reason,
    })?;
    replace(path, &new, &folder, owner).map_err(failed)
}

/// The text with the change.
fn changed(text: &str, name: &str, change: &Change) -> Result<String, Error> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_users = |line: &String| {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        first.to_lowercase() == name.to_lowercase()
    };
    let place = lines.iter().position(is_users);
    match (change, place) {
        (Change::Add { .. }, Some(_)) => return Err(Error::Exists(name.to_owned())),
        (Change::Password(_) | Change::Remove, None) => {
            return Err(Error::Unknown(name.to_owned()));
        }
        (Change::Add { password, also }, None) => {
            for text in also {
                check_grant(text)?;
            }
            let mut words = vec![name.to_owned()];
            words.extend(password.words());
            words.extend((!also.is_empty()).then(|| format!("also={}", also.join(","))));
            lines.push(words.join(" "));
        }
        (Change::Password(password), Some(place)) => {
            let mut words = lines[place].split_ascii_whitespace();
            let mut new: Vec<String> = words.next().map(str::to_owned).into_iter().collect();
            new.extend(password.words());
            let rest = words.skip(1).filter(|word| !word.starts_with("scram="));
            new.extend(rest.map(str::to_owned));
            lines[place] = new.join(" ");
        }
        (Change::Remove, Some(place)) => {
            lines.remove(place);
        }
    }
    let mut text = lines.join("\n");
    text.push('\n');
    Ok(text)
}

/// The folder is locked, for the file itself is another one after each change.
fn lock(path: &Path) -> io::Result<File> {
    let folder = File::open(path.parent().unwrap_or(path))?;
    folder.lock()?;
    Ok(folder)
}

fn replace(path: &Path, text: &str, folder: &File, owner: Option<(u32, u32)>) -> io::Result<()> {
    let owner = match fs::metadata(path) {
        Ok(old) => Some((old.uid(), old.gid())),
        Err(_) => owner,
    };
    let fresh = beside(path, ".new");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    // Also where an attempt before was broken off.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    if let Some((user, group)) = owner {
        let ours = file.metadata()?;
        if (ours.uid(), ours.gid()) != (user, group) {
            std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
        }
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    folder.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str, scram: Option<scram::Keys>) -> NewPassword {
        NewPassword {
            password: text.parse().unwrap(),
            scram,
        }
    }

    const ONE: &str = "{SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=";
    const TWO: &str = "{SHA1}HuBr0dbbiKEV0LCm4RYYIaf29J0=";

    #[test]
    fn a_change_leaves_all_other_lines_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let read = || fs::read_to_string(&path).unwrap();
        let add = |also: &[&str]| Change::Add {
            password: password(ONE, None),
            also: also.iter().map(|text| (*text).to_owned()).collect(),
        };
        change(&path, "ann", &add(&["info@a.example"]), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::write(&path, format!("# ours\n{}\n# end\n", read().trim())).unwrap();
        change(&path, "bob", &add(&[]), None).unwrap();
        let keys = scram::Keys::of(b"x", b"salt".to_vec(), 1);
        let other = Change::Password(password(TWO, Some(keys.clone())));
        change(&path, "ANN", &other, None).unwrap();
        let want =
            format!("# ours\nann {TWO} scram={keys} also=info@a.example\n# end\nbob {ONE}\n");
        assert_eq!(read(), want);
        change(&path, "bob", &Change::Remove, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(), want.replace(&format!("bob {ONE}\n"), ""));
        let twice = change(&path, "Ann", &add(&[]), None);
        assert!(matches!(twice, Err(Error::Exists(_))), "{twice:?}");
        let missing = change(&path, "carl", &Change::Remove, None);
        assert!(matches!(missing, Err(Error::Unknown(_))), "{missing:?}");
        for also in ["info", "a@b.example\nroot x", "\"a b\"@c.example"] {
            let wrong = change(&path, "carl", &add(&[also]), None);
            assert!(matches!(wrong, Err(Error::Wrong(_))), "{also}: {wrong:?}");
        }
        for name in ["", "# x", "a b"] {
            assert!(matches!(
                change(&path, name, &add(&[]), None),
                Err(Error::Wrong(_))
            ));
        }
    }
}
