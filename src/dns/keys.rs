//! What the mail authentication library has read out of TXT records, mostly DKIM keys.
//!
//! Saves reading a key again for every signature made with it. Bounded in number, and an entry
//! lives no longer than the record it was read from. Failed lookups never come here: those are
//! remembered by the resolver.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Duration;
use std::time::Instant;

use mail_auth::ResolverCache;
use mail_auth::Txt;
use moka::Expiry;
use moka::sync::Cache;

/// Records by name. Cheap to clone; all clones are one cache.
#[derive(Clone)]
pub struct KeyCache(Cache<Box<str>, Entry>);

#[derive(Clone)]
struct Entry {
    record: Txt,
    valid_until: Instant,
}

/// An entry goes when its record's TTL is over.
struct UntilTtlEnds;

impl Expiry<Box<str>, Entry> for UntilTtlEnds {
    fn expire_after_create(&self, _: &Box<str>, entry: &Entry, now: Instant) -> Option<Duration> {
        Some(entry.valid_until.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        _: &Box<str>,
        entry: &Entry,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.valid_until.saturating_duration_since(now))
    }
}

impl KeyCache {
    pub(super) fn new(size: u64) -> KeyCache {
        KeyCache(
            Cache::builder()
                .max_capacity(size)
                .expire_after(UntilTtlEnds)
                .build(),
        )
    }
}

impl ResolverCache<Box<str>, Txt> for KeyCache {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(name).map(|entry| entry.record)
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.remove(name).map(|entry| entry.record)
    }

    fn insert(&self, name: Box<str>, record: Txt, valid_until: Instant) {
        self.0.insert(
            name,
            Entry {
                record,
                valid_until,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_with_its_ttl() {
        let cache = KeyCache::new(10);
        let record = Txt::Error(mail_auth::Error::ParseError);
        cache.insert("gone".into(), record.clone(), Instant::now());
        cache.insert(
            "here".into(),
            record,
            Instant::now() + Duration::from_secs(60),
        );
        assert!(cache.get("gone").is_none());
        assert!(cache.get("here").is_some());
    }
}
