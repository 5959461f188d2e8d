//! The addresses that stand for a target, in the order in which they are tried.
//!
//! For mail exchangers that is all of RFC 5321 §5.1: MX records and the lack of them, the null MX of
//! RFC 7505, address literals, and no mail to ourselves. What the DNS says for certain fails the
//! recipients; what it does not say is asked again later. Bounded in hosts and in addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;

use futures_util::future::join_all;

use super::exchangers;
use super::exchangers::Exchanger;
use super::exchangers::NoExchanger;
use super::next_hop::Endpoint;
use super::next_hop::EndpointHost;
use super::next_hop::NextHop;
use super::outcome::Fate;
use super::outcome::Outcome;
use super::route::Route;
use super::security::dane::Way;
use super::target::Target;
use crate::dns;
use crate::dns::Dns;
use crate::dns::Existence;
use crate::dns::Proof;
use crate::dns::Proven;
use crate::mail::address::Domain;
use crate::mail::address::Host;
use crate::smtp::client::response::Enhanced;
use crate::smtp::client::response::Response;

/// Finds hosts.
pub(super) struct Hosts {
    pub(super) dns: Dns,
    pub(super) hostname: Domain,
    /// Where we listen.
    pub(super) ports: BTreeSet<u16>,
    /// How many addresses are tried in one attempt.
    pub(super) limit: usize,
}

/// A server that may be tried.
#[derive(Debug)]
pub(super) struct Candidate {
    /// What we look for it by.
    pub(super) name: Box<str>,
    pub(super) address: SocketAddr,
    /// How it was found. None for an address.
    pub(super) way: Option<Arc<Way>>,
}

/// A host, and where it was found.
struct Found {
    name: Box<str>,
    addresses: Vec<IpAddr>,
    way: Option<Arc<Way>>,
}

impl Found {
    fn at(address: IpAddr) -> Found {
        Found {
            name: address.to_string().into_boxed_str(),
            addresses: vec![address],
            way: None,
        }
    }
}

impl Hosts {
    /// At least one. None for a target that has no addresses, such as a unix socket.
    pub(super) async fn of(&self, target: &Target) -> Result<Vec<Candidate>, Outcome> {
        let route = target.route();
        let (found, port) = match (&route.to, target.host()) {
            (NextHop::Mx(port), Some(host)) => (self.exchangers(host, *port).await?, *port),
            (NextHop::Smtp(endpoint) | NextHop::Lmtp(endpoint), _) => {
                (vec![self.named(endpoint).await?], endpoint.port)
            }
            (NextHop::Mx(_) | NextHop::LmtpUnix(_) | NextHop::Maildir(_), _) => {
                return Ok(Vec::new());
            }
        };
        let candidates: Vec<Candidate> = found
            .into_iter()
            .flat_map(|found| {
                let usable = found.addresses.into_iter();
                let usable = usable.filter(|address| may_use(route, *address));
                let usable = exchangers::interleave(usable.collect(), self.limit).into_iter();
                usable.map(move |address| Candidate {
                    name: found.name.clone(),
                    address: SocketAddr::new(address, port),
                    way: found.way.clone(),
                })
            })
            .take(self.limit)
            .collect();
        if candidates.is_empty() {
            let text =
                format!("{target} has no address of a family that the route has a source for");
            return Err(later((4, 4, 1), &text));
        }
        Ok(candidates)
    }

    /// A next hop that the operator named.
    async fn named(&self, endpoint: &Endpoint) -> Result<Found, Outcome> {
        let name = match &endpoint.host {
            EndpointHost::Address(address) => return Ok(Found::at(*address)),
            EndpointHost::Name(name) => name,
        };
        if name.as_str() == "localhost" {
            // RFC 6761 §6.3
            return Ok(Found {
                name: name.as_str().into(),
                addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                way: None,
            });
        }
        match self.dns.proven_addresses(name).await {
            // Who it is for, an operator has said.
            Ok(addresses) => Ok(found(name, addresses, &Serves::named())),
            Err(dns::Error::NotFound) => {
                // Permanent for DNS, but the operator wrote the name and may still mend it.
                Err(later((4, 4, 4), &format!("the DNS does not know {name}")))
            }
            Err(error) => Err(unanswered(name, &error)),
        }
    }

    async fn exchangers(&self, host: &Host, port: u16) -> Result<Vec<Found>, Outcome> {
        let domain = match host {
            Host::Domain(domain) => domain,
            Host::Literal(address) if self.is_us(*address, port) => return Err(looping(host)),
            Host::Literal(address) => return Ok(vec![Found::at(*address)]),
        };
        let records = match self.dns.proven_mx(domain.as_str()).await {
            Ok(records) => records,
            // RFC 5321 §5.1: implicit MX. Whether that is proven, its addresses tell.
            Err(dns::Error::NotFound) => Proven {
                found: vec![(0, domain.to_string())],
                proof: Proof::Secure,
                alias: None,
            },
            Err(error) => return Err(unanswered(domain, &error)),
        };
        let serves = Serves {
            domains: [domain.clone()].into_iter().chain(records.alias).collect(),
            proof: records.proof,
        };
        let order = exchangers::order(&records.found, &self.hostname, &mut rand::rng());
        let exchangers = order.map_err(|reason| nobody(host, reason))?;
        let questions = exchangers
            .iter()
            .map(|exchanger| self.dns.proven_addresses(&exchanger.host));
        let answers = join_all(questions).await.into_iter();
        // Each is looked at below. No more are tried, whichever family the route may use.
        let most = self.limit.saturating_mul(2);
        let fewer = |addresses: Proven<Vec<IpAddr>>| Proven {
            found: exchangers::interleave(addresses.found, most),
            ..addresses
        };
        let answers = answers.map(|answer| answer.map(fewer));
        let mut answered: Vec<_> = exchangers.into_iter().zip(answers).collect();
        let is_us = |(_, answer): &&(Exchanger, Addresses)| {
            let mut addresses = answer.iter().flat_map(|answer| &answer.found);
            addresses.any(|address| self.is_us(*address, port))
        };
        if let Some(ours) = answered.iter().find(is_us).map(|(us, _)| us.preference) {
            answered.retain(|(exchanger, _)| exchanger.preference < ours);
            if answered.is_empty() {
                return Err(looping(host));
            }
        }
        let mut silent = None;
        let mut all = Vec::with_capacity(answered.len());
        for (exchanger, answer) in answered {
            match answer {
                Ok(addresses) => all.push(found(&exchanger.host, addresses, &serves)),
                Err(dns::Error::NotFound) => {}
                Err(error) => silent = Some(unanswered(&exchanger.host, &error)),
            }
        }
        match (all.is_empty(), silent) {
            (false, _) => Ok(all),
            (true, Some(silent)) => Err(silent),
            (true, None) => Err(self.unknown(domain).await),
        }
    }

    /// Nothing leads to this domain: says whether there is one at all.
    async fn unknown(&self, domain: &Domain) -> Outcome {
        match self.dns.existence(domain).await {
            Ok(Existence::DoesNotExist) => {
                let text = format!("there is no domain {domain}");
                never(550, (5, 1, 2), &text) // RFC 3463 §3.2
            }
            Ok(Existence::Exists) => {
                let text = format!("no mail server of {domain} has an address");
                never(550, (5, 4, 4), &text) // RFC 5321 §5.1
            }
            Err(error) => unanswered(domain, &error),
        }
    }

    /// Whether we would take the mail ourselves that goes there.
    fn is_us(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.ports.contains(&port)
            && (address.is_loopback() || address.is_unspecified() || is_of_this_machine(address))
    }
}

/// The system sends what is for one of its own addresses from that address. Nothing goes out.
fn is_of_this_machine(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 25))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

fn may_use(route: &Route, address: IpAddr) -> bool {
    let mut sources = route.source.iter();
    route.source.is_empty() || sources.any(|source| source.is_ipv4() == address.is_ipv4())
}

/// Whose mail the hosts take, and whether that is proven.
struct Serves {
    domains: Vec<Domain>,
    proof: Proof,
}

impl Serves {
    fn named() -> Serves {
        Serves {
            domains: Vec::new(),
            proof: Proof::Secure,
        }
    }
}

type Addresses = Result<Proven<Vec<IpAddr>>, dns::Error>;

fn found(host: &Domain, addresses: Proven<Vec<IpAddr>>, serves: &Serves) -> Found {
    let way = Way {
        host: host.clone(),
        domains: serves.domains.clone(),
        exchange: serves.proof,
        addresses: addresses.proof,
        alias: addresses.alias,
    };
    Found {
        name: host.as_str().into(),
        addresses: addresses.found,
        way: Some(Arc::new(way)),
    }
}

fn nobody(host: &Host, reason: NoExchanger) -> Outcome {
    match reason {
        NoExchanger::NullMx => {
            let text = format!("{host} takes no mail (null MX)");
            never(556, (5, 1, 10), &text) // RFC 7505 §4.1
        }
        NoExchanger::NoHost => {
            let text = format!("the MX records of {host} name no host");
            never(550, (5, 4, 4), &text)
        }
        NoExchanger::Loop => looping(host),
    }
}

pub(super) fn looping(host: &dyn std::fmt::Display) -> Outcome {
    let text = format!("mail for {host} would come back to us");
    never(554, (5, 4, 6), &text) // RFC 3463 §3.5
}

fn unanswered(name: &Domain, error: &dns::Error) -> Outcome {
    later((4, 4, 3), &format!("cannot resolve {name}: {error}"))
}

fn later(enhanced: Enhanced, text: &str) -> Outcome {
    Outcome::unreachable(Response::ours(451, enhanced, text))
}

fn never(code: u16, enhanced: Enhanced, text: &str) -> Outcome {
    Outcome {
        fate: Fate::Failed,
        reply: Response::ours(code, enhanced, text),
        peer: None,
    }
}
