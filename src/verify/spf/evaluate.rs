//! Evaluates SPF records (RFC 7208 §4.6).
//!
//! What ends an evaluation early, a temporary or a permanent error, is the `Err` of the functions
//! here, so that each step reads as the RFC tells it.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::dns::Dns;
use crate::dns::Error;
use crate::verify::SpfResult;
use crate::verify::names::is_within;
use crate::verify::spf::Answer;
use crate::verify::spf::Question;
use crate::verify::spf::ahead::asking_ahead;
use crate::verify::spf::macros::MacroString;
use crate::verify::spf::macros::Values;
use crate::verify::spf::record::Mechanism;
use crate::verify::spf::record::Prefixes;
use crate::verify::spf::record::Published;
use crate::verify::spf::record::Record;

/// RFC 7208 §4.6.4: terms of all records together that ask the DNS.
const MAX_LOOKUPS: usize = 10;
/// RFC 7208 §4.6.4: those of them that may find nothing.
const MAX_VOID_LOOKUPS: usize = 2;
/// RFC 7208 §4.6.4: names looked up for one `mx` or `ptr`.
const MAX_NAMES: usize = 10;
/// Characters of an explanation that are passed on.
const MAX_EXPLANATION: usize = 256;

/// Why an evaluation ended before a directive matched.
enum Stop {
    Temporary,
    Permanent,
}

/// Whether a mechanism holds for the client.
enum Match {
    Yes,
    No,
}

impl From<bool> for Match {
    fn from(matches: bool) -> Match {
        if matches { Match::Yes } else { Match::No }
    }
}

/// Evaluates the record of the domain in question, and fetches its explanation of a fail in what time
/// is left. `now` is the time of day in seconds since 1970, for a macro.
pub(super) async fn evaluate(
    dns: &Dns,
    question: &Question<'_>,
    now: u64,
    deadline: Instant,
) -> Answer {
    let mut evaluation = Evaluation {
        dns,
        question,
        now,
        lookups: 0,
        void_lookups: 0,
        client_names: None,
    };
    let record = evaluation.record_of(question.domain.to_owned());
    let record = asking_ahead(record, dns, question, now);
    // RFC 7208 §4.6.4: a limit on the whole, of at least 20 seconds.
    match timeout_at(deadline, record).await {
        Ok(Ok(Verdict {
            result: SpfResult::Fail,
            explanation: Some((domain, text)),
        })) => Answer {
            result: SpfResult::Fail,
            explanation: timeout_at(deadline, evaluation.explain(&domain, &text))
                .await
                .unwrap_or_default(),
        },
        Ok(Ok(verdict)) => verdict.result.into(),
        Ok(Err(Stop::Temporary)) | Err(_) => SpfResult::TempError.into(),
        Ok(Err(Stop::Permanent)) => SpfResult::PermError.into(),
    }
}

/// What a record says of the client.
struct Verdict {
    result: SpfResult,
    /// The domain of the record that decided, and its `exp=`.
    explanation: Option<(String, MacroString)>,
}

impl From<SpfResult> for Verdict {
    fn from(result: SpfResult) -> Verdict {
        Verdict {
            result,
            explanation: None,
        }
    }
}

/// One run of `check_host()` with the counters that hold for all records together.
struct Evaluation<'a> {
    dns: &'a Dns,
    question: &'a Question<'a>,
    now: u64,
    lookups: usize,
    void_lookups: usize,
    /// The names of the client that lead back to it, once they were asked for.
    client_names: Option<Vec<String>>,
}

impl Evaluation<'_> {
    /// `check_host()` for one domain. Boxed, because include and redirect lead back here.
    fn record_of(
        &mut self,
        domain: String,
    ) -> Pin<Box<dyn Future<Output = Result<Verdict, Stop>> + Send + '_>> {
        Box::pin(async move {
            // RFC 7208 §4.4
            match self.dns.read(&domain, Published::read).await {
                Ok(published) => match &*published {
                    Published::Nothing => Ok(SpfResult::None.into()),
                    Published::Record(record) => self.apply(&domain, record).await,
                    Published::Broken => Err(Stop::Permanent),
                },
                Err(Error::NotFound) => Ok(SpfResult::None.into()),
                Err(Error::Temporary(_)) => Err(Stop::Temporary),
            }
        })
    }

    /// RFC 7208 §4.6.2: directives from the left, then redirect, else neutral.
    async fn apply(&mut self, domain: &str, record: &Record) -> Result<Verdict, Stop> {
        for directive in &record.directives {
            if let Match::Yes = self.matches(domain, &directive.mechanism).await? {
                let text = record.explanation.as_ref();
                return Ok(Verdict {
                    result: directive.result,
                    explanation: text.map(|text| (domain.to_owned(), text.clone())),
                });
            }
        }
        let Some(redirect) = &record.redirect else {
            return Ok(SpfResult::Neutral.into()); // RFC 7208 §4.7
        };
        self.count_lookup()?;
        let target = self.expand_domain(domain, redirect).await;
        match self.record_of(target).await? {
            // RFC 7208 §6.1
            Verdict {
                result: SpfResult::None,
                ..
            } => Err(Stop::Permanent),
            verdict => Ok(verdict),
        }
    }

    async fn matches(&mut self, domain: &str, mechanism: &Mechanism) -> Result<Match, Stop> {
        match mechanism {
            Mechanism::All => Ok(Match::Yes),
            Mechanism::Ip(network) => Ok(network.contains(&self.question.ip).into()),
            Mechanism::Include(target) => self.include(domain, target).await,
            Mechanism::A(target, prefixes) => self.a(domain, target.as_ref(), *prefixes).await,
            Mechanism::Mx(target, prefixes) => self.mx(domain, target.as_ref(), *prefixes).await,
            Mechanism::Ptr(target) => self.ptr(domain, target.as_ref()).await,
            Mechanism::Exists(target) => self.exists(domain, target).await,
        }
    }

    /// RFC 7208 §5.2
    async fn include(&mut self, domain: &str, target: &MacroString) -> Result<Match, Stop> {
        self.count_lookup()?;
        let target = self.expand_domain(domain, target).await;
        match self.record_of(target).await?.result {
            SpfResult::Pass => Ok(Match::Yes),
            SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral => Ok(Match::No),
            SpfResult::TempError => Err(Stop::Temporary),
            SpfResult::None | SpfResult::PermError => Err(Stop::Permanent),
        }
    }

    /// RFC 7208 §5.3
    async fn a(
        &mut self,
        domain: &str,
        target: Option<&MacroString>,
        prefixes: Prefixes,
    ) -> Result<Match, Stop> {
        self.count_lookup()?;
        let target = self.target(domain, target).await;
        let found = self.addresses(&target).await;
        let addresses = self.unless_void(found)?;
        Ok(self.any_joins(&addresses, prefixes))
    }

    /// RFC 7208 §5.4
    async fn mx(
        &mut self,
        domain: &str,
        target: Option<&MacroString>,
        prefixes: Prefixes,
    ) -> Result<Match, Stop> {
        self.count_lookup()?;
        let target = self.target(domain, target).await;
        let found = self.dns.mx(&target).await;
        let exchangers = self.unless_void(found)?;
        // RFC 7208 §4.6.4
        if exchangers.len() > MAX_NAMES {
            return Err(Stop::Permanent);
        }
        for (_, host) in &exchangers {
            match self.addresses(host).await {
                Ok(addresses) => {
                    if let Match::Yes = self.any_joins(&addresses, prefixes) {
                        return Ok(Match::Yes);
                    }
                }
                Err(Error::NotFound) => {}
                Err(Error::Temporary(_)) => return Err(Stop::Temporary),
            }
        }
        Ok(Match::No)
    }

    /// RFC 7208 §5.5. An error of the DNS is no match here.
    async fn ptr(&mut self, domain: &str, target: Option<&MacroString>) -> Result<Match, Stop> {
        self.count_lookup()?;
        let target = self.target(domain, target).await;
        self.validate_client_names().await;
        let names = self.client_names.as_deref().unwrap_or_default();
        if names.is_empty() {
            self.count_void()?;
            return Ok(Match::No);
        }
        Ok(names.iter().any(|name| is_within(name, &target)).into())
    }

    /// RFC 7208 §5.7: an A record, whatever the family of the client.
    async fn exists(&mut self, domain: &str, target: &MacroString) -> Result<Match, Stop> {
        self.count_lookup()?;
        let target = self.expand_domain(domain, target).await;
        let found = self.dns.ipv4(&target).await;
        Ok((!self.unless_void(found)?.is_empty()).into())
    }

    /// The addresses of a name in the family of the client (RFC 7208 §5).
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        self.dns.addresses_like(self.question.ip, name).await
    }

    fn any_joins(&self, addresses: &[IpAddr], prefixes: Prefixes) -> Match {
        addresses
            .iter()
            .any(|address| prefixes.join(self.question.ip, *address))
            .into()
    }

    fn count_lookup(&mut self) -> Result<(), Stop> {
        self.lookups += 1;
        if self.lookups > MAX_LOOKUPS {
            return Err(Stop::Permanent);
        }
        Ok(())
    }

    /// RFC 7208 §4.6.4. A term is counted once, not once for each name behind an `mx`: a host with
    /// addresses of only one family is no mistake of the domain's.
    fn count_void(&mut self) -> Result<(), Stop> {
        self.void_lookups += 1;
        if self.void_lookups > MAX_VOID_LOOKUPS {
            return Err(Stop::Permanent);
        }
        Ok(())
    }

    /// What was found, nothing where there is nothing; that is counted.
    fn unless_void<T>(&mut self, found: Result<Vec<T>, Error>) -> Result<Vec<T>, Stop> {
        match found {
            Ok(found) => Ok(found),
            Err(Error::NotFound) => {
                self.count_void()?;
                Ok(Vec::new())
            }
            Err(Error::Temporary(_)) => Err(Stop::Temporary),
        }
    }

    async fn target(&mut self, domain: &str, target: Option<&MacroString>) -> String {
        match target {
            Some(target) => self.expand_domain(domain, target).await,
            None => domain.to_owned(),
        }
    }

    async fn expand_domain(&mut self, domain: &str, string: &MacroString) -> String {
        let validated_name = self.validated_name(domain, string).await;
        string.expand_domain(&self.values(domain, &validated_name))
    }

    fn values<'b>(&'b self, domain: &'b str, validated_name: &'b str) -> Values<'b> {
        Values {
            question: self.question,
            domain,
            validated_name,
            now: self.now,
        }
    }

    /// `%{p}`: the domain itself, else a name in it, else any (RFC 7208 §7.3).
    async fn validated_name(&mut self, domain: &str, string: &MacroString) -> String {
        if !string.needs_validated_name() {
            return String::new();
        }
        self.validate_client_names().await;
        let names = self.client_names.as_deref().unwrap_or_default();
        names
            .iter()
            .find(|name| name.eq_ignore_ascii_case(domain))
            .or_else(|| names.iter().find(|name| is_within(name, domain)))
            .or_else(|| names.first())
            .map_or_else(|| "unknown".to_owned(), String::clone)
    }

    /// RFC 7208 §5.5: the names of the client that lead back to it, of the first ten. Asked once.
    async fn validate_client_names(&mut self) {
        if self.client_names.is_some() {
            return;
        }
        let mut validated = Vec::new();
        if let Ok(names) = self.dns.reverse(self.question.ip).await {
            let names = names.iter().take(MAX_NAMES);
            let names = join_all(names.map(|name| async {
                let addresses = self.addresses(name.as_str()).await.unwrap_or_default();
                let leads_back = addresses.contains(&self.question.ip);
                leads_back.then(|| name.to_string())
            }));
            validated.extend(names.await.into_iter().flatten());
        }
        self.client_names = Some(validated);
    }

    /// RFC 7208 §6.2: one TXT record, else nothing. Whatever goes wrong, the fail stands.
    async fn explain(&mut self, domain: &str, name: &MacroString) -> Option<String> {
        let name = self.expand_domain(domain, name).await;
        let records = self.dns.txt(&name).await.ok()?;
        let [record] = records.as_slice() else {
            return None;
        };
        let text = MacroString::parse_explanation(std::str::from_utf8(record).ok()?)?;
        let validated_name = self.validated_name(domain, &text).await;
        clean(&text.expand(&self.values(domain, &validated_name)))
    }
}

/// What a stranger wrote, fit for a reply line: printable ASCII, not too long.
fn clean(text: &str) -> Option<String> {
    let text: String = text
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(MAX_EXPLANATION)
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_holds_nothing_that_could_break_a_reply() {
        assert_eq!(clean("see\r\n250 ok\u{7f}é"), Some("see250 ok".to_owned()));
        assert_eq!(clean(" \t"), None);
        assert_eq!(clean(&"x".repeat(1000)).map(|text| text.len()), Some(256));
    }
}
