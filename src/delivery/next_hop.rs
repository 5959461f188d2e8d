//! Where mail goes, as an operator writes it: `mx`, `lmtp:unix:/run/dovecot/lmtp`, `lmtp:HOST:PORT`,
//! `smtp:HOST`, `smtp:HOST:PORT`, `maildir:/var/mail/{domain}/{local}`.
//!
//! A next hop that exists is complete; it is printed as it was written.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use crate::mail::address::Domain;

/// Port of a next hop where none is written (RFC 5321 §4.5.4.2).
const SMTP_PORT: u16 = 25;

/// Where mail goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum NextHop {
    /// The mail exchangers of the recipient's domain, at this port (RFC 5321 §5.1).
    Mx(u16),
    /// An LMTP server behind a unix socket.
    LmtpUnix(PathBuf),
    /// An LMTP server.
    Lmtp(Endpoint),
    /// The next hop, by name: no MX is looked up.
    Smtp(Endpoint),
    /// Maildirs of our own, one for each recipient.
    Maildir(Mailboxes),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whom to connect to.
    pub host: EndpointHost,
    /// 1 to 65535.
    pub port: u16,
}

/// A host, by address or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointHost {
    /// It is written as an address, so there is nothing to look up.
    Address(IpAddr),
    /// Looked up anew for each connection.
    Name(Domain),
}

/// A path with places for the recipient in it: `{domain}`, `{local}`. Absolute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailboxes(String);

/// Why a text is not a next hop, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It begins with none of the kinds that there are.
    #[error(
        "\"{0}\" is no delivery target; write lmtp:unix:/PATH, lmtp:HOST:PORT, smtp:HOST:PORT, mx or maildir:/PATH/{{domain}}/{{local}}"
    )]
    Kind(String),
    /// The path does not begin with `/`; with an example of one that does.
    #[error("\"{0}\" has no absolute path; write it from the root, as in {1}")]
    RelativePath(String, &'static str),
    /// LMTP over TCP has no port of its own, and none is written.
    #[error("\"{0}\" has no port; write lmtp:HOST:PORT, as in lmtp:127.0.0.1:24")]
    NoPort(String),
    /// What stands for the port is none.
    #[error("\"{0}\" is not a port; write a number from 1 to 65535")]
    Port(String),
    /// What stands for the host is none.
    #[error(
        "\"{0}\" is neither an IP address nor a host name; write an IPv6 address in brackets, as in smtp:[2001:db8::1]:25"
    )]
    Host(String),
    /// Braces hold something else than `domain` or `local`, or do not close.
    #[error("{{{0}}} has no meaning in a maildir path; there are {{domain}} and {{local}}")]
    Placeholder(String),
    /// The path has an element `..`.
    #[error("\"{0}\" goes upwards; write the path without ..")]
    Upwards(String),
}

impl NextHop {
    /// The mail exchangers of each domain, at the port that they have.
    pub const MX: NextHop = NextHop::Mx(SMTP_PORT);

    /// Reads a next hop.
    ///
    /// # Errors
    /// A text that says what would be right.
    pub fn parse(text: &str) -> Result<NextHop, Error> {
        let kind = || Error::Kind(text.to_owned());
        if text == "mx" {
            return Ok(NextHop::MX);
        }
        let (scheme, rest) = text.split_once(':').ok_or_else(kind)?;
        match scheme {
            "lmtp" => match rest.strip_prefix("unix:") {
                Some(path) if Path::new(path).is_absolute() => Ok(NextHop::LmtpUnix(path.into())),
                Some(_) => Err(Error::RelativePath(text.to_owned(), "lmtp:unix:/run/lmtp")),
                None => Endpoint::parse(rest, None).map(NextHop::Lmtp),
            },
            "smtp" => Endpoint::parse(rest, Some(SMTP_PORT)).map(NextHop::Smtp),
            "mx" => port(rest).map(NextHop::Mx),
            "maildir" => Mailboxes::parse(rest).map(NextHop::Maildir),
            _ => Err(kind()),
        }
    }
}

impl Endpoint {
    fn parse(text: &str, default_port: Option<u16>) -> Result<Endpoint, Error> {
        let bad_host = || Error::Host(text.to_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, behind) = rest.split_once(']').ok_or_else(bad_host)?;
                let port = match behind.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if behind.is_empty() => None,
                    None => return Err(bad_host()),
                };
                let address = address.parse().map_err(|_| bad_host())?;
                (EndpointHost::Address(IpAddr::V6(address)), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((_, port)) if port.contains(':') => return Err(bad_host()),
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                (EndpointHost::parse(host).ok_or_else(bad_host)?, port)
            }
        };
        let port = match (port, default_port) {
            (Some(written), _) => self::port(written)?,
            (None, Some(default)) => default,
            (None, None) => return Err(Error::NoPort(text.to_owned())),
        };
        Ok(Endpoint { host, port })
    }
}

fn port(text: &str) -> Result<u16, Error> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| Error::Port(text.to_owned()))
}

impl EndpointHost {
    fn parse(text: &str) -> Option<EndpointHost> {
        if let Ok(address) = text.parse() {
            return Some(EndpointHost::Address(IpAddr::V4(address)));
        }
        // What is all digits and dots was meant as an address.
        let mistyped = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let name = Domain::parse(text).ok().filter(|_| !mistyped)?;
        Some(EndpointHost::Name(name))
    }
}

impl Mailboxes {
    fn parse(text: &str) -> Result<Mailboxes, Error> {
        if !Path::new(text).is_absolute() {
            let right = "maildir:/var/mail/{domain}/{local}";
            return Err(Error::RelativePath(format!("maildir:{text}"), right));
        }
        if text.split('/').any(|element| element == "..") {
            return Err(Error::Upwards(text.to_owned()));
        }
        for rest in text.split('{').skip(1) {
            match rest.split_once('}') {
                Some(("domain" | "local", _)) => {}
                Some((name, _)) => return Err(Error::Placeholder(name.to_owned())),
                None => return Err(Error::Placeholder(rest.to_owned())),
            }
        }
        Ok(Mailboxes(text.to_owned()))
    }

    /// The path for a recipient. Both arguments have to be safe as path elements.
    pub(super) fn path(&self, domain: &str, local: &str) -> PathBuf {
        // One pass: what a recipient brings along is never read as a placeholder.
        let mut path = String::with_capacity(self.0.len() + domain.len() + local.len());
        let mut rest = self.0.as_str();
        while let Some((front, behind)) = rest.split_once('{') {
            path.push_str(front);
            let (name, behind) = behind.split_once('}').unwrap_or((behind, ""));
            path.push_str(if name == "domain" { domain } else { local });
            rest = behind;
        }
        path.push_str(rest);
        path.into()
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::Mx(SMTP_PORT) => f.write_str("mx"),
            NextHop::Mx(port) => write!(f, "mx:{port}"),
            NextHop::LmtpUnix(path) => write!(f, "lmtp:unix:{}", path.display()),
            NextHop::Lmtp(endpoint) => write!(f, "lmtp:{endpoint}"),
            NextHop::Smtp(endpoint) => write!(f, "smtp:{endpoint}"),
            NextHop::Maildir(Mailboxes(path)) => write!(f, "maildir:{path}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            EndpointHost::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            EndpointHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            EndpointHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for NextHop {
    type Err = Error;

    fn from_str(text: &str) -> Result<NextHop, Error> {
        NextHop::parse(text)
    }
}

impl TryFrom<String> for NextHop {
    type Error = Error;

    fn try_from(text: String) -> Result<NextHop, Error> {
        NextHop::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_printed_as_they_were_written() {
        for (text, printed) in [
            ("mx", "mx"),
            ("mx:2525", "mx:2525"),
            ("lmtp:unix:/run/dovecot/lmtp", "lmtp:unix:/run/dovecot/lmtp"),
            ("lmtp:127.0.0.1:24", "lmtp:127.0.0.1:24"),
            ("smtp:10.0.0.5", "smtp:10.0.0.5:25"),
            ("smtp:[::1]", "smtp:[::1]:25"),
            ("smtp:[2001:DB8::1]:2525", "smtp:[2001:db8::1]:2525"),
            ("smtp:Mail.Example:26", "smtp:mail.example:26"),
            ("maildir:/m/{domain}/{local}", "maildir:/m/{domain}/{local}"),
        ] {
            let hop = NextHop::parse(text).unwrap();
            assert_eq!(hop.to_string(), printed);
            assert_eq!(NextHop::parse(printed), Ok(hop), "{text}");
        }
    }

    #[test]
    fn a_wrong_next_hop_is_told_what_would_be_right() {
        for (text, hint) in [
            ("/run/lmtp", "write lmtp:unix:/PATH"),
            ("uucp:host", "write lmtp:unix:/PATH"),
            ("mx:example.com", "1 to 65535"),
            ("lmtp:unix:run/lmtp", "from the root"),
            ("lmtp:127.0.0.1", "lmtp:127.0.0.1:24"),
            ("smtp:host:0", "1 to 65535"),
            ("smtp:host:smtp", "1 to 65535"),
            ("smtp:2001:db8::1", "in brackets"),
            ("smtp:::1", "in brackets"),
            ("smtp:[::1", "in brackets"),
            ("smtp:[::1]25", "in brackets"),
            ("smtp:", "neither an IP address"),
            ("smtp:10.0.0.256", "neither an IP address"),
            ("maildir:mail", "maildir:/var/mail/{domain}/{local}"),
            ("maildir:/m/{user}", "there are {domain} and {local}"),
            ("maildir:/m/{local", "there are {domain} and {local}"),
            ("maildir:/m/../x", "without .."),
        ] {
            let got = NextHop::parse(text).map_or_else(|error| error.to_string(), |_| "ok".into());
            assert!(got.contains(hint), "{text}: {got}");
        }
    }
}
