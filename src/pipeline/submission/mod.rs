//! Mail of ours for the world: from users who log in, from users of this machine, and from machines of
//! ours.
//!
//! The same two phases as for mail from the world, with other stages. To send is granted by a login, by
//! an account of this machine or by a listed network or certificate, and by nothing else. SPF, DMARC and
//! the client's name are not looked at: who sends is known. What goes out is put right and signed.

pub mod limits;
pub mod local;
pub mod repair;
pub mod senders;

use std::time::Instant;
use std::time::SystemTime;

use bytes::Bytes;

use super::Action;
use super::Case;
use super::Client;
use super::Passed;
use super::Pipeline;
use super::Service;
use super::received::Hop;
use super::received::Origin;
use super::structure;
use crate::directory::Answer;
use crate::mail::address::Address;
use crate::mail::address::ForwardPath;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::smtp::reply::Refusal;
use crate::telemetry::events;

pub use self::limits::Quotas;

use self::repair::Repair;
use self::senders::User;
use self::senders::Writers;

/// What the stages for mail of ours are told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Who may send as whom.
    pub senders: senders::Config,
    /// How much one user may send.
    pub limits: limits::Config,
    /// What is put right.
    pub repair: repair::Config,
    /// Users of this machine.
    pub local: local::Config,
}

/// Who sends. Whoever is neither may not.
enum Submitter<'a> {
    /// One of our users, by login, or by the word of the kernel.
    User(User<'a>),
    /// A machine of ours, by its network or its certificate.
    Machine,
}

impl Pipeline {
    /// RCPT TO: may this client send at all, as this sender, and that much? The recipient may be
    /// anywhere; only one of ours that is known not to exist is refused.
    pub(super) async fn submitted_recipient(
        &self,
        client: &Client,
        case: &mut Case,
        to: &ForwardPath,
    ) -> Result<Address, Refusal> {
        let config = &self.config.submission;
        if let Submitter::User(user) = self.submitter(client)? {
            if let Err(refusal) = user.check_envelope(&case.from) {
                self.enforce(config.senders.mode, client, case, "rcpt", &refusal)?;
            }
            let recipients = case.recipients + 1;
            let quotas = &self.quotas;
            quotas.check(&config.limits, user.login, recipients, Instant::now())?;
        }
        let address = match (self.directory.recipient(to).await, to) {
            (Answer::Known(address) | Answer::NotOurs(address), _) => address,
            // A mail program asks a person what to do about a 4xx; our queue can wait by itself.
            (Answer::Unsure, ForwardPath::Address(address)) => address.clone(),
            (Answer::Unsure, ForwardPath::Postmaster) => return Err(Refusal::user_unsure(to)),
            (Answer::Unknown, _) => return Err(Refusal::unknown_user(to)),
        };
        case.recipients += 1;
        Ok(address)
    }

    /// The final dot has come. What happens to a message of ours before it is stored, in this order.
    pub(super) fn submitted_message(
        &self,
        client: &Client,
        case: &Case,
        envelope: &Envelope,
        received: &Bytes,
        now: SystemTime,
    ) -> Result<Passed, Refusal> {
        let config = &self.config.submission;
        let submitter = self.submitter(client)?;
        structure::check_hops(received)?;
        if let Err(refusal) = structure::check(&self.structure_of_ours(), received) {
            self.enforce(self.config.structure.mode, client, case, "data", &refusal)?;
        }
        let writers = Writers::read(received)?;
        let mut sender = None;
        if let Submitter::User(user) = &submitter {
            if let Err(refusal) = user.check_header(&writers) {
                self.enforce(config.senders.mode, client, case, "data", &refusal)?;
            }
            if !writers.name_the_sender(user) {
                // RFC 6532 §3.2: beyond ASCII it may stand only in a message that says so.
                let own = user.own_address();
                sender = own.filter(|own| own.is_ascii() || envelope.smtputf8);
            }
        }
        let repair = Repair {
            config: &config.repair,
            hostname: &self.hostname,
            id: case.id,
            sender,
            now,
        };
        let repaired = repair.apply(received);
        let signatures = self.signatures(case, &writers, &repaired.content, now)?;
        // Last, so that what is refused does not count.
        if let Submitter::User(user) = &submitter {
            let recipients = envelope.recipients.len();
            let quotas = &self.quotas;
            quotas.take(&config.limits, user.login, recipients, Instant::now())?;
        }
        if !repaired.changes.is_empty() {
            events::repaired(case.id, &repaired.changes);
        }
        let prefix = self.hop(client, case).field(envelope, now) + &signatures;
        Ok(Passed {
            content: repaired.content.behind(prefix.into()),
            hold: None,
            forged: false,
        })
    }

    /// A message that passed was not taken in the end, so it does not count for its sender.
    pub fn not_taken(&self, client: &Client, envelope: &Envelope) {
        if let Ok(Submitter::User(user)) = self.submitter(client) {
            let recipients = envelope.recipients.len();
            let limits = &self.config.submission.limits;
            self.quotas.give_back(limits, user.login, recipients);
        }
    }

    /// The signatures of the authors' domains, as far as we have their keys.
    fn signatures(
        &self,
        case: &Case,
        writers: &Writers,
        content: &Content,
        now: SystemTime,
    ) -> Result<String, Refusal> {
        let mut fields = String::new();
        for author in writers.one_a_domain() {
            match self.signing.fields(author, content, now) {
                Ok(Some(signed)) => {
                    events::signed(case.id, author.host());
                    fields.push_str(&signed);
                }
                Ok(None) => {}
                // Unsigned it would not go out, but come back, or be lost among the forged.
                Err(error) => {
                    events::not_signed(case.id, author.host(), &error);
                    return Err(Refusal::not_signed());
                }
            }
        }
        Ok(fields)
    }

    /// Who sends, and by what right. The one place that grants relaying.
    fn submitter<'a>(&'a self, client: &'a Client) -> Result<Submitter<'a>, Refusal> {
        match (client.service, client.login.as_deref()) {
            (Service::Submission, Some(login)) => Ok(Submitter::User(self.user(login, None))),
            (Service::Local, Some(login)) => {
                let local = &self.config.submission.local;
                Ok(Submitter::User(self.user(login, Some(local))))
            }
            (Service::Mx | Service::Submission | Service::Internal, _) if self.is_known(client) => {
                Ok(Submitter::Machine)
            }
            (Service::Submission, None) => Err(Refusal::login_required()),
            (Service::Internal, _) if client.is_in(&self.config.internal.networks) => {
                Ok(Submitter::Machine)
            }
            (Service::Internal | Service::Local | Service::Mx, _) => {
                Err(Refusal::not_our_machine())
            }
        }
    }

    fn user<'a>(&'a self, login: &'a str, local: Option<&'a local::Config>) -> User<'a> {
        User {
            login,
            local,
            config: &self.config.submission.senders,
            directory: &self.directory,
        }
    }

    /// A date that we add is not missing.
    fn structure_of_ours(&self) -> structure::Config {
        let mut config = self.config.structure.clone();
        if self.config.submission.repair.date {
            config.missing_date = Action::Accept;
        }
        config
    }

    fn hop<'a>(&'a self, client: &'a Client, case: &Case) -> Hop<'a> {
        let repair = &self.config.submission.repair;
        Hop {
            hostname: &self.hostname,
            client,
            origin: if repair.hide_client {
                Origin::Hidden
            } else {
                Origin::Address
            },
            login: client
                .login
                .as_deref()
                .filter(|_| repair.show_login && client.service == Service::Submission),
            id: case.id,
        }
    }
}
