//! How fast things go: the counters now, and how they were a minute ago.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;

use super::Rate;
use crate::telemetry::metrics::Metrics;

/// What is shown, and the counter behind it.
const SHOWN: &[(&str, &str)] = &[
    ("accepted", "gatepost_accepted_total"),
    ("refused", "gatepost_refused_total"),
    ("delivered", "gatepost_delivered_total"),
    ("deferred", "gatepost_deferred_total"),
    ("failed", "gatepost_failed_total"),
];
/// From one look to the next.
const EVERY: Duration = Duration::from_secs(10);
/// So many looks make a minute.
const LOOKS: usize = 6;

/// The counters over the last minute.
pub(super) struct Rates {
    metrics: Metrics,
    looks: Mutex<VecDeque<Look>>,
}

struct Look {
    at: Instant,
    totals: Vec<u64>,
}

impl Rates {
    pub(super) fn new(metrics: Metrics) -> Rates {
        Rates {
            metrics,
            looks: Mutex::default(),
        }
    }

    /// Looks at the counters from time to time, for ever. Cancel safe.
    pub(super) async fn gather(&self) {
        loop {
            let look = self.look();
            {
                let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
                looks.push_back(look);
                if looks.len() > LOOKS {
                    looks.pop_front();
                }
            }
            sleep(EVERY).await;
        }
    }

    /// The counters now, and how fast they went over the last minute.
    pub(super) fn now(&self) -> Vec<Rate> {
        let now = self.look();
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let before = looks.front().filter(|look| now.at - look.at >= EVERY / 2);
        let shown = SHOWN.iter().zip(&now.totals).enumerate();
        shown
            .map(|(at, ((what, _), total))| Rate {
                what: (*what).to_owned(),
                total: *total,
                per_minute: before.map(|before| {
                    total.saturating_sub(before.totals[at]) as f64 * 60.0
                        / (now.at - before.at).as_secs_f64()
                }),
            })
            .collect()
    }

    fn look(&self) -> Look {
        let names = SHOWN.iter().map(|(_, counter)| *counter);
        Look {
            at: Instant::now(),
            totals: self.metrics.totals(names),
        }
    }
}
