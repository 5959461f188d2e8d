//! One certificate under watch: what its files looked like, and what is taken when they change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use crate::telemetry::events;
use crate::telemetry::metrics;

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
    /// None as long as there is none, which only those may be that we get for ourselves.
    pub(super) certificate: Option<Certificate>,
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
        Ok(Watched::new(files, Some(certificate), judged))
    }

    /// As [`Watched::load`], for one that need not be there, or be right, yet.
    pub(super) fn expect(files: CertificateFiles) -> Watched {
        let judged = Stamp::of(&files);
        let certificate = match read(&files) {
            Ok(certificate) => {
                report_loaded(&files, &certificate);
                Some(certificate)
            }
            Err(error) => {
                if files.chain.exists() {
                    events::certificate_broken(&files.chain, &events::in_full(&error));
                }
                None
            }
        };
        Watched::new(files, certificate, judged)
    }

    fn new(files: CertificateFiles, certificate: Option<Certificate>, judged: Stamp) -> Watched {
        Watched {
            files,
            certificate,
            judged,
            doubtful: None,
            end_seen: None,
        }
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
                self.certificate = Some(certificate);
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
                events::certificate_broken(&self.files.chain, &events::in_full(&error));
                self.judged = stamp;
                News::Broken
            }
        }
    }

    /// A certificate that has expired, or will before long, is reported once a day.
    fn report_end(&mut self, now: Timestamp) {
        let Some(certificate) = &self.certificate else {
            return;
        };
        if now < certificate.is_late_from() || !self.is_day_since_end_seen(now) {
            return;
        }
        let (file, expires) = (&self.files.chain, certificate.expires);
        if expires <= now {
            events::certificate_doubtful(file, &format!("expired {expires}"));
        } else {
            events::certificate_expiring(file, &certificate.names.join(" "), expires);
        }
        self.end_seen = Some(now);
    }

    /// Makes our own certificate anew before its end; what was made is loaded as any change is.
    pub(super) fn remake_if_due(&mut self, hostname: &str, now: Timestamp) {
        let is_due = self.certificate.as_ref();
        let is_due = is_due.is_none_or(|certificate| made::is_due(certificate, now));
        if is_due && self.is_day_since_end_seen(now) {
            self.end_seen = Some(now);
            match made::make(&self.files, hostname, now) {
                Ok(()) => events::certificate_made(&self.files.chain, hostname),
                Err(error) => {
                    events::certificate_broken(&self.files.chain, &events::in_full(&error))
                }
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
    metrics::certificate_expires(certificate.name(), certificate.expires);
    if is_open_to_others(&files.key) {
        let reason = "the key is readable by others than its owner; `chmod 600` mends it";
        events::certificate_doubtful(&files.key, &reason);
    }
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
