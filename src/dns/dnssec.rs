//! Questions whose answers DNSSEC may prove (RFC 4033, RFC 4035): who finds out, and how it is told.
//!
//! Either a resolver that we believe, by the AD bit of its answers, or the resolver library, from the
//! trust anchors down. What is bogus, or cannot be told, is no answer but an error: nobody can make a
//! proven name look unproven.
//!
//! Left out: whether it is proven that there is nothing. Where a name has an answer that is proven, the
//! lack of another cannot be forged; a resolver that validates calls that bogus.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hickory_resolver::NameServerPool;
use hickory_resolver::PoolContext;
use hickory_resolver::TlsConfig;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::net::DnsError;
use hickory_resolver::net::NetError;
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsHandle;
use hickory_resolver::net::xfer::RetryDnsHandle;
use hickory_resolver::proto::dnssec::Proof as RecordProof;
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::DnsRequestOptions;
use hickory_resolver::proto::op::DnsResponse;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::Record;

use crate::dns::Config;
use crate::dns::Dnssec;
use crate::dns::Error;
use crate::dns::SetupError;
use crate::dns::answers::Answer;
use crate::dns::answers::Kind;
use crate::dns::answers::Records;
use crate::dns::ask::nothing;
use crate::dns::ask::options;
use crate::dns::ask::record_type;
use crate::dns::ask::records;
use crate::dns::ask::text;
use crate::dns::ask::trust_nobody;
use crate::mail::address::Domain;

/// So many aliases are followed in one answer.
const MOST_ALIASES: usize = 16;

/// Whether DNSSEC proves an answer. A bogus one is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It is what the owner of the name has published.
    Secure,
    /// Nobody vouches for it.
    Insecure,
}

impl Proof {
    /// What rests on both.
    pub fn and(self, other: Proof) -> Proof {
        match (self, other) {
            (Proof::Secure, Proof::Secure) => Proof::Secure,
            (Proof::Insecure, _) | (_, Proof::Insecure) => Proof::Insecure,
        }
    }
}

/// What was found, and what it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven<T> {
    /// The records.
    pub found: T,
    /// Whether they, and the aliases on the way to them, are proven.
    pub proof: Proof,
    /// The name that has the records, where the one asked for is an alias.
    pub alias: Option<Domain>,
}

/// A TLSA record as it was published (RFC 6698 §2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlsa {
    /// Certificate usage.
    pub usage: u8,
    /// What of a certificate is compared.
    pub selector: u8,
    /// How it is compared.
    pub matching: u8,
    /// With what it is compared.
    pub data: Vec<u8>,
}

type Pool = RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>;

/// Finds out whether answers are proven. Cheap to clone.
#[derive(Clone)]
pub(super) enum Prover {
    Believing(Pool),
    Validating(Box<DnssecDnsHandle<Pool>>),
}

impl Prover {
    /// None where nobody can prove an answer.
    pub(super) fn new(
        config: &Config,
        servers: Vec<NameServerConfig>,
    ) -> Result<Option<Prover>, SetupError> {
        let is_local = servers.iter().all(|server| server.ip.is_loopback());
        let validates = match config.dnssec {
            Dnssec::Off => return Ok(None),
            Dnssec::Local if !is_local => return Ok(None),
            Dnssec::Local | Dnssec::TrustAd => false,
            Dnssec::Validate => true,
        };
        let tls = TlsConfig {
            config: trust_nobody()?,
        };
        let context = Arc::new(PoolContext::new(options(config), tls));
        let pool = NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
        let pool = RetryDnsHandle::new(pool, config.attempts.saturating_sub(1));
        if !validates {
            return Ok(Some(Prover::Believing(pool)));
        }
        let anchors = match &config.trust_anchors {
            None => TrustAnchors::default(),
            Some(path) => TrustAnchors::from_file(path).map_err(|error| {
                let (path, reason) = (path.clone(), error.to_string());
                SetupError::TrustAnchors { path, reason }
            })?,
        };
        let validating = DnssecDnsHandle::with_trust_anchor(pool, Arc::new(anchors));
        Ok(Some(Prover::Validating(Box::new(validating))))
    }

    /// Asks, as often as the config says.
    pub(super) async fn ask(
        &self,
        config: &Config,
        name: Name,
        kind: Kind,
    ) -> Result<Answer, Error> {
        let query = Query::query(name.clone(), record_type(kind));
        let mut asked = DnsRequestOptions::default();
        asked.edns_set_dnssec_ok = true; // RFC 6840 §5.7: it asks for the AD bit, too.
        let mut responses = match self {
            Prover::Believing(pool) => pool.lookup(query, asked),
            Prover::Validating(handle) => handle.lookup(query, asked),
        };
        let response = match responses.next().await {
            Some(Ok(response)) => response,
            Some(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                return Ok(nothing(config, none.response_code, none.negative_ttl));
            }
            Some(Err(error)) => return Err(Error::Temporary(error.to_string())),
            None => return Err(Error::Temporary("nobody answered".to_owned())),
        };
        let proof = self.judge(&response)?;
        let found = records(kind, &response.answers);
        let alias = end_of_aliases(&name, &response.answers);
        if let Records::Nothing(_) = found {
            let answer = nothing(config, response.response_code, response.negative_ttl());
            return Ok(answer.proven(proof, alias));
        }
        let ttl = response.answers.iter().map(|record| record.ttl).min();
        let ttl = Duration::from_secs(ttl.unwrap_or(0).into());
        let lifetime = ttl.clamp(config.min_ttl, config.max_ttl);
        Ok(Answer::new(found, lifetime).proven(proof, alias))
    }

    fn judge(&self, response: &DnsResponse) -> Result<Proof, Error> {
        let mut answers = response
            .answers
            .iter()
            .filter(|record| !record.record_type().is_rrsig());
        let secure = match self {
            Prover::Believing(_) => response.authentic_data,
            Prover::Validating(_) => {
                let bogus = answers.clone().any(|record| match record.proof {
                    RecordProof::Secure | RecordProof::Insecure => false,
                    RecordProof::Bogus | RecordProof::Indeterminate => true,
                });
                if bogus {
                    return Err(Error::Temporary("DNSSEC validation failed".to_owned()));
                }
                answers.all(|record| record.proof == RecordProof::Secure)
            }
        };
        Ok(if secure {
            Proof::Secure
        } else {
            Proof::Insecure
        })
    }
}

/// None where the name itself has the records, or where the last name is none that mail could have.
fn end_of_aliases(name: &Name, answers: &[Record]) -> Option<Domain> {
    let mut end = name;
    for _ in 0..MOST_ALIASES {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *end => Some(&alias.0),
            _ => None,
        });
        match next {
            Some(next) => end = next,
            None => break,
        }
    }
    (end != name).then(|| Domain::parse(&text(end)).ok())?
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use hickory_resolver::proto::rr::rdata::A;
    use hickory_resolver::proto::rr::rdata::CNAME;

    use super::*;
    use crate::dns::Dns;
    use crate::dns::Server;

    fn asking(servers: &[&str], dnssec: Dnssec) -> Config {
        let server = |text: &&str| text.parse::<Server>().unwrap();
        Config {
            servers: servers.iter().map(server).collect(),
            dnssec,
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn a_resolver_elsewhere_is_believed_only_when_told_so() {
        for (servers, dnssec, want) in [
            (&["127.0.0.1", "[::1]:5353"][..], Dnssec::Local, true),
            (&["127.0.0.1", "192.0.2.1"], Dnssec::Local, false),
            (&["192.0.2.1"], Dnssec::TrustAd, true),
            (&["192.0.2.1"], Dnssec::Validate, true),
            (&["127.0.0.1"], Dnssec::Off, false),
        ] {
            let dns = Dns::new(&asking(servers, dnssec)).unwrap();
            assert_eq!(dns.proves(), want, "{servers:?} {dnssec:?}");
        }
    }

    #[test]
    fn anchors_that_cannot_be_read_are_a_fault() {
        let mut config = asking(&["127.0.0.1"], Dnssec::Validate);
        config.trust_anchors = Some(PathBuf::from("/nonexistent/anchors"));
        let error = Dns::new(&config).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/anchors"), "{error}");
    }

    #[test]
    fn aliases_are_followed_to_their_end_and_not_in_a_circle() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let alias =
            |of: &str, to: &str| Record::from_rdata(name(of), 60, RData::CNAME(CNAME(name(to))));
        let address = |of: &str| Record::from_rdata(name(of), 60, RData::A(A::new(192, 0, 2, 1)));
        for (answers, want) in [
            (vec![address("a.example.")], None),
            (
                vec![
                    alias("A.example.", "b.example."),
                    alias("b.example.", "c.example."),
                    address("c.example."),
                ],
                Some("c.example"),
            ),
            (
                vec![
                    alias("a.example.", "b.example."),
                    alias("b.example.", "a.example."),
                ],
                None,
            ),
            (vec![alias("x.example.", "b.example.")], None),
        ] {
            let end = end_of_aliases(&name("a.example."), &answers);
            assert_eq!(end.as_ref().map(Domain::as_str), want, "{answers:?}");
        }
    }
}
