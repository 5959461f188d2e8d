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
    purpose: Option<Purpose>,
    valid_until: Instant,
}

/// What a key may be used for. The library does not tell: it drops the words of a key record that it
/// does not know, so that a key for something else looks like one for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Signatures of mail.
    Mail,
    /// Something else.
    Other,
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

impl KeyCache {
    /// What the record of this name is for, where that was found out before.
    pub fn purpose(&self, name: &str) -> Option<Purpose> {
        self.0.get(name).and_then(|entry| entry.purpose)
    }

    /// Remembers what the record of this name is for, as long as the record itself.
    pub fn set_purpose(&self, name: &str, purpose: Purpose) {
        if let Some(mut entry) = self.0.get(name) {
            entry.purpose = Some(purpose);
            self.0.insert(name.into(), entry);
        }
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
                purpose: None,
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
        for name in ["gone", "here"] {
            assert_eq!(cache.purpose(name), None);
            cache.set_purpose(name, Purpose::Mail);
        }
        assert_eq!(cache.purpose("gone"), None);
        assert_eq!(cache.purpose("here"), Some(Purpose::Mail));
        assert!(cache.get("here").is_some());
    }
}
