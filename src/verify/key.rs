//! The public key of a DKIM signature or an ARC seal (RFC 6376 §3.6.1, §6.1.2): fetched, and asked what
//! it is for.
//!
//! Read by the mail authentication library; what it leaves out of the record, the uses of the key, is
//! read here. A key is read once for each time its record was fetched.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use mail_auth::DnsError;
use mail_auth::Error;
use mail_auth::ResolverCache;
use mail_auth::Txt;
use mail_auth::common::crypto::Algorithm;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::resolver::ToFqdn;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::DkimError;

use crate::dns;
use crate::dns::Dns;
use crate::verify::DkimResult;
use crate::verify::dkim::Outcome;
use crate::verify::dkim::outcome;
use crate::verify::tags::Tags;

/// A key as it was published.
pub(super) struct Key {
    record: Result<Arc<DomainKey>, Error>,
    /// Whether it is for signatures of mail. The library does not tell: it drops the words of a key
    /// record that it does not know, so that a key for something else looks like one for everything.
    is_for_mail: bool,
}

impl Key {
    /// The first record that can be read; each must be for mail.
    fn read(texts: &[Vec<u8>]) -> Key {
        let nothing = Err(Error::Dns(DnsError::InvalidRecordType));
        let record = texts.iter().fold(nothing, |found, text| {
            found.or_else(|_| DomainKey::parse(text))
        });
        Key {
            record: record.map(Arc::new),
            is_for_mail: texts.iter().all(|text| is_for_mail(text)),
        }
    }

    /// Its length in bits, where it is RSA; why it cannot be used, where it cannot.
    pub(super) fn bits(&self, algorithm: Algorithm) -> Result<Option<usize>, Outcome> {
        let key = self.record.as_ref().map_err(error)?;
        if !self.is_for_mail {
            return Err(outcome(
                DkimResult::PermError,
                "the key is not for mail signed with sha256",
            ));
        }
        Ok(match algorithm {
            Algorithm::Ed25519Sha256 => None,
            Algorithm::RsaSha256 | Algorithm::RsaSha1 => Some(key.p.public_key_bits()),
        })
    }
}

/// Keys that were fetched, each under its name, as the library wants them. It finds every key here that
/// it asks for, so that it asks nobody.
pub(super) struct Fetched(Vec<Named>);

struct Named {
    name: Box<str>,
    key: Result<Arc<Key>, dns::Error>,
}

impl Fetched {
    /// The keys of these names (`selector._domainkey.domain.`), asked for at once.
    pub(super) async fn of(dns: &Dns, names: impl Iterator<Item = String>) -> Fetched {
        let keys = names.map(|name| async move {
            let name = name.to_fqdn().into_owned();
            let key = dns.read(&name, Key::read).await;
            let name = name.into_boxed_str();
            Named { name, key }
        });
        Fetched(join_all(keys).await)
    }

    /// The first of them; why it cannot be used, where it cannot.
    pub(super) fn first(&self) -> Result<&Key, Outcome> {
        match self.0.first().map(|named| &named.key) {
            Some(Ok(key)) => Ok(key),
            Some(Err(dns::Error::Temporary(_))) => Err(no_key_now()),
            Some(Err(dns::Error::NotFound)) | None => Err(no_key()),
        }
    }
}

impl ResolverCache<Box<str>, Txt> for Fetched {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut keys = self.0.iter();
        let named = keys.find(|named| Borrow::<Q>::borrow(&named.name) == name)?;
        Some(match named.key.as_ref().map(|key| &key.record) {
            Ok(Ok(key)) => Txt::DomainKey(Arc::clone(key)),
            Ok(Err(error)) => Txt::Error(error.clone()),
            Err(dns::Error::NotFound) => Txt::Error(Error::Dns(DnsError::InvalidRecordType)),
            Err(dns::Error::Temporary(why)) => {
                Txt::Error(Error::Dns(DnsError::Resolver(why.clone())))
            }
        })
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

/// RFC 6376 §3.6.1: h= and s= of a key; what is not given means everything.
fn is_for_mail(record: &[u8]) -> bool {
    let tags = Tags::read(record);
    let allows = |name, words: &[&str]| {
        tags.raw(name).is_none_or(|list| {
            list.split(':')
                .any(|given| words.iter().any(|word| word.eq_ignore_ascii_case(given)))
        })
    };
    allows("h", &["sha256"]) && allows("s", &["*", "email"])
}

/// RFC 6376 §6.1.2
pub(super) fn error(error: &Error) -> Outcome {
    match error {
        Error::Dns(DnsError::Resolver(_)) => no_key_now(),
        Error::Dkim(DkimError::RevokedPublicKey) => {
            outcome(DkimResult::PermError, "the key is revoked")
        }
        _ => outcome(DkimResult::PermError, "the key cannot be read"),
    }
}

fn no_key() -> Outcome {
    outcome(DkimResult::PermError, "there is no key for the signature")
}

fn no_key_now() -> Outcome {
    outcome(DkimResult::TempError, "the key cannot be looked up now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is_for() {
        for (record, want) in [
            ("v=DKIM1; p=AA", true),
            ("s=*; h=sha1:sha256; p=AA", true),
            ("s = other : Email ; p=AA", true),
            ("s=tlsrpt; p=AA", false),
            ("h=sha1; p=AA", false),
            ("h=sha512; p=AA", false),
        ] {
            assert_eq!(is_for_mail(record.as_bytes()), want, "{record}");
        }
    }
}
