//! All that the gateway says to a client: code, enhanced code (RFC 3463, RFC 5248) and text.
//!
//! The whole voice stands here, so that it can be read in one place: what answers a command is a
//! [`Reply`], what says no for a reason of policy is a [`Refusal`]. A text tells a human at the other
//! end what to do, and nothing about our inside.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::mail::address;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::ForwardPath;
use crate::mail::id::SpoolId;
use crate::smtp::client::response::Response;

/// An enhanced status code: class, subject, detail (RFC 3463 §2).
pub type Enhanced = (u8, u16, u16);

/// One reply, of one line or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 2xx, 3xx, 4xx or 5xx (RFC 5321 §4.2).
    pub code: u16,
    /// Not in greetings, in answers to EHLO and in 3xx (RFC 2034 §4).
    pub enhanced: Option<Enhanced>,
    /// Lines joined by LF.
    pub text: Cow<'static, str>,
}

impl Reply {
    const fn plain(code: u16, text: &'static str) -> Reply {
        Reply {
            code,
            enhanced: None,
            text: Cow::Borrowed(text),
        }
    }

    const fn fixed(code: u16, enhanced: Enhanced, text: &'static str) -> Reply {
        Reply {
            code,
            enhanced: Some(enhanced),
            text: Cow::Borrowed(text),
        }
    }

    fn made(code: u16, enhanced: Enhanced, text: String) -> Reply {
        Reply {
            code,
            enhanced: Some(enhanced),
            text: Cow::Owned(text),
        }
    }

    /// Whether it says no, for now or for good.
    pub fn is_refusal(&self) -> bool {
        self.code >= 400
    }

    /// Appends the reply as it goes over the wire.
    ///
    /// A control character in a text becomes a question mark, and a line is cut at 512 octets
    /// (RFC 5321 §4.5.3.1.5), whatever somebody's DNS had to say; a challenge goes out whole.
    pub fn write(&self, out: &mut Vec<u8>) {
        // RFC 4954 §4: no line of an exchange is cut.
        let limit = if self.code == 334 { usize::MAX } else { 510 };
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let start = out.len();
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            // A Vec takes all that is written to it.
            let _ = write!(out, "{}{separator}", self.code);
            if let Some((class, subject, detail)) = self.enhanced {
                let _ = write!(out, "{class}.{subject}.{detail} ");
            }
            for c in line.chars() {
                let c = if c.is_control() { '?' } else { c };
                let mut utf8 = [0; 4];
                let bytes = c.encode_utf8(&mut utf8).as_bytes();
                if out.len() - start + bytes.len() > limit {
                    break;
                }
                out.extend_from_slice(bytes);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// One line, for the log.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        write!(f, " {}", self.text.replace('\n', " "))
    }
}

/// The answers of the dialogue itself.
impl Reply {
    /// RFC 5321 §4.2: the greeting names the host.
    pub fn greeting(hostname: &Domain) -> Reply {
        Reply {
            code: 220,
            enhanced: None,
            text: format!("{hostname} ESMTP Gatepost").into(),
        }
    }

    /// The answer to EHLO: the host name, then a line for each extension.
    pub fn ehlo(hostname: &Domain, extensions: &[String]) -> Reply {
        let mut text = hostname.to_string();
        for extension in extensions {
            text.push('\n');
            text.push_str(extension);
        }
        Reply {
            code: 250,
            enhanced: None,
            text: text.into(),
        }
    }

    /// The answer to HELO.
    pub fn helo(hostname: &Domain) -> Reply {
        Reply {
            code: 250,
            enhanced: None,
            text: hostname.to_string().into(),
        }
    }

    /// To STARTTLS: the handshake comes next (RFC 3207 §4).
    pub const READY_FOR_TLS: Reply = Reply::fixed(220, (2, 0, 0), "Ready to start TLS");
    /// To QUIT, before we hang up (RFC 5321 §4.1.1.10).
    pub const BYE: Reply = Reply::fixed(221, (2, 0, 0), "Bye");
    /// To NOOP (RFC 5321 §4.1.1.9).
    pub const OK: Reply = Reply::fixed(250, (2, 0, 0), "OK");
    /// To MAIL: the transaction has begun.
    pub const SENDER_OK: Reply = Reply::fixed(250, (2, 1, 0), "Sender OK");
    /// To RCPT: the recipient will get the message, should we take it.
    pub const RECIPIENT_OK: Reply = Reply::fixed(250, (2, 1, 5), "Recipient OK");
    /// To RSET, with or without a transaction (RFC 5321 §4.1.1.5).
    pub const RESET: Reply = Reply::fixed(250, (2, 0, 0), "Transaction reset");
    /// RFC 5321 §3.5.3: we do not tell strangers who lives here.
    pub const CANNOT_VERIFY: Reply = Reply::fixed(
        252,
        (2, 1, 5),
        "Cannot verify the user; send mail and it will be tried",
    );
    /// To HELP (RFC 5321 §4.1.1.8).
    pub const HELP: Reply = Reply::fixed(214, (2, 0, 0), "See RFC 5321");
    /// To DATA (RFC 5321 §4.1.1.4). It has no enhanced code (RFC 2034 §4).
    pub const SEND_DATA: Reply =
        Reply::plain(354, "Send the message, end with a dot on a line by itself");

    /// RFC 5321 §4.1.1.4: from here on the message is ours.
    pub fn stored(id: SpoolId) -> Reply {
        Reply::made(250, (2, 0, 0), format!("OK, stored as {id}"))
    }

    /// From here on the message is the next hop's, who says so.
    pub fn of_next_hop(said: &Response) -> Reply {
        Reply {
            code: said.code,
            enhanced: said.enhanced,
            text: said.lines().collect::<Vec<_>>().join("\n").into(),
        }
    }

    /// RFC 3030 §3.1
    pub fn chunk_taken(size: u64) -> Reply {
        Reply::made(250, (2, 0, 0), format!("{size} octets received"))
    }

    /// To a command that we do not know.
    pub const UNKNOWN_COMMAND: Reply = Reply::fixed(500, (5, 5, 2), "Command not recognized");
    /// To a line that does not end within the limit, before we hang up.
    pub const LINE_TOO_LONG: Reply = Reply::fixed(500, (5, 5, 2), "Line too long");
    /// To a command line with a bare CR or LF, before we hang up.
    pub const BARE_NEWLINE_IN_COMMAND: Reply = Reply::fixed(
        500,
        (5, 5, 2),
        "A line must end with CRLF; a bare CR or LF was received",
    );
    /// To a line with control characters, or that is not UTF-8.
    pub const NOT_PRINTABLE: Reply = Reply::fixed(
        500,
        (5, 5, 2),
        "Command has characters that are not allowed",
    );
    /// To DATA, RSET, QUIT or STARTTLS with an argument (RFC 5321 §4.1.1).
    pub const NO_ARGUMENT_ALLOWED: Reply =
        Reply::fixed(501, (5, 5, 4), "This command takes no argument");
    /// To EHLO or HELO without a name, or with one that is not printable ASCII of at most 255 octets.
    pub const HELLO_SYNTAX: Reply = Reply::fixed(
        501,
        (5, 5, 4),
        "Give your host name or address: EHLO host.example",
    );
    /// To MAIL without `FROM:` and a path, or with something behind it that is no parameter.
    pub const MAIL_SYNTAX: Reply = Reply::fixed(501, (5, 5, 4), "Syntax: MAIL FROM:<address>");
    /// To RCPT without `TO:` and a path, or with something behind it that is no parameter.
    pub const RCPT_SYNTAX: Reply = Reply::fixed(501, (5, 5, 4), "Syntax: RCPT TO:<address>");
    /// To BDAT without a number of octets, before we hang up: how many follow is not known.
    pub const BDAT_SYNTAX: Reply = Reply::fixed(501, (5, 5, 4), "Syntax: BDAT size [LAST]");
    /// To EXPN (RFC 5321 §3.5.3).
    pub const EXPN_REFUSED: Reply = Reply::fixed(502, (5, 7, 0), "Lists are not expanded here");
    /// To AUTH: this is no submission port.
    pub const AUTH_NOT_HERE: Reply = Reply::fixed(
        502,
        (5, 5, 1),
        "There is no authentication on this port; use the submission port, 465 or 587",
    );
    /// To AUTH without a mechanism, or with something behind the initial response (RFC 4954 §4).
    pub const AUTH_SYNTAX: Reply =
        Reply::fixed(501, (5, 5, 4), "Syntax: AUTH mechanism [initial-response]");
    /// To AUTH with a mechanism that is not offered (RFC 4954 §4).
    pub const AUTH_MECHANISM_UNKNOWN: Reply = Reply::fixed(
        504,
        (5, 5, 4),
        "There is no such mechanism here; EHLO names those there are",
    );
    /// To AUTH before TLS (RFC 4954 §4, RFC 5248 §2.4).
    pub const AUTH_NEEDS_TLS: Reply = Reply::fixed(
        538,
        (5, 7, 11),
        "Logging in needs encryption; say STARTTLS first",
    );
    /// To AUTH after one that was granted (RFC 4954 §4).
    pub const AUTH_ALREADY: Reply = Reply::fixed(503, (5, 5, 1), "You have logged in already");
    /// To AUTH within a transaction (RFC 4954 §4).
    pub const AUTH_WITHIN_MAIL: Reply =
        Reply::fixed(503, (5, 5, 1), "No AUTH within a transaction; RSET ends it");
    /// To what should be base64 and is not, or is no message of the mechanism (RFC 4954 §4).
    pub const AUTH_MALFORMED: Reply =
        Reply::fixed(501, (5, 5, 2), "The response cannot be decoded");
    /// To `*` in place of a response (RFC 4954 §4).
    pub const AUTH_CANCELLED: Reply = Reply::fixed(501, (5, 7, 0), "Authentication cancelled");
    /// To a line of AUTH beyond the limit, before we hang up (RFC 4954 §4).
    pub const AUTH_TOO_LONG: Reply =
        Reply::fixed(500, (5, 5, 6), "Authentication exchange line is too long");
    /// The client is who it says (RFC 4954 §6).
    pub const LOGGED_IN: Reply = Reply::fixed(235, (2, 7, 0), "Authentication successful");
    /// To MAIL on a submission port before TLS (RFC 3207 §4).
    pub const TLS_FIRST: Reply = Reply::fixed(530, (5, 7, 0), "Say STARTTLS first");
    /// To MAIL on a submission port before AUTH (RFC 4954 §6).
    pub const LOGIN_FIRST: Reply = Reply::fixed(530, (5, 7, 0), "Authentication required");

    /// The server's part of an exchange, in base64 (RFC 4954 §4).
    pub fn challenge(octets: &[u8]) -> Reply {
        Reply {
            code: 334,
            enhanced: None,
            text: BASE64_STANDARD.encode(octets).into(),
        }
    }

    /// To STARTTLS on a listener without TLS.
    pub const STARTTLS_NOT_OFFERED: Reply = Reply::fixed(502, (5, 5, 1), "TLS is not offered here");
    /// To STARTTLS within TLS (RFC 3207 §4).
    pub const TLS_ALREADY: Reply = Reply::fixed(503, (5, 5, 1), "TLS is in use already");
    /// To MAIL before EHLO or HELO (RFC 5321 §4.1.4).
    pub const HELLO_FIRST: Reply = Reply::fixed(503, (5, 5, 1), "Say EHLO first");
    /// To RCPT, DATA or BDAT without a transaction (RFC 5321 §4.1.4).
    pub const MAIL_FIRST: Reply = Reply::fixed(503, (5, 5, 1), "Say MAIL FROM first");
    /// To MAIL within a transaction (RFC 5321 §4.1.4).
    pub const MAIL_ALREADY: Reply = Reply::fixed(
        503,
        (5, 5, 1),
        "The sender was given already; RSET begins anew",
    );
    /// To DATA or BDAT before the first RCPT (RFC 5321 §4.1.4).
    pub const RCPT_FIRST: Reply = Reply::fixed(503, (5, 5, 1), "Say RCPT TO first");
    /// To DATA or BDAT after every RCPT was refused (RFC 5321 §3.3).
    pub const NO_RECIPIENTS: Reply = Reply::fixed(554, (5, 5, 1), "No valid recipients");
    /// To DATA after BDAT in one transaction (RFC 3030 §2).
    pub const DATA_WITHIN_BDAT: Reply = Reply::fixed(
        503,
        (5, 5, 1),
        "BDAT has begun; end it with BDAT LAST or RSET",
    );
    /// To RCPT after BDAT in one transaction (RFC 3030 §2).
    pub const ONLY_BDAT_NOW: Reply = Reply::fixed(
        503,
        (5, 5, 1),
        "A message is being sent by BDAT; only BDAT, RSET, NOOP and QUIT are possible",
    );

    /// A parameter of MAIL or RCPT that we did not offer (RFC 5321 §4.1.1.11).
    pub fn unknown_parameter(name: &str) -> Reply {
        Reply::made(555, (5, 5, 4), format!("Parameter {name} not supported"))
    }

    /// A parameter that was offered, with a value that it cannot have.
    pub fn bad_parameter(name: &str) -> Reply {
        Reply::made(
            501,
            (5, 5, 4),
            format!("Parameter {name} has a wrong value"),
        )
    }

    /// RFC 3463 §3.2: 5.1.7, bad sender's mailbox address syntax.
    pub fn bad_sender(reason: address::Error) -> Reply {
        Reply::made(
            501,
            (5, 1, 7),
            format!("Sender address refused because {reason}"),
        )
    }

    /// RFC 3463 §3.2: 5.1.3, bad destination mailbox address syntax.
    pub fn bad_recipient(reason: address::Error) -> Reply {
        Reply::made(
            501,
            (5, 1, 3),
            format!("Recipient address refused because {reason}"),
        )
    }

    /// RFC 6531 §3.5
    pub const UTF8_NOT_DECLARED: Reply = Reply::fixed(
        553,
        (5, 6, 7),
        "An address beyond ASCII needs the SMTPUTF8 parameter of MAIL",
    );

    /// RFC 8689 §4.1: over plain text the promise would be broken already.
    pub const REQUIRETLS_WITHOUT_TLS: Reply =
        Reply::fixed(530, (5, 7, 10), "REQUIRETLS needs a connection under TLS");

    /// RFC 1870 §6.1
    pub fn too_large(limit: u64) -> Reply {
        Reply::made(
            552,
            (5, 3, 4),
            format!("Message larger than {limit} octets, the limit here"),
        )
    }

    /// RFC 5321 §4.5.3.1.10: 452, so that the client sends to the rest in another transaction.
    pub const TOO_MANY_RECIPIENTS: Reply = Reply::fixed(
        452,
        (4, 5, 3),
        "Too many recipients; send to the rest in another transaction",
    );

    /// To a message with a CR without LF or a LF without CR (RFC 5321 §2.3.8). After DATA we hang up.
    pub const BARE_NEWLINE_IN_DATA: Reply = Reply::fixed(
        550,
        (5, 5, 2),
        "A line of the message ends with a bare CR or LF; lines must end with CRLF",
    );
    /// To a message with a line over our limit.
    pub const DATA_LINE_TOO_LONG: Reply =
        Reply::fixed(554, (5, 6, 0), "The message has a line that is too long");

    /// To the command after the last error that a session may have, before we hang up.
    pub const TOO_MANY_ERRORS: Reply = Reply::fixed(421, (4, 7, 0), "Too many errors, closing");
    /// To MAIL after the last transaction that a session may have, before we hang up (RFC 9422 §4).
    pub const TOO_MANY_TRANSACTIONS: Reply = Reply::fixed(
        421,
        (4, 7, 0),
        "Enough messages for one connection; connect again",
    );
    /// To a client that was silent or slow for too long, before we hang up (RFC 5321 §4.5.3.2).
    pub const TIMEOUT: Reply = Reply::fixed(421, (4, 4, 2), "Waited too long, closing");
    /// Between two messages when the gateway stops, before we hang up (RFC 5321 §3.8).
    pub const SHUTTING_DOWN: Reply =
        Reply::fixed(421, (4, 3, 2), "Service is going down, try again later");
    /// To a client that did not wait for the greeting (RFC 5321 §4.3.1), before we hang up.
    pub const TALKS_FIRST: Reply =
        Reply::fixed(554, (5, 5, 1), "You spoke before the greeting; wait for it");
    /// To a client that sent something behind STARTTLS (RFC 3207 §4.2), before we hang up.
    pub const STARTTLS_INJECTION: Reply = Reply::fixed(
        554,
        (5, 5, 1),
        "Nothing may follow STARTTLS before the handshake; closing",
    );
    /// In place of the greeting, where all listeners together have as many sessions as they may.
    pub const TOO_MANY_CONNECTIONS: Reply =
        Reply::fixed(421, (4, 7, 0), "Too many connections, try again later");
    /// In place of the greeting, where the client's address or network has as many sessions as it may.
    pub const TOO_MANY_FROM_YOU: Reply = Reply::fixed(
        421,
        (4, 7, 0),
        "Too many connections from you, try again later",
    );
    /// To STARTTLS, where the client's network has begun as many handshakes lately as it may, before we
    /// hang up.
    pub const TOO_MANY_HANDSHAKES: Reply = Reply::fixed(
        421,
        (4, 7, 0),
        "Your network wants TLS too often, try again later",
    );
    /// In place of the greeting, where the client has opened as many sessions lately as it may.
    pub const TOO_FAST: Reply =
        Reply::fixed(421, (4, 7, 0), "You connect too often, try again later");
}

/// Us saying no to a client for a reason of policy, or because something of ours is out of order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Reply);

impl Refusal {
    /// What to say.
    pub fn reply(&self) -> &Reply {
        &self.0
    }

    /// What to say.
    pub fn into_reply(self) -> Reply {
        self.0
    }

    /// The same refusal as one for now, where config says `defer`.
    pub fn deferred(mut self) -> Refusal {
        self.0.code = 451;
        if let Some(enhanced) = &mut self.0.enhanced {
            enhanced.0 = 4;
        }
        self
    }

    /// We relay only for our domains.
    pub fn relay_denied(recipient: &Address) -> Refusal {
        Refusal(Reply::made(
            550,
            (5, 7, 1),
            format!("<{recipient}>: relaying denied; we take no mail for that domain"),
        ))
    }

    /// RFC 4954 §6. What of name and password was wrong is not for the client to know.
    pub fn login_failed() -> Refusal {
        Refusal(Reply::fixed(
            535,
            (5, 7, 8),
            "Authentication credentials invalid",
        ))
    }

    /// The client sent no message of the mechanism that it chose (RFC 4954 §4).
    pub fn login_malformed() -> Refusal {
        Refusal(Reply::AUTH_MALFORMED)
    }

    /// RFC 4954 §6: who would know cannot be asked now, or has too much to do.
    pub fn login_unsure() -> Refusal {
        Refusal(Reply::fixed(
            454,
            (4, 7, 0),
            "Temporary authentication failure, try again later",
        ))
    }

    /// The user's password was tried too often.
    pub fn login_banned_user(wait: Duration) -> Refusal {
        Refusal(Reply::made(
            454,
            (4, 7, 0),
            format!(
                "Too many failed logins for this user, try again in {}",
                minutes(wait)
            ),
        ))
    }

    /// The client's address tried too many passwords; we hang up.
    pub fn login_banned_address(wait: Duration) -> Refusal {
        Refusal(Reply::made(
            421,
            (4, 7, 0),
            format!(
                "Too many failed logins from you, try again in {}",
                minutes(wait)
            ),
        ))
    }

    /// RFC 3463 §3.2: 5.1.1, bad destination mailbox address.
    pub fn unknown_user(recipient: &ForwardPath) -> Refusal {
        Refusal(Reply::made(
            550,
            (5, 1, 1),
            format!("{recipient}: no such user here"),
        ))
    }

    /// Whether the user exists cannot be found out now.
    pub fn user_unsure(recipient: &ForwardPath) -> Refusal {
        Refusal(Reply::made(
            451,
            (4, 4, 3),
            format!("{recipient}: cannot verify the recipient now, try again later"),
        ))
    }

    /// RFC 7372 §3.2: 5.7.23, SPF validation failed.
    pub fn spf_fail(
        identity: &str,
        domain: &str,
        client: &str,
        explanation: Option<&str>,
    ) -> Refusal {
        let mut text = format!(
            "SPF fail: {client} is not allowed to send mail for {domain} ({identity} identity)"
        );
        if let Some(explanation) = explanation {
            text.push_str(&format!("; {domain} explains: {explanation}"));
        }
        Refusal(Reply::made(550, (5, 7, 23), text))
    }

    /// A result other than fail, where config says that it is refused.
    pub fn spf_other(result: &str, domain: &str) -> Refusal {
        Refusal(Reply::made(
            550,
            (5, 7, 23),
            format!("SPF {result} for {domain}; mail is not taken here on that result"),
        ))
    }

    /// RFC 7372 §3.2: x.7.24, SPF validation error.
    pub fn spf_error(domain: &str, permanent: bool) -> Refusal {
        if permanent {
            return Refusal(Reply::made(
                550,
                (5, 7, 24),
                format!("SPF permanent error: the SPF record of {domain} cannot be evaluated"),
            ));
        }
        Refusal(Reply::made(
            451,
            (4, 7, 24),
            format!("SPF temporary error: the DNS of {domain} does not answer, try again later"),
        ))
    }

    /// RFC 9989: the domain asks for rejection, and neither SPF nor DKIM speaks for the message.
    pub fn dmarc_reject(domain: &str) -> Refusal {
        Refusal(Reply::made(
            550,
            (5, 7, 1),
            format!("Rejected by the DMARC policy of {domain}: neither SPF nor DKIM passes for it"),
        ))
    }

    /// RFC 9989: what cannot be looked up could change the verdict.
    pub fn dmarc_unsure(domain: &str) -> Refusal {
        Refusal(Reply::made(
            451,
            (4, 7, 1),
            format!(
                "DMARC of {domain} cannot be evaluated now for lack of DNS answers, try again later"
            ),
        ))
    }

    /// The From field does not say who wrote the message.
    pub fn bad_author(what: &str) -> Refusal {
        Refusal(Reply::made(
            550,
            (5, 7, 1),
            format!("The message {what}; it needs one From field with addresses of one domain"),
        ))
    }

    /// RFC 4954 §6: nothing is taken before a login.
    pub fn login_required() -> Refusal {
        Refusal(Reply::fixed(
            530,
            (5, 7, 0),
            "Authentication required: log in first",
        ))
    }

    /// The port is for machines of ours, and the client is none.
    pub fn not_our_machine() -> Refusal {
        Refusal(Reply::fixed(
            550,
            (5, 7, 1),
            "Relaying denied: your network may not send here; use the submission port, 465 or 587",
        ))
    }

    /// A user sends as somebody else. `place` is where the address stands.
    pub fn not_your_address(address: &Address, place: &str, login: &str) -> Refusal {
        Refusal(Reply::made(
            553,
            (5, 7, 1),
            format!(
                "<{address}> in {place} is not an address of {login}; choose one of your own, or ask \
                 your postmaster for the right to send as this one"
            ),
        ))
    }

    /// A user has sent as much as it may for now.
    pub fn limit_reached(limit: &str, most: u64, rest: Duration) -> Refusal {
        let minutes = rest.as_secs().div_ceil(60).max(1);
        let rest = match minutes {
            1 => "in a minute".to_owned(),
            2..120 => format!("in {minutes} minutes"),
            _ => format!("in {} hours", minutes.div_ceil(60)),
        };
        Refusal(Reply::made(
            450,
            (4, 7, 1),
            format!("You have reached the limit of {most} {limit}; try again {rest}"),
        ))
    }

    /// One message wants more than a user ever may; it has to be sent in parts.
    pub fn above_limit(limit: &str, most: u64) -> Refusal {
        Refusal(Reply::made(
            450,
            (4, 7, 1),
            format!("More than {most} {limit}, the limit here; send to the rest later"),
        ))
    }

    /// Something is wrong with our key. The message must not go out without its signature.
    pub fn not_signed() -> Refusal {
        Refusal(Reply::fixed(
            451,
            (4, 7, 5),
            "The message cannot be signed now, try again later",
        ))
    }

    /// RFC 5322 §3.6: a field is missing or stands twice.
    pub fn malformed(what: String) -> Refusal {
        Refusal(Reply::made(
            550,
            (5, 6, 0),
            format!("{what} (RFC 5322 section 3.6)"),
        ))
    }

    /// The header is larger, or has more fields, than is taken here.
    pub fn header_too_large() -> Refusal {
        Refusal(Reply::fixed(
            552,
            (5, 3, 4),
            "The header of the message is too large",
        ))
    }

    /// RFC 5321 §6.3
    pub fn too_many_hops() -> Refusal {
        Refusal(Reply::fixed(
            554,
            (5, 4, 6),
            "Too many Received fields; the message seems to go in a circle",
        ))
    }

    /// The last line of a message sent by BDAT ends with a CR.
    pub fn bare_newline() -> Refusal {
        Refusal(Reply::BARE_NEWLINE_IN_DATA)
    }

    /// What the next hop says to a message that is handed on while its client waits.
    pub fn of_next_hop(said: &Response) -> Refusal {
        Refusal(Reply::of_next_hop(said))
    }

    /// The next hop of such a message did not answer, or not to it.
    pub fn next_hop_away() -> Refusal {
        Refusal(Reply::fixed(
            451,
            (4, 4, 1),
            "The server behind us cannot be reached now, try again later",
        ))
    }

    /// Such a message has one recipient, as there is one answer (RFC 5321 §4.5.3.1.10).
    pub fn one_recipient_each() -> Refusal {
        Refusal(Reply::TOO_MANY_RECIPIENTS)
    }

    /// Too many messages are on their way in at once.
    pub fn no_memory() -> Refusal {
        Refusal(Reply::fixed(
            452,
            (4, 3, 1),
            "Too much mail at once, try again later",
        ))
    }

    /// The spool is full.
    pub fn no_space() -> Refusal {
        Refusal(Reply::fixed(
            452,
            (4, 3, 1),
            "No space left for mail now, try again later",
        ))
    }

    /// The spool could not write.
    pub fn not_stored() -> Refusal {
        Refusal(Reply::fixed(
            451,
            (4, 3, 0),
            "The message could not be stored, try again later",
        ))
    }
}

/// Rounded up.
fn minutes(wait: Duration) -> String {
    match wait.as_secs().div_ceil(60) {
        0 | 1 => "a minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        refusal.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reply_of_several_lines_has_its_code_on_each() {
        let host = Domain::parse("mx.example").unwrap();
        let reply = Reply::ehlo(&host, &["PIPELINING".into(), "SIZE 1".into()]);
        assert_eq!(
            wire(&reply),
            "250-mx.example\r\n250-PIPELINING\r\n250 SIZE 1\r\n"
        );
        assert_eq!(wire(&Reply::OK), "250 2.0.0 OK\r\n");
    }

    #[test]
    fn nothing_in_a_text_can_break_the_line_or_outgrow_it() {
        let refusal = Refusal::spf_fail("mailfrom", "a.example", "192.0.2.1", Some("a\r\u{7f}b"));
        assert!(wire(refusal.reply()).ends_with("explains: a??b\r\n"));
        let refusal = Refusal::dmarc_reject(&"é".repeat(600));
        assert!(wire(refusal.reply()).len() <= 512);
    }

    #[test]
    fn a_deferred_refusal_is_a_4xx_throughout() {
        let reply = Refusal::dmarc_reject("a.example").deferred().into_reply();
        assert_eq!((reply.code, reply.enhanced), (451, Some((4, 7, 1))));
    }
}
