//! Every decision about mail, by phase, in the order in which it happens.
//!
//! Two phases: [`Pipeline::recipient`] at RCPT TO and [`Pipeline::message`] after the final dot. To know
//! all that can happen to mail from the world, read these two functions, and to mail of ours, those of
//! the same names in [`submission`]; to add a stage, add a line.
//! A stage is a function that takes facts and gives a verdict; each may be told to enforce, to
//! observe (log and count what it would have done) or to be off.

pub mod authenticity;
pub mod internal;
mod received;
pub mod spf;
pub mod structure;
pub mod submission;
pub mod trace;

use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ipnet::IpNet;
use ipnet::Ipv4Net;
use ipnet::Ipv6Net;
use serde::Deserialize;

use crate::directory::Answer;
use crate::directory::Directory;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::ForwardPath;
use crate::mail::address::Host;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::sign::Signing;
use crate::smtp::command::Hello;
use crate::smtp::reply::Refusal;
use crate::smtp::server::Verb;
use crate::telemetry::events;
use crate::tls::Identity;
use crate::verify::Evidence;
use crate::verify::Iprev;
use crate::verify::Spf;
use crate::verify::Verifier;

use self::submission::Quotas;

/// The networks of the machine itself, which rules and limits exempt unless they are told otherwise.
pub fn loopback() -> Vec<IpNet> {
    vec![
        IpNet::V4(Ipv4Net::new_assert([127, 0, 0, 0].into(), 8)),
        IpNet::V6(Ipv6Net::new_assert([0, 0, 0, 0, 0, 0, 0, 1].into(), 128)),
    ]
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Mail from the world for our domains.
    Mx,
    /// Mail from our users, who log in, for the world (RFC 6409).
    Submission,
    /// Mail for the world from machines of ours, known by their networks.
    Internal,
    /// Mail from users of this machine, whom the kernel names. No listener's: it has a socket of its own.
    #[serde(skip_deserializing)]
    Local,
}

impl Service {
    /// Its name in config and log.
    pub fn name(self) -> &'static str {
        match self {
            Service::Mx => "mx",
            Service::Submission => "submission",
            Service::Internal => "internal",
            Service::Local => "local",
        }
    }
}

/// Whether a rule acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It does what it says.
    #[default]
    Enforce,
    /// It logs and counts what it would have refused, and lets pass.
    Observe,
    /// It does nothing.
    Off,
}

/// What a result leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A 5xx.
    Reject,
    /// A 4xx: try again later.
    Defer,
    /// Taken, stored, and delivered only when an operator says so.
    Hold,
    /// Taken, with a word in the `X-Gatepost-Mark` field.
    Mark,
    /// Taken. The result stands in Authentication-Results all the same.
    Accept,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
            Mode::Off => "off",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Reject => "reject",
            Action::Defer => "defer",
            Action::Hold => "hold",
            Action::Mark => "mark",
            Action::Accept => "accept",
        })
    }
}

/// What the parts of the pipeline are told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// What becomes of a client that SPF does not let pass.
    pub spf: spf::Config,
    /// What becomes of a message that is not well formed.
    pub structure: structure::Config,
    /// What becomes of a message that DMARC does not let pass.
    pub dmarc: authenticity::Config,
    /// What our users may send.
    pub submission: submission::Config,
    /// Who may send without being a user.
    pub internal: internal::Config,
}

/// The client, as the session knows it.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it connects from. An IPv4 address is never in its IPv6 form.
    pub address: IpAddr,
    /// What it came for.
    pub service: Service,
    /// As whom it has logged in.
    pub login: Option<String>,
    /// Whether it said HELO or EHLO.
    pub verb: Verb,
    /// How it named itself.
    pub hello: Hello,
    /// TLS version and cipher suite, where TLS is in use.
    pub tls: Option<(String, String)>,
    /// What it has shown within TLS, where it was asked for a certificate.
    pub certificate: Option<Arc<Identity>>,
}

impl Client {
    /// Its name as far as SPF can use it; a client that gives none is known by its address.
    fn host(&self) -> Host {
        self.hello
            .host
            .clone()
            .unwrap_or(Host::Literal(self.address))
    }

    fn is_in(&self, networks: &[IpNet]) -> bool {
        networks
            .iter()
            .any(|network| network.contains(&self.address))
    }
}

/// What was found out about one transaction before its message came.
#[derive(Debug)]
pub struct Case {
    /// What the message is called, should it be stored.
    pub id: SpoolId,
    /// Of MAIL FROM.
    pub from: ReversePath,
    /// How many recipients were granted so far; counted for mail of ours alone.
    recipients: usize,
    /// None until the first recipient asks for it.
    spf: Option<spf::Finding>,
    /// The client's name, where it was asked for with SPF.
    iprev: Option<Iprev>,
}

impl Case {
    /// A transaction of which nothing is known yet.
    pub fn new(id: SpoolId, from: ReversePath) -> Case {
        Case {
            id,
            from,
            recipients: 0,
            spf: None,
            iprev: None,
        }
    }

    fn spf(&self) -> &[Spf] {
        self.spf.as_ref().map_or(&[], |finding| &finding.results)
    }
}

/// A message that may be stored.
#[derive(Debug)]
pub struct Passed {
    /// With our trace fields.
    pub content: Content,
    /// Why it is to be held, where it is.
    pub hold: Option<String>,
    /// The envelope's sender is likely not who sent it, and is to get no bounce.
    pub forged: bool,
}

/// All decisions, with the facts that they need.
pub struct Pipeline {
    hostname: Domain,
    config: Config,
    verifier: Verifier,
    directory: Directory,
    signing: Signing,
    quotas: Quotas,
}

impl Pipeline {
    /// Decides for the host of that name. `signing` and `quotas` outlive a reload, the rest does not.
    pub fn new(
        hostname: Domain,
        config: Config,
        verifier: Verifier,
        directory: Directory,
        signing: Signing,
        quotas: Quotas,
    ) -> Pipeline {
        Pipeline {
            hostname,
            config,
            verifier,
            directory,
            signing,
            quotas,
        }
    }

    /// Whether a client with this certificate is a machine of ours, wherever it comes from.
    pub fn knows_certificate(&self, certificate: &Identity) -> bool {
        self.config.internal.knows(certificate)
    }

    /// Whether the client is a machine of ours by its certificate.
    fn is_known(&self, client: &Client) -> bool {
        let certificate = client.certificate.as_ref();
        certificate.is_some_and(|certificate| self.knows_certificate(certificate))
    }

    /// RCPT TO: may this client send to this recipient? Says where to deliver.
    ///
    /// The cheapest refusal comes first. SPF is evaluated once a transaction. Cancel safe.
    pub async fn recipient(
        &self,
        client: &Client,
        case: &mut Case,
        to: &ForwardPath,
    ) -> Result<Address, Refusal> {
        match client.service {
            Service::Mx if !self.is_known(client) => {}
            Service::Mx | Service::Submission | Service::Internal | Service::Local => {
                return self.submitted_recipient(client, case, to).await;
            }
        }
        let address = match self.directory.recipient(to).await {
            Answer::Known(address) => address,
            Answer::NotOurs(address) => return Err(Refusal::relay_denied(&address)),
            Answer::Unknown => return Err(Refusal::unknown_user(to)),
            Answer::Unsure => return Err(Refusal::user_unsure(to)),
        };
        if case.spf.is_none() && self.needs_spf() {
            let (found, iprev) = self.ask_about_client(client, &case.from).await;
            (case.spf, case.iprev) = (Some(found), iprev);
        }
        if let Some(refusal) = case.spf.as_ref().and_then(|spf| spf.refusal.as_ref())
            // RFC 5321 §4.5.1; whoever gets it here.
            && !to.is_postmaster()
        {
            self.enforce(self.config.spf.mode, client, case, "rcpt", refusal)?;
        }
        Ok(address)
    }

    /// The final dot has come. What happens to a message before it is stored, in this order.
    ///
    /// Cancel safe; waits for the DNS as long as the verifier's deadline.
    pub async fn message(
        &self,
        client: &Client,
        case: &Case,
        envelope: &Envelope,
        received: &Bytes,
        now: SystemTime,
    ) -> Result<Passed, Refusal> {
        match client.service {
            Service::Mx if !self.is_known(client) => {}
            Service::Mx | Service::Submission | Service::Internal | Service::Local => {
                return self.submitted_message(client, case, envelope, received, now);
            }
        }
        structure::check_hops(received)?;
        if let Err(refusal) = structure::check(&self.config.structure, received) {
            self.enforce(self.config.structure.mode, client, case, "data", &refusal)?;
        }
        let (evidence, iprev) = tokio::join!(
            self.evidence(received, case),
            self.client_name(client, case),
        );
        let mut verdict = authenticity::judge(&self.config.dmarc, client, &evidence);
        if self.config.dmarc.mode == Mode::Observe
            && let Some(reason) = verdict.observe()
        {
            events::would_hold(case.id, &reason);
        }
        let results = trace::Results {
            hostname: &self.hostname,
            client,
            case,
            spf_exempt: case.spf.as_ref().is_some_and(|spf| spf.exempt),
            evidence: &evidence,
            iprev: &iprev,
            verdict: &verdict,
        };
        let judgement = trace::authentication_results(&results);
        events::judged(case.id, &judgement.join("; "));
        if let Some(refusal) = &verdict.refusal {
            self.enforce(self.config.dmarc.mode, client, case, "data", refusal)?;
        }
        let content = trace::stamp(&results, &judgement, envelope, received, now);
        Ok(Passed {
            content,
            forged: authenticity::is_forged(case, &evidence, &verdict),
            hold: verdict.hold,
        })
    }

    /// SPF, and beside it the client's name, which the message's fields will want. A refusal does not
    /// wait for the name.
    async fn ask_about_client(
        &self,
        client: &Client,
        from: &ReversePath,
    ) -> (spf::Finding, Option<Iprev>) {
        let mut spf = pin!(spf::find(&self.config.spf, &self.verifier, client, from));
        let mut name = pin!(self.verifier.iprev(client.address));
        tokio::select! {
            biased;
            found = &mut spf => match found.refusal {
                Some(_) => (found, None),
                None => (found, Some(name.await)),
            },
            name = &mut name => (spf.await, Some(name)),
        }
    }

    /// The client's name, unless it is known from RCPT TO.
    async fn client_name(&self, client: &Client, case: &Case) -> Iprev {
        match &case.iprev {
            Some(known) => known.clone(),
            None => self.verifier.iprev(client.address).await,
        }
    }

    async fn evidence(&self, message: &[u8], case: &Case) -> Evidence {
        match self.config.dmarc.mode {
            Mode::Enforce | Mode::Observe => self.verifier.message(message, case.spf()).await,
            Mode::Off => self.verifier.message_for_header(message, case.spf()).await,
        }
    }

    /// DMARC rests on SPF, so its rule being off does not mean that nobody asks.
    fn needs_spf(&self) -> bool {
        [self.config.spf.mode, self.config.dmarc.mode]
            .iter()
            .any(|mode| *mode != Mode::Off)
    }

    /// Refuses, or says what it would have refused.
    fn enforce(
        &self,
        mode: Mode,
        client: &Client,
        case: &Case,
        stage: &'static str,
        refusal: &Refusal,
    ) -> Result<(), Refusal> {
        match mode {
            Mode::Enforce => Err(refusal.clone()),
            Mode::Observe => {
                events::would_refuse(case.id, client.address, stage, &case.from, refusal.reply());
                Ok(())
            }
            Mode::Off => Ok(()),
        }
    }
}
