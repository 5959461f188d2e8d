//! Reads one command line (RFC 5321 §4.1.1, RFC 1870, RFC 3030, RFC 3207, RFC 3461, RFC 4954,
//! RFC 6152, RFC 6531).
//!
//! A line that cannot be read is answered at once: the error is the reply that says what is wrong.
//! Takes what deployed clients send (a space after `FROM:`, commands in any case, white space at the
//! end), but never guesses at an address.

use crate::mail::address::ForwardPath;
use crate::mail::address::Host;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Body;
use crate::mail::envelope::Notify;
use crate::mail::envelope::Ret;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Secret;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Hello, with the wish for extensions (RFC 5321 §4.1.1.1).
    Ehlo(Hello),
    /// Hello without extensions (RFC 5321 §4.1.1.1).
    Helo(Hello),
    /// Begins a transaction (RFC 5321 §4.1.1.2).
    Mail(Mail),
    /// Adds a recipient to the transaction (RFC 5321 §4.1.1.3).
    Rcpt(Rcpt),
    /// The message follows once we say 354 (RFC 5321 §4.1.1.4).
    Data,
    /// A part of the message follows at once (RFC 3030 §2).
    Bdat {
        /// Octets of this part.
        size: u64,
        /// Whether it is the last.
        chunk: Chunk,
    },
    /// TLS is to begin (RFC 3207 §4).
    StartTls,
    /// Drops the transaction (RFC 5321 §4.1.1.5).
    Rset,
    /// Wants an answer and no more (RFC 5321 §4.1.1.9). Its argument is not looked at.
    Noop,
    /// Ends the session (RFC 5321 §4.1.1.10).
    Quit,
    /// Asks whether there is such a user (RFC 5321 §4.1.1.6). Its argument is not looked at.
    Vrfy,
    /// Asks who is on a list (RFC 5321 §4.1.1.7). Its argument is not looked at.
    Expn,
    /// Asks for help (RFC 5321 §4.1.1.8). Its argument is not looked at.
    Help,
    /// Wants to log in (RFC 4954 §4).
    Auth(Auth),
}

/// AUTH with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Printable ASCII, as written; empty where there is none. It may be no mechanism of ours.
    pub mechanism: String,
    /// What the client sends without being asked, still in base64.
    pub initial: Option<Secret>,
}

/// How the client names itself. Nothing is decided from it but SPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// As written, printable ASCII, at most 255 octets.
    pub text: String,
    /// Where it is a valid domain or address literal.
    pub host: Option<Host>,
}

/// MAIL FROM with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Who gets a bounce.
    pub from: ReversePath,
    /// The size that the client announces, in octets (RFC 1870).
    pub size: Option<u64>,
    /// What the message holds, by BODY (RFC 6152 §2). Seven bits where it is not given.
    pub body: Body,
    /// The message or an address may hold UTF-8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// How much of the message a bounce is to carry (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// The sender's own name for the envelope, xtext of at most 100 octets (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// No server may get it without TLS (RFC 8689 §2).
    pub requiretls: bool,
}

/// RCPT TO with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    /// Who is to have the message.
    pub to: ForwardPath,
    /// When the sender wants to hear about it (RFC 3461 §4.1).
    pub notify: Notify,
    /// `type;address`, at most 500 octets, as xtext (RFC 3461 §4.2) or UTF-8 (RFC 6533 §3).
    pub orcpt: Option<String>,
}

/// Whether more chunks of a message follow (RFC 3030 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// BDAT without LAST.
    More,
    /// BDAT with LAST: the message ends with it.
    Last,
}

/// Reads a command line, without its CRLF.
pub fn parse(line: &[u8]) -> Result<Command, Reply> {
    let Ok(line) = std::str::from_utf8(line) else {
        return Err(Reply::NOT_PRINTABLE);
    };
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Reply::NOT_PRINTABLE);
    }
    let line = line.trim_end_matches([' ', '\t']);
    let (verb, argument) = match line.split_once([' ', '\t']) {
        Some((verb, argument)) => (verb, argument.trim_start_matches([' ', '\t'])),
        None => (line, ""),
    };
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => hello(argument).map(Command::Ehlo),
        "HELO" => hello(argument).map(Command::Helo),
        "MAIL" => mail(argument).map(Command::Mail),
        "RCPT" => rcpt(argument).map(Command::Rcpt),
        "DATA" => alone(argument, Command::Data),
        "BDAT" => bdat(argument),
        "STARTTLS" => alone(argument, Command::StartTls),
        "RSET" => alone(argument, Command::Rset),
        "QUIT" => alone(argument, Command::Quit),
        "NOOP" => Ok(Command::Noop),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" => Ok(Command::Expn),
        "HELP" => Ok(Command::Help),
        "AUTH" => auth(argument).map(Command::Auth),
        _ => Err(Reply::UNKNOWN_COMMAND),
    }
}

/// RFC 5321 §4.1.1: a command without argument that has one is an error.
fn alone(argument: &str, command: Command) -> Result<Command, Reply> {
    if argument.is_empty() {
        Ok(command)
    } else {
        Err(Reply::NO_ARGUMENT_ALLOWED)
    }
}

fn hello(argument: &str) -> Result<Hello, Reply> {
    let printable = |b: u8| b.is_ascii_graphic();
    if argument.is_empty() || argument.len() > 255 {
        return Err(Reply::HELLO_SYNTAX);
    }
    // RFC 6531 §3.7.1: the argument stays ASCII.
    if !argument.bytes().all(printable) {
        return Err(Reply::HELLO_SYNTAX);
    }
    Ok(Hello {
        text: argument.to_owned(),
        // RFC 5321 §4.1.4: not refused for its form; a name that is none has no SPF record.
        host: Host::parse(argument).ok(),
    })
}

fn mail(argument: &str) -> Result<Mail, Reply> {
    let (path, rest) = path(argument, "FROM:").ok_or(Reply::MAIL_SYNTAX)?;
    let from = ReversePath::parse(path).map_err(Reply::bad_sender)?;
    let mut mail = Mail {
        from,
        size: None,
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        requiretls: false,
    };
    for parameter in parameters(rest) {
        let (name, value) = split(parameter);
        let bad = || Reply::bad_parameter(&name);
        match (name.as_str(), value) {
            ("SIZE", value) => mail.size = Some(value.and_then(digits).ok_or_else(bad)?),
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") => {
                mail.body = Body::SevenBit;
            }
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("8BITMIME") => {
                mail.body = Body::EightBitMime;
            }
            ("SMTPUTF8", None) => mail.smtputf8 = true,
            ("REQUIRETLS", None) => mail.requiretls = true,
            ("RET", Some(value)) if value.eq_ignore_ascii_case("FULL") => {
                mail.ret = Some(Ret::Full);
            }
            ("RET", Some(value)) if value.eq_ignore_ascii_case("HDRS") => {
                mail.ret = Some(Ret::Headers);
            }
            // RFC 3461 §4.4
            ("ENVID", Some(value)) if is_xtext(value) && value.len() <= 100 => {
                mail.envid = Some(value.to_owned());
            }
            ("BODY" | "SMTPUTF8" | "REQUIRETLS" | "RET" | "ENVID", _) => return Err(bad()),
            // RFC 4954 §5: who a relay says has written the message; we believe no relay.
            ("AUTH", Some(_)) => {}
            _ if is_keyword(&name) => return Err(Reply::unknown_parameter(&name)),
            _ => return Err(Reply::MAIL_SYNTAX),
        }
    }
    if !mail.smtputf8 && mail.from.address().is_some_and(|from| !from.is_ascii()) {
        return Err(Reply::UTF8_NOT_DECLARED);
    }
    Ok(mail)
}

fn rcpt(argument: &str) -> Result<Rcpt, Reply> {
    let (path, rest) = path(argument, "TO:").ok_or(Reply::RCPT_SYNTAX)?;
    let mut rcpt = Rcpt {
        to: ForwardPath::parse(path).map_err(Reply::bad_recipient)?,
        notify: Notify::Unsaid,
        orcpt: None,
    };
    for parameter in parameters(rest) {
        let (name, value) = split(parameter);
        let bad = || Reply::bad_parameter(&name);
        match (name.as_str(), value) {
            ("NOTIFY", value) => rcpt.notify = value.and_then(notify).ok_or_else(bad)?,
            // RFC 3461 §4.2: type;address, 500 octets at most.
            ("ORCPT", Some(value)) if is_orcpt(value) => rcpt.orcpt = Some(value.to_owned()),
            ("ORCPT", _) => return Err(bad()),
            _ if is_keyword(&name) => return Err(Reply::unknown_parameter(&name)),
            _ => return Err(Reply::RCPT_SYNTAX),
        }
    }
    Ok(rcpt)
}

fn bdat(argument: &str) -> Result<Command, Reply> {
    let mut words = argument.split_ascii_whitespace();
    let size = words.next().and_then(digits).ok_or(Reply::BDAT_SYNTAX)?;
    let chunk = match (words.next(), words.next()) {
        (None, _) => Chunk::More,
        (Some(last), None) if last.eq_ignore_ascii_case("LAST") => Chunk::Last,
        _ => return Err(Reply::BDAT_SYNTAX),
    };
    Ok(Command::Bdat { size, chunk })
}

/// RFC 4954 §4: `mechanism [initial-response]`.
fn auth(argument: &str) -> Result<Auth, Reply> {
    let mut words = argument.split_ascii_whitespace();
    let mechanism = words.next().unwrap_or_default().to_owned();
    let initial = words.next().map(Secret::new);
    if words.next().is_some() {
        return Err(Reply::AUTH_SYNTAX);
    }
    Ok(Auth { mechanism, initial })
}

/// Splits `FROM:<path> parameters` behind the path: at the first `>` outside of a quoted string.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let head = argument.get(..keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    // RFC 5321 §3.3 has no space here; many clients have.
    let rest = argument[keyword.len()..].trim_start_matches([' ', '\t']);
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                let (path, rest) = rest.split_at(at + 1);
                let separated = rest.is_empty() || rest.starts_with([' ', '\t']);
                return separated.then_some((path, rest));
            }
            _ => {}
        }
    }
    // Without brackets: let the address parser say so.
    rest.split([' ', '\t'])
        .next()
        .map(|path| (path, &rest[path.len()..]))
}

fn parameters(rest: &str) -> impl Iterator<Item = &str> {
    rest.split([' ', '\t']).filter(|word| !word.is_empty())
}

fn split(parameter: &str) -> (String, Option<&str>) {
    match parameter.split_once('=') {
        Some((name, value)) => (name.to_ascii_uppercase(), Some(value)),
        None => (parameter.to_ascii_uppercase(), None),
    }
}

/// RFC 5321 §4.1.2: esmtp-keyword. Nothing else may be repeated in a reply (RFC 6531 §3.7.4.2).
fn is_keyword(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// RFC 1870 §4: up to twenty digits. What does not fit is larger than any limit of ours.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => success = true,
            "FAILURE" => failure = true,
            "DELAY" => delay = true,
            _ => return None,
        }
    }
    Some(Notify::On {
        success,
        failure,
        delay,
    })
}

fn is_orcpt(value: &str) -> bool {
    let Some((kind, address)) = value.split_once(';') else {
        return false;
    };
    // RFC 6533 §3: utf-8 addresses may stand here unencoded.
    let address_is_valid = if kind.eq_ignore_ascii_case("utf-8") {
        !address.is_empty()
    } else {
        is_xtext(address)
    };
    value.len() <= 500
        && !kind.is_empty()
        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && address_is_valid
}

/// RFC 3461 §4: printable ASCII but `+` and `=`, or `+` and two upper-case hexadecimal digits.
fn is_xtext(value: &str) -> bool {
    let mut bytes = value.bytes();
    let is_hex =
        |b: Option<u8>| b.is_some_and(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if is_hex(bytes.next()) && is_hex(bytes.next()) => {}
            b'+' | b'=' => return false,
            33..=126 => {}
            _ => return false,
        }
    }
    !value.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail_from(line: &str) -> Result<Mail, u16> {
        match parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => Ok(mail),
            Ok(other) => panic!("{line:?} is {other:?}"),
            Err(reply) => Err(reply.code),
        }
    }

    #[test]
    fn paths_and_parameters_of_mail_are_told_apart() {
        for (line, want) in [
            ("MAIL FROM:<a@b.example>", Ok("<a@b.example>")),
            ("mail from: <a@b.example>  ", Ok("<a@b.example>")),
            ("MAIL FROM:<>", Ok("<>")),
            (
                "MAIL FROM:<\"a> b\"@b.example> SIZE=1",
                Ok("<\"a> b\"@b.example>"),
            ),
            (
                "MAIL FROM:<\"a\\\">\"@b.example>",
                Ok("<\"a\\\">\"@b.example>"),
            ),
            ("MAIL FROM:<@r.example:a@b.example>", Ok("<a@b.example>")),
            ("MAIL FROM:<ü@b.example> SMTPUTF8", Ok("<ü@b.example>")),
            ("MAIL FROM:<ü@b.example>", Err(553)),
            ("MAIL FROM:<a@b.example>SIZE=1", Err(501)),
            ("MAIL FROM:a@b.example", Err(501)),
            ("MAIL FROM:<a@b.example", Err(501)),
            ("MAIL FROM <a@b.example>", Err(501)),
            ("MAIL", Err(501)),
            ("MAIL FROM:<a@b.example> FOO=1", Err(555)),
            ("MAIL FROM:<a@b.example> ü=1", Err(501)),
            ("MAIL FROM:<a@b.example> =1", Err(501)),
            ("MAIL FROM:<a@b.example> BODY=BINARYMIME", Err(501)),
            ("MAIL FROM:<a@b.example> SIZE=x", Err(501)),
            ("MAIL FROM:<a@b.example> SMTPUTF8=1", Err(501)),
            ("MAIL FROM:<a@b.example> ENVID=a+b", Err(501)),
        ] {
            let got = mail_from(line).map(|mail| mail.from.to_string());
            assert_eq!(got, want.map(str::to_owned), "{line:?}");
        }
    }

    #[test]
    fn parameters_of_mail_are_read() {
        let mail = mail_from(
            "MAIL FROM:<a@b.example> SIZE=99999999999999999999 BODY=8bitmime RET=HDRS ENVID=Q+2B1",
        )
        .unwrap();
        assert_eq!(mail.size, Some(u64::MAX));
        assert_eq!(mail.body, Body::EightBitMime);
        assert_eq!(mail.ret, Some(Ret::Headers));
        assert_eq!(mail.envid.as_deref(), Some("Q+2B1"));
    }

    #[test]
    fn parameters_of_rcpt_are_read() {
        for (line, want) in [
            ("RCPT TO:<a@b.example> NOTIFY=NEVER", Ok(Notify::Never)),
            ("RCPT TO:<a@b.example>", Ok(Notify::Unsaid)),
            (
                "RCPT TO:<Postmaster> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bc@b.example",
                Ok(Notify::On {
                    success: true,
                    failure: false,
                    delay: true,
                }),
            ),
            ("RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", Err(501)),
            ("RCPT TO:<a@b.example> ORCPT=a@b.example", Err(501)),
            ("RCPT TO:<a@b.example> SIZE=1", Err(555)),
            ("RCPT TO:<>", Err(501)),
        ] {
            let got = match parse(line.as_bytes()) {
                Ok(Command::Rcpt(rcpt)) => Ok(rcpt.notify),
                Ok(other) => panic!("{line:?} is {other:?}"),
                Err(reply) => Err(reply.code),
            };
            assert_eq!(got, want, "{line:?}");
        }
    }

    #[test]
    fn the_other_commands_are_read() {
        for (line, want) in [
            (&b"data"[..], Ok(Command::Data)),
            (b"DATA now", Err(501)),
            (
                b"BDAT 12",
                Ok(Command::Bdat {
                    size: 12,
                    chunk: Chunk::More,
                }),
            ),
            (
                b"BDAT 0 last",
                Ok(Command::Bdat {
                    size: 0,
                    chunk: Chunk::Last,
                }),
            ),
            (b"BDAT", Err(501)),
            (b"BDAT -1", Err(501)),
            (b"BDAT 1 LAST LAST", Err(501)),
            (b"NOOP anything", Ok(Command::Noop)),
            (b"", Err(500)),
            (b"GET / HTTP/1.1", Err(500)),
            (b"NOOP \xff", Err(500)),
            (b"NOOP \x00", Err(500)),
            (b"EHLO", Err(501)),
            (b"EHLO a b", Err(501)),
        ] {
            let got = parse(line).map_err(|reply| reply.code);
            assert_eq!(got, want, "{:?}", String::from_utf8_lossy(line));
        }
    }
}
