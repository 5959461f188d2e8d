//! The Received field that we write into each message (RFC 5321 §4.4): from whom, to whom, by what
//! protocol (RFC 3848), and as what it is stored.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Client;
use super::Service;
use crate::mail::address::Domain;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::smtp::server::Verb;

/// How a message came to us.
pub(super) struct Hop<'a> {
    pub(super) hostname: &'a Domain,
    pub(super) client: &'a Client,
    pub(super) origin: Origin<'a>,
    /// As whom the client has logged in, where that is to be told.
    pub(super) login: Option<&'a str>,
    /// What the message is called with us.
    pub(super) id: SpoolId,
}

/// What is told of the client.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// Its address, and the name that it was looked up to have; none is told as unknown.
    Named(Option<&'a Domain>),
    /// Its address alone: nobody looked for a name.
    Address,
    /// Nothing.
    Hidden,
}

impl Hop<'_> {
    /// The field with its final CRLF. The recipient stands in it where there is only one: of several,
    /// the others would learn of a blind copy.
    pub(super) fn field(&self, envelope: &Envelope, now: SystemTime) -> String {
        let mut field = String::from("Received: ");
        let hello = harmless(&self.client.hello.text);
        let address = match self.client.address {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        // Writing to a String does not fail.
        let _ = match self.origin {
            // There is no wire, and so no from and no protocol with a registered name.
            _ if self.client.service == Service::Local => Ok(()),
            Origin::Named(name) => {
                let name = name.map_or("unknown", Domain::as_str);
                write!(field, "from {hello} ({name} {address})\r\n\t")
            }
            Origin::Address => write!(field, "from {hello} ({address})\r\n\t"),
            // RFC 5321 §4.4, not followed: from has to be there. Whoever asks for this wants nobody to
            // know where our users are, and EHLO often tells.
            Origin::Hidden => Ok(()),
        };
        if let Some((version, cipher)) = &self.client.tls {
            let _ = write!(field, "(using {version} with cipher {cipher})\r\n\t");
        }
        field.push_str(&self.certificate());
        if let Some(login) = self.login {
            let _ = write!(field, "(Authenticated sender: {})\r\n\t", comment(login));
        }
        let _ = match protocol(self.client, envelope) {
            Some(protocol) => write!(field, "by {} (Gatepost) with {protocol}", self.hostname),
            None => write!(field, "by {} (Gatepost{})", self.hostname, self.account()),
        };
        let _ = write!(field, " id {}", self.id);
        if let [one] = envelope.recipients.as_slice() {
            let _ = write!(field, "\r\n\tfor <{}>", one.address);
        }
        let _ = write!(field, ";\r\n\t{}\r\n", date(now));
        field
    }

    /// What the client has shown within TLS, where that may be told. Names are as their maker wrote them.
    fn certificate(&self) -> String {
        let Some(identity) = &self.client.certificate else {
            return String::new();
        };
        if let Origin::Hidden = self.origin {
            return String::new();
        }
        let shown = &identity.shown;
        let name = |text: &str| comment(text).chars().take(LONGEST_NAME).collect::<String>();
        format!(
            "(client certificate of {} by {}\r\n\tsha256 {})\r\n\t",
            name(&shown.subject),
            name(&shown.issuer),
            shown.fingerprint
        )
    }

    /// Which account of this machine sent it, where that may be told.
    fn account(&self) -> String {
        match (self.origin, self.client.login.as_deref()) {
            (Origin::Hidden, _) | (_, None) => String::new(),
            (Origin::Named(_) | Origin::Address, Some(login)) => {
                format!(", from user {}", comment(login))
            }
        }
    }
}

/// So much of a name stands in the field (RFC 5280 appendix A.1: a common name has as many characters).
const LONGEST_NAME: usize = 64;

/// RFC 5322 §3.3, in UTC.
pub(super) fn date(now: SystemTime) -> String {
    let date = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
    jiff::fmt::rfc2822::to_string(&date.to_zoned(TimeZone::UTC)).unwrap_or_default()
}

/// RFC 3848, RFC 6531 §4.3. None where mail came over no wire.
fn protocol(client: &Client, envelope: &Envelope) -> Option<&'static str> {
    if client.service == Service::Local {
        return None;
    }
    let (tls, login) = (client.tls.is_some(), client.login.is_some());
    Some(match (client.verb, envelope.smtputf8, tls, login) {
        (_, true, true, true) => "UTF8SMTPSA",
        (_, true, true, false) => "UTF8SMTPS",
        (_, true, false, true) => "UTF8SMTPA",
        (_, true, false, false) => "UTF8SMTP",
        (_, false, true, true) => "ESMTPSA",
        (_, false, false, true) => "ESMTPA",
        (Verb::Ehlo, false, true, false) => "ESMTPS",
        (Verb::Ehlo, false, false, false) => "ESMTP",
        (Verb::Helo, false, _, false) => "SMTP",
    })
}

/// The name that the client gave itself, without what has a meaning in a header.
pub(super) fn harmless(hello: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    hello
        .chars()
        .map(|c| if keep(c) { c } else { '?' })
        .collect()
}

/// What may stand in a comment of any message without ending it, or the field.
pub(super) fn comment(text: &str) -> String {
    let harm = |c: char| c.is_control() || !c.is_ascii() || "()\\;".contains(c);
    text.chars()
        .map(|c| if harm(c) { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::ReversePath;
    use crate::mail::envelope::Recipient;
    use crate::smtp::command::Hello;

    fn client() -> Client {
        Client {
            address: [192, 168, 1, 5].into(),
            service: Service::Submission,
            login: Some("anna(x)".to_owned()),
            verb: Verb::Ehlo,
            hello: Hello {
                text: "[192.168.1.5]".to_owned(),
                host: None,
            },
            tls: Some(("TLSv1.3".to_owned(), "SUITE".to_owned())),
            certificate: None,
        }
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        let recipients = recipients.iter().map(|to| to.parse().unwrap());
        Envelope::new(ReversePath::Null, recipients.map(Recipient::new).collect())
    }

    #[test]
    fn a_field_tells_no_more_than_it_may() {
        let hostname = Domain::parse("mx.example").unwrap();
        let client = client();
        let field = |origin, login, recipients: &[&str]| {
            let hop = Hop {
                hostname: &hostname,
                client: &client,
                origin,
                login,
                id: "01JDQ4T9X2K.1".parse().unwrap(),
            };
            let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_764_000_000);
            hop.field(&envelope(recipients), now)
        };
        assert_eq!(
            field(Origin::Address, Some("anna(x)"), &["b@c.example"]),
            "Received: from [192.168.1.5] ([192.168.1.5])\r\n\
             \t(using TLSv1.3 with cipher SUITE)\r\n\
             \t(Authenticated sender: anna?x?)\r\n\
             \tby mx.example (Gatepost) with ESMTPSA id 01JDQ4T9X2K.1\r\n\
             \tfor <b@c.example>;\r\n\
             \tMon, 24 Nov 2025 16:00:00 +0000\r\n"
        );
        assert_eq!(
            field(Origin::Hidden, None, &["b@c.example", "blind@c.example"]),
            "Received: (using TLSv1.3 with cipher SUITE)\r\n\
             \tby mx.example (Gatepost) with ESMTPSA id 01JDQ4T9X2K.1;\r\n\
             \tMon, 24 Nov 2025 16:00:00 +0000\r\n"
        );
    }

    #[test]
    fn mail_of_this_machine_came_by_no_protocol() {
        let hostname = Domain::parse("mx.example").unwrap();
        let client = Client {
            service: Service::Local,
            tls: None,
            ..client()
        };
        let hop = |origin| Hop {
            hostname: &hostname,
            client: &client,
            origin,
            login: None,
            id: "01JDQ4T9X2K.1".parse().unwrap(),
        };
        for (origin, want) in [
            (
                Origin::Address,
                "Received: by mx.example (Gatepost, from user anna?x?) id 01JDQ4T9X2K.1;\r\n\t",
            ),
            (
                Origin::Hidden,
                "Received: by mx.example (Gatepost) id 01JDQ4T9X2K.1;\r\n\t",
            ),
        ] {
            let field = hop(origin).field(&envelope(&[]), SystemTime::UNIX_EPOCH);
            assert!(field.starts_with(want), "{field}");
        }
    }

    #[test]
    fn the_protocol_has_its_registered_name() {
        let tls = || Some(("v".to_owned(), "c".to_owned()));
        let login = || Some("anna".to_owned());
        for (verb, utf8, tls, login, want) in [
            (Verb::Helo, false, None, None, "SMTP"),
            (Verb::Ehlo, false, None, None, "ESMTP"),
            (Verb::Ehlo, false, tls(), None, "ESMTPS"),
            (Verb::Ehlo, false, None, login(), "ESMTPA"),
            (Verb::Ehlo, false, tls(), login(), "ESMTPSA"),
            (Verb::Ehlo, true, None, None, "UTF8SMTP"),
            (Verb::Ehlo, true, tls(), None, "UTF8SMTPS"),
            (Verb::Ehlo, true, None, login(), "UTF8SMTPA"),
            (Verb::Ehlo, true, tls(), login(), "UTF8SMTPSA"),
        ] {
            let client = Client {
                verb,
                tls,
                login,
                ..client()
            };
            let envelope = Envelope {
                smtputf8: utf8,
                ..envelope(&[])
            };
            assert_eq!(protocol(&client, &envelope), Some(want));
        }
    }
}
