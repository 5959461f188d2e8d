//! Takes what was dropped: at the start, and every few seconds.
//!
//! Each file goes through a session of its own, as if its owner had come through the socket, and is deleted
//! when that has answered 250. What the session puts off stays and is tried again; what it refuses is set
//! aside, with an error in the log, for there is nobody who could be told.
//!
//! Before its session begins, a file is given the session's id as the end of its name. Where a start finds
//! such a file, the message was on its way when the gateway was killed; if the spool has it, only the file
//! is left to be deleted.
//!
//! # Limits
//!
//! A message that was stored and delivered to all within the moment between the 250 and the deletion of its
//! file, and then the gateway was killed, is taken twice.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::drop;
use super::drop::Dropped;
use super::drop::Fault;
use super::drop_dir;
use super::handover;
use super::handover::Refused;
use super::handover::Verdict;
use super::refused_dir;
use crate::accept::Ids;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::session;
use crate::session::Shared;
use crate::session::Socket;
use crate::smtp::client::response::Class;
use crate::telemetry::events;

/// How often the directory is looked at.
const EVERY: Duration = Duration::from_secs(3);

/// How long what was put off rests.
const PAUSE: Duration = Duration::from_secs(60);

/// Names of one look that are held in memory; the rest waits for the next.
const MOST: usize = 10_000;

/// How old half a file is when its writer is given up.
const HALF_WRITTEN: Duration = Duration::from_secs(24 * 3600);

/// To how many recipients the spool holds a message; None where it holds none of that id. Waits until the
/// spool has read what an earlier run left.
pub type Stored =
    Box<dyn Fn(SpoolId) -> Pin<Box<dyn Future<Output = Option<usize>> + Send>> + Send + Sync>;

/// Whoever takes what was dropped.
pub struct Pickup {
    directory: PathBuf,
    shared: Arc<ArcSwap<Shared>>,
    ids: Ids,
    stored: Stored,
    stop: CancellationToken,
    /// When what was put off is tried again. Never more than [`MOST`].
    paused: HashMap<OsString, Instant>,
}

/// What is to become of a file.
enum Fate {
    /// The spool has it.
    Delete,
    Later(String),
    Aside {
        login: String,
        reason: String,
    },
}

impl Pickup {
    /// For the directory that holds socket and drop directory.
    pub fn new(
        directory: PathBuf,
        shared: Arc<ArcSwap<Shared>>,
        ids: Ids,
        stored: Stored,
        stop: CancellationToken,
    ) -> Pickup {
        Pickup {
            directory,
            shared,
            ids,
            stored,
            stop,
            paused: HashMap::new(),
        }
    }

    /// Runs until it is stopped, and then ends what is under way. Not cancel safe: a message may have been
    /// stored, and its file be left.
    pub async fn run(mut self) {
        while !self.stop.is_cancelled() {
            self.look().await;
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn look(&mut self) {
        let directory = drop_dir(&self.directory);
        let listed = spawn_blocking(move || names(&directory).map_err(|error| (directory, error)));
        let names = match listed.await {
            Ok(Ok(names)) => names,
            Ok(Err((directory, error))) => return events::drop_failed(&directory, &error),
            Err(_) => return,
        };
        self.paused
            .retain(|name, _| names.binary_search(name).is_ok());
        for name in names {
            if self.stop.is_cancelled() {
                return;
            }
            if self
                .paused
                .get(&name)
                .is_none_or(|until| *until <= Instant::now())
            {
                self.take(name).await;
            }
        }
    }

    /// Takes one file, whatever it is.
    async fn take(&mut self, name: OsString) {
        let path = drop_dir(&self.directory).join(&name);
        let largest = self.shared.load().largest();
        let reading = path.clone();
        let read = spawn_blocking(move || {
            drop::read(&reading, largest).map(|dropped| (super::name(dropped.uid), dropped))
        });
        let (path, fate) = match read.await {
            Ok(Ok((login, dropped))) => self.hand_over(path, login, dropped).await,
            Ok(Err(Fault::NotAFile)) => return self.remove(name, &path),
            // Somebody took it back.
            Ok(Err(Fault::Read(error))) if error.kind() == io::ErrorKind::NotFound => return,
            Ok(Err(fault @ Fault::Read(_))) => (path, Fate::Later(fault.to_string())),
            Ok(Err(fault)) => {
                let (login, reason) = (String::new(), fault.to_string());
                (path, Fate::Aside { login, reason })
            }
            Err(_) => return,
        };
        let done = match fate {
            Fate::Delete => fs::remove_file(&path),
            Fate::Aside { login, reason } => self.set_aside(&path, &login, &reason),
            Fate::Later(reason) => {
                events::drop_deferred(&path, &reason, PAUSE);
                self.pause(&path);
                Ok(())
            }
        };
        if let Err(error) = done {
            events::drop_failed(&path, &error);
            self.pause(&path);
        }
    }

    /// Has a session take the message. Gives the file's new path, and what is to become of it.
    async fn hand_over(&self, path: PathBuf, login: String, dropped: Dropped) -> (PathBuf, Fate) {
        if let Some(fate) = self.earlier(&path, &login, &dropped.envelope).await {
            return (path, fate);
        }
        let id = (self.ids)();
        let claiming = path.clone();
        let claimed = spawn_blocking(move || claim(&claiming, id)).await;
        let path = match claimed.map_err(io::Error::other).flatten() {
            Ok(path) => path,
            Err(error) => return (path, Fate::Later(error.to_string())),
        };
        events::picked_up(id, &path, &login);
        let handed_over = self.through_a_session(id, &login, dropped).await;
        let fate = match handed_over {
            Ok(Ok(Verdict::Taken(_))) => Fate::Delete,
            Ok(Ok(Verdict::Refused(refused))) if refused.iter().all(is_temporary) => {
                Fate::Later(words(&refused))
            }
            Ok(Ok(Verdict::Refused(refused))) => Fate::Aside {
                login,
                reason: words(&refused),
            },
            // To try again would send it to the others once more.
            Ok(Ok(Verdict::Partly(refused))) => Fate::Aside {
                login,
                reason: format!("taken for the others; {}", words(&refused)),
            },
            Ok(Err(error)) => Fate::Later(error.to_string()),
            Err(error) => Fate::Later(error.to_string()),
        };
        (path, fate)
    }

    /// What became of a file that an earlier run had begun to take; None where it is to be taken (again).
    async fn earlier(&self, path: &Path, login: &str, envelope: &Envelope) -> Option<Fate> {
        let session = claimed(path)?;
        let stored = (self.stored)(SpoolId { session, serial: 1 }).await?;
        Some(match stored < envelope.recipients.len() {
            false => Fate::Delete,
            true => Fate::Aside {
                login: login.to_owned(),
                reason: format!("taken for the first {stored} recipients before a crash"),
            },
        })
    }

    async fn through_a_session(
        &self,
        id: SessionId,
        login: &str,
        dropped: Dropped,
    ) -> io::Result<Result<Verdict, handover::Error>> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let socket = Socket::Unix(tokio::net::UnixStream::from_std(theirs)?);
        let connection = super::connection(id, login.to_owned(), "drop");
        // A fault in the program that ends the session must not end us.
        let mut session = JoinSet::new();
        session.spawn(session::serve(
            socket,
            connection,
            self.shared.load_full(),
            self.stop.clone(),
        ));
        let client =
            spawn_blocking(move || handover::hand_over(&ours, &dropped.envelope, &dropped.message));
        let verdict = client.await;
        if let Some(Err(error)) = session.join_next().await {
            events::session_panicked(&error);
        }
        verdict.map_err(io::Error::other)
    }

    /// A link or a pipe holds no mail, so nothing is lost with it; a directory that is not empty stays.
    fn remove(&mut self, name: OsString, path: &Path) {
        match fs::remove_file(path).or_else(|_| fs::remove_dir(path)) {
            Ok(()) => events::drop_refused(path, "", &Fault::NotAFile),
            Err(_) if self.paused.contains_key(&name) => {}
            Err(error) => events::drop_failed(path, &error),
        }
        self.pause(path);
    }

    fn set_aside(&self, path: &Path, login: &str, reason: &str) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        let aside = refused_dir(&self.directory).join(name);
        fs::rename(path, &aside)?;
        events::drop_refused(&aside, login, &reason);
        Ok(())
    }

    fn pause(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or_default();
        self.paused.insert(name.to_owned(), Instant::now() + PAUSE);
    }
}

/// The names in the directory, sorted, without those that are still being written.
fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            remove_if_left(&entry.path());
            continue;
        }
        names.push(name);
        if names.len() == MOST {
            break;
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Nobody was told that half a message is in safe hands.
fn remove_if_left(path: &Path) {
    let is_old = |changed: SystemTime| changed.elapsed().is_ok_and(|age| age > HALF_WRITTEN);
    let changed = fs::symlink_metadata(path).and_then(|found| found.modified());
    if changed.is_ok_and(is_old) && fs::remove_file(path).is_ok() {
        events::drop_refused(path, "", &"nobody finished writing it");
    }
}

/// Gives a file the session's id, durably. Blocks.
fn claim(path: &Path, id: SessionId) -> io::Result<PathBuf> {
    let claimed = path.with_extension(id.to_string());
    fs::rename(path, &claimed)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(claimed)
}

/// The session that an earlier run had for a file.
fn claimed(path: &Path) -> Option<SessionId> {
    path.extension()?.to_str()?.parse().ok()
}

fn is_temporary(refused: &Refused) -> bool {
    refused.reply.class() == Class::Later
}

/// What was said, for the log.
fn words(refused: &[Refused]) -> String {
    let words: Vec<_> = refused.iter().map(Refused::to_string).collect();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_the_session_that_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0123-abcd");
        fs::write(&path, "").unwrap();
        assert_eq!(claimed(&path), None);
        let first = claim(&path, SessionId(7)).unwrap();
        assert_eq!(claimed(&first), Some(SessionId(7)));
        let second = claim(&first, SessionId(8)).unwrap();
        assert_eq!(claimed(&second), Some(SessionId(8)));
        assert_eq!(names(folder.path()).unwrap(), [second.file_name().unwrap()]);
    }

    #[test]
    fn half_a_file_is_left_alone_until_its_writer_must_be_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".half");
        let file = File::create(&path).unwrap();
        assert_eq!(names(folder.path()).unwrap(), [""; 0]);
        assert!(path.exists());
        let old = SystemTime::now() - 2 * HALF_WRITTEN;
        file.set_modified(old).unwrap();
        assert_eq!(names(folder.path()).unwrap(), [""; 0]);
        assert!(!path.exists());
    }
}
