//! Logging in at a next hop, and telling it whose message comes next.

use std::path::Path;

use rand::Rng;
use rand::distr::Alphanumeric;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use super::broken::Broken;
use super::exchange::Exchange;
use super::route::Route;
use crate::mail::address::Domain;
use crate::smtp::client::login::Login;
use crate::smtp::client::origin::Origin;
use crate::smtp::client::response::Class;
use crate::smtp::client::response::Response;

/// Characters of a nonce: 142 bits.
const NONCE: usize = 24;

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Logs in with the password in the first line of `file`. A refusal is one for now: whoever wrote
    /// the password can mend it, and no recipient is at fault.
    pub(super) async fn log_in(&mut self, user: &str, file: &Path) -> Result<(), Response> {
        let ours = |detail, text: &str| Response::ours(451, detail, text);
        let content = tokio::fs::read_to_string(file).await;
        let content = content.map_err(|error| {
            let text = format!("cannot read the password in {}: {error}", file.display());
            ours((4, 3, 5), &text)
        })?;
        let password = content.lines().next().unwrap_or_default();
        let nonce: String = rand::rng()
            .sample_iter(Alphanumeric)
            .take(NONCE)
            .map(char::from)
            .collect();
        let login = Login::new(self.offered.auth, user, password, &nonce);
        let mut login = login.ok_or_else(|| {
            let text = "the server offers no AUTH of SCRAM-SHA-256, PLAIN or LOGIN";
            ours((4, 7, 4), text)
        })?;
        let mut line = login.begin();
        loop {
            let reply = self.ask("AUTH", &line).await.map_err(Broken::response)?;
            match reply.class() {
                Class::GoOn => match login.answer(reply.lines().next().unwrap_or_default()) {
                    Ok(answer) => line = answer,
                    Err(error) => {
                        // RFC 4954 §4: one who gives up says so; the connection ends anyway.
                        let _ = self.ask("AUTH", "*\r\n").await;
                        return Err(ours((4, 7, 0), &format!("cannot log in: {error}")));
                    }
                },
                Class::Done if login.is_complete() => return Ok(()),
                Class::Done => {
                    let text = "cannot log in: the server does not keep to the mechanism";
                    return Err(ours((4, 7, 0), text));
                }
                Class::Later | Class::Never => return Err(reply),
            }
        }
    }

    /// Tells whose message comes next, where the route says so and the server offers to hear it. A
    /// refusal changes nothing: the message goes all the same.
    ///
    /// # Errors
    /// Also where the server would go on taking us for an earlier client: the message needs another
    /// connection.
    pub(super) async fn introduce(
        &mut self,
        route: &Route,
        hello: &Domain,
        origin: &Origin<'_>,
    ) -> Result<(), Broken> {
        if route.xclient {
            let mut taken_for_an_earlier = self.taken_for_another;
            let hello = origin.ehlo().unwrap_or(hello.as_str());
            for line in origin.xclient(self.offered.xclient) {
                // What comes is a greeting, and the server knows nothing of before.
                if self.ask("XCLIENT", &line).await?.class() == Class::Done {
                    (self.taken_for_another, taken_for_an_earlier) = (true, false);
                    self.hello(hello).await?;
                }
            }
            if taken_for_an_earlier {
                return Err(Broken::TakenForAnother);
            }
        }
        if route.xforward {
            for line in origin.xforward(self.offered.xforward) {
                self.ask("XFORWARD", &line).await?;
            }
        }
        Ok(())
    }
}
