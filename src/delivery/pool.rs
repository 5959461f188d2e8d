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

/// Idle connections, the longest idle first.
#[derive(Debug)]
pub(super) struct Pool {
    limits: Reuse,
    idle: Mutex<HashMap<Target, Vec<Idle>>>,
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
        let mut idle = self.lock();
        let idle = idle.get_mut(target)?.pop()?;
        (idle.since.elapsed() < self.limits.idle).then_some(idle.connection)
    }

    /// Keeps a connection, or gives it back where it should be closed.
    pub(super) fn keep(&self, target: &Target, connection: Connected) -> Option<Connected> {
        let offered = connection.offered.mail_limit.unwrap_or(u32::MAX);
        if connection.transactions >= self.limits.messages.min(offered) {
            return Some(connection);
        }
        let mut idle = self.lock();
        let of_target = match idle.get_mut(target) {
            Some(of_target) => of_target,
            None => idle.entry(target.clone()).or_default(),
        };
        if of_target.len() >= self.limits.connections {
            return Some(connection);
        }
        of_target.push(Idle {
            connection,
            since: Instant::now(),
        });
        if of_target.len() == 1 {
            self.filled.notify_one();
        }
        None
    }

    /// Drops the idle connections of a destination, without a word: it seems to have dropped us.
    pub(super) fn forget(&self, target: &Target) {
        self.lock().remove(target);
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
        let idle = all.into_values().flatten();
        idle.map(|idle| idle.connection).collect()
    }

    fn oldest(&self) -> Option<Instant> {
        let idle = self.lock();
        let firsts = idle.values().filter_map(|idle| idle.first());
        firsts.map(|idle| idle.since).min()
    }

    fn take_expired(&self) -> Vec<Connected> {
        let limit: Duration = self.limits.idle;
        let mut expired = Vec::new();
        let mut idle = self.lock();
        for of_target in idle.values_mut() {
            let stale = of_target.partition_point(|idle| idle.since.elapsed() >= limit);
            expired.extend(of_target.drain(..stale).map(|idle| idle.connection));
        }
        idle.retain(|_, of_target| !of_target.is_empty());
        expired
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Vec<Idle>>> {
        // Nothing is left half done under the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
