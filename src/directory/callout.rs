//! Asks the next hop whether it knows a recipient, and remembers what it said.
//!
//! A yes is believed for hours, and for days when the next hop is away; a no for minutes, so that a
//! new user is not refused for long. Both the answers kept and the questions under way are bounded.

use std::pin::Pin;
use std::time::Duration;
use std::time::Instant;

use moka::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Config;
use crate::mail::address::Address;

/// What is found out about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The next hop takes mail for it.
    Exists,
    /// The next hop says that there is no such mailbox.
    Unknown,
    /// It could not be found out now.
    Unsure,
}

/// How the next hop is asked. Given from outside, since who delivers is not known here.
pub type Ask = Box<dyn Fn(Address) -> Pin<Box<dyn Future<Output = Probe> + Send>> + Send + Sync>;

/// The questions and the answers.
pub(super) struct Callout {
    ask: Ask,
    under_way: Semaphore,
    deadline: Duration,
    fresh: Duration,
    known: Cache<Address, Instant>,
    unknown: Cache<Address, ()>,
}

impl Callout {
    pub(super) fn new(config: &Config, ask: Ask) -> Callout {
        Callout {
            ask,
            under_way: Semaphore::new(config.callout_concurrency),
            deadline: config.callout_timeout,
            fresh: config.callout_positive,
            known: Cache::builder()
                .max_capacity(config.callout_entries)
                .time_to_live(config.callout_stale.max(config.callout_positive))
                .build(),
            unknown: Cache::builder()
                .max_capacity(config.callout_entries)
                .time_to_live(config.callout_negative)
                .build(),
        }
    }

    /// From memory, or from the next hop.
    pub(super) async fn ask(&self, address: &Address) -> Probe {
        if self.unknown.contains_key(address) {
            return Probe::Unknown;
        }
        let known = self.known.get(address);
        if known.is_some_and(|asked| asked.elapsed() < self.fresh) {
            return Probe::Exists;
        }
        match timeout(self.deadline, self.ask_next_hop(address)).await {
            Ok(Probe::Exists) => {
                self.known.insert(address.clone(), Instant::now());
                Probe::Exists
            }
            Ok(Probe::Unknown) => {
                self.known.invalidate(address);
                self.unknown.insert(address.clone(), ());
                Probe::Unknown
            }
            Ok(Probe::Unsure) | Err(_) if known.is_some() => Probe::Exists,
            Ok(Probe::Unsure) | Err(_) => Probe::Unsure,
        }
    }

    async fn ask_next_hop(&self, address: &Address) -> Probe {
        let Ok(_permit) = self.under_way.acquire().await else {
            return Probe::Unsure;
        };
        (self.ask)(address.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn answers_are_remembered_and_a_yes_outlives_the_next_hop() {
        let says = Arc::new(Mutex::new((Probe::Exists, 0)));
        let ask: Ask = Box::new({
            let says = says.clone();
            move |_| {
                let mut says = says.lock().unwrap();
                says.1 += 1;
                let probe = says.0;
                Box::pin(async move { probe })
            }
        });
        let config = Config {
            callout_positive: Duration::from_millis(50),
            callout_negative: Duration::from_millis(50),
            ..Config::default()
        };
        let callout = Callout::new(&config, ask);
        let address: Address = "a@b.example".parse().unwrap();
        let pause = || tokio::time::sleep(Duration::from_millis(60));

        assert_eq!(callout.ask(&address).await, Probe::Exists);
        assert_eq!(callout.ask(&address).await, Probe::Exists);
        assert_eq!(
            says.lock().unwrap().1,
            1,
            "the second answer comes from memory"
        );
        says.lock().unwrap().0 = Probe::Unsure;
        pause().await;
        assert_eq!(
            callout.ask(&address).await,
            Probe::Exists,
            "stale, better than none"
        );
        says.lock().unwrap().0 = Probe::Unknown;
        assert_eq!(callout.ask(&address).await, Probe::Unknown);
        says.lock().unwrap().0 = Probe::Unsure;
        assert_eq!(callout.ask(&address).await, Probe::Unknown);
        pause().await;
        assert_eq!(callout.ask(&address).await, Probe::Unsure);
    }
}
