//! The chain of ARC seals of a message (RFC 8617 §5.2).
//!
//! Verified by the mail authentication library; what old algorithms and partly signed bodies are
//! worth is decided here. That a chain cannot be validated now, because a key cannot be looked up, is a
//! result of its own: the chain of a forwarder that a site trusts can save a message.

use mail_auth::AuthenticatedMessage;
use mail_auth::DkimResult as Verdict;
use mail_auth::Parameters;
use mail_auth::arc;
use mail_auth::common::crypto::Algorithm;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::common::headers::Header;
use mail_auth::common::verify::VerifySignature;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::verify::Arc;
use crate::verify::ArcResult;
use crate::verify::key::Fetched;
use crate::verify::signed::MAX_FIELDS;
use crate::verify::signed::MAX_SIGNED_NAMES;
use crate::verify::signed::Signed;
use crate::verify::tags::Tags;

/// RFC 8617 §4.2.1
const MAX_SETS: usize = 50;

/// Validates the chain, if there is one.
pub(super) async fn verify(dns: &Dns, mail: &Signed<'_>, deadline: Instant) -> Arc {
    if is_absent(mail) {
        return Arc {
            result: ArcResult::None,
            sealers: Vec::new(),
        };
    }
    let failed = Arc {
        result: ArcResult::Fail,
        sealers: Vec::new(),
    };
    let Some((message, sealers)) = read(mail) else {
        return failed;
    };
    let signature = message
        .ams_headers
        .last()
        .map(|set| set.header.domain_key());
    let seals = message.as_headers.iter().map(|set| set.header.domain_key());
    let keys = Fetched::of(dns, signature.into_iter().chain(seals));
    let Ok(keys) = timeout_at(deadline, keys).await else {
        return Arc {
            result: ArcResult::TempError,
            sealers,
        };
    };
    let parameters = Parameters::new(&message).with_txt_cache(&keys);
    let output = dns.authenticator().verify_arc(parameters).await;
    let result = match output.result() {
        Verdict::Pass => ArcResult::Pass,
        Verdict::TempError(_) => ArcResult::TempError,
        Verdict::None | Verdict::Neutral(_) | Verdict::Fail(_) | Verdict::PermError(_) => {
            return failed;
        }
    };
    Arc { result, sealers }
}

/// RFC 8617 §5.2 step 1
fn is_absent(mail: &Signed<'_>) -> bool {
    [
        "arc-seal",
        "arc-message-signature",
        "arc-authentication-results",
    ]
    .iter()
    .all(|name| mail.named(name).next().is_none())
}

/// The sets for the library and who sealed them, oldest first. None where the chain cannot be whole.
fn read<'x>(mail: &Signed<'x>) -> Option<(AuthenticatedMessage<'x>, Vec<String>)> {
    let sets = mail.named("arc-seal").take(MAX_SETS + 1).count();
    if sets > MAX_SETS || mail.field_count() > MAX_FIELDS {
        return None;
    }
    let mut message = mail.authenticated();
    for (name, value) in mail.named("arc-seal") {
        let seal = arc::Seal::parse(value).ok()?;
        message.as_headers.push(Header::new(name, value, seal));
    }
    for (name, value) in mail.named("arc-message-signature").take(sets + 1) {
        let signature = arc::Signature::parse(value).ok()?;
        message
            .ams_headers
            .push(Header::new(name, value, signature));
    }
    for (name, value) in mail.named("arc-authentication-results").take(sets + 1) {
        let results = arc::Results::parse(value).ok()?;
        message.aar_headers.push(Header::new(name, value, results));
    }
    message.as_headers.sort_by_key(|set| set.header.i);
    message.ams_headers.sort_by_key(|set| set.header.i);
    message.aar_headers.sort_by_key(|set| set.header.i);
    let newest = message.ams_headers.last()?;
    let (body, length, names) = (newest.header.cb, newest.header.l, &newest.header.h);
    let whole = Tags::read(newest.value).raw("l").is_none();
    // RFC 8301 §3.1
    let modern = newest.header.a != Algorithm::RsaSha1
        && message
            .as_headers
            .iter()
            .all(|set| set.header.a != Algorithm::RsaSha1);
    // RFC 6376 §5.4, through RFC 8617 §4.1.2: whose author is not signed speaks for nobody's mail.
    let from = names.iter().any(|name| name.eq_ignore_ascii_case("from"));
    if !whole || !modern || !from || names.len() > MAX_SIGNED_NAMES {
        return None;
    }
    let (hash, _) = mail.body_hash(body, None)?;
    message.body_hashes = vec![(body, HashAlgorithm::Sha256, length, hash)];
    let sealers = message
        .as_headers
        .iter()
        .map(|set| Domain::parse(&set.header.d).ok().map(String::from))
        .collect::<Option<_>>()?;
    Some((message, sealers))
}
