//! Who will run the gateway, and what they may read and write.
//!
//! `gatepost check` is mostly called by root, who may do everything; what counts is whether the user
//! of the key `user` may. That is worked out from owners and modes, as the kernel would. Access
//! lists and security modules are not looked at.

use std::ffi::CString;
use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::AccessFlags;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::User;
use nix::unistd::access;
use nix::unistd::getgrouplist;

/// Who will run the gateway.
#[derive(Debug)]
pub(super) enum Runner {
    /// Whoever runs us now.
    Ourselves,
    /// Somebody else; all groups they are in.
    Other { user: User, groups: Vec<Gid> },
}

/// What is to be done with a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// For a directory: to make files in it.
    Write,
    /// For a directory: to reach what is in it.
    Enter,
}

impl Runner {
    /// The user that the configuration names; the error says what to do.
    pub(super) fn named(name: Option<&str>) -> Result<Runner, String> {
        let Some(name) = name else {
            return Ok(Runner::Ourselves);
        };
        let user = match User::from_name(name) {
            Ok(Some(user)) if user.uid == Uid::effective() => return Ok(Runner::Ourselves),
            Ok(Some(user)) => user,
            Ok(None) => return Err(format!("there is no user {name}; make one or name another")),
            Err(error) => return Err(format!("cannot look the user {name} up: {error}")),
        };
        let groups = CString::new(name)
            .ok()
            .and_then(|name| getgrouplist(&name, user.gid).ok());
        let groups = groups.unwrap_or_else(|| vec![user.gid]);
        Ok(Runner::Other { user, groups })
    }

    /// As a message names them.
    pub(super) fn name(&self) -> &str {
        match self {
            Runner::Ourselves => "this user",
            Runner::Other { user, .. } => &user.name,
        }
    }

    /// Whether they may do this with what exists at `path`.
    pub(super) fn may(&self, wanted: Access, path: &Path) -> bool {
        match self {
            Runner::Ourselves => {
                let flags = match wanted {
                    Access::Read => AccessFlags::R_OK,
                    Access::Write => AccessFlags::W_OK | AccessFlags::X_OK,
                    Access::Enter => AccessFlags::X_OK,
                };
                access(path, flags).is_ok()
            }
            Runner::Other { user, groups } => {
                let bits = match wanted {
                    Access::Read => 0o4,
                    Access::Write => 0o3,
                    Access::Enter => 0o1,
                };
                let allowed = |path: &Path, bits| {
                    fs::metadata(path).is_ok_and(|found| grants(&found, bits, user.uid, groups))
                };
                // Modes count where the file really is, not where links to it are.
                fs::canonicalize(path).is_ok_and(|path| {
                    let mut parents = path.ancestors().skip(1);
                    allowed(&path, bits) && parents.all(|parent| allowed(parent, 0o1))
                })
            }
        }
    }
}

/// The first of owner, group and others that fits decides (POSIX.1-2017 §4.5).
fn grants(found: &Metadata, bits: u32, uid: Uid, groups: &[Gid]) -> bool {
    let shift = if found.uid() == uid.as_raw() {
        6
    } else if groups.iter().any(|group| group.as_raw() == found.gid()) {
        3
    } else {
        0
    };
    uid.is_root() || (found.mode() >> shift) & bits == bits
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn owner_group_and_others_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let found = |mode| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            fs::metadata(folder.path()).unwrap()
        };
        let (owner, group) = (Uid::effective(), Gid::from_raw(found(0o700).gid()));
        let (stranger, no_group) = (Uid::from_raw(54_321), Gid::from_raw(54_321));
        for (mode, uid, group, want) in [
            (0o300, stranger, no_group, false),
            (0o003, stranger, no_group, true),
            (0o030, stranger, group, true),
            (0o003, stranger, group, false),
            (0o002, stranger, no_group, false),
        ] {
            let got = grants(&found(mode), 0o3, uid, &[group]);
            assert_eq!(got, want, "{mode:o} {uid} {group}");
        }
        assert!(grants(&found(0o300), 0o3, owner, &[no_group]));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn a_user_who_is_not_there_is_said() {
        assert!(Runner::named(Some("no-such-user")).is_err());
        assert!(matches!(Runner::named(None), Ok(Runner::Ourselves)));
    }

    #[test]
    fn who_may_not_enter_the_folder_may_not_read_the_file() {
        let Ok(runner @ Runner::Other { .. }) = Runner::named(Some("nobody")) else {
            eprintln!("skipped: there is no other user named nobody");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        for (mode, want) in [(0o700, false), (0o711, true)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(runner.may(Access::Read, &file), want, "{mode:o}");
        }
        assert!(!runner.may(Access::Read, &folder.path().join("none")));
    }
}
