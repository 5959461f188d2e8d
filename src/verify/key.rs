//! The public key of a DKIM signature (RFC 6376 §3.6.1, §6.1.2): fetched, and asked what it is for.
//!
//! Read by the mail authentication library; what it leaves out of the record, the uses of the key, is
//! read here.

use mail_auth::DnsError;
use mail_auth::Error;
use mail_auth::common::crypto::Algorithm;
use mail_auth::common::verify::DomainKey;
use mail_auth::common::verify::VerifySignature;
use mail_auth::dkim;
use mail_auth::dkim::DkimError;

use crate::dns;
use crate::dns::Dns;
use crate::dns::keys::Purpose;
use crate::verify::DkimResult;
use crate::verify::dkim::Outcome;
use crate::verify::dkim::outcome;
use crate::verify::tags::Tags;

/// Fetches the key; gives its length where it is RSA.
pub(super) async fn bits(dns: &Dns, signature: &dkim::Signature) -> Result<Option<usize>, Outcome> {
    let name = signature.domain_key();
    let key = dns
        .authenticator()
        .txt_lookup::<DomainKey>(name.as_str(), Some(dns.keys()))
        .await
        .map_err(|error| self::error(&error))?;
    match purpose(dns, &name).await {
        Ok(Purpose::Mail) => {}
        Ok(Purpose::Other) => {
            return Err(outcome(
                DkimResult::PermError,
                "the key is not for mail signed with sha256",
            ));
        }
        Err(_) => return Err(no_key_now()),
    }
    Ok(match signature.a {
        Algorithm::Ed25519Sha256 => None,
        Algorithm::RsaSha256 | Algorithm::RsaSha1 => Some(key.p.public_key_bits()),
    })
}

/// What the key of that name is for; found out once for each record.
async fn purpose(dns: &Dns, name: &str) -> Result<Purpose, dns::Error> {
    if let Some(purpose) = dns.keys().purpose(name) {
        return Ok(purpose);
    }
    let records = dns.txt(name).await?;
    let purpose = match records.iter().all(|record| is_for_mail(record)) {
        true => Purpose::Mail,
        false => Purpose::Other,
    };
    dns.keys().set_purpose(name, purpose);
    Ok(purpose)
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
        Error::Dns(DnsError::RecordNotFound(_)) => {
            outcome(DkimResult::PermError, "there is no key for the signature")
        }
        Error::Dkim(DkimError::RevokedPublicKey) => {
            outcome(DkimResult::PermError, "the key is revoked")
        }
        _ => outcome(DkimResult::PermError, "the key cannot be read"),
    }
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
