//! Telling a next hop who the client was that we have a message from: Postfix's XFORWARD and XCLIENT,
//! as its XFORWARD_README and XCLIENT_README describe them.
//!
//! With XFORWARD the next hop writes it down, with XCLIENT it takes us for that client. Both name
//! what is told in their line of EHLO; nothing else is told.
//!
//! # Limits
//! The name that the DNS has for the client is not told, as the envelope does not carry it.

use std::net::IpAddr;

use crate::mail::address::Host;

/// What one of the two commands may tell, by the names that the server gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes(u8);

/// Where a message came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// None where we wrote the message ourselves.
    pub client: Option<IpAddr>,
    /// How it named itself in EHLO.
    pub hello: Option<&'a str>,
    /// As whom it had logged in.
    pub login: Option<&'a str>,
    /// By which we know the message in our log.
    pub id: &'a str,
}

/// So long may a command be (RFC 5321 §4.5.3.1.4), less its own name and line end.
const ROOM: usize = 512 - "XFORWARD\r\n".len();
/// What stands for a value that is not known.
const UNKNOWN: &str = "[UNAVAILABLE]";

const NAMES: [&str; 6] = ["NAME", "ADDR", "HELO", "IDENT", "SOURCE", "LOGIN"];

impl Attributes {
    /// Reads the words behind XFORWARD or XCLIENT in a reply to EHLO.
    pub fn read<'w>(words: impl Iterator<Item = &'w str>) -> Attributes {
        let mut attributes = Attributes::default();
        for word in words {
            let known = NAMES
                .iter()
                .position(|name| name.eq_ignore_ascii_case(word));
            if let Some(place) = known {
                attributes.0 |= 1 << place;
            }
        }
        attributes
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn has(self, name: &str) -> bool {
        let place = NAMES.iter().position(|known| *known == name);
        place.is_some_and(|place| self.0 & (1 << place) != 0)
    }
}

impl Origin<'_> {
    /// The XFORWARD commands that tell it; several where one line is too short. They hold for one
    /// message.
    pub fn xforward(&self, attributes: Attributes) -> Vec<String> {
        let source = match self.client {
            Some(_) => "REMOTE",
            None => "LOCAL",
        };
        let values = [
            ("NAME", UNKNOWN.to_owned()),
            ("ADDR", self.address()),
            ("HELO", self.hello()),
            ("IDENT", xtext(self.id)),
            ("SOURCE", source.to_owned()),
        ];
        lines("XFORWARD", attributes, &values)
    }

    /// The XCLIENT commands that tell it. The server begins anew after each, with a greeting. None
    /// for a message of our own: there is nobody to be taken for.
    pub fn xclient(&self, attributes: Attributes) -> Vec<String> {
        if self.client.is_none() {
            return Vec::new();
        }
        let login = self.login.map_or_else(|| UNKNOWN.to_owned(), xtext);
        let values = [
            ("NAME", UNKNOWN.to_owned()),
            ("ADDR", self.address()),
            ("HELO", self.hello()),
            ("LOGIN", login),
        ];
        lines("XCLIENT", attributes, &values)
    }

    /// The name to give in EHLO after XCLIENT, which would take the place of the one told; None where it is
    /// none that every server takes.
    pub fn ehlo(&self) -> Option<&str> {
        self.hello.filter(|name| Host::parse(name).is_ok())
    }

    fn hello(&self) -> String {
        self.hello.map_or_else(|| UNKNOWN.to_owned(), xtext)
    }

    fn address(&self) -> String {
        match self.client {
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => format!("IPV6:{address}"),
            None => UNKNOWN.to_owned(),
        }
    }
}

fn lines(command: &str, attributes: Attributes, values: &[(&str, String)]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (name, value) in values.iter().filter(|(name, _)| attributes.has(name)) {
        let word = format!(" {name}={value}");
        match lines.last_mut() {
            Some(line) if line.len() - command.len() + word.len() <= ROOM => line.push_str(&word),
            _ => lines.push(format!("{command}{word}")),
        }
    }
    for line in &mut lines {
        line.push_str("\r\n");
    }
    lines
}

/// RFC 3461 §4; cut at 255 octets, as the READMEs want.
fn xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' | 0..=32 | 127.. => encoded.push_str(&format!("+{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
        if encoded.len() > 252 {
            break;
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(client: Option<&str>) -> Origin<'static> {
        Origin {
            client: client.map(|text| text.parse().unwrap()),
            hello: Some("[192.0.2.1]"),
            login: Some("an na+1"),
            id: "1K0.1",
        }
    }

    #[test]
    fn only_what_the_server_names_is_told() {
        for (words, client, want) in [
            (
                "NAME ADDR PROTO HELO SOURCE PORT IDENT",
                Some("192.0.2.1"),
                "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 HELO=[192.0.2.1] IDENT=1K0.1 SOURCE=REMOTE\r\n",
            ),
            (
                "addr",
                Some("2001:db8::1"),
                "XFORWARD ADDR=IPV6:2001:db8::1\r\n",
            ),
            (
                "ADDR SOURCE",
                None,
                "XFORWARD ADDR=[UNAVAILABLE] SOURCE=LOCAL\r\n",
            ),
            ("PORT", None, ""),
        ] {
            let attributes = Attributes::read(words.split(' '));
            assert_eq!(
                origin(client).xforward(attributes).concat(),
                want,
                "{words}"
            );
        }
    }

    #[test]
    fn we_are_taken_for_a_client_with_its_login_or_for_nobody() {
        let attributes = Attributes::read("NAME ADDR HELO LOGIN".split(' '));
        let told = "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 HELO=";
        let want = format!("{told}[192.0.2.1] LOGIN=an+20na+2B1\r\n");
        assert_eq!(origin(Some("192.0.2.1")).xclient(attributes), [want]);
        for (hello, want, ehlo) in [
            (None, "[UNAVAILABLE]", None),
            (Some("pc.example"), "pc.example", Some("pc.example")),
            (Some("my+pc"), "my+2Bpc", None),
        ] {
            let origin = Origin {
                hello,
                login: None,
                ..origin(Some("192.0.2.1"))
            };
            let want = format!("{told}{want} LOGIN=[UNAVAILABLE]\r\n");
            assert_eq!(origin.xclient(attributes), [want]);
            assert_eq!(origin.ehlo(), ehlo);
        }
        assert_eq!(origin(None).xclient(attributes), [""; 0]);
    }

    #[test]
    fn what_does_not_fit_one_line_goes_in_two() {
        let id = "x".repeat(250);
        let login = "ö".repeat(250);
        let origin = Origin {
            login: Some(&login),
            id: &id,
            ..origin(Some("192.0.2.1"))
        };
        let attributes = Attributes::read(NAMES.into_iter());
        for line in origin
            .xforward(attributes)
            .iter()
            .chain(&origin.xclient(attributes))
        {
            assert!(line.len() <= 512, "{line}");
        }
        let values = [("NAME", "n".repeat(255)), ("LOGIN", "l".repeat(255))];
        assert_eq!(lines("XCLIENT", attributes, &values).len(), 2);
    }
}
