//! What a report tells of: one recipient, and what became of it.

use std::time::Duration;
use std::time::SystemTime;

use crate::mail::envelope::Notify;
use crate::smtp::client::response::Class;
use crate::smtp::client::response::Response;
use crate::smtp::client::response::Speaker;

/// What a report tells. One report is of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They will not get the message.
    Failed,
    /// They have not got it yet.
    Delayed {
        /// How long it is tried.
        until: SystemTime,
    },
    /// They have it.
    Delivered,
    /// It was handed to a server that will not report on it (RFC 3461 §5.2.2).
    Relayed,
}

/// One recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its place in the envelope.
    pub recipient: usize,
    /// What was said of it, or what we found.
    pub reply: Response,
    /// The name of the server that was spoken to, or its address.
    pub remote: Option<String>,
    /// How long it was tried, where it was given up for that.
    pub given_up_after: Option<Duration>,
}

impl Kind {
    /// Whether a sender with these wishes wants to hear of it.
    pub(super) fn is_wanted(self, notify: Notify) -> bool {
        // RFC 3461 §4.1
        match (notify, self) {
            (Notify::Never, _) => false,
            (Notify::Unsaid, Kind::Failed | Kind::Delayed { .. }) => true,
            (Notify::Unsaid, Kind::Delivered | Kind::Relayed) => false,
            (Notify::On { failure, .. }, Kind::Failed) => failure,
            (Notify::On { delay, .. }, Kind::Delayed { .. }) => delay,
            (Notify::On { success, .. }, Kind::Delivered | Kind::Relayed) => success,
        }
    }

    /// RFC 3464 §2.3.3
    pub fn action(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Delayed { .. } => "delayed",
            Kind::Delivered => "delivered",
            Kind::Relayed => "relayed",
        }
    }
}

impl Finding {
    /// RFC 3463: what was said, or what its class comes to.
    pub(super) fn status(&self, kind: Kind) -> (u8, u16, u16) {
        let (class, subject, detail) = self.said();
        match (kind, class) {
            // RFC 3464 §2.3.4: a server that says 5yz before MAIL is one to come back to.
            (Kind::Delayed { .. }, 5) => (4, subject, detail),
            _ => (class, subject, detail),
        }
    }

    fn said(&self) -> (u8, u16, u16) {
        if self.given_up_after.is_some() && self.reply.class() == Class::Later {
            return (4, 4, 7); // RFC 3463 §3.5: delivery time expired
        }
        let class = match self.reply.class() {
            Class::Done => 2,
            Class::Later | Class::GoOn => 4,
            Class::Never => 5,
        };
        self.reply.enhanced.unwrap_or((class, 0, 0))
    }

    /// The server, where it was the one that spoke.
    pub(super) fn speaker(&self) -> Option<&str> {
        match self.reply.speaker {
            Speaker::Peer => Some(self.remote.as_deref().unwrap_or("The next server")),
            Speaker::Us => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_hear_what_they_asked_for() {
        let on = |success, failure, delay| Notify::On {
            success,
            failure,
            delay,
        };
        let delayed = Kind::Delayed {
            until: SystemTime::UNIX_EPOCH,
        };
        for (notify, want) in [
            (Notify::Unsaid, [true, true, false, false]),
            (Notify::Never, [false; 4]),
            (on(true, false, false), [false, false, true, true]),
            (on(false, true, false), [true, false, false, false]),
            (on(false, false, true), [false, true, false, false]),
        ] {
            let kinds = [Kind::Failed, delayed, Kind::Delivered, Kind::Relayed];
            let got = kinds.map(|kind| kind.is_wanted(notify));
            assert_eq!(got, want, "{notify:?}");
        }
    }

    #[test]
    fn a_status_is_what_was_said_or_what_its_class_comes_to() {
        let read = |text: &str| Response::read(text.as_bytes()).unwrap().unwrap().0;
        let days = Some(Duration::from_secs(5));
        for (text, given_up_after, want) in [
            ("550 5.1.1 no\r\n", None, (5, 1, 1)),
            ("550 no\r\n", None, (5, 0, 0)),
            ("450 4.2.0 later\r\n", None, (4, 2, 0)),
            ("450 4.2.0 later\r\n", days, (4, 4, 7)),
            ("250 fine\r\n", None, (2, 0, 0)),
        ] {
            let finding = Finding {
                recipient: 0,
                reply: read(text),
                remote: None,
                given_up_after,
            };
            assert_eq!(finding.status(Kind::Failed), want, "{text}");
            let until = SystemTime::UNIX_EPOCH;
            let (class, ..) = finding.status(Kind::Delayed { until });
            assert_ne!(class, 5, "{text}");
        }
    }
}
