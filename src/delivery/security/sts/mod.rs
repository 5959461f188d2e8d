//! The MTA-STS policies of destinations: found, kept as long as they say, refreshed (RFC 8461).
//!
//! The DNS says which policy is in force, HTTPS has it. A policy that was seen once counts until its
//! time is over, whatever becomes of the DNS or the web server: who cuts them off gains nothing. One
//! that is not to be had, and never was, is none. A fetch that failed is not made again for a while.
//!
//! # Limits
//!
//! Some ten thousand policies are kept, in memory and on disk; beyond that some are forgotten early.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use moka::sync::Cache;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use super::result::PolicyType;
use super::result::TlsResult;
use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::telemetry::events;

mod fetch;
mod policy;
mod shelf;

pub(super) use policy::Mode;
pub(super) use policy::Policy;
use shelf::Shelf;

/// What all policies may take in memory, in octets.
const MOST_OCTETS: u64 = 16 << 20;
/// What a policy takes beside its text.
const OVERHEAD: usize = 512;
/// For so long a fetch that failed is not made again (RFC 8461 §3.3).
const REST: Duration = Duration::from_secs(5 * 60);
/// So many domains are remembered whose policy is being fetched, or could not be.
const MOST_DOMAINS: u64 = 10_000;
/// A policy that is so old is fetched anew when it is asked for, so that none that is in use comes to
/// its end (RFC 8461 §3.3).
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A policy that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) id: Box<str>,
    pub(super) fetched: SystemTime,
    pub(super) policy: Policy,
}

impl Kept {
    fn age(&self) -> Duration {
        self.fetched.elapsed().unwrap_or_default()
    }

    /// Whether it is to be followed.
    fn counts(&self) -> bool {
        self.age() < self.policy.max_age
    }
}

/// All policies that we know.
pub(in crate::delivery) struct Policies {
    known: Cache<Domain, Arc<Kept>>,
    failed: Cache<Domain, ()>,
    fetching: Cache<Domain, Arc<Mutex<()>>>,
    shelf: Option<Shelf>,
}

impl Policies {
    /// Lives in memory alone.
    pub(in crate::delivery) fn new() -> Policies {
        Policies {
            known: Cache::builder()
                .max_capacity(MOST_OCTETS)
                .weigher(|domain: &Domain, kept: &Arc<Kept>| {
                    let octets = OVERHEAD + domain.as_str().len() + 2 * kept.policy.text.len();
                    u32::try_from(octets).unwrap_or(u32::MAX)
                })
                .build(),
            failed: Cache::builder()
                .max_capacity(MOST_DOMAINS)
                .time_to_live(REST)
                .build(),
            fetching: Cache::builder()
                .max_capacity(MOST_DOMAINS)
                .time_to_idle(REST)
                .build(),
            shelf: None,
        }
    }

    /// Reads what is kept in a folder, and keeps there what comes. Where that cannot be done, it is
    /// logged and memory has to do. Blocks.
    pub(in crate::delivery) fn open(&mut self, folder: PathBuf) {
        let opened = Shelf::open(folder.clone());
        match opened.and_then(|shelf| Ok((shelf.load()?, shelf))) {
            Ok((loaded, shelf)) => {
                for (domain, kept) in loaded {
                    self.known.insert(domain, Arc::new(kept));
                }
                self.shelf = Some(shelf);
            }
            Err(error) => events::sts_not_kept(&folder, &error),
        }
    }

    /// The policy that counts for a domain; None where there is none. Takes at most as long as a
    /// question to the DNS and a fetch. Cancel safe.
    pub(super) async fn of(
        &self,
        dns: &Dns,
        tls: Option<&TlsConnector>,
        domain: &Domain,
    ) -> Option<Arc<Kept>> {
        let published = dns.read(&format!("_mta-sts.{domain}"), policy::id).await;
        let published = published.ok().and_then(|id| (*id).clone());
        let known = self.current(domain, published.as_deref());
        let Some(id) = published else {
            return known;
        };
        let fetching = self.fetching.get_with(domain.clone(), Arc::default);
        let _alone = match known {
            Some(known) if known.age() < DAY => return Some(known),
            // One waits for the new one, the others make do with what there is.
            Some(known) => match fetching.try_lock() {
                Ok(alone) => alone,
                Err(_) => return Some(known),
            },
            None => fetching.lock().await,
        };
        match self.current(domain, Some(&id)) {
            // Whoever was first has it by now.
            Some(known) if known.age() < DAY => return Some(known),
            Some(_) | None => {}
        }
        if let Some(tls) = tls
            && !self.failed.contains_key(domain)
        {
            self.fetch(dns, tls, domain, id).await;
        }
        self.unexpired(domain)
    }

    /// What is known, where nothing newer is published.
    fn current(&self, domain: &Domain, published: Option<&str>) -> Option<Arc<Kept>> {
        let kept = self.unexpired(domain)?;
        // RFC 8461 §5.1: also where there is no record any more.
        let is_current = published.is_none_or(|id| id == &*kept.id);
        is_current.then_some(kept)
    }

    fn unexpired(&self, domain: &Domain) -> Option<Arc<Kept>> {
        let kept = self.known.get(domain)?;
        kept.counts().then_some(kept)
    }

    /// Fetches a policy and keeps it; what was known stays where that does not come off.
    async fn fetch(&self, dns: &Dns, tls: &TlsConnector, domain: &Domain, id: Box<str>) {
        let policy = match fetch::fetch(dns, tls, domain).await {
            Ok(policy) => policy,
            Err(no_policy) => {
                self.failed.insert(domain.clone(), ());
                let result = TlsResult {
                    policy_type: PolicyType::Sts,
                    policy: Vec::new(),
                    policy_domain: domain.to_string(),
                    mx_host: format!("mta-sts.{domain}"),
                    sending_ip: None,
                    receiving_ip: None,
                    failure: Some(no_policy.failure),
                    reason: no_policy.reason,
                };
                result.tell();
                return;
            }
        };
        let kept = Arc::new(Kept {
            id,
            fetched: SystemTime::now(),
            policy,
        });
        self.known.insert(domain.clone(), Arc::clone(&kept));
        let Some(shelf) = self.shelf.clone() else {
            return;
        };
        let name = domain.clone();
        let written = spawn_blocking(move || shelf.keep(&name, &kept)).await;
        if let Ok(Err(error)) = written {
            events::sts_not_kept(&PathBuf::from(domain.as_str()), &error);
        }
    }
}
