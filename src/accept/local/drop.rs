//! Mail that is dropped while no gateway runs: one file a message, put where nobody but the gateway can
//! look for it.
//!
//! A file is a line `gatepost drop 1 OCTETS`, a line with the envelope as JSON, and the message in so many
//! octets. It is written under a name with a dot in front and renamed when it is synced.
//!
//! Its owner says who sent it, so no identity is taken from the file. The directory has mode 1733: others
//! can put files in, but not list it, and not delete or rename what is not theirs; the gateway can, for
//! the directory is its own. A file has mode 0644, for the gateway is nobody to its owner, and a name that
//! cannot be guessed, which keeps all others from reading it. A link is never followed, and a file with a
//! second name is not taken: it might be somebody else's who knows nothing of it.
//!
//! # Limits
//!
//! How much an account may put there is the file system's to say (quotas); here is only bounded what is
//! taken.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use memchr::memchr;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::syncfs;

use crate::mail::envelope::Envelope;

/// What the first line begins with.
const MARK: &str = "gatepost drop 1 ";

/// How long both lines in front of a message may be together: ten thousand recipients.
pub(super) const LONGEST_HEAD: u64 = 4 * 1024 * 1024;

/// A message could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is not there, full, or closed to us.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The envelope has no form as text.
    #[error("cannot write the envelope down")]
    Envelope(#[source] serde_json::Error),
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("it is no file")]
    NotAFile,
    #[error("it has another name elsewhere")]
    Linked,
    #[error("it is larger than a message may be")]
    TooLarge,
    #[error("others may not read it")]
    Closed,
    #[error("it is no mail from gatepost sendmail")]
    NotOurs,
    #[error("its end is missing")]
    Torn,
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Dropped {
    /// Who owns it.
    pub(super) uid: u32,
    pub(super) envelope: Envelope,
    pub(super) message: Bytes,
}

/// Drops a message, durably. Blocks.
pub fn put(directory: &Path, envelope: &Envelope, message: &[u8]) -> Result<(), Error> {
    let envelope = serde_json::to_string(envelope).map_err(Error::Envelope)?;
    let head = format!("{MARK}{}\n{envelope}\n", message.len());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // In the order in which they were sent, and 128 bits that nobody guesses.
    let name = format!(
        "{:015x}-{:032x}",
        now.unwrap_or_default().as_micros(),
        rand::random::<u128>()
    );
    let (hidden, path) = (directory.join(format!(".{name}")), directory.join(&name));
    let written = write(&hidden, &path, &[head.as_bytes(), message]);
    written.map_err(|source| {
        // Who is told no will send it again.
        let _ = fs::remove_file(&hidden).or_else(|_| fs::remove_file(&path));
        Error::Write { path, source }
    })
}

fn write(hidden: &Path, path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(hidden)?;
    for piece in pieces {
        file.write_all(piece)?;
    }
    // Whatever the umask says.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs::rename(hidden, path)?;
    // Who may not read the directory cannot sync it; all of the file system is synced instead.
    Ok(syncfs(&file)?)
}

/// Reads a file of the drop directory. Blocks.
pub(super) fn read(path: &Path, largest: u64) -> Result<Dropped, Fault> {
    let file = open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Fault::NotAFile);
    }
    // It may have been linked to here by somebody else than its owner.
    if found.nlink() != 1 {
        return Err(Fault::Linked);
    }
    let largest = largest + LONGEST_HEAD;
    if found.size() > largest {
        return Err(Fault::TooLarge);
    }
    let mut octets = Vec::new();
    // It may grow while it is read.
    file.take(largest).read_to_end(&mut octets)?;
    let (envelope, message) = parse(octets.into())?;
    Ok(Dropped {
        uid: found.uid(),
        envelope,
        message,
    })
}

/// Follows no link, and does not wait for who might write into a pipe.
fn open(path: &Path) -> Result<File, Fault> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    // What cannot be opened is looked at by name. It may be changed in between, and is not read.
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() {
        return Err(Fault::NotAFile);
    }
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) => Fault::Closed,
        Some(Errno::ELOOP) => Fault::NotAFile,
        _ => Fault::Read(error),
    })
}

/// Takes a file apart. Copies nothing of the message.
fn parse(octets: Bytes) -> Result<(Envelope, Bytes), Fault> {
    let first = memchr(b'\n', &octets).ok_or(Fault::NotOurs)?;
    let length = std::str::from_utf8(&octets[..first])
        .ok()
        .and_then(|line| line.strip_prefix(MARK))
        .and_then(|digits| digits.parse::<usize>().ok())
        .ok_or(Fault::NotOurs)?;
    let rest = octets.slice(first + 1..);
    let second = memchr(b'\n', &rest).ok_or(Fault::Torn)?;
    let envelope: Envelope = serde_json::from_slice(&rest[..second]).map_err(|_| Fault::NotOurs)?;
    if envelope.recipients.is_empty() {
        return Err(Fault::NotOurs);
    }
    let message = rest.slice(second + 1..);
    match message.len() == length {
        true => Ok((envelope, message)),
        false => Err(Fault::Torn),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::proptest;

    use super::*;
    use crate::mail::address::ReversePath;
    use crate::mail::envelope::Recipient;

    fn envelope() -> Envelope {
        let from = ReversePath::parse("<anna@a.example>").unwrap();
        Envelope::new(from, vec![Recipient::new("b@b.example".parse().unwrap())])
    }

    fn only(directory: &Path) -> PathBuf {
        let mut files = fs::read_dir(directory).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        file
    }

    const LARGEST: u64 = 1000;

    #[test]
    fn what_was_dropped_is_read_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let message = b"Subject: s\r\n\r\n\xe4\n.\r\n";
        put(folder.path(), &envelope(), message).unwrap();
        let path = only(folder.path());
        let dropped = read(&path, LARGEST).unwrap();
        assert_eq!(dropped.message, message.as_slice());
        assert_eq!(dropped.envelope, envelope());
        let found = fs::metadata(&path).unwrap();
        assert_eq!(dropped.uid, found.uid());
        assert_eq!(found.mode() & 0o7777, 0o644);
    }

    #[test]
    fn what_is_no_whole_mail_has_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), &envelope(), b"Subject: s\r\n\r\n").unwrap();
        let path = only(folder.path());
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            let part = Bytes::copy_from_slice(&whole[..cut]);
            assert!(parse(part).is_err(), "{cut}");
        }
        let nobody = "gatepost drop 1 0\n{\"from\":\"<>\",\"recipients\":[]}\n";
        assert!(matches!(parse(nobody.into()), Err(Fault::NotOurs)));

        let second = folder.path().join("second");
        fs::hard_link(&path, &second).unwrap();
        assert!(matches!(read(&path, LARGEST), Err(Fault::Linked)));
        fs::remove_file(&second).unwrap();
        std::os::unix::fs::symlink(&path, &second).unwrap();
        assert!(matches!(read(&second, LARGEST), Err(Fault::NotAFile)));
        assert!(matches!(read(folder.path(), LARGEST), Err(Fault::NotAFile)));
        let large = File::options().write(true).open(&path).unwrap();
        large.set_len(LARGEST + LONGEST_HEAD + 1).unwrap();
        assert!(matches!(read(&path, LARGEST), Err(Fault::TooLarge)));
    }

    proptest! {
        #[test]
        fn no_octets_make_the_reader_fall_over(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(octets.clone().into());
            let _ = parse([MARK.as_bytes(), &octets].concat().into());
        }
    }
}
