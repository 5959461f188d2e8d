//! Asking a server whether it takes mail for a recipient, without a message (RCPT callout).

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use super::broken::Broken;
use super::exchange::Exchange;
use super::outcome::Answer;
use crate::mail::envelope::Recipient;
use crate::smtp::client::commands;
use crate::smtp::client::response::Class;
use crate::smtp::client::response::Response;

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Asks whether the server takes mail for `recipient`: MAIL FROM:<>, RCPT, RSET. None where the
    /// question cannot be put to it. The first response is that to MAIL, the second that to RCPT.
    pub(super) async fn callout(
        &mut self,
        recipient: &Recipient,
    ) -> Result<Option<[Response; 2]>, Broken> {
        self.transactions += 1;
        let Some([mail, rcpt, reset]) = commands::callout(recipient, &self.offered) else {
            return Ok(None);
        };
        if !self.offered.pipelining {
            let mail = self.ask("MAIL", &mail).await?;
            let rcpt = self.ask("RCPT", &rcpt).await?;
            let reset = self.ask("RSET", &reset).await?;
            return done("RSET", reset).map(|()| Some([mail, rcpt]));
        }
        let lines = [mail.as_bytes(), rcpt.as_bytes(), reset.as_bytes()];
        self.write(Box::new(lines.into_iter())).await?;
        let mail = self.read("MAIL", self.deadlines.mail).await?;
        let rcpt = self.read("RCPT", self.deadlines.recipient).await?;
        let reset = self.read("RSET", self.deadlines.mail).await?;
        done("RSET", reset).map(|()| Some([mail, rcpt]))
    }
}

/// What the replies to MAIL and RCPT say about a recipient.
pub(super) fn answer(mail: Response, rcpt: Response) -> Answer {
    match (mail.class(), rcpt.class()) {
        (Class::Done, Class::Done) => Answer::Exists,
        (Class::Done, Class::Never) if names_no_mailbox(&rcpt) => Answer::Unknown(rcpt),
        (Class::Done, Class::GoOn | Class::Later | Class::Never) => Answer::Unsure(rcpt),
        // Whoever refuses the null sender says nothing about the recipient.
        (Class::GoOn | Class::Later | Class::Never, _) => Answer::Unsure(mail),
    }
}

/// Whether a refusal says that there is no such mailbox. One that is full or closed, or a policy that
/// has something against us, says nothing of the kind, whatever its class.
fn names_no_mailbox(rcpt: &Response) -> bool {
    // RFC 5321 §4.2.3
    matches!(rcpt.code, 550 | 551 | 553)
        && match rcpt.enhanced {
            // RFC 3463 §3.2: all of x.1 is about addresses, and these two about the sender's.
            Some((_, subject, detail)) => subject == 1 && !matches!(detail, 7 | 8),
            None => true,
        }
}

/// A server that refuses what cannot be refused is somewhere else in the dialogue than we are.
fn done(to: &'static str, response: Response) -> Result<(), Broken> {
    match response.class() {
        Class::Done => Ok(()),
        Class::GoOn | Class::Later | Class::Never => Err(Broken::refused(to, response)),
    }
}
