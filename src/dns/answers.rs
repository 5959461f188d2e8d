//! What the DNS has answered, remembered for as long as it may be.
//!
//! One cache for all of the gateway, bounded in octets. An answer is kept in our words, and with it
//! what was read out of its texts, so that a record is read once for each time it was fetched, and
//! goes together with it. Failures never come here.

use std::any::Any;
use std::mem::size_of;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use moka::Expiry;
use moka::sync::Cache;

use crate::dns::Existence;
use crate::dns::Proof;
use crate::dns::Proven;
use crate::dns::Tlsa;
use crate::mail::address::Domain;

/// What an entry costs beside its texts: the cache's own books, and what allocations are rounded up to.
const OVERHEAD: usize = 256;
/// What is read out of a text takes about as many times its room.
const READ: usize = 2;

/// What is asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    Exchangers,
    Names,
    Texts,
    Associations,
    Alias,
}

/// What there is of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Records {
    Addresses(Vec<IpAddr>),
    Exchangers(Vec<(u16, String)>),
    Names(Vec<Domain>),
    Texts(Vec<Vec<u8>>),
    Associations(Vec<Tlsa>),
    Nothing(Existence),
}

/// Records, and what was read out of them.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) records: Records,
    pub(super) lifetime: Duration,
    pub(super) proof: Proof,
    /// Where the aliases lead to that stand before the records; None where there are none.
    pub(super) alias: Option<Domain>,
    read: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Answer {
    pub(super) fn new(records: Records, lifetime: Duration) -> Answer {
        Answer {
            records,
            lifetime,
            proof: Proof::Insecure,
            alias: None,
            read: OnceLock::new(),
        }
    }

    pub(super) fn proven(self, proof: Proof, alias: Option<Domain>) -> Answer {
        Answer {
            proof,
            alias,
            ..self
        }
    }

    /// Records of this answer with what it is worth.
    pub(super) fn with<T>(&self, found: T) -> Proven<T> {
        Proven {
            found,
            proof: self.proof,
            alias: self.alias.clone(),
        }
    }

    /// The texts, if there are any, read by `read`; only once, as all texts of one name are read in
    /// one way. Who reads them in another way does so each time.
    pub(super) fn read<T: Send + Sync + 'static>(
        &self,
        read: impl Fn(&[Vec<u8>]) -> T,
    ) -> Option<Arc<T>> {
        let Records::Texts(texts) = &self.records else {
            return None;
        };
        let first = self.read.get_or_init(|| Arc::new(read(texts)));
        let known = Arc::clone(first).downcast();
        Some(known.unwrap_or_else(|_| Arc::new(read(texts))))
    }

    fn octets(&self) -> usize {
        let records = match &self.records {
            Records::Addresses(all) => all.len() * size_of::<IpAddr>(),
            Records::Exchangers(all) => all.iter().map(|(_, name)| 32 + name.len()).sum(),
            Records::Names(all) => all.iter().map(|name| 16 + name.as_str().len()).sum(),
            Records::Texts(all) => all.iter().map(|text| 24 + (1 + READ) * text.len()).sum(),
            Records::Associations(all) => all.iter().map(|one| 32 + one.data.len()).sum(),
            Records::Nothing(_) => 0,
        };
        let alias = self.alias.as_ref().map_or(0, |name| name.as_str().len());
        OVERHEAD + records + alias
    }
}

/// The question as the cache knows it. Names are equal in whatever case (RFC 4343).
pub(super) fn key(kind: Kind, name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 1);
    key.push(match kind {
        Kind::Ipv4 => '4',
        Kind::Ipv6 => '6',
        Kind::Exchangers => 'm',
        Kind::Names => 'p',
        Kind::Texts => 't',
        Kind::Associations => 'a',
        Kind::Alias => 'c',
    });
    key.push_str(name.strip_suffix('.').unwrap_or(name));
    key.make_ascii_lowercase();
    key
}

/// Answers by question. Cheap to clone; all clones are one cache.
#[derive(Clone)]
pub(super) struct Answers(Cache<Box<str>, Arc<Answer>>);

/// An answer goes when its time is over.
struct Lifetime;

impl Expiry<Box<str>, Arc<Answer>> for Lifetime {
    fn expire_after_create(
        &self,
        _: &Box<str>,
        answer: &Arc<Answer>,
        _: Instant,
    ) -> Option<Duration> {
        Some(answer.lifetime)
    }

    fn expire_after_update(
        &self,
        _: &Box<str>,
        answer: &Arc<Answer>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(answer.lifetime)
    }
}

impl Answers {
    /// Holds at most about as many octets.
    pub(super) fn new(octets: u64) -> Answers {
        Answers(
            Cache::<Box<str>, Arc<Answer>>::builder()
                .max_capacity(octets)
                .weigher(|key, answer| {
                    u32::try_from(key.len() + answer.octets()).unwrap_or(u32::MAX)
                })
                .expire_after(Lifetime)
                .build(),
        )
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Answer>> {
        self.0.get(key)
    }

    pub(super) fn insert(&self, key: String, answer: &Arc<Answer>) {
        if !answer.lifetime.is_zero() {
            self.0.insert(key.into_boxed_str(), Arc::clone(answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, lifetime: Duration) -> Arc<Answer> {
        let records = Records::Texts(vec![text.as_bytes().to_vec()]);
        Arc::new(Answer::new(records, lifetime))
    }

    #[test]
    fn an_answer_ends_with_its_time() {
        let answers = Answers::new(10_000);
        answers.insert("gone".to_owned(), &text("a", Duration::ZERO));
        answers.insert("short".to_owned(), &text("a", Duration::from_nanos(1)));
        answers.insert("here".to_owned(), &text("a", Duration::from_secs(60)));
        assert!(answers.get("gone").is_none());
        assert!(answers.get("short").is_none());
        assert!(answers.get("here").is_some());
    }

    #[test]
    fn the_cache_is_bounded_in_octets() {
        let answers = Answers::new(100_000);
        let long = "x".repeat(1000);
        for n in 0..1000 {
            answers.insert(n.to_string(), &text(&long, Duration::from_secs(60)));
            answers.0.run_pending_tasks();
            assert!(answers.0.weighted_size() <= 100_000);
        }
        assert!(answers.0.entry_count() > 20);
    }

    #[test]
    fn a_text_is_read_once() {
        let answer = text("12", Duration::from_secs(60));
        let times = std::cell::Cell::new(0);
        let length = |texts: &[Vec<u8>]| {
            times.set(times.get() + 1);
            texts[0].len()
        };
        assert_eq!(answer.read(length).as_deref(), Some(&2));
        assert_eq!(answer.read(length).as_deref(), Some(&2));
        assert_eq!(times.get(), 1);
        // Who reads it otherwise gets what it wants.
        let words = |texts: &[Vec<u8>]| String::from_utf8_lossy(&texts[0]).into_owned();
        assert_eq!(
            answer.read(words).as_deref().map(String::as_str),
            Some("12")
        );
    }

    #[test]
    fn a_question_is_the_same_in_whatever_case() {
        assert_eq!(
            key(Kind::Texts, "A.example."),
            key(Kind::Texts, "a.EXAMPLE")
        );
        assert_ne!(key(Kind::Texts, "a.example"), key(Kind::Ipv4, "a.example"));
    }
}
