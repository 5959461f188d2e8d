//! One certificate under watch: what its files looked like, and what is taken when they change.

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use crate::telemetry::events;

use super::CertificateFiles;
use super::Error;
use super::certificate::Certificate;
use super::made;
use super::store::read;

/// What a look at the files of a certificate brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    None,
    /// They have changed, but chain and key do not belong together, perhaps not yet.
    Unsettled,
    /// They have changed for the worse; this was reported.
    Broken,
    /// They have changed, and what they hold is to be used from now on.
    Taken,
}

/// A certificate in use, and the state in which its files were when they were last judged.
pub(super) struct Watched {
    pub(super) files: CertificateFiles,
    pub(super) certificate: Certificate,
    judged: Stamp,
    /// A state that could not be loaded at the last look: reported if it is still there at the next.
    doubtful: Option<Stamp>,
    /// When the certificate's end was last reported or, for one of our own, put off.
    end_seen: Option<Timestamp>,
}

impl Watched {
    pub(super) fn load(files: CertificateFiles) -> Result<Watched, Error> {
        // First the stamp: what changes while it is read is seen at the next look.
        let judged = Stamp::of(&files);
        let certificate = read(&files)?;
        report_loaded(&files, &certificate);
        Ok(Watched {
            files,
            certificate,
            judged,
            doubtful: None,
            end_seen: None,
        })
    }

    /// Takes the files if they have changed and can be used.
    pub(super) fn look(&mut self, now: Timestamp) -> News {
        let stamp = Stamp::of(&self.files);
        if stamp == self.judged {
            self.report_end(now);
            return News::None;
        }
        match read(&self.files) {
            Ok(certificate) => {
                report_loaded(&self.files, &certificate);
                self.certificate = certificate;
                self.judged = stamp;
                self.doubtful = None;
                self.end_seen = None;
                News::Taken
            }
            // Chain and key are not written in one instant: wait for the second look.
            Err(_) if self.doubtful != Some(stamp) => {
                self.doubtful = Some(stamp);
                News::Unsettled
            }
            Err(error) => {
                events::certificate_broken(&self.files.chain, &in_full(&error));
                self.judged = stamp;
                News::Broken
            }
        }
    }

    /// An expired certificate is reported once a day.
    fn report_end(&mut self, now: Timestamp) {
        if self.certificate.expires <= now && self.is_day_since_end_seen(now) {
            self.end_seen = Some(now);
            let reason = format!("expired {}", self.certificate.expires);
            events::certificate_doubtful(&self.files.chain, &reason);
        }
    }

    /// Makes our own certificate anew before its end; what was made is loaded as any change is.
    pub(super) fn remake_if_due(&mut self, hostname: &str, now: Timestamp) {
        if made::is_due(&self.certificate, now) && self.is_day_since_end_seen(now) {
            self.end_seen = Some(now);
            match made::make(&self.files, hostname, now) {
                Ok(()) => events::certificate_made(&self.files.chain, hostname),
                Err(error) => events::certificate_broken(&self.files.chain, &in_full(&error)),
            }
        }
    }

    fn is_day_since_end_seen(&self, now: Timestamp) -> bool {
        self.end_seen
            .is_none_or(|seen| now.duration_since(seen).as_hours() >= 24)
    }
}

fn report_loaded(files: &CertificateFiles, certificate: &Certificate) {
    events::certificate_loaded(&files.chain, &certificate.names.join(" "));
    if is_open_to_others(&files.key) {
        let reason = "the key is readable by others than its owner; `chmod 600` mends it";
        events::certificate_doubtful(&files.key, &reason);
    }
}

/// The error and what caused it, in one line.
fn in_full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Tells one state of a certificate's files from another, symbolic links followed: certbot renews
/// by pointing them elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([Option<FileStamp>; 2]);

/// Device, inode, length, and the times at which content and attributes changed.
type FileStamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Stamp {
    fn of(files: &CertificateFiles) -> Stamp {
        Stamp([file_stamp(&files.chain), file_stamp(&files.key)])
    }
}

fn file_stamp(path: &Path) -> Option<FileStamp> {
    let found = fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.len(),
        (found.mtime(), found.mtime_nsec()),
        (found.ctime(), found.ctime_nsec()),
    ))
}

/// Whether others than the owner may read the file.
fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.mode() & 0o044 != 0)
}
