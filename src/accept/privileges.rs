//! Root, and how it is given up: bind first, then drop, then start threads.
//!
//! Started by a service manager as another user, there is nothing to give up and all of this does
//! nothing.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::Uid;
use nix::unistd::User;
use nix::unistd::geteuid;
use nix::unistd::initgroups;
use nix::unistd::seteuid;
use nix::unistd::setgid;
use nix::unistd::setuid;

/// Privileges could not be given up, so the gateway must not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The accounts of the machine could not be read.
    #[error("cannot look up the user {user}")]
    LookUp {
        /// The name that was looked for.
        user: String,
        /// What the system says of it.
        source: Errno,
    },
    /// The machine has no account of this name.
    #[error("there is no user {user}; `useradd --system --no-create-home {user}` makes one")]
    NoSuchUser {
        /// The name that was looked for.
        user: String,
    },
    /// The account has user id 0.
    #[error("the user {user} is root; name one that may do nothing else on this machine")]
    StillRoot {
        /// The name that was looked for.
        user: String,
    },
    /// The system would not change the groups or the user.
    #[error("cannot become the user {user}")]
    Become {
        /// Whom we wanted to be.
        user: String,
        /// What the system says of it.
        source: Errno,
    },
    /// After the change the process could be root again, or was not the user.
    #[error("became the user {user}, but could become root again")]
    NotForGood {
        /// Whom we wanted to be.
        user: String,
    },
    /// A directory could not be made, read or given to the user.
    #[error("cannot make the directory {}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// It holds something and belongs to somebody else, so it may have been named by mistake.
    #[error("the directory {} belongs to another user; `chown -R {user} {}` gives it over", .path.display(), .path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// To whom it would have to belong.
        user: String,
    },
}

/// Becomes `user` for good, with its groups, and makes sure that there is no way back. Does nothing
/// where the process is not root. To be called before there is a runtime; what threads there are (the
/// log's) change with us, as POSIX wants it of setuid(2).
pub fn drop_to(user: &str) -> Result<(), Error> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let account = account(user)?;
    let failed = |source| Error::Become {
        user: user.to_owned(),
        source,
    };
    // In this order: without root the groups can't be changed any more.
    let name = CString::new(user).map_err(|_| failed(Errno::EINVAL))?;
    initgroups(&name, account.gid).map_err(failed)?;
    setgid(account.gid).map_err(failed)?;
    setuid(account.uid).map_err(failed)?;
    let is_back = setuid(Uid::from_raw(0)).is_ok() || seteuid(Uid::from_raw(0)).is_ok();
    if is_back || geteuid() != account.uid {
        return Err(Error::NotForGood {
            user: user.to_owned(),
        });
    }
    Ok(())
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Makes the data directory, for nobody but `user`.
pub fn make_data_dir(path: &Path, user: Option<&str>) -> Result<(), Error> {
    make_dir(path, 0o700, user)
}

/// Makes a directory of `user`'s. As root, an empty one (a fresh volume, say) is given to the user; one
/// that holds something and belongs to somebody else is an error, for it may have been named by mistake.
/// The mode of one that is the user's already stays as it is.
pub fn make_dir(path: &Path, mode: u32, user: Option<&str>) -> Result<(), Error> {
    let failed = |source| Error::Directory {
        path: path.to_owned(),
        source,
    };
    if !path.is_dir() {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut private = fs::DirBuilder::new();
        private.mode(0o700).create(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    let Some(user) = user.filter(|_| is_root()) else {
        return Ok(());
    };
    let owner = account(user)?;
    if fs::metadata(path).map_err(failed)?.uid() == owner.uid.as_raw() {
        return Ok(());
    }
    if fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Err(Error::NotOurs {
            path: path.to_owned(),
            user: user.to_owned(),
        });
    }
    let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    chown(path, Some(uid), Some(gid)).map_err(failed)
}

fn account(user: &str) -> Result<User, Error> {
    let user = user.to_owned();
    match User::from_name(&user) {
        Ok(Some(account)) if account.uid.is_root() => Err(Error::StillRoot { user }),
        Ok(Some(account)) => Ok(account),
        Ok(None) => Err(Error::NoSuchUser { user }),
        Err(source) => Err(Error::LookUp { user, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::unistd::Gid;
    use nix::unistd::getegid;
    use nix::unistd::getgid;
    use nix::unistd::getgroups;
    use nix::unistd::getuid;

    use super::*;

    #[test]
    fn nobody_becomes_root_or_a_user_that_is_not() {
        assert!(matches!(account("root"), Err(Error::StillRoot { .. })));
        let missing = account("no-such-user-here").unwrap_err();
        assert!(missing.to_string().contains("useradd"), "{missing}");
    }

    #[test]
    fn a_data_directory_is_made_for_its_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("var/lib/gatepost");
        make_data_dir(&path, Some("nobody")).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.mode() & 0o777, 0o700);
        if geteuid().is_root() {
            assert_eq!(found.uid(), account("nobody").unwrap().uid.as_raw());
            let theirs = make_data_dir(home.path(), Some("nobody"));
            assert!(matches!(theirs, Err(Error::NotOurs { .. })), "{theirs:?}");
        }
        make_data_dir(&path, Some("nobody")).unwrap();
    }

    #[test]
    fn dropped_privileges_do_not_come_back() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root has something to drop");
            return;
        }
        // In a process of its own, for the rest of the tests may need what is dropped.
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("accept::privileges::tests::drops_and_looks_back")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "run by dropped_privileges_do_not_come_back"]
    fn drops_and_looks_back() {
        drop_to("nobody").unwrap();
        let nobody = User::from_name("nobody").unwrap().unwrap();
        assert_eq!((getuid(), geteuid()), (nobody.uid, nobody.uid));
        assert_eq!((getgid(), getegid()), (nobody.gid, nobody.gid));
        assert!(!getgroups().unwrap().contains(&Gid::from_raw(0)));
        assert!(fs::read("/etc/shadow").is_err());
        drop_to("nobody").unwrap();
    }
}
