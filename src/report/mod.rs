//! What becomes of mail is told to its sender, by delivery status notifications (RFC 3461, RFC 3464).
//!
//! A [`Reporter`] writes a report, signs it, and returns when it is stored in the spool: then its
//! recipients may be marked as failed. It is mail like any other from there on.
//!
//! Promises: a report has the null return path, and none is ever made to a sender for mail with that
//! path or one whose sender is likely forged; so no two servers can bounce between them. What has no sender to tell is told
//! to the postmaster, where the configuration names one, and a report to the postmaster is never reported on.

pub mod config;
pub mod dsn;
mod finding;
mod status;
mod words;

use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;

use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Body;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Notify;
use crate::mail::envelope::Recipient;
use crate::mail::id::SpoolId;
use crate::sign;
use crate::sign::Signing;
use crate::spool;
use crate::spool::Arrival;
use crate::spool::Fate;
use crate::spool::Spool;
use crate::telemetry::events;
use dsn::Reader;
use dsn::Report;

pub use config::Config;
pub use finding::Finding;
pub use finding::Kind;

/// Why nobody was told. It is to be tried again later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It ought to be signed, and cannot be.
    #[error("the report cannot be signed: {0}")]
    NotSigned(#[from] sign::Error),
    /// The spool did not take it.
    #[error("the report cannot be stored: {0}")]
    NotStored(#[from] spool::Error),
}

/// Tells senders. Shared by all that deliver.
pub struct Reporter {
    config: Config,
    hostname: Domain,
    from: Address,
    spool: Spool,
    signing: Signing,
}

/// Who is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addressee<'a> {
    Sender(&'a Address),
    Postmaster(&'a Address),
    /// Nobody, and why.
    Nobody(&'static str),
}

impl Reporter {
    /// `hostname` is who reports.
    pub fn new(config: Config, hostname: Domain, spool: Spool, signing: Signing) -> Reporter {
        let from = config.from.clone();
        Reporter {
            from: from.unwrap_or_else(|| Address::mailer_daemon(&hostname)),
            config,
            hostname,
            spool,
            signing,
        }
    }

    /// How long a message waits before its sender is told so. None: for ever.
    pub fn delay_warning(&self) -> Option<Duration> {
        self.config.delay_warning.0
    }

    /// Whether a report of this kind would be made for any of these recipients.
    pub fn is_wanted(&self, envelope: &Envelope, kind: Kind, recipients: &[usize]) -> bool {
        recipients.iter().any(|recipient| {
            let addressee = self.addressee(envelope, kind, *recipient);
            !matches!(addressee, Addressee::Nobody(_))
        })
    }

    /// Tells of these recipients of a message, whose content is in memory, whoever wants to hear of them.
    /// Returns when the report is stored, or nobody is to be told; a failure that nobody is told of is an event.
    ///
    /// Cancel safe: when dropped, the report was stored or not.
    ///
    /// # Errors
    /// [`Error`]: nothing was stored.
    pub async fn report(
        &self,
        message: &Arrival,
        kind: Kind,
        findings: &[Finding],
    ) -> Result<(), Error> {
        let envelope = &message.envelope;
        let mut told: Vec<Finding> = Vec::with_capacity(findings.len());
        let mut to = None;
        for finding in findings {
            match self.addressee(envelope, kind, finding.recipient) {
                Addressee::Nobody(reason) if kind == Kind::Failed => {
                    if let Some(recipient) = envelope.recipients.get(finding.recipient) {
                        events::not_reported(message.id, &recipient.address, reason);
                    }
                }
                Addressee::Nobody(_) => {}
                // They all have the same: it depends on the sender alone.
                Addressee::Sender(address) => {
                    to = Some((address, Reader::Sender));
                    told.push(finding.clone());
                }
                Addressee::Postmaster(address) => {
                    to = Some((address, Reader::Postmaster));
                    told.push(finding.clone());
                }
            }
        }
        match to {
            Some((address, reader)) => self.tell(message, kind, &told, address, reader).await,
            None => Ok(()),
        }
    }

    fn addressee<'a>(
        &'a self,
        envelope: &'a Envelope,
        kind: Kind,
        recipient: usize,
    ) -> Addressee<'a> {
        let Some(recipient) = envelope.recipients.get(recipient) else {
            return Addressee::Nobody("there is no such recipient");
        };
        if envelope.forged {
            return Addressee::Nobody("the sender is likely forged");
        }
        match (&envelope.from, &self.config.double_bounce_to) {
            (ReversePath::Address(_), _) if !kind.is_wanted(recipient.notify) => {
                Addressee::Nobody("the sender does not want to hear of it")
            }
            (ReversePath::Address(sender), _) => Addressee::Sender(sender),
            // RFC 5321 §6.1: no report is made of a report, lest there be a loop.
            (ReversePath::Null, Some(postmaster))
                if kind == Kind::Failed && recipient.address != *postmaster =>
            {
                Addressee::Postmaster(postmaster)
            }
            (ReversePath::Null, _) => Addressee::Nobody("it has no return path"),
        }
    }

    async fn tell(
        &self,
        message: &Arrival,
        kind: Kind,
        findings: &[Finding],
        to: &Address,
        reader: Reader,
    ) -> Result<(), Error> {
        let now = SystemTime::now();
        let id = SpoolId {
            session: self.spool.clock().next(now),
            serial: 1,
        };
        let none = Content::default();
        let content = dsn::write(&Report {
            id,
            hostname: &self.hostname,
            from: &self.from,
            to,
            reader,
            kind,
            findings,
            envelope: &message.envelope,
            content: message.content.as_ref().unwrap_or(&none),
            arrived: message.arrived,
            now,
            full_up_to: self.config.full_up_to.as_u64(),
        });
        let signature = self.signing.fields(&self.from, &content, now)?;
        let signature = Content::from(Bytes::from(signature.unwrap_or_default()));
        let content = Content::join([signature, content]);
        let envelope = Envelope {
            requiretls: message.envelope.requiretls, // RFC 8689 §5
            ..envelope(to, &content)
        };
        self.spool
            .store(id, envelope, content, Fate::Deliver)
            .await?;
        events::reported(message.id, id, kind.action(), to, findings.len());
        Ok(())
    }
}

/// RFC 3461 §6.1: the null return path, and no report on the report.
fn envelope(to: &Address, content: &Content) -> Envelope {
    let is_ascii = content.chunks().all(<[u8]>::is_ascii);
    let recipient = Recipient {
        notify: Notify::Never,
        ..Recipient::new(to.clone())
    };
    Envelope {
        body: match is_ascii {
            true => Body::SevenBit,
            false => Body::EightBitMime,
        },
        // RFC 6533 §4: what is internationalised inside of it needs no more than 8BITMIME.
        smtputf8: !to.is_ascii(),
        ..Envelope::new(ReversePath::Null, vec![recipient])
    }
}
