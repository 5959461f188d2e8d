//! The DKIM signatures of a message (RFC 6376, RFC 8301, RFC 8463).
//!
//! Verified by the mail authentication library, each by itself, their keys asked for at once. What the
//! library leaves open is decided here, before and after: which signatures are looked at, what an old
//! algorithm, a short key, an expired signature or a partly signed body is worth.

use std::iter::once;

use futures_util::future::join_all;
use mail_auth::DkimResult as Verdict;
use mail_auth::Error;
use mail_auth::Parameters;
use mail_auth::common::crypto::Algorithm;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::common::headers::Header;
use mail_auth::common::verify::VerifySignature;
use mail_auth::dkim;
use mail_auth::dkim::DkimError;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::verify::DkimResult;
use crate::verify::Signature;
use crate::verify::key;
use crate::verify::key::Fetched;
use crate::verify::names::is_related;
use crate::verify::signed::Coverage;
use crate::verify::signed::MAX_FIELDS;
use crate::verify::signed::MAX_SIGNED_NAMES;
use crate::verify::signed::Signed;
use crate::verify::tags::MAX_VALUE;
use crate::verify::tags::Tags;

/// DKIM-Signature fields that are read at all; those after them are as if they were not there.
const MAX_READ: usize = 32;

/// What a site accepts.
pub(super) struct Limits {
    /// How many signatures are verified.
    pub(super) signatures: usize,
    /// Bits of an RSA key.
    pub(super) key_bits: usize,
    /// The time of day, in seconds since 1970.
    pub(super) now: u64,
    /// When verification has to be over.
    pub(super) deadline: Instant,
}

/// What came of one signature, and a word on it.
pub(super) type Outcome = (DkimResult, String);

pub(super) fn outcome(result: DkimResult, reason: &str) -> Outcome {
    (result, reason.to_owned())
}

/// A DKIM-Signature field as it stands in the message.
pub(super) struct Field<'x> {
    name: &'x [u8],
    value: &'x [u8],
    tags: Tags<'x>,
}

impl Field<'_> {
    /// `d=`, as far as it is harmless.
    pub(super) fn domain(&self) -> String {
        self.tags.harmless("d", MAX_VALUE).unwrap_or_default()
    }
}

/// The fields of a message that are looked at, those first that could belong to one of `authors`.
pub(super) fn read<'x>(mail: &Signed<'x>, authors: &[Domain]) -> Vec<Field<'x>> {
    let named = mail.named("dkim-signature").take(MAX_READ);
    let mut fields: Vec<_> = named
        .map(|(name, value)| Field {
            name,
            value,
            tags: Tags::read(value),
        })
        .collect();
    if fields.len() > 1 {
        fields.sort_by_cached_key(|field| !is_related(&field.domain(), authors));
    }
    fields
}

/// Verifies the signatures of a message, as many of them as `limits` say.
pub(super) async fn verify(
    dns: &Dns,
    mail: &Signed<'_>,
    fields: &[Field<'_>],
    limits: &Limits,
) -> Vec<Signature> {
    let verified = fields.iter().enumerate().map(|(at, field)| async move {
        let mut signature = describe(&field.tags);
        let (result, reason) = if at >= limits.signatures {
            outcome(DkimResult::Policy, "not verified, too many signatures")
        } else if mail.field_count() > MAX_FIELDS {
            outcome(DkimResult::Policy, "not verified, too many header fields")
        } else {
            let (outcome, coverage) = verify_one(dns, mail, field, limits, &mut signature).await;
            signature.counts = outcome.0 == DkimResult::Pass && coverage == Coverage::Whole;
            outcome
        };
        signature.result = result;
        signature.reason = Some(reason);
        signature
    });
    join_all(verified).await
}

/// The signature as its field tells, before it is verified.
fn describe(tags: &Tags<'_>) -> Signature {
    let algorithm = tags.raw("a").unwrap_or_default();
    let domain = tags.harmless("d", MAX_VALUE).unwrap_or_default();
    Signature {
        result: DkimResult::PermError,
        domain: domain.to_ascii_lowercase(),
        selector: tags.harmless("s", MAX_VALUE).unwrap_or_default(),
        identity: tags.harmless("i", MAX_VALUE),
        algorithm: Algorithm::parse(algorithm.as_bytes()).map_or("unknown", |a| a.name()),
        b: tags.harmless("b", 8).unwrap_or_default(),
        reason: None,
        counts: false,
    }
}

async fn verify_one(
    dns: &Dns,
    mail: &Signed<'_>,
    field: &Field<'_>,
    limits: &Limits,
    described: &mut Signature,
) -> (Outcome, Coverage) {
    let checked = match check_field(field.value, &field.tags, limits.now) {
        Ok(checked) => checked,
        Err(outcome) => return (outcome, Coverage::Part),
    };
    let Checked {
        signature,
        domain,
        length,
    } = checked;
    // What is verified and what is reported must be one domain, however the field is read.
    described.domain = domain.to_string();
    // The question is on its way while the body is hashed.
    let (keys, hash) = tokio::join!(
        timeout_at(
            limits.deadline,
            Fetched::of(dns, once(signature.domain_key())),
        ),
        async { mail.body_hash(signature.cb, length) },
    );
    let Some((hash, coverage)) = hash else {
        let outcome = outcome(DkimResult::Fail, "the body is shorter than l= says");
        return (outcome, Coverage::Part);
    };
    let Ok(keys) = keys else {
        let outcome = outcome(DkimResult::TempError, "there was no time to verify it");
        return (outcome, coverage);
    };
    let bits = match keys.first().and_then(|key| key.bits(signature.a)) {
        Ok(bits) => bits,
        Err(outcome) => return (outcome, coverage),
    };
    if let Some(bits) = bits
        && bits < limits.key_bits
    {
        // RFC 8301 §3.2
        let reason = format!("the key has only {bits} bits");
        return ((DkimResult::Fail, reason), coverage);
    }
    let mut message = mail.authenticated();
    message.body_hashes = vec![(signature.cb, HashAlgorithm::Sha256, signature.l, hash)];
    message.dkim_headers = vec![Header::new(field.name, field.value, signature)];
    let parameters = Parameters::new(&message).with_txt_cache(&keys);
    let outputs = dns.authenticator().verify_dkim(parameters).await;
    let outcome = match outputs.first() {
        Some(output) => judge(output.result(), bits),
        None => outcome(DkimResult::PermError, "the signature cannot be read"),
    };
    (outcome, coverage)
}

/// A signature that may be verified.
struct Checked {
    signature: dkim::Signature,
    /// `d=`
    domain: Domain,
    /// `l=`
    length: Option<u64>,
}

/// What can be said from the field alone (RFC 6376 §6.1.1).
fn check_field(value: &[u8], tags: &Tags<'_>, now: u64) -> Result<Checked, Outcome> {
    let permanent = |reason| Err(outcome(DkimResult::PermError, reason));
    let Ok(mut signature) = dkim::Signature::parse(value) else {
        return permanent("the signature cannot be read");
    };
    if tags.raw("v").as_deref() != Some("1") {
        return permanent("the signature has no v=1");
    }
    // RFC 6376 §3.2: who repeats a tag could mean two things to two readers.
    if tags.repeat() {
        return permanent("a tag is repeated");
    }
    let Ok(domain) = Domain::parse(&signature.d) else {
        return permanent("d= is no domain");
    };
    let numbers = ["l", "t", "x"].map(|name| number(tags, name));
    let [Ok(length), Ok(made), Ok(expires)] = numbers else {
        return permanent("l=, t= or x= is no number");
    };
    if signature.h.len() > MAX_SIGNED_NAMES {
        return permanent("h= names too many fields");
    }
    // RFC 6376 §5.4
    if !signature
        .h
        .iter()
        .any(|name| name.eq_ignore_ascii_case("from"))
    {
        return permanent("From is not signed");
    }
    if let (Some(made), Some(expires)) = (made, expires)
        && expires <= made
    {
        return permanent("x= is not after t=");
    }
    if expires.is_some_and(|expires| expires <= now) {
        return Err(outcome(DkimResult::Fail, "the signature has expired"));
    }
    // RFC 8301 §3.1
    if signature.a == Algorithm::RsaSha1 {
        return Err(outcome(DkimResult::Fail, "rsa-sha1 is not accepted"));
    }
    // Neither third-party policies (RFC 6541) nor reports (RFC 6651): each would cost lookups.
    signature.atps = None;
    signature.r = false;
    Ok(Checked {
        signature,
        domain,
        length,
    })
}

fn number(tags: &Tags<'_>, name: &str) -> Result<Option<u64>, std::num::ParseIntError> {
    tags.raw(name).map(|text| text.parse()).transpose()
}

/// What the library found, in the words of RFC 8601 §2.7.1.
fn judge(verdict: &Verdict, bits: Option<usize>) -> Outcome {
    let error = match verdict {
        Verdict::Pass => {
            let key = match bits {
                Some(bits) => format!("{bits}-bit key"),
                None => "ed25519 key".to_owned(),
            };
            return (DkimResult::Pass, key);
        }
        Verdict::None => return outcome(DkimResult::Neutral, "not verified"),
        Verdict::TempError(error) | Verdict::PermError(error) => return key::error(error),
        Verdict::Neutral(error) | Verdict::Fail(error) => error,
    };
    match error {
        Error::Dkim(DkimError::FailedBodyHashMatch) => {
            outcome(DkimResult::Fail, "the body was changed")
        }
        Error::Dkim(DkimError::FailedAuidMatch) => {
            outcome(DkimResult::PermError, "i= is not within d=")
        }
        Error::Crypto(mail_auth::common::crypto::CryptoError::IncompatibleAlgorithms) => {
            outcome(DkimResult::PermError, "the key is of another algorithm")
        }
        _ => outcome(DkimResult::Fail, "the signature does not match"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: &str = " v=1; a=rsa-sha256; d=Example.com; s=sel; i=@a.example.com; h=From:To; bh=AAAA; b=abcd\r\n efghij";

    fn check(field: &str) -> Result<Checked, Outcome> {
        check_field(field.as_bytes(), &Tags::read(field.as_bytes()), 1000)
    }

    #[test]
    fn a_field_is_described_even_where_it_cannot_be_read() {
        let signature = describe(&Tags::read(FIELD.as_bytes()));
        assert_eq!(signature.domain, "example.com");
        assert_eq!(signature.selector, "sel");
        assert_eq!(signature.identity.as_deref(), Some("@a.example.com"));
        assert_eq!(signature.algorithm, "rsa-sha256");
        assert_eq!(signature.b, "abcdefgh");
        assert_eq!(describe(&Tags::read(b"\xff;;=;")).algorithm, "unknown");
    }

    #[test]
    fn what_the_field_alone_decides() {
        use DkimResult::Fail;
        use DkimResult::PermError;
        assert!(check(FIELD).is_ok());
        for (from, to, want) in [
            ("v=1;", "v=2;", PermError),
            ("v=1;", "", PermError),
            ("h=From:To", "h=To", PermError),
            ("bh=AAAA;", "", PermError),
            ("s=sel;", "s=sel; x=999;", Fail),
            ("s=sel;", "s=sel; x=1000;", Fail),
            ("s=sel;", "s=sel; t=2000; x=2000;", PermError),
            ("s=sel;", "s=sel; x=soon;", PermError),
            ("s=sel;", "s=sel; l=-1;", PermError),
            ("s=sel;", "s=sel; d=evil.example;", PermError),
            ("s=sel;", "s=sel; D=evil.example;", PermError),
            ("Example.com", "Example..com", PermError),
            ("rsa-sha256", "rsa-sha1", Fail),
            ("rsa-sha256", "dsa-sha256", PermError),
        ] {
            let field = FIELD.replace(from, to);
            let got = check(&field).err().map(|(result, _)| result);
            assert_eq!(got, Some(want), "{to}");
        }
        let names = "From:".repeat(MAX_SIGNED_NAMES + 1);
        let field = FIELD.replace("From:", &names);
        assert!(check(&field).is_err());
    }
}
