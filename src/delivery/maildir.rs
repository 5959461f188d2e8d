//! Puts messages into Maildirs of our own (<https://cr.yp.to/proto/maildir.html>).
//!
//! A message is written in `tmp`, synced, moved to `new`, and `new` is synced: what is said to be
//! delivered is on disk, and a reader never sees half of it. Lines end with LF there, as readers of
//! Maildirs expect. Files are 0600, folders 0700. A recipient names a path element at most, never a
//! path.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memchr::memchr;

use super::next_hop::Mailboxes;
use super::outcome::Cause;
use super::outcome::Fate;
use super::outcome::Handover;
use super::outcome::Outcome;
use crate::mail::address::Address;
use crate::smtp::client::response::Response;

/// The Maildir of a recipient, or why it has none.
pub(super) fn path(mailboxes: &Mailboxes, recipient: &Address) -> Result<PathBuf, Outcome> {
    let domain = recipient.host().to_string();
    match element(recipient.local()) {
        Some(local) => Ok(mailboxes.path(&domain, &local)),
        None => {
            let reply = Response::ours(553, (5, 1, 3), "the local part names no mailbox");
            Err(Outcome::of(reply, Handover::Final))
        }
    }
}

/// A local part as one element of a path, in lower case. What could mean something to the file system
/// is written as %XX. None where nothing is left to name.
fn element(local: &str) -> Option<String> {
    let mut name = String::with_capacity(local.len());
    for (at, c) in local.to_ascii_lowercase().char_indices() {
        match c {
            '/' | '\\' | '%' => name.push_str(&format!("%{:02X}", c as u32)),
            '.' if at == 0 => name.push_str("%2E"),
            c if c.is_control() => name.push_str(&format!("%{:02X}", c as u32)),
            c => name.push(c),
        }
    }
    // NAME_MAX is 255 on every file system in use.
    (1..=255).contains(&name.len()).then_some(name)
}

/// Delivers one message to one Maildir. Blocks.
///
/// `now` is the time since 1970, for the name of the file.
pub(super) fn deliver(maildir: &Path, pieces: &[&[u8]], hostname: &str, now: Duration) -> Outcome {
    match write(maildir, pieces, hostname, now) {
        Ok(name) => {
            let reply = Response::ours(250, (2, 0, 0), &format!("written as {name}"));
            Outcome::of(reply, Handover::Final)
        }
        Err(error) => deferred(maildir, &error),
    }
}

fn deferred(maildir: &Path, error: &io::Error) -> Outcome {
    // RFC 3463 §3.3, §3.4
    let (detail, cause) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem => {
            ((4, 3, 1), Cause::Destination)
        }
        io::ErrorKind::QuotaExceeded => ((4, 2, 2), Cause::Message),
        _ => ((4, 3, 0), Cause::Message),
    };
    let text = format!("cannot write to {}: {error}", maildir.display());
    Outcome {
        fate: Fate::Deferred(cause),
        reply: Response::ours(451, detail, &text),
        peer: None,
    }
}

fn write(maildir: &Path, pieces: &[&[u8]], hostname: &str, now: Duration) -> io::Result<String> {
    let name = unique_name(hostname, now);
    match place(maildir, &name, pieces) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(maildir)?;
            place(maildir, &name, pieces)?;
        }
        placed => placed?,
    }
    Ok(name)
}

fn place(maildir: &Path, name: &str, pieces: &[&[u8]]) -> io::Result<()> {
    let (draft, new) = (maildir.join("tmp").join(name), maildir.join("new"));
    let file = create(&draft)?;
    let placed = write_lines(&file, pieces)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&draft, new.join(name)))
        .and_then(|()| sync_directory(&new));
    if placed.is_err() {
        // Best effort: a reader cleans tmp of what is older than 36 hours.
        let _ = fs::remove_file(&draft);
        let _ = fs::remove_file(new.join(name));
    }
    placed
}

/// Unique on this host by time, process and a count within it.
fn unique_name(hostname: &str, now: Duration) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    let process = std::process::id();
    format!("{seconds}.M{micros}P{process}Q{count}.{hostname}")
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the folders, and syncs each folder that got a new one. `tmp` comes last: where it is, another
/// delivery takes the Maildir for whole.
fn make(maildir: &Path) -> io::Result<()> {
    let missing = maildir.ancestors().take_while(|path| !path.exists());
    let made: Vec<&Path> = missing.collect();
    let mut folders = DirBuilder::new();
    folders.recursive(true).mode(0o700);
    folders.create(maildir.join("new"))?;
    folders.create(maildir.join("cur"))?;
    sync_directory(maildir)?;
    made.iter()
        .filter_map(|path| path.parent())
        .try_for_each(sync_directory)?;
    folders.create(maildir.join("tmp"))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes the message with LF where it has CRLF.
fn write_lines(file: &File, pieces: &[&[u8]]) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 16, file);
    let mut held_cr = false;
    for piece in pieces {
        let mut rest = *piece;
        if held_cr && !rest.starts_with(b"\n") && !rest.is_empty() {
            file.write_all(b"\r")?;
        }
        held_cr &= rest.is_empty();
        while let Some(end) = memchr(b'\n', rest) {
            let line = &rest[..end];
            file.write_all(line.strip_suffix(b"\r").unwrap_or(line))?;
            file.write_all(b"\n")?;
            rest = &rest[end + 1..];
        }
        if let Some(before) = rest.strip_suffix(b"\r") {
            held_cr = true;
            rest = before;
        }
        file.write_all(rest)?;
    }
    if held_cr {
        file.write_all(b"\r")?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::delivery::next_hop::NextHop;

    const NOW: Duration = Duration::from_micros(1_764_000_000_000_001);

    #[test]
    fn a_recipient_names_one_path_element() {
        let Ok(NextHop::Maildir(mailboxes)) = NextHop::parse("maildir:/m/{domain}/{local}/Mail")
        else {
            panic!("a maildir");
        };
        for (address, want) in [
            ("Joe.Doe@Y.example", "/m/y.example/joe.doe/Mail"),
            (
                "\"../../etc\"@y.example",
                "/m/y.example/%2E.%2F..%2Fetc/Mail",
            ),
            ("\"..\"@y.example", "/m/y.example/%2E./Mail"),
            (
                "\"/etc/passwd\"@y.example",
                "/m/y.example/%2Fetc%2Fpasswd/Mail",
            ),
            ("%2f@y.example", "/m/y.example/%252f/Mail"),
            ("{domain}@y.example", "/m/y.example/{domain}/Mail"),
            ("a@[IPv6:2001:db8::1]", "/m/[IPv6:2001:db8::1]/a/Mail"),
            ("\"\"@y.example", "-"),
        ] {
            let address = Address::parse(address).unwrap();
            let got = path(&mailboxes, &address);
            let got = got.unwrap_or_else(|_| PathBuf::from("-"));
            assert_eq!(got, Path::new(want), "{address}");
        }
    }

    #[test]
    fn a_message_lies_in_new_with_unix_line_ends_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let maildir = folder.path().join("y.example/joe");
        let pieces: &[&[u8]] = &[b"A: b\r", b"\n\r\nbo", b"", b"dy\r\nlone\rcr\r\n"];
        for _ in 0..2 {
            let outcome = deliver(&maildir, pieces, "mx.example", NOW);
            assert_eq!(
                outcome.fate,
                Fate::Delivered(Handover::Final),
                "{outcome:?}"
            );
        }
        let files: Vec<PathBuf> = fs::read_dir(maildir.join("new"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(files.len(), 2);
        assert_eq!(fs::read(&files[0]).unwrap(), b"A: b\n\nbody\nlone\rcr\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files[0]), mode(&maildir)), (0o600, 0o700));
        assert_eq!(fs::read_dir(maildir.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_maildir_of_which_a_crash_left_a_part_is_made_whole() {
        for folders in [&["tmp"][..], &["new"], &["new", "cur"], &["tmp", "cur"]] {
            let maildir = tempfile::tempdir().unwrap();
            for folder in folders {
                fs::create_dir(maildir.path().join(folder)).unwrap();
            }
            let outcome = deliver(maildir.path(), &[b"x"], "mx.example", NOW);
            assert_eq!(
                outcome.fate,
                Fate::Delivered(Handover::Final),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn a_maildir_that_cannot_be_written_defers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let outcome = deliver(&file.join("joe"), &[b"x"], "mx.example", NOW);
        assert_eq!(outcome.fate, Fate::Deferred(Cause::Message));
        let reply = outcome.reply.to_string();
        assert!(reply.contains("cannot write to"), "{reply}");
    }
}
