//! Records of our own, put into a zone by dynamic update (RFC 2136), signed with a key that the zone's
//! primary server knows (TSIG, RFC 8945).
//!
//! What is published is published once all servers of the zone show it; until then whoever looks may
//! be told that it is not there.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::SystemTime;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::op::update_message;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::RecordSet;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::rr::rdata::TXT;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Dns;
use super::ask::absolute;
use super::ask::text;

mod config;
mod exchange;
mod key;

pub use self::config::Config;
pub use self::key::Error as KeyError;

use self::exchange::exchange;

/// How long the records may be remembered by others: next to not at all.
const TTL: u32 = 30;
/// How long one server may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often servers are looked at that do not show a record yet.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How many aliases are followed to where a record is to be.
const MOST_ALIASES: usize = 8;

/// A record could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The name is none.
    #[error("{0:?} is no name in the DNS")]
    Name(String),
    /// The primary server does not answer, or not by the rules.
    #[error("the name server {server} did not answer: {reason}")]
    NoAnswer {
        /// The primary server.
        server: SocketAddr,
        /// What happened instead.
        reason: String,
    },
    /// The primary server has no zone that the name is in.
    #[error("the name server {server} has no zone for {name}")]
    NoZone {
        /// The primary server.
        server: SocketAddr,
        /// The record's name.
        name: String,
    },
    /// The primary server does not let us.
    #[error("the name server {server} refused to change the zone {zone}: {code}{}", hint(.code))]
    Refused {
        /// The primary server.
        server: SocketAddr,
        /// The zone that was to be changed.
        zone: String,
        /// What it says.
        code: ResponseCode,
    },
    /// The record is in the zone, but not everywhere.
    #[error(
        "{name} is not to be seen at {server} after {within:?}; does it hear of changes of the zone?"
    )]
    NotSeen {
        /// The record's name.
        name: String,
        /// One of the servers that do not show it.
        server: String,
        /// How long we have waited.
        within: Duration,
    },
}

/// What an operator can do about it.
fn hint(code: &ResponseCode) -> &'static str {
    match code {
        ResponseCode::Refused => "; does its update-policy or allow-update name our key?",
        ResponseCode::NotAuth => "; does it know our key, and has it the zone as primary?",
        _ => "",
    }
}

/// A record that was published.
#[derive(Debug)]
pub struct Published {
    zone: Name,
    name: Name,
    text: String,
}

/// Changes zones.
#[derive(Clone)]
pub struct Updates {
    dns: Dns,
    config: Config,
}

impl Updates {
    /// Reads nothing yet: a key that is exchanged is taken at the next change.
    pub fn new(config: &Config, dns: Dns) -> Updates {
        Updates {
            dns,
            config: config.clone(),
        }
    }

    /// Adds a TXT record to those of a name, or of the name that it is an alias for, and waits until all
    /// servers of the zone show it. After an error it may be in the zone.
    ///
    /// Not cancel safe: the record may stay.
    pub async fn publish(&self, name: &str, text: &str) -> Result<Published, Error> {
        let wrong = || Error::Name(name.to_owned());
        let name = self.aliased(absolute(name).ok_or_else(wrong)?).await;
        let published = Published {
            zone: self.zone_of(&name).await?,
            name,
            text: text.to_owned(),
        };
        let added = update_message::append(
            published.records(),
            published.zone.clone(),
            // RFC 2136 §2.4.1: whether there are others already plays no part.
            false,
            false,
        );
        self.change(added, &published.zone).await?;
        match self.seen(&published).await {
            Ok(()) => Ok(published),
            Err(error) => {
                // Best effort: what failed is told, what is left over harms nobody.
                let _ = self.withdraw(&published).await;
                Err(error)
            }
        }
    }

    /// Takes a record away again; others of the same name stay.
    pub async fn withdraw(&self, published: &Published) -> Result<(), Error> {
        let removed =
            update_message::delete_by_rdata(published.records(), published.zone.clone(), false);
        self.change(removed, &published.zone).await
    }

    /// Where the record is to be: a zone that may not be changed can send us elsewhere by an alias.
    async fn aliased(&self, mut name: Name) -> Name {
        for _ in 0..MOST_ALIASES {
            let resolver = self.dns.authenticator.resolver();
            let Ok(found) = resolver.lookup(name.clone(), RecordType::CNAME).await else {
                break;
            };
            let alias = found
                .answers()
                .iter()
                .find_map(|record| match &record.data {
                    RData::CNAME(alias) => Some(alias.0.clone()),
                    _ => None,
                });
            match alias {
                Some(alias) => name = alias,
                None => break,
            }
        }
        name
    }

    /// The zone of the primary server that a name is in: it is told with any answer.
    async fn zone_of(&self, name: &Name) -> Result<Name, Error> {
        if let Some(zone) = &self.config.zone {
            let zone = absolute(zone.as_str());
            return zone.ok_or_else(|| Error::Name(text(name)));
        }
        let server = self.config.server.0;
        let answer = self.ask(server, name, RecordType::SOA).await?;
        let records = answer.answers.iter().chain(&answer.authorities);
        let mut zones = records.filter(|record| matches!(record.data, RData::SOA(_)));
        let zone = zones.find(|record| record.name.zone_of(name));
        let zone = zone.map(|record| record.name.clone());
        zone.ok_or_else(|| Error::NoZone {
            server,
            name: text(name),
        })
    }

    /// Has the primary server make a change.
    async fn change(&self, mut message: Message, zone: &Name) -> Result<(), Error> {
        let server = self.config.server.0;
        let failed = |reason: String| Error::NoAnswer { server, reason };
        let verifier = match &self.config.key_file {
            Some(path) => {
                let signed = message.finalize(&key::read(path)?, now());
                signed.map_err(|error| failed(error.to_string()))?
            }
            None => None,
        };
        let bytes = message.to_vec();
        let bytes = bytes.map_err(|error| failed(error.to_string()))?;
        let answer = exchange(server, &bytes, ANSWER_WITHIN).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let unverified = Message::from_vec(&answer).map_err(|error| failed(error.to_string()))?;
        let code = unverified.metadata.response_code;
        if code != ResponseCode::NoError {
            return Err(Error::Refused {
                server,
                zone: text(zone),
                code,
            });
        }
        // RFC 8945 §5.4: a yes that is not signed could be anybody's.
        let genuine = verifier.map_or(Ok(()), |mut verifier| verifier.verify(&answer).map(drop));
        genuine.map_err(|error| failed(error.to_string()))
    }

    /// Waits until each server of the zone shows a record. One that cannot be reached is not waited for
    /// in the end, if others show it.
    async fn seen(&self, published: &Published) -> Result<(), Error> {
        let servers = self.servers_of(&published.zone).await;
        let within = self.config.propagation;
        let until = Instant::now() + within;
        loop {
            let mut missing = None;
            let mut silent = None;
            for server in &servers {
                match self.ask(*server, &published.name, RecordType::TXT).await {
                    Ok(answer) if published.is_in(&answer) => {}
                    Ok(_) => missing = Some(server),
                    Err(_) => silent = Some(server),
                }
            }
            let is_late = Instant::now() >= until;
            let waited_for = match (missing, silent) {
                (None, None) => return Ok(()),
                (None, Some(_)) if is_late && servers.len() > 1 => return Ok(()),
                (Some(server), _) | (None, Some(server)) => server,
            };
            if is_late {
                return Err(Error::NotSeen {
                    name: text(&published.name),
                    server: waited_for.to_string(),
                    within,
                });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The servers that others ask about a zone; the primary where none are known.
    async fn servers_of(&self, zone: &Name) -> Vec<SocketAddr> {
        let mut servers: Vec<_> = self.config.check.iter().map(|server| server.0).collect();
        if servers.is_empty() {
            let resolver = self.dns.authenticator.resolver();
            let found = resolver.lookup(zone.clone(), RecordType::NS).await;
            for record in found.iter().flat_map(|found| found.answers()) {
                let RData::NS(host) = &record.data else {
                    continue;
                };
                let ipv4 = self.dns.ipv4(&text(&host.0)).await;
                servers.extend(ipv4.into_iter().flatten().map(|ip| SocketAddr::new(ip, 53)));
            }
        }
        if servers.is_empty() {
            servers.push(self.config.server.0);
        }
        servers
    }

    async fn ask(
        &self,
        server: SocketAddr,
        name: &Name,
        kind: RecordType,
    ) -> Result<Message, Error> {
        let failed = |reason: String| Error::NoAnswer { server, reason };
        let mut message = Message::query();
        message.add_query(Query::query(name.clone(), kind));
        let bytes = message.to_vec();
        let bytes = bytes.map_err(|error| failed(error.to_string()))?;
        let answer = exchange(server, &bytes, ANSWER_WITHIN).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        Message::from_vec(&answer).map_err(|error| failed(error.to_string()))
    }
}

impl Published {
    fn records(&self) -> RecordSet {
        let data = RData::TXT(TXT::new(vec![self.text.clone()]));
        RecordSet::from(Record::from_rdata(self.name.clone(), TTL, data))
    }

    fn is_in(&self, answer: &Message) -> bool {
        let mut records = answer.answers.iter();
        records.any(|record| match &record.data {
            RData::TXT(found) => found.txt_data.concat() == self.text.as_bytes(),
            _ => false,
        })
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
