//! Asks ahead: while a record is evaluated term by term, the questions that its later terms will want
//! answered are on their way already.
//!
//! What comes back fills the memory of the DNS and nothing else; the evaluation counts, and decides, as
//! if it asked alone. Nothing is asked behind a term that is sure to match, nor for one with the
//! client's validated name in it, and no more than some questions for one evaluation, so that nobody
//! makes us ask many at once.

use std::future::Future;
use std::pin::Pin;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use crate::dns::Dns;
use crate::verify::spf::Question;
use crate::verify::spf::macros::MacroString;
use crate::verify::spf::macros::Values;
use crate::verify::spf::record::Mechanism;
use crate::verify::spf::record::Published;

/// Questions for one evaluation: its ten terms (RFC 7208 §4.6.4) and some hosts behind an `mx`.
const MAX_QUESTIONS: usize = 16;

/// What `evaluation` gives, asking ahead for as long as it has to wait. One that finds all that it
/// wants remembered asks nothing.
pub(super) async fn asking_ahead<T>(
    evaluation: impl Future<Output = T>,
    dns: &Dns,
    question: &Question<'_>,
    now: u64,
) -> T {
    let mut evaluation = pin!(evaluation);
    let ahead = async {
        let ahead = Ahead {
            dns,
            question,
            now,
            asked: AtomicUsize::new(0),
        };
        ahead.record(question.domain.to_owned()).await;
    };
    tokio::select! {
        biased;
        result = &mut evaluation => result,
        () = ahead => evaluation.await,
    }
}

struct Ahead<'a> {
    dns: &'a Dns,
    question: &'a Question<'a>,
    now: u64,
    asked: AtomicUsize,
}

impl Ahead<'_> {
    /// All terms of a record at once. Boxed, because include and redirect lead back here.
    fn record(&self, domain: String) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let published = self.dns.read(&domain, Published::read).await;
            let Some(Published::Record(record)) = published.as_deref().ok() else {
                return;
            };
            let all = record.directives.iter().map(|of| &of.mechanism);
            let before_a_match = all.take_while(|of| !self.is_sure_to_match(of));
            let terms = join_all(before_a_match.map(|of| self.term(&domain, of)));
            let redirect = async {
                let all = &record.directives;
                if let Some(target) = &record.redirect
                    && !all.iter().any(|of| self.is_sure_to_match(&of.mechanism))
                    && let Some(target) = self.follow(&domain, Some(target))
                {
                    self.record(target).await;
                }
            };
            tokio::join!(terms, redirect);
        })
    }

    async fn term(&self, domain: &str, mechanism: &Mechanism) {
        let target = match mechanism {
            Mechanism::Include(target) | Mechanism::Exists(target) => Some(target),
            Mechanism::A(target, _) | Mechanism::Mx(target, _) => target.as_ref(),
            Mechanism::All | Mechanism::Ip(_) | Mechanism::Ptr(_) => return,
        };
        let Some(name) = self.follow(domain, target) else {
            return;
        };
        match mechanism {
            Mechanism::Include(_) => self.record(name).await,
            Mechanism::Exists(_) => drop(self.dns.ipv4(&name).await),
            Mechanism::A(..) => drop(self.dns.addresses_like(self.question.ip, &name).await),
            Mechanism::Mx(..) => {
                let hosts = self.dns.mx(&name).await.unwrap_or_default();
                let hosts = hosts.iter().take_while(|_| self.may_ask());
                let asked = hosts.map(|(_, host)| self.dns.addresses_like(self.question.ip, host));
                join_all(asked).await;
            }
            Mechanism::All | Mechanism::Ip(_) | Mechanism::Ptr(_) => {}
        }
    }

    fn is_sure_to_match(&self, mechanism: &Mechanism) -> bool {
        match mechanism {
            Mechanism::All => true,
            Mechanism::Ip(network) => network.contains(&self.question.ip),
            Mechanism::Include(_)
            | Mechanism::A(..)
            | Mechanism::Mx(..)
            | Mechanism::Ptr(_)
            | Mechanism::Exists(_) => false,
        }
    }

    fn may_ask(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) < MAX_QUESTIONS
    }

    /// The name that a term asks about; None where it is not followed.
    fn follow(&self, domain: &str, target: Option<&MacroString>) -> Option<String> {
        if target.is_some_and(MacroString::needs_validated_name) || !self.may_ask() {
            return None;
        }
        let values = Values {
            question: self.question,
            domain,
            validated_name: "",
            now: self.now,
        };
        Some(target.map_or_else(|| domain.to_owned(), |target| target.expand_domain(&values)))
    }
}
