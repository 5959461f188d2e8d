//! Questions to the DNS in our words: addresses, names, mail exchangers and texts.
//!
//! Every question has a deadline, and every answer, good or empty, is remembered for as long as its
//! TTL and our bounds say, together with what was read out of it ([`Dns::read`]). There is one cache
//! for all of the gateway, bounded in octets. Equal questions at the same time go out once.
//!
//! Only the DNS is asked: `/etc/hosts` and search domains play no part, because what is found here
//! is evidence about strangers. Some questions say what their answer is worth: whether DNSSEC proves it
//! ([`Proven`]).
//!
//! # Limits
//!
//! An answer that is an error is not remembered. Names below `localhost` and `invalid` are never
//! asked for (RFC 6761). Questions beyond some two thousand at once wait for others to be answered.

use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use mail_auth::MessageAuthenticator;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::dns::answers::Answer;
use crate::dns::answers::Answers;
use crate::dns::answers::Kind;
use crate::dns::answers::Records;
use crate::dns::answers::key;
use crate::dns::ask::absolute;
use crate::dns::ask::name_server;
use crate::dns::ask::options;
use crate::dns::ask::system_servers;
use crate::dns::ask::trust_nobody;
use crate::dns::dnssec::Prover;
use crate::dns::under_way::Outcome;
use crate::dns::under_way::UnderWay;
use crate::mail::address::Domain;

mod answers;
mod ask;
mod config;
mod dnssec;
mod under_way;
pub mod update;

pub use config::Config;
pub use config::Dnssec;
pub use config::Server;
pub use dnssec::Proof;
pub use dnssec::Proven;
pub use dnssec::Tlsa;

/// Questions under way at once. Each has a socket of its own, whose port nobody can guess.
const MAX_QUESTIONS: usize = 2048;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The DNS says so. It will say so again.
    #[error("there is no such name or record")]
    NotFound,
    /// Nobody answered, or with an error. A later question may fare better.
    #[error("the DNS did not answer: {0}")]
    Temporary(String),
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The resolver library refuses its own settings, and why.
    #[error("cannot set up questions to the DNS: {0}")]
    Library(String),
    /// The file of `trust_anchors` cannot be read, and why.
    #[error("cannot read the trust anchors in {}: {reason}", .path.display())]
    TrustAnchors {
        /// The file.
        path: PathBuf,
        /// What its reader says of it.
        reason: String,
    },
}

impl From<NetError> for SetupError {
    fn from(error: NetError) -> SetupError {
        SetupError::Library(error.to_string())
    }
}

impl From<NetError> for Error {
    fn from(error: NetError) -> Error {
        if error.is_no_records_found() {
            Error::NotFound
        } else {
            Error::Temporary(error.to_string())
        }
    }
}

/// Whether a name stands in the DNS at all, with whatever records (RFC 8020).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// It has records, of whatever type, or names below it have.
    Exists,
    /// Neither it nor any name below it has a record (NXDOMAIN).
    DoesNotExist,
}

/// How a question is put.
enum Manner {
    Plain,
    Proven(Prover),
}

/// The door to the DNS. Cheap to clone; all clones share the cache.
#[derive(Clone)]
pub struct Dns {
    authenticator: MessageAuthenticator,
    /// None where no answer counts as proven.
    prover: Option<Prover>,
    answers: Answers,
    under_way: UnderWay,
    room: Arc<Semaphore>,
    config: Arc<Config>,
}

impl Dns {
    /// Reads `/etc/resolv.conf` where no servers are given. Asks nothing yet.
    pub fn new(config: &Config) -> Result<Dns, SetupError> {
        let servers: Vec<_> = if config.servers.is_empty() {
            system_servers()
        } else {
            config.servers.iter().map(name_server).collect()
        };
        let prover = Prover::new(config, servers.clone())?;
        let resolver = TokioResolver::builder_with_config(
            ResolverConfig::from_name_servers(servers),
            TokioRuntimeProvider::default(),
        )
        .with_options(options(config))
        .with_tls_config(trust_nobody()?)
        .build()?;
        Ok(Dns {
            authenticator: MessageAuthenticator(resolver),
            prover,
            answers: Answers::new(config.cache_size.as_u64()),
            under_way: UnderWay::default(),
            room: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            config: Arc::new(config.clone()),
        })
    }

    /// All addresses of a host, IPv6 first. An answer for one family is enough.
    ///
    /// Cancel safe.
    pub async fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, Error> {
        let (v6, v4) = tokio::join!(self.ipv6(host.as_str()), self.ipv4(host.as_str()));
        match (v6, v4) {
            (Ok(v6), Ok(v4)) => Ok([v6, v4].concat()),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            (Err(error @ Error::Temporary(_)), Err(_)) | (Err(_), Err(error)) => Err(error),
        }
    }

    /// The A records of a name. Cancel safe.
    pub async fn ipv4(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        match &self.answer(Kind::Ipv4, name).await?.records {
            Records::Addresses(found) => Ok(found.clone()),
            _ => Err(Error::NotFound),
        }
    }

    /// The AAAA records of a name. Cancel safe.
    pub async fn ipv6(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        match &self.answer(Kind::Ipv6, name).await?.records {
            Records::Addresses(found) => Ok(found.clone()),
            _ => Err(Error::NotFound),
        }
    }

    /// The addresses of a name that are of the same family as another. Cancel safe.
    pub async fn addresses_like(&self, like: IpAddr, name: &str) -> Result<Vec<IpAddr>, Error> {
        match like {
            IpAddr::V4(_) => self.ipv4(name).await,
            IpAddr::V6(_) => self.ipv6(name).await,
        }
    }

    /// The TXT records of a name, the strings of each put together. Cancel safe.
    pub async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, Error> {
        match &self.answer(Kind::Texts, name).await?.records {
            Records::Texts(found) => Ok(found.clone()),
            _ => Err(Error::NotFound),
        }
    }

    /// What `read` makes of the TXT records of a name. It is remembered as long as they are, so that
    /// a record is not read each time it is wanted. Cancel safe.
    pub async fn read<T: Send + Sync + 'static>(
        &self,
        name: &str,
        read: fn(&[Vec<u8>]) -> T,
    ) -> Result<Arc<T>, Error> {
        let answer = self.answer(Kind::Texts, name).await?;
        answer.read(read).ok_or(Error::NotFound)
    }

    /// The mail exchangers of a name as they were published, best first. Cancel safe.
    pub async fn mx(&self, name: &str) -> Result<Vec<(u16, String)>, Error> {
        match &self.answer(Kind::Exchangers, name).await?.records {
            Records::Exchangers(found) => Ok(found.clone()),
            _ => Err(Error::NotFound),
        }
    }

    /// The names that an address claims to have (PTR). Names that cannot be one are left out.
    ///
    /// Cancel safe.
    pub async fn reverse(&self, ip: IpAddr) -> Result<Vec<Domain>, Error> {
        let key = key(Kind::Names, &ip.to_string());
        let answer = match self.answers.get(&key) {
            Some(answer) => answer,
            None => {
                let name = Name::from(ip);
                self.ask(key, name, Kind::Names, Manner::Plain).await?
            }
        };
        match &answer.records {
            Records::Names(found) => Ok(found.clone()),
            _ => Err(Error::NotFound),
        }
    }

    /// Whether there is such a name, with whatever records. Cancel safe.
    pub async fn existence(&self, name: &Domain) -> Result<Existence, Error> {
        match self.answer(Kind::Ipv4, name.as_str()).await {
            Ok(answer) => match &answer.records {
                Records::Nothing(existence) => Ok(*existence),
                _ => Ok(Existence::Exists),
            },
            Err(Error::NotFound) => Ok(Existence::DoesNotExist),
            Err(error) => Err(error),
        }
    }

    /// The mail authentication library, for what it computes. It asks the same servers, but
    /// remembers nothing.
    pub fn authenticator(&self) -> &MessageAuthenticator {
        &self.authenticator
    }

    /// Whether any answer can count as proven.
    pub fn proves(&self) -> bool {
        self.prover.is_some()
    }

    /// As [`Dns::mx`], with what it is worth. Cancel safe.
    pub async fn proven_mx(&self, name: &str) -> Result<Proven<Vec<(u16, String)>>, Error> {
        let answer = self.proven_answer(Kind::Exchangers, name).await?;
        match &answer.records {
            Records::Exchangers(found) => Ok(answer.with(found.clone())),
            _ => Err(Error::NotFound),
        }
    }

    /// As [`Dns::addresses`], with what they are worth: all of them. Cancel safe.
    pub async fn proven_addresses(&self, host: &Domain) -> Result<Proven<Vec<IpAddr>>, Error> {
        let family = async |kind| {
            let answer = self.proven_answer(kind, host.as_str()).await?;
            match &answer.records {
                Records::Addresses(found) => Ok(answer.with(found.clone())),
                _ => Err(Error::NotFound),
            }
        };
        let (v6, v4) = tokio::join!(family(Kind::Ipv6), family(Kind::Ipv4));
        match (v6, v4) {
            (Ok(v6), Ok(v4)) => Ok(Proven {
                found: [v6.found, v4.found].concat(),
                proof: v6.proof.and(v4.proof),
                alias: v6.alias.or(v4.alias),
            }),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            (Err(Error::NotFound), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }

    /// The TLSA records of a name, such as `_25._tcp.mx.example.com` (RFC 6698 §3). Cancel safe.
    pub async fn tlsa(&self, name: &str) -> Result<Proven<Vec<Tlsa>>, Error> {
        let answer = self.proven_answer(Kind::Associations, name).await?;
        match &answer.records {
            Records::Associations(found) => Ok(answer.with(found.clone())),
            _ => Err(Error::NotFound),
        }
    }

    /// Whether it is proven that a name is an alias, wherever that leads. Cancel safe.
    pub async fn alias(&self, name: &Domain) -> Result<Proof, Error> {
        let answer = self.proven_answer(Kind::Alias, name.as_str()).await?;
        match &answer.records {
            Records::Names(_) => Ok(answer.proof),
            _ => Err(Error::NotFound),
        }
    }

    /// An error is temporary, or the name is none.
    async fn answer(&self, kind: Kind, name: &str) -> Result<Arc<Answer>, Error> {
        self.recall(key(kind, name), kind, name, Manner::Plain)
            .await
    }

    /// As [`Dns::answer`], with a proof where there is one.
    async fn proven_answer(&self, kind: Kind, name: &str) -> Result<Arc<Answer>, Error> {
        match &self.prover {
            Some(prover) => {
                let key = format!("s{}", key(kind, name));
                let manner = Manner::Proven(prover.clone());
                self.recall(key, kind, name, manner).await
            }
            None => self.answer(kind, name).await,
        }
    }

    async fn recall(
        &self,
        key: String,
        kind: Kind,
        name: &str,
        manner: Manner,
    ) -> Result<Arc<Answer>, Error> {
        if let Some(answer) = self.answers.get(&key) {
            return Ok(answer);
        }
        let name = absolute(name).ok_or(Error::NotFound)?;
        self.ask(key, name, kind, manner).await
    }

    /// Boxed, so that who finds its answer remembered does not carry around what asking needs.
    fn ask(
        &self,
        key: String,
        name: Name,
        kind: Kind,
        manner: Manner,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        Box::pin(async move {
            let asked = || self.clone().put(key.clone(), name, kind, manner);
            self.under_way.join(&key, asked).await
        })
    }

    /// Puts the question to the resolver, and remembers the answer.
    async fn put(self, key: String, name: Name, kind: Kind, manner: Manner) -> Outcome {
        let resolver = self.authenticator.resolver();
        let limit = self.config.deadline;
        let answer = timeout(limit, async {
            // Never closed.
            let _permit = self.room.acquire().await.ok();
            match manner {
                Manner::Plain => ask::ask(resolver, &self.config, name, kind).await,
                Manner::Proven(prover) => prover.ask(&self.config, name, kind).await,
            }
        });
        let answer =
            Arc::new(answer.await.unwrap_or_else(|_| {
                Err(Error::Temporary(format!("no answer within {limit:?}")))
            })?);
        self.answers.insert(key, &answer);
        Ok(answer)
    }
}
