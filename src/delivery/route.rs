//! `[routes.NAME]`: a way out, and how it is gone: TLS, login, source addresses, the name in EHLO.
//!
//! A route says where and how, never who may: what is relayed is decided where mail comes in.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::next_hop::NextHop;
use crate::mail::address::Domain;

/// `[routes.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// NAME. Empty where a `deliver` says the next hop itself.
    #[serde(skip)]
    pub name: String,
    /// Where it leads.
    pub to: NextHop,
    /// Domains whose mail takes this route, if they are not ours: an exception from `relay`.
    pub recipient_domains: Vec<Domain>,
    /// The same by the domain of the sender. A recipient's domain comes first.
    pub sender_domains: Vec<Domain>,
    /// What is asked of TLS. Default: see [`Route::tls`].
    pub tls: Option<Tls>,
    /// Whether TLS begins with the first octet, as at port 465 (RFC 8314 §3.3), and not by STARTTLS.
    pub implicit_tls: bool,
    /// As whom we log in at the next hop (RFC 4954).
    pub login: Option<String>,
    /// The file that holds the password of `login` in its first line. Read for each connection.
    pub password_file: Option<PathBuf>,
    /// Our own address in each family. A family that is not named is not used. Default: the system's choice.
    pub source: Vec<IpAddr>,
    /// The name in EHLO. Default: `hostname`.
    pub hello: Option<Domain>,
    /// Attempts at once to one destination. Default: `[queue] attempts_per_destination`.
    pub concurrency: Option<usize>,
    /// How many messages may be tried in a time, over all destinations of this route.
    pub rate: Option<Rate>,
    /// Whether a next hop that offers XCLIENT is to take us for the client that we have the message from.
    pub xclient: bool,
    /// Whether a next hop that offers XFORWARD is told who that client was.
    pub xforward: bool,
    /// Whether messages are handed on while their client waits, which gets the next hop's own reply.
    pub through: bool,
}

/// What is asked of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// It is not used.
    None,
    /// Used where offered, with any certificate; where it does not come off, the message goes in
    /// plain text (RFC 7435).
    May,
    /// As the destination has published: DANE (RFC 7672), then MTA-STS (RFC 8461), else as `may`.
    Published,
    /// No message goes without; any certificate will do.
    Encrypt,
    /// No message goes without, nor to a host whose certificate is not for its name and trusted by
    /// this system.
    Verify,
    /// No message goes but to a host that its TLSA records know (RFC 7672).
    DaneOnly,
}

/// So many messages in a time: `"20/s"`, `"100/min"`, `"1000/h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    /// 1 or more.
    pub messages: u32,
    /// A second, a minute, an hour or a day.
    pub per: Duration,
}

impl Default for Route {
    fn default() -> Route {
        Route::to(NextHop::MX)
    }
}

impl Route {
    /// A route that only says where it leads.
    pub fn to(to: NextHop) -> Route {
        Route {
            name: String::new(),
            to,
            recipient_domains: Vec::new(),
            sender_domains: Vec::new(),
            tls: None,
            implicit_tls: false,
            login: None,
            password_file: None,
            source: Vec::new(),
            hello: None,
            concurrency: None,
            rate: None,
            xclient: false,
            xforward: false,
            through: false,
        }
    }

    /// What is asked of TLS: what is written, or `verify` where a password is sent or TLS comes first,
    /// `published` for mail exchangers, `may` elsewhere. Only SMTP has TLS.
    pub fn tls(&self) -> Tls {
        match (&self.to, self.tls) {
            (NextHop::Lmtp(_) | NextHop::LmtpUnix(_) | NextHop::Maildir(_), _) => Tls::None,
            (NextHop::Smtp(_) | NextHop::Mx(_), Some(tls)) => tls,
            (NextHop::Smtp(_) | NextHop::Mx(_), None)
                if self.login.is_some() || self.implicit_tls =>
            {
                Tls::Verify
            }
            (NextHop::Mx(_), None) => Tls::Published,
            (NextHop::Smtp(_), None) => Tls::May,
        }
    }

    /// What is wrong, by key below `[routes.NAME]`, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = self.smtp_faults();
        let mut fault = |key: &str, text: &str| faults.push((key.to_owned(), text.to_owned()));
        match (&self.login, &self.password_file) {
            (Some(_), None) => fault(
                "login",
                "there is no password; give password_file, the full path of a file that holds it",
            ),
            (None, Some(_)) => fault("password_file", "nobody logs in; give login too"),
            (Some(login), Some(_)) if login.is_empty() || login.contains('\0') => {
                fault("login", "give a name, as the next hop knows it");
            }
            (Some(_), Some(path)) if !path.is_absolute() => {
                fault("password_file", "give the full path, from the first / on");
            }
            (Some(_), Some(_)) if may_do_without(self.tls) => fault(
                "tls",
                "anybody on the way could read the password; give \"verify\" or \"encrypt\"",
            ),
            (Some(_), Some(_)) | (None, None) => {}
        }
        match (self.implicit_tls, &self.to) {
            (true, NextHop::Mx(_)) => fault(
                "implicit_tls",
                "mail exchangers speak in the clear first; give to = \"smtp:HOST:465\"",
            ),
            (true, NextHop::Smtp(_)) if may_do_without(self.tls) => fault(
                "tls",
                "there is nothing without TLS; give \"verify\" or \"encrypt\"",
            ),
            (_, _) => {}
        }
        let mut families = HashSet::new();
        if !self
            .source
            .iter()
            .all(|address| families.insert(address.is_ipv4()))
        {
            fault("source", "give at most one IPv4 and one IPv6 address");
        }
        if self.concurrency == Some(0) {
            fault("concurrency", "nothing would be delivered; write 1 or more");
        }
        if let (true, NextHop::Mx(_) | NextHop::Maildir(_)) = (self.through, &self.to) {
            let text = "only a route to one server can be gone while the client waits; give \
                        to = \"smtp:HOST:PORT\" or \"lmtp:...\"";
            fault("through", text);
        }
        faults
    }

    /// What only SMTP can do.
    fn smtp_faults(&self) -> Vec<(String, String)> {
        let to_files = match self.to {
            NextHop::Mx(_) | NextHop::Smtp(_) => return Vec::new(),
            NextHop::LmtpUnix(_) | NextHop::Lmtp(_) => false,
            NextHop::Maildir(_) => true,
        };
        let tls = !matches!(self.tls, None | Some(Tls::None));
        let local = matches!(self.to, NextHop::LmtpUnix(_));
        [
            ("tls", tls),
            ("implicit_tls", self.implicit_tls),
            ("login", self.login.is_some()),
            ("source", !self.source.is_empty() && (to_files || local)),
            ("hello", self.hello.is_some() && to_files),
            ("xclient", self.xclient && to_files),
            ("xforward", self.xforward && to_files),
        ]
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(key, _)| {
            let text = format!("has no meaning for {}; leave it out", self.to);
            (key.to_owned(), text)
        })
        .collect()
    }
}

fn may_do_without(tls: Option<Tls>) -> bool {
    matches!(tls, Some(Tls::None | Tls::May | Tls::Published))
}

/// Where it leads, and the most of how.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, tls {}", self.to, self.tls())?;
        if let Some(login) = &self.login {
            write!(f, ", as {login}")?;
        }
        f.write_str(if self.through { ", through" } else { "" })
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tls::None => "none",
            Tls::May => "may",
            Tls::Published => "published",
            Tls::Encrypt => "encrypt",
            Tls::Verify => "verify",
            Tls::DaneOnly => "dane-only",
        })
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let wrong =
            || format!("\"{text}\" is no rate; write messages and a time, as in \"100/min\"");
        let (messages, per) = text.split_once('/').ok_or_else(wrong)?;
        let messages = messages.trim().parse().ok().filter(|number| *number > 0);
        let seconds = match per.trim() {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            "day" => 24 * 3600,
            _ => return Err(wrong()),
        };
        Ok(Rate {
            messages: messages.ok_or_else(wrong)?,
            per: Duration::from_secs(seconds),
        })
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Rate, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        let route: Route = toml::from_str(text).unwrap();
        route.faults().into_iter().map(|fault| fault.0).collect()
    }

    #[test]
    fn a_route_that_contradicts_itself_has_faults() {
        let password = "login = 'a'\npassword_file = '/p'";
        for (text, want) in [
            ("", &[] as &[&str]),
            ("to = 'smtp:h'\nlogin = 'a'", &["login"]),
            ("to = 'smtp:h'\npassword_file = '/p'", &["password_file"]),
            (
                "to = 'smtp:h'\nlogin = 'a'\npassword_file = 'p'",
                &["password_file"],
            ),
            (&format!("to = 'smtp:h'\n{password}"), &[]),
            (&format!("to = 'smtp:h'\n{password}\ntls = 'may'"), &["tls"]),
            (&format!("to = 'smtp:h'\n{password}\ntls = 'encrypt'"), &[]),
            (&format!("to = 'lmtp:h:24'\n{password}"), &["login"]),
            ("to = 'smtp:h:465'\nimplicit_tls = true", &[]),
            ("implicit_tls = true", &["implicit_tls"]),
            ("to = 'lmtp:h:24'\nimplicit_tls = true", &["implicit_tls"]),
            (
                "to = 'smtp:h:465'\nimplicit_tls = true\ntls = 'may'",
                &["tls"],
            ),
            ("source = ['192.0.2.1', '2001:db8::1']", &[]),
            ("source = ['192.0.2.1', '192.0.2.2']", &["source"]),
            ("to = 'lmtp:unix:/l'\nsource = ['192.0.2.1']", &["source"]),
            ("to = 'lmtp:unix:/l'\nthrough = true\nxclient = true", &[]),
            (
                "to = 'maildir:/m'\nxforward = true\nthrough = true",
                &["xforward", "through"],
            ),
            ("through = true", &["through"]),
            ("concurrency = 0", &["concurrency"]),
        ] {
            assert_eq!(keys(text), *want, "{text}");
        }
    }

    #[test]
    fn a_password_is_sent_only_to_who_is_verified_unless_told_otherwise() {
        for (text, want) in [
            ("", Tls::Published),
            ("to = 'smtp:h'", Tls::May),
            ("login = 'a'", Tls::Verify),
            ("to = 'smtp:h:465'\nimplicit_tls = true", Tls::Verify),
            ("login = 'a'\ntls = 'encrypt'", Tls::Encrypt),
            ("tls = 'none'", Tls::None),
        ] {
            assert_eq!(toml::from_str::<Route>(text).unwrap().tls(), want, "{text}");
        }
    }

    #[test]
    fn a_rate_is_messages_in_a_time() {
        for (text, want) in [
            ("20/s", Some((20, 1))),
            ("100 / min", Some((100, 60))),
            ("1/h", Some((1, 3600))),
            ("1000/day", Some((1000, 86400))),
            ("0/s", None),
            ("10", None),
            ("10/week", None),
            ("-1/s", None),
        ] {
            let got = text.parse::<Rate>().ok();
            let got = got.map(|rate| (rate.messages, rate.per.as_secs()));
            assert_eq!(got, want, "{text}");
        }
    }
}
