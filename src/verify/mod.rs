//! Evidence about a message; it decides nothing.
//!
//! SPF (RFC 7208), DKIM (RFC 6376), ARC (RFC 8617), DMARC (RFC 9989) and the client's name (RFC 8601
//! §3), each computed from the connection, the bytes as received and the DNS, never from a header
//! that says what someone else found. Every check has a deadline; one that cannot be made now says
//! so (`TempError`), and no input, however broken, makes one panic.
//!
//! # Limits
//!
//! Of a message's DKIM signatures the first 32 are read and the best five verified; of its From
//! fields ten domains at most are authors. The body is hashed on the thread of the session.

use std::net::IpAddr;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

use crate::dns::Dns;
use crate::dns::Error;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::Host;
use crate::verify::signed::Signed;
use crate::verify::spf::Question;

mod arc;
pub mod author;
mod dkim;
mod dmarc;
mod iprev;
mod key;
mod names;
mod signed;
pub mod spf;
mod tags;

/// `[verify]`: how long the checks may take and how much of a message they look at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long one SPF check, or another check of the sender, may take; beyond it is a temporary error.
    /// RFC 7208 §4.6.4 wants at least 20 seconds.
    #[serde(with = "humantime_serde")]
    pub spf_deadline: Duration,
    /// How long all checks of one message may take together.
    #[serde(with = "humantime_serde")]
    pub message_deadline: Duration,
    /// How long a check may take that decides nothing, whose result only stands in the result header:
    /// the client's name, and all checks of a message where DMARC is off.
    #[serde(with = "humantime_serde")]
    pub header_deadline: Duration,
    /// How many DKIM signatures of a message are verified, those of the author's domain first.
    pub max_signatures: usize,
    /// The shortest RSA key of a DKIM signature that counts, in bits (RFC 8301 §3.2).
    pub min_key_bits: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            spf_deadline: Duration::from_secs(20),
            message_deadline: Duration::from_secs(30),
            header_deadline: Duration::from_secs(5),
            max_signatures: 5,
            min_key_bits: 1024,
        }
    }
}

impl Config {
    /// What is wrong: the key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        // RFC 5321 §4.5.3.2: no client has to wait longer for an answer to RCPT, or to the final dot.
        let (rcpt, dot) = (Duration::from_secs(5 * 60), Duration::from_secs(10 * 60));
        let within = |limit: Duration, most: Duration| !limit.is_zero() && limit <= most;
        let checks = [
            (
                !within(self.spf_deadline, rcpt),
                "spf_deadline",
                "must be longer than nothing and at most \"5min\", such as \"20s\"",
            ),
            (
                !within(self.message_deadline, dot),
                "message_deadline",
                "must be longer than nothing and at most \"10min\", such as \"30s\"",
            ),
            (
                !within(self.header_deadline, rcpt),
                "header_deadline",
                "must be longer than nothing and at most \"5min\", such as \"5s\"",
            ),
            (
                self.min_key_bits < 1024,
                "min_key_bits",
                "must be 1024 or more: shorter keys are broken by anyone (RFC 8301)",
            ),
        ];
        checks
            .into_iter()
            .filter(|(wrong, _, _)| *wrong)
            .map(|(_, key, text)| (key.to_owned(), text.to_owned()))
            .collect()
    }
}

/// RFC 7208 §2.6
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpfResult {
    /// There is no domain to ask, or it has no SPF record.
    None,
    /// The domain says that it does not say.
    Neutral,
    /// The client may send for the domain.
    Pass,
    /// The client may not send for the domain.
    Fail,
    /// The client probably may not send for the domain.
    SoftFail,
    /// It cannot be found out now, for the DNS does not answer.
    TempError,
    /// It cannot be found out: the record is wrong, or asks for too much.
    PermError,
}

/// Whose word SPF checks (RFC 7208 §2.3, §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpfIdentity {
    /// The name in EHLO or HELO.
    Helo,
    /// The domain of MAIL FROM; with `<>`, `postmaster` at the name in EHLO or HELO.
    MailFrom,
}

/// What SPF says of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spf {
    /// What the domain says of the client.
    pub result: SpfResult,
    /// Which of the two was checked.
    pub identity: SpfIdentity,
    /// The domain that was checked, as text.
    pub domain: String,
    /// What the domain says of a fail (`exp=`), cleaned for a reply line.
    pub explanation: Option<String>,
}

/// RFC 8601 §2.7.1
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DkimResult {
    /// The message is as the signer sent it.
    Pass,
    /// The message or the signature was changed.
    Fail,
    /// The signature was not verified.
    Neutral,
    /// We do not verify it: a limit of ours is passed.
    Policy,
    /// The key cannot be looked up now.
    TempError,
    /// The signature or its key is missing, wrong or of no use.
    PermError,
}

/// One DKIM-Signature field and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What verifying it gave.
    pub result: DkimResult,
    /// d=
    pub domain: String,
    /// s=
    pub selector: String,
    /// i=, where given
    pub identity: Option<String>,
    /// a= (`rsa-sha256`)
    pub algorithm: &'static str,
    /// The first eight characters of b= (RFC 6008).
    pub b: String,
    /// Why it did not pass, or with what key it did (`2048-bit key`): a few words for the comment in
    /// the result field.
    pub reason: Option<String>,
    /// A pass that may count for DMARC (`l=` covers the whole body, key long enough ...).
    pub counts: bool,
}

/// RFC 8617 §4.4
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArcResult {
    /// Nobody sealed the message.
    None,
    /// Each seal holds, and so does the newest signature.
    Pass,
    /// A seal or the newest signature does not hold, or the chain is broken.
    Fail,
    /// It cannot be validated now. RFC 8617 has no word for it; in a header it is a fail.
    TempError,
}

/// The chain of seals of those who forwarded the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arc {
    /// The state of the chain as a whole.
    pub result: ArcResult,
    /// Domains (d= of the seals), oldest first: of an intact chain, or of one that claims to be.
    pub sealers: Vec<String>,
}

/// RFC 8601 §2.7.3
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IprevResult {
    /// A name of the address has the address.
    Pass,
    /// The address has names, and none of them has the address.
    Fail,
    /// It cannot be found out now, for the DNS does not answer.
    TempError,
    /// The address has no name.
    PermError,
}

/// Whether the client has a name that leads back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iprev {
    /// What the two look-ups gave.
    pub result: IprevResult,
    /// The name, only where it leads back to the address.
    pub name: Option<Domain>,
}

/// Who the From field says wrote the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// One From field, all of its addresses in this domain.
    Domain(Domain),
    /// No From field.
    Missing,
    /// More than one From field.
    Fields(usize),
    /// One From field, addresses in several domains.
    Domains(Vec<Domain>),
    /// A From field without a readable address with a domain.
    Broken,
}

/// RFC 8601 §2.7.7, RFC 9989
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmarcResult {
    /// There is no policy to apply.
    None,
    /// SPF or DKIM passed for a domain that is aligned with the author's.
    Pass,
    /// Neither SPF nor DKIM passed for a domain that is aligned with the author's.
    Fail,
    /// It cannot be found out now, for the DNS does not answer.
    TempError,
}

/// What a domain asks for mail that fails, mildest first (RFC 9989 §4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DmarcPolicy {
    /// Nothing.
    None,
    /// To be taken with suspicion.
    Quarantine,
    /// To be refused.
    Reject,
}

/// What DMARC says of a message; with several author domains, the strictest of their results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dmarc {
    /// Whether the author's domain stands behind the message.
    pub result: DmarcResult,
    /// What the domain asks for a fail: p, sp or np, one step milder under t=y. Where the record could
    /// not be looked up (`TempError` without a `policy_domain`), the worst that it may ask: reject; or
    /// none, where the message would pass whatever it asks.
    pub policy: DmarcPolicy,
    /// Where the record was found.
    pub policy_domain: Option<Domain>,
    /// SPF passed for a domain that is aligned with the author's (RFC 9989 §4.4).
    pub spf_aligned: bool,
    /// DKIM passed for a domain that is aligned with the author's (RFC 9989 §4.4).
    pub dkim_aligned: bool,
}

/// What was found about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Whose policy applies.
    pub author: Author,
    /// One for each DKIM-Signature field that was read, those of the author's domains first.
    pub dkim: Vec<Signature>,
    /// What came of the ARC chain.
    pub arc: Arc,
    /// What came of the author's policy.
    pub dmarc: Dmarc,
}

/// Makes the checks. Shared by all sessions.
pub struct Verifier {
    dns: Dns,
    hostname: Domain,
    config: Config,
}

impl Verifier {
    /// `hostname` is our own name, for the macros of SPF explanations.
    pub fn new(dns: Dns, hostname: &Domain, config: &Config) -> Verifier {
        Verifier {
            dns,
            hostname: hostname.clone(),
            config: config.clone(),
        }
    }

    /// The HELO identity (RFC 7208 §2.3). An address literal has no record: none.
    ///
    /// Cancel safe, like all checks.
    pub async fn spf_helo(&self, ip: IpAddr, helo: &Host) -> Spf {
        self.spf(SpfIdentity::Helo, ip, helo, "", helo).await
    }

    /// The MAIL FROM identity (RFC 7208 §2.4). For the null sender ask [`Verifier::spf_helo`].
    pub async fn spf_sender(&self, ip: IpAddr, helo: &Host, sender: &Address) -> Spf {
        let text = sender.to_string();
        let local = text.rsplit_once('@').map_or("", |(local, _)| local);
        self.spf(SpfIdentity::MailFrom, ip, helo, local, sender.host())
            .await
    }

    async fn spf(
        &self,
        identity: SpfIdentity,
        ip: IpAddr,
        helo: &Host,
        local: &str,
        domain: &Host,
    ) -> Spf {
        let (helo, domain) = (helo.to_string(), domain.to_string());
        let question = Question {
            ip,
            local,
            domain: &domain,
            helo: &helo,
            receiver: self.hostname.as_str(),
        };
        let answer = spf::check_host(&self.dns, &question, self.config.spf_deadline).await;
        Spf {
            result: answer.result,
            identity,
            domain,
            explanation: answer.explanation,
        }
    }

    /// Whether the client has a name that leads back to it (RFC 8601 §3).
    pub async fn iprev(&self, ip: IpAddr) -> Iprev {
        timeout(self.config.header_deadline, iprev::check(&self.dns, ip))
            .await
            .unwrap_or(Iprev {
                result: IprevResult::TempError,
                name: None,
            })
    }

    /// Whether a DMARC record applies to mail from this domain (tree walk); an error is temporary.
    pub async fn publishes_dmarc(&self, domain: &Domain) -> Result<bool, Error> {
        let limit = self.config.spf_deadline;
        timeout(limit, dmarc::applies(&self.dns, domain))
            .await
            .unwrap_or_else(|_| Err(Error::Temporary(format!("no answer within {limit:?}"))))
    }

    /// All that can be said of the message itself. `spf` is what was found before: the HELO check and,
    /// where there was a sender, the MAIL FROM check.
    pub async fn message(&self, raw: &[u8], spf: &[Spf]) -> Evidence {
        self.message_within(self.config.message_deadline, raw, spf)
            .await
    }

    /// The same, where nothing hangs on it but what the result header says: it waits less.
    pub async fn message_for_header(&self, raw: &[u8], spf: &[Spf]) -> Evidence {
        self.message_within(self.config.header_deadline, raw, spf)
            .await
    }

    async fn message_within(&self, limit: Duration, raw: &[u8], spf: &[Spf]) -> Evidence {
        let begin = Instant::now();
        let deadline = begin + limit;
        // Something is left for DMARC, whose result a late signature need not spoil.
        let signatures_deadline = begin + limit * 2 / 3;
        let mail = Signed::read(raw);
        let author = author::of(&mail);
        let authors = match &author {
            Author::Domain(domain) => vec![domain.clone()],
            Author::Domains(domains) => domains.clone(),
            Author::Fields(_) => author::all_domains(&mail),
            Author::Missing | Author::Broken => Vec::new(),
        };
        let limits = dkim::Limits {
            signatures: self.config.max_signatures,
            key_bits: self.config.min_key_bits,
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            deadline: signatures_deadline,
        };
        let fields = dkim::read(&mail, &authors);
        let verified = fields.iter().take(limits.signatures);
        let signers = verified.map(dkim::Field::domain);
        let (dkim, arc, found) = tokio::join!(
            dkim::verify(&self.dns, &mail, &fields, &limits),
            arc::verify(&self.dns, &mail, signatures_deadline),
            timeout_at(deadline, dmarc::discover(&self.dns, &authors, spf, signers)),
        );
        let dmarc = match found {
            Ok(found) => timeout_at(deadline, dmarc::evaluate(&self.dns, &found, spf, &dkim))
                .await
                .unwrap_or_else(|_| dmarc::unknown()),
            Err(_) => dmarc::unknown(),
        };
        Evidence {
            author,
            dkim,
            arc,
            dmarc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_make_no_sense_are_faults() {
        assert_eq!(Config::default().faults(), []);
        let config = Config {
            spf_deadline: Duration::MAX,
            message_deadline: Duration::ZERO,
            header_deadline: Duration::ZERO,
            min_key_bits: 512,
            ..Config::default()
        };
        let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
        let want = [
            "spf_deadline",
            "message_deadline",
            "header_deadline",
            "min_key_bits",
        ];
        assert_eq!(keys, want);
    }
}
