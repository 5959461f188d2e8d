//! Connections that wait for their next message, by destination. Bounded in number and in time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::config::Reuse;
use super::connect::Connected;
use super::target::Target;

#[derive(Debug)]
struct Idle {
    connection: Connected,
    since: Instant,
}

/// The longest idle of each destination first. None of the lists is empty.
#[derive(Debug, Default)]
struct Kept {
    by_target: HashMap<Target, Vec<Idle>>,
    in_all: usize,
}

/// Idle connections.
#[derive(Debug)]
pub(super) struct Pool {
    limits: Reuse,
    idle: Mutex<Kept>,
    filled: Notify,
}

impl Pool {
    pub(super) fn new(limits: Reuse) -> Pool {
        Pool {
            limits,
            idle: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// The connection that was used last, as the server most likely still has it.
    pub(super) fn take(&self, target: &Target) -> Option<Connected> {
        let mut kept = self.lock();
        let of_target = kept.by_target.get_mut(target)?;
        let idle = of_target.pop()?;
        if of_target.is_empty() {
            kept.by_target.remove(target);
        }
        kept.in_all -= 1;
        (idle.since.elapsed() < self.limits.idle).then_some(idle.connection)
    }

    /// Keeps a connection, or gives it back where it should be closed.
    pub(super) fn keep(&self, target: &Target, connection: Connected) -> Option<Connected> {
        let offered = connection.offered.mail_limit.unwrap_or(u32::MAX);
        if connection.transactions >= self.limits.messages.min(offered) {
            return Some(connection);
        }
        let mut kept = self.lock();
        let of_target = kept.by_target.get(target).map_or(0, Vec::len);
        if of_target >= self.limits.connections || kept.in_all >= self.limits.connections_in_all {
            return Some(connection);
        }
        let idle = Idle {
            connection,
            since: Instant::now(),
        };
        match kept.by_target.get_mut(target) {
            Some(of_target) => of_target.push(idle),
            None => drop(kept.by_target.insert(target.clone(), vec![idle])),
        }
        kept.in_all += 1;
        if of_target == 0 {
            self.filled.notify_one();
        }
        None
    }

    /// Drops the idle connections of a destination, without a word: it seems to have dropped us.
    pub(super) fn forget(&self, target: &Target) {
        let mut kept = self.lock();
        let dropped = kept
            .by_target
            .remove(target)
            .map_or(0, |of_target| of_target.len());
        kept.in_all -= dropped;
    }

    /// Waits until connections have been idle for too long, and gives them. Cancel safe.
    pub(super) async fn expired(&self) -> Vec<Connected> {
        loop {
            let expired = self.take_expired();
            if !expired.is_empty() {
                return expired;
            }
            match self.oldest() {
                Some(since) => tokio::time::sleep_until(since + self.limits.idle).await,
                None => self.filled.notified().await,
            }
        }
    }

    /// Takes all there are.
    pub(super) fn take_all(&self) -> Vec<Connected> {
        let all = std::mem::take(&mut *self.lock());
        let idle = all.by_target.into_values().flatten();
        idle.map(|idle| idle.connection).collect()
    }

    fn oldest(&self) -> Option<Instant> {
        let kept = self.lock();
        let firsts = kept.by_target.values().filter_map(|idle| idle.first());
        firsts.map(|idle| idle.since).min()
    }

    fn take_expired(&self) -> Vec<Connected> {
        let limit: Duration = self.limits.idle;
        let mut expired = Vec::new();
        let mut kept = self.lock();
        for of_target in kept.by_target.values_mut() {
            let stale = of_target.partition_point(|idle| idle.since.elapsed() >= limit);
            expired.extend(of_target.drain(..stale).map(|idle| idle.connection));
        }
        kept.by_target.retain(|_, of_target| !of_target.is_empty());
        kept.in_all -= expired.len();
        expired
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing is left half done under the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
