//! What we write into mail from the world: Authentication-Results (RFC 8601), Received-SPF (RFC 7208
//! §9.1), Received and our mark; and what we take out of it.
//!
//! Taken out: every Authentication-Results that carries our name, or whose name cannot be read
//! (RFC 8601 §5), every Received-SPF with our name in it, every mark that is not ours, and Return-Path, which only the last hop may write;
//! and white space at the very start, which would carry on with the last of our fields.
//! Nobody behind us can be fooled by what a stranger wrote in our name.

use std::fmt::Write;
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;

use super::Case;
use super::Client;
use super::authenticity::Verdict;
use super::received::Hop;
use super::received::Origin;
use super::received::comment;
use super::received::harmless;
use super::spf;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::headers;
use crate::mail::headers::Field;
use crate::verify::ArcResult;
use crate::verify::Author;
use crate::verify::DkimResult;
use crate::verify::DmarcPolicy;
use crate::verify::DmarcResult;
use crate::verify::Evidence;
use crate::verify::Iprev;
use crate::verify::IprevResult;
use crate::verify::Spf;
use crate::verify::SpfIdentity;
use crate::verify::SpfResult;

/// The field that tells a filter behind us what to put aside.
const MARK: &str = "X-Gatepost-Mark";

/// All that the fields are made from.
pub(super) struct Results<'a> {
    pub(super) hostname: &'a Domain,
    pub(super) client: &'a Client,
    pub(super) case: &'a Case,
    pub(super) spf_exempt: bool,
    pub(super) evidence: &'a Evidence,
    pub(super) iprev: &'a Iprev,
    pub(super) verdict: &'a Verdict,
}

/// The message with our fields in front and without those that nobody else may write. `judgement` is
/// what [`authentication_results`] gives.
pub(super) fn stamp(
    results: &Results<'_>,
    judgement: &[String],
    envelope: &Envelope,
    received: &Bytes,
    now: SystemTime,
) -> Content {
    let hop = Hop {
        hostname: results.hostname,
        client: results.client,
        origin: Origin::Named(results.iprev.name.as_ref()),
        login: None,
        id: results.case.id,
    };
    let mut prefix = hop.field(envelope, now);
    prefix.push_str(&format!(
        "Authentication-Results: {};\r\n\t{}\r\n",
        results.hostname,
        judgement.join(";\r\n\t")
    ));
    // MAIL FROM first: it is the one that counts.
    for spf in results.case.spf().iter().rev() {
        prefix.push_str(&received_spf(results, spf));
    }
    let marks: Vec<_> = [spf_mark(results), results.verdict.mark]
        .into_iter()
        .flatten()
        .collect();
    if !marks.is_empty() {
        prefix.push_str(&format!("{MARK}: {}\r\n", marks.join(", ")));
    }
    Content::assemble(
        prefix.into(),
        received,
        &to_remove(received, results.hostname),
    )
}

fn spf_mark<'a>(results: &Results<'a>) -> Option<&'a str> {
    results.case.spf.as_ref().and_then(|spf| spf.mark)
}

/// Where the fields stand that we take out, in order.
fn to_remove(message: &[u8], hostname: &Domain) -> Vec<Range<usize>> {
    let fields = headers::fields(message).filter(|field| is_ours_alone(field, hostname));
    std::iter::once(0..headers::indented(message))
        .chain(fields.map(|field| field.range))
        .collect()
}

/// Whether nobody but us, or but the last hop, may write such a field.
pub(super) fn is_ours_alone(field: &Field<'_>, hostname: &Domain) -> bool {
    field.is(MARK)
        || field.is("Return-Path")
        || field.is("Authentication-Results") && is_in_our_name(field.value, hostname)
        || field.is("Received-SPF") && mentions(field.value, hostname)
}

/// Whether the name stands anywhere in the value.
fn mentions(value: &[u8], hostname: &Domain) -> bool {
    let name = hostname.as_str().as_bytes();
    value
        .windows(name.len())
        .any(|window| window.eq_ignore_ascii_case(name))
}

/// Whether a result field claims to be ours. One that cannot be read is treated as if.
fn is_in_our_name(value: &[u8], hostname: &Domain) -> bool {
    let Some(rest) = skip_comments(value) else {
        return true;
    };
    let id = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted.split(|b| *b == b'"').next().unwrap_or(quoted),
        None => rest,
    };
    // Readers disagree on what ends a name: a slash, a NUL, an octet that is no letter. Ours ends at
    // whatever stands in no name.
    let unescaped: Vec<u8> = id.iter().copied().filter(|b| *b != b'\\').collect();
    let in_name = |b: &u8| b.is_ascii_alphanumeric() || b".-_".contains(b) || *b >= 0x80;
    let end = unescaped.iter().position(|b| !in_name(b));
    let name = &unescaped[..end.unwrap_or(unescaped.len())];
    let name = name.strip_suffix(b".").unwrap_or(name);
    name.is_empty() || name.eq_ignore_ascii_case(hostname.as_str().as_bytes())
}

/// Passes over white space and comments, which may be nested (RFC 5322 §3.2.2). None: one never ends.
fn skip_comments(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = rest.trim_ascii_start();
        if !rest.starts_with(b"(") {
            return Some(rest);
        }
        let mut depth = 0usize;
        let mut escaped = false;
        let end = rest.iter().position(|b| {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            depth == 0
        })?;
        rest = &rest[end + 1..];
    }
}

/// RFC 7208 §9.1: a value is a dot-atom, which an IPv6 address is not, or quoted.
fn received_spf(results: &Results<'_>, spf: &Spf) -> String {
    let client = quoted(results.client.address.to_string());
    let what = match spf.result {
        SpfResult::Pass => "designates the client as a permitted sender",
        SpfResult::Fail => "does not permit the client to send",
        SpfResult::SoftFail => "discourages the use of the client",
        SpfResult::Neutral => "neither permits nor denies the client",
        SpfResult::None => "has no SPF record",
        SpfResult::TempError => "could not be looked up",
        SpfResult::PermError => "has an SPF record with an error",
    };
    format!(
        "Received-SPF: {} ({}: {} {what})\r\n\tclient-ip={client}; envelope-from={}; helo={};\r\n\
         \tidentity={}; receiver={}\r\n",
        spf::name(spf.result),
        results.hostname,
        harmless(&spf.domain),
        quoted(
            results
                .case
                .from
                .address()
                .map_or_else(String::new, |from| from.to_string())
        ),
        quoted(results.client.hello.text.clone()),
        spf::identity(spf.identity),
        results.hostname,
    )
}

/// Every method with its result, without our name in front.
pub(super) fn authentication_results(results: &Results<'_>) -> Vec<String> {
    let mut all = vec![iprev(results)];
    if results.spf_exempt {
        all.push("spf=none (client not checked) policy.spf=exempt-network".to_owned());
    }
    all.extend(
        results
            .case
            .spf()
            .iter()
            .map(|spf| spf_result(results, spf)),
    );
    all.extend(dkim(results.evidence));
    all.push(arc(results.evidence));
    all.push(dmarc(results));
    all
}

fn iprev(results: &Results<'_>) -> String {
    let result = match results.iprev.result {
        IprevResult::Pass => "pass",
        IprevResult::Fail => "fail",
        IprevResult::TempError => "temperror",
        IprevResult::PermError => "permerror",
    };
    let mut text = format!("iprev={result}");
    if let Some(name) = &results.iprev.name {
        let _ = write!(text, " ({name})");
    }
    let _ = write!(
        text,
        " policy.iprev={}",
        quoted(results.client.address.to_string())
    );
    text
}

fn spf_result(results: &Results<'_>, spf: &Spf) -> String {
    let result = spf::name(spf.result);
    match (spf.identity, results.case.from.address()) {
        (SpfIdentity::MailFrom, Some(from)) => {
            format!("spf={result} smtp.mailfrom={}", mail_from(from))
        }
        (SpfIdentity::MailFrom, None) | (SpfIdentity::Helo, _) => {
            format!(
                "spf={result} smtp.helo={}",
                value(harmless(&results.client.hello.text))
            )
        }
    }
}

/// The sender; of one whose local part needs quotes only the domain, as RFC 8601 §2.3 allows. What
/// stands in quotes could read `; dmarc=pass` to a filter that looks for that alone.
fn mail_from(from: &Address) -> String {
    let text = from.to_string();
    if text.starts_with('"') {
        return value(from.host().to_string());
    }
    value(text)
}

/// RFC 8601 §2.7.1, RFC 6008
fn dkim(evidence: &Evidence) -> Vec<String> {
    if evidence.dkim.is_empty() {
        return vec!["dkim=none".to_owned()];
    }
    let result = |result| match result {
        DkimResult::Pass => "pass",
        DkimResult::Fail => "fail",
        DkimResult::Neutral => "neutral",
        DkimResult::Policy => "policy",
        DkimResult::TempError => "temperror",
        DkimResult::PermError => "permerror",
    };
    evidence
        .dkim
        .iter()
        .map(|signature| {
            let mut text = format!("dkim={}", result(signature.result));
            if let Some(reason) = &signature.reason {
                let _ = write!(text, " ({})", comment(reason));
            }
            let _ = write!(text, " header.d={}", value(signature.domain.clone()));
            if let Some(identity) = &signature.identity {
                let _ = write!(text, " header.i={}", value(identity.clone()));
            }
            let _ = write!(
                text,
                " header.s={} header.a={} header.b={}",
                value(signature.selector.clone()),
                signature.algorithm,
                quoted(signature.b.clone())
            );
            text
        })
        .collect()
}

/// RFC 8617 §5.2
fn arc(evidence: &Evidence) -> String {
    match evidence.arc.result {
        ArcResult::None => "arc=none".to_owned(),
        ArcResult::Fail => "arc=fail".to_owned(),
        ArcResult::TempError => "arc=fail (a key cannot be looked up now)".to_owned(),
        ArcResult::Pass => {
            let sealers = some_of(evidence.arc.sealers.iter().map(String::as_str));
            format!("arc=pass (sealed by {})", comment(&sealers.join(" ")))
        }
    }
}

/// RFC 8601 §2.7.4, RFC 9989
fn dmarc(results: &Results<'_>) -> String {
    let dmarc = &results.evidence.dmarc;
    let result = match dmarc.result {
        DmarcResult::None => "none",
        DmarcResult::Pass => "pass",
        DmarcResult::Fail => "fail",
        DmarcResult::TempError => "temperror",
    };
    let mut text = format!("dmarc={result}");
    if dmarc.policy_domain.is_some() {
        let policy = match dmarc.policy {
            DmarcPolicy::None => "none",
            DmarcPolicy::Quarantine => "quarantine",
            DmarcPolicy::Reject => "reject",
        };
        let _ = write!(text, " (p={policy})");
    }
    let domains = match &results.evidence.author {
        Author::Domain(domain) => std::slice::from_ref(domain),
        Author::Domains(domains) => domains,
        Author::Missing | Author::Fields(_) | Author::Broken => &[],
    };
    for domain in some_of(domains.iter().map(Domain::as_str)) {
        let _ = write!(text, " header.from={domain}");
    }
    if let Some(reason) = results.verdict.override_reason {
        let _ = write!(text, " policy.dmarc={reason}");
    }
    text
}

/// As many of the names as one line has room for. RFC 5322 §2.1.1: 998 octets, and a name has 253.
fn some_of<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names.take(3).collect()
}

/// A value as it is where RFC 8601 §2.2 takes it so (an address or a token), else quoted.
fn value(text: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/^_`{|}~.@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    quoted(text)
}

/// RFC 2045 §5.1: a token, else a quoted string. A control character cannot stand in it at all.
fn quoted(text: String) -> String {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-^_`{|}~.".contains(c);
    if !text.is_empty() && text.chars().all(token) {
        return text;
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::ReversePath;
    use crate::mail::envelope::Recipient;
    use crate::pipeline::Service;
    use crate::smtp::command::Hello;
    use crate::smtp::server::Verb;
    use crate::verify::Arc;
    use crate::verify::Dmarc;
    use crate::verify::Signature;

    #[test]
    fn results_in_our_name_are_recognised() {
        let us = Domain::parse("mx.example").unwrap();
        for (value, want) in [
            (" mx.example; spf=pass", true),
            (" MX.Example 1; spf=pass", true),
            ("\r\n\tmx.example;\r\n\tspf=pass", true),
            (" (a (nested) comment) mx.example; none", true),
            (" \"mx.example\"; none", true),
            (" \"mx\\.example\"; none", true),
            (" mx.example(x); none", true),
            (" mx.example.; none", true),
            (" mx.example/1; none", true),
            (" mx.example=; none", true),
            (" mx.example\0; none", true),
            (" ;none", true),
            (" (never ends mx.example; none", true),
            ("", true),
            (" other.example; spf=pass", false),
            (" notmx.example; mx.example", false),
            (" mx.example.evil.example; none", false),
        ] {
            assert_eq!(is_in_our_name(value.as_bytes(), &us), want, "{value:?}");
        }
    }

    #[test]
    fn a_sender_cannot_write_results_of_his_own() {
        for (address, want) in [
            ("ann@author.example", "ann@author.example"),
            (
                "to=ben=b.example@list.example",
                "\"to=ben=b.example@list.example\"",
            ),
            ("\"x; dmarc=pass\"@evil.example", "evil.example"),
            ("\"a b\"@[192.0.2.1]", "\"[192.0.2.1]\""),
        ] {
            assert_eq!(mail_from(&Address::parse(address).unwrap()), want);
        }
    }

    #[test]
    fn what_others_may_not_write_is_taken_out() {
        let us = Domain::parse("mx.example").unwrap();
        let message = b"Return-Path: <x@y.example>\r\nFrom: a\r\n\
            Authentication-Results : mx.example; dmarc=pass\r\nx-gatepost-mark: none\r\n\
            garbage\r\nAuthentication-Results: mx.example;\r\n spf=pass\r\n\
            Received-SPF: pass client-ip=192.0.2.1;\r\n receiver=MX.example\r\n\
            Authentication-Results: other.example; spf=pass\r\n\r\n\
            Authentication-Results: mx.example; in the body\r\n";
        let content = Content::assemble(
            Bytes::new(),
            &Bytes::from_static(message),
            &to_remove(message, &us),
        );
        assert_eq!(
            String::from_utf8_lossy(&content.to_bytes()),
            "From: a\r\ngarbage\r\nAuthentication-Results: other.example; spf=pass\r\n\r\n\
             Authentication-Results: mx.example; in the body\r\n"
        );
    }

    #[test]
    fn a_message_cannot_go_on_with_our_last_field() {
        let us = Domain::parse("mx.example").unwrap();
        let message = b" ; dmarc=pass\r\n\theader.from=bank.example\r\nFrom: a\r\n\r\n body\r\n";
        let removed = to_remove(message, &us);
        let prefix = Bytes::from_static(b"X: ours\r\n");
        let content = Content::assemble(prefix, &Bytes::from_static(message), &removed);
        assert_eq!(
            String::from_utf8_lossy(&content.to_bytes()),
            "X: ours\r\nFrom: a\r\n\r\n body\r\n"
        );
    }

    #[test]
    fn no_line_of_ours_is_too_long_whatever_a_message_brings() {
        let name = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        let domain = |number: usize| Domain::parse(&format!("{}{number}", &name[1..])).unwrap();
        let hostname = domain(0);
        let client = Client {
            address: "2001:db8:1111:1111:1111:1111:1111:1111".parse().unwrap(),
            service: Service::Mx,
            login: None,
            verb: Verb::Ehlo,
            hello: Hello {
                text: "\\".repeat(255),
                host: None,
            },
            tls: None,
            certificate: None,
        };
        let from = format!("\"{}\"@{}", "\\\"".repeat(62), "c.".repeat(60) + "example");
        let mut case = Case::new("01JDQ4T9X2K.1".parse().unwrap(), ReversePath::Null);
        case.from = ReversePath::Address(from.parse().unwrap());
        let spf = |identity| Spf {
            result: SpfResult::Fail,
            identity,
            domain: name.clone(),
            explanation: None,
        };
        case.spf = Some(spf::Finding {
            results: vec![spf(SpfIdentity::Helo), spf(SpfIdentity::MailFrom)],
            exempt: false,
            refusal: None,
            mark: None,
        });
        let evidence = Evidence {
            author: Author::Domains((0..10).map(domain).collect()),
            dkim: vec![Signature {
                result: DkimResult::PermError,
                domain: "d".repeat(255),
                selector: "s".repeat(255),
                identity: Some("i".repeat(255)),
                algorithm: "ed25519-sha256",
                b: "ab/+cd12".to_owned(),
                reason: Some("not verified, too many header fields".to_owned()),
                counts: false,
            }],
            arc: Arc {
                result: ArcResult::Pass,
                sealers: vec![name.clone(); 50],
            },
            dmarc: Dmarc {
                result: DmarcResult::TempError,
                policy: DmarcPolicy::Quarantine,
                policy_domain: Some(domain(1)),
                spf_aligned: false,
                dkim_aligned: false,
            },
        };
        let results = Results {
            hostname: &hostname,
            client: &client,
            case: &case,
            spf_exempt: false,
            evidence: &evidence,
            iprev: &Iprev {
                result: IprevResult::Pass,
                name: Some(domain(2)),
            },
            verdict: &Verdict {
                override_reason: Some("trusted-forwarder"),
                ..Verdict::default()
            },
        };
        let envelope = Envelope::new(
            case.from.clone(),
            vec![Recipient::new(from.parse().unwrap())],
        );
        let content = stamp(
            &results,
            &authentication_results(&results),
            &envelope,
            &Bytes::new(),
            SystemTime::UNIX_EPOCH,
        );
        let content = content.to_bytes();
        for line in String::from_utf8_lossy(&content).lines() {
            assert!(line.len() <= 998, "{} octets: {line}", line.len());
        }
    }

    #[test]
    fn the_fields_are_written_as_their_rfcs_say() {
        let address = |text: &str| text.parse().unwrap();
        let hostname = Domain::parse("mx.example").unwrap();
        let client = Client {
            address: "2001:db8::1".parse().unwrap(),
            service: Service::Mx,
            login: None,
            verb: Verb::Ehlo,
            hello: Hello {
                text: "out(side).example".to_owned(),
                host: None,
            },
            tls: Some(("TLSv1.3".to_owned(), "TLS_AES_256_GCM_SHA384".to_owned())),
            certificate: None,
        };
        let mut case = Case::new(
            "01JDQ4T9X2K.1".parse().unwrap(),
            ReversePath::Address(address("\"a b\"@author.example")),
        );
        let spf = |identity, result, domain: &str| Spf {
            result,
            identity,
            domain: domain.to_owned(),
            explanation: None,
        };
        case.spf = Some(spf::Finding {
            results: vec![
                spf(SpfIdentity::Helo, SpfResult::None, "out.example"),
                spf(SpfIdentity::MailFrom, SpfResult::SoftFail, "author.example"),
            ],
            exempt: false,
            refusal: None,
            mark: Some("spf-softfail"),
        });
        let evidence = Evidence {
            author: Author::Domain(Domain::parse("author.example").unwrap()),
            dkim: vec![Signature {
                result: DkimResult::Fail,
                domain: "author.example".to_owned(),
                selector: "s1".to_owned(),
                identity: Some("@author.example".to_owned()),
                algorithm: "rsa-sha256",
                b: "ab/+cd12".to_owned(),
                reason: Some("body hash; (differs)".to_owned()),
                counts: false,
            }],
            arc: Arc {
                result: ArcResult::Pass,
                sealers: vec!["list.example".to_owned()],
            },
            dmarc: Dmarc {
                result: DmarcResult::Fail,
                policy: DmarcPolicy::Reject,
                policy_domain: Some(Domain::parse("author.example").unwrap()),
                spf_aligned: false,
                dkim_aligned: false,
            },
        };
        let results = Results {
            hostname: &hostname,
            client: &client,
            case: &case,
            spf_exempt: false,
            evidence: &evidence,
            iprev: &Iprev {
                result: IprevResult::Pass,
                name: Some(Domain::parse("out.example").unwrap()),
            },
            verdict: &Verdict {
                override_reason: Some("trusted-forwarder"),
                ..Verdict::default()
            },
        };
        let envelope = Envelope {
            client: Some(client.address),
            ..Envelope::new(
                case.from.clone(),
                vec![Recipient::new(address("ann@mx.example"))],
            )
        };
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_764_000_000);
        let content = stamp(
            &results,
            &authentication_results(&results),
            &envelope,
            &Bytes::from_static(b"\r\nbody\r\n"),
            now,
        );
        assert_eq!(
            String::from_utf8_lossy(&content.to_bytes()),
            "Received: from out?side?.example (out.example [IPv6:2001:db8::1])\r\n\
             \t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\r\n\
             \tby mx.example (Gatepost) with ESMTPS id 01JDQ4T9X2K.1\r\n\
             \tfor <ann@mx.example>;\r\n\
             \tMon, 24 Nov 2025 16:00:00 +0000\r\n\
             Authentication-Results: mx.example;\r\n\
             \tiprev=pass (out.example) policy.iprev=\"2001:db8::1\";\r\n\
             \tspf=none smtp.helo=\"out?side?.example\";\r\n\
             \tspf=softfail smtp.mailfrom=author.example;\r\n\
             \tdkim=fail (body hash? ?differs?) header.d=author.example \
             header.i=@author.example header.s=s1 header.a=rsa-sha256 header.b=\"ab/+cd12\";\r\n\
             \tarc=pass (sealed by list.example);\r\n\
             \tdmarc=fail (p=reject) header.from=author.example policy.dmarc=trusted-forwarder\r\n\
             Received-SPF: softfail (mx.example: author.example discourages the use of the client)\r\n\
             \tclient-ip=\"2001:db8::1\"; envelope-from=\"\\\"a b\\\"@author.example\"; \
             helo=\"out(side).example\";\r\n\
             \tidentity=mailfrom; receiver=mx.example\r\n\
             Received-SPF: none (mx.example: out.example has no SPF record)\r\n\
             \tclient-ip=\"2001:db8::1\"; envelope-from=\"\\\"a b\\\"@author.example\"; \
             helo=\"out(side).example\";\r\n\
             \tidentity=helo; receiver=mx.example\r\n\
             X-Gatepost-Mark: spf-softfail\r\n\
             \r\nbody\r\n"
        );
    }
}
