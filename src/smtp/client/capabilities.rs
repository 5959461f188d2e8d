//! What a server offers in its reply to EHLO or LHLO (RFC 5321 §4.1.1.1).
//!
//! Only what we make use of is kept; an unknown or garbled line is passed over, as the RFC asks.

use super::login::Mechanisms;
use super::origin::Attributes;
use super::response::Response;

/// The extensions that change what we send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920
    pub pipelining: bool,
    /// RFC 3030
    pub chunking: bool,
    /// RFC 6152
    pub eight_bit_mime: bool,
    /// RFC 6531
    pub smtputf8: bool,
    /// RFC 3461
    pub dsn: bool,
    /// RFC 3207
    pub starttls: bool,
    /// RFC 8689
    pub requiretls: bool,
    /// RFC 1870: SIZE may be said.
    pub size: bool,
    /// The largest message in octets, where the server has a fixed limit.
    pub size_limit: Option<u64>,
    /// RFC 9422: transactions on one connection.
    pub mail_limit: Option<u32>,
    /// RFC 9422: recipients in one transaction.
    pub recipient_limit: Option<usize>,
    /// RFC 4954
    pub auth: Mechanisms,
    /// What XCLIENT may tell.
    pub xclient: Attributes,
    /// What XFORWARD may tell.
    pub xforward: Attributes,
}

impl Capabilities {
    /// Reads the lines behind the first, which holds the server's name.
    pub fn read(response: &Response) -> Capabilities {
        let mut offered = Capabilities::default();
        for line in response.lines().skip(1) {
            offered.add(line);
        }
        offered
    }

    fn add(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_str() {
            "PIPELINING" => self.pipelining = true,
            "CHUNKING" => self.chunking = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "REQUIRETLS" => self.requiretls = true,
            "SIZE" => {
                self.size = true;
                // RFC 1870 §4: zero means that there is no fixed limit.
                let limit = words.next().and_then(|limit| limit.parse().ok());
                self.size_limit = limit.filter(|limit| *limit > 0);
            }
            "AUTH" => self.auth = Mechanisms::read(words),
            "XCLIENT" => self.xclient = Attributes::read(words),
            "XFORWARD" => self.xforward = Attributes::read(words),
            "LIMITS" => words.for_each(|word| self.limit(word)),
            _ => {}
        }
    }

    fn limit(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else {
            return;
        };
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mail_limit = value.parse().ok().filter(|limit| *limit > 0),
            "RCPTMAX" => self.recipient_limit = value.parse().ok().filter(|limit| *limit > 0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_kept_and_the_others_passed_over() {
        let reply = "250-SIZE.example SIZE DSN\r\n250-pipelining\r\n250-SIZE 1000\r\n250-AUTH PLAIN\r\n250-xforward addr x\r\n\
                     250-LIMITS RCPTMAX=20 MAILMAX=x OTHER=1\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n";
        let (response, _) = Response::read(reply.as_bytes()).unwrap().unwrap();
        let want = Capabilities {
            pipelining: true,
            eight_bit_mime: true,
            smtputf8: true,
            size: true,
            size_limit: Some(1000),
            recipient_limit: Some(20),
            auth: Mechanisms::read(["PLAIN"].into_iter()),
            xforward: Attributes::read(["ADDR"].into_iter()),
            ..Capabilities::default()
        };
        assert_eq!(Capabilities::read(&response), want);
    }
}
