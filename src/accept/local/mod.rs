//! Mail of this machine's own users: a Unix socket for while we run, a drop directory for while we do not.
//!
//! Who connects is named by the kernel (SO_PEERCRED), who dropped a file by its owner; neither can be
//! made up, and no password is asked for. Both kinds of mail go through a session, so that what holds for
//! one holds for the other ([`crate::session`]).
//!
//! In the directory, which must let others through (0755), and is the gateway's:
//!
//! | name | mode | what |
//! | --- | --- | --- |
//! | `socket` | 0666 | where [`Door`] listens |
//! | `drop` | 1733 | others put files in, and can neither list nor delete them: see [`mod@drop`] |
//! | `refused` | 0700 | what was dropped and could not be taken |

pub mod drop;
pub mod handover;
pub mod pickup;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use nix::unistd::Uid;
use nix::unistd::User;
use nix::unistd::geteuid;

use crate::mail::id::SessionId;
use crate::session::Account;
use crate::session::Connection;
use crate::session::Service;
use crate::session::TlsMode;

/// The place for mail of this machine could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory could not be made, looked at or given its mode.
    #[error("cannot make {}", .path.display())]
    Make {
        /// Which one.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// What others could have put there is no place to take mail from.
    #[error("{} is no directory of ours; remove it, and the start makes it anew", .path.display())]
    NotOurs {
        /// Which one.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("cannot listen on {}", .path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// Somebody answers there.
    #[error("another gateway listens on {}; stop it, or give this one a directory of its own", .path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
}

/// Where the socket is.
pub fn socket(directory: &Path) -> PathBuf {
    directory.join("socket")
}

/// Where mail is dropped.
pub fn drop_dir(directory: &Path) -> PathBuf {
    directory.join("drop")
}

/// Where mail is set aside.
fn refused_dir(directory: &Path) -> PathBuf {
    directory.join("refused")
}

/// The socket, bound; clients queue in the kernel until [`super::run`] takes them.
#[derive(Debug)]
pub struct Door {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
}

impl Door {
    /// Makes what is missing in the directory, and binds the socket. To be called as the user who will run
    /// the gateway: root must not be led by links in a directory of another's.
    pub fn open(directory: &Path) -> Result<Door, Error> {
        make(&drop_dir(directory), 0o1733)?;
        make(&refused_dir(directory), 0o700)?;
        let path = socket(directory);
        let failed = |source| Error::Bind {
            path: socket(directory),
            source,
        };
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(&path).is_ok() {
                    return Err(Error::InUse { path });
                }
                // Left by a process that was killed.
                fs::remove_file(&path).map_err(failed)?;
                UnixListener::bind(&path)
            }
            bound => bound,
        };
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
        Ok(Door { listener, path })
    }
}

/// A directory of ours in one of ours, with this mode.
fn make(path: &Path, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Make {
        path: path.to_owned(),
        source,
    };
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        Err(_) | Ok(()) => {}
    }
    let found = fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        return Err(Error::NotOurs {
            path: path.to_owned(),
        });
    }
    if found.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

/// What a session is told of mail of this account.
pub(super) fn connection(id: SessionId, account: String, by: &'static str) -> Connection {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Connection {
        id,
        peer: here,
        local: here,
        service: Service::Local,
        tls: TlsMode::Off,
        terms: Arc::default(),
        account: Some(Account { name: account, by }),
    }
}

/// The name of an account, or its number where it has none. Blocks: it may be asked of a directory
/// service.
pub(super) fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_have_made_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, drop_dir(folder.path())).unwrap();
        let error = Door::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    }

    #[test]
    fn a_socket_that_somebody_left_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let door = Door::open(folder.path()).unwrap();
        let error = Door::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        drop(door);
        Door::open(folder.path()).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(socket(folder.path())), 0o666);
        assert_eq!(mode(drop_dir(folder.path())), 0o1733);
        assert_eq!(mode(refused_dir(folder.path())), 0o700);
    }
}
