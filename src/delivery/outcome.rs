//! What became of one recipient in one attempt.

use crate::smtp::client::response::Class;
use crate::smtp::client::response::Response;

/// What became of one recipient. The texts are cleaned and fit for the log and for a bounce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop has taken responsibility.
    Delivered {
        /// What it said.
        reply: Response,
    },
    /// It may come off later.
    Deferred {
        /// What was said, or what we found.
        reason: Response,
        /// Whether the message or its destination is put off.
        cause: Cause,
    },
    /// It will never come off.
    Failed {
        /// What was said, or what we found.
        reason: Response,
    },
}

/// What a delivery has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// This message or recipient was put off; others may fare better.
    Message,
    /// The destination takes nothing now: what waits for it need not be tried one by one.
    Destination,
}

impl Outcome {
    /// What a reply to a recipient or to the message means for a recipient.
    pub(super) fn of(response: Response) -> Outcome {
        match response.class() {
            Class::Done => Outcome::Delivered { reply: response },
            // RFC 5321 §3.8: with 421 the server is going away.
            Class::Later if response.is_goodbye() => Outcome::unreachable(response),
            Class::Later | Class::GoOn => Outcome::Deferred {
                reason: response,
                cause: Cause::Message,
            },
            Class::Never => Outcome::Failed { reason: response },
        }
    }

    /// The destination could not be had. Whatever the code in `reason`, there is a later.
    pub(super) fn unreachable(reason: Response) -> Outcome {
        Outcome::Deferred {
            reason,
            cause: Cause::Destination,
        }
    }
}

/// What a next hop says of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is such a mailbox: the next hop said 2xx to RCPT.
    Exists,
    /// There is no such mailbox (550, 551 or 553 to RCPT, and no enhanced code that says otherwise).
    Unknown(Response),
    /// It did not say: 4xx, a refusal for another reason, or no connection.
    Unsure(Response),
}
