//! A client of our own that hands one message over a Unix socket, a command at a time.
//!
//! All recipients or none: who is told no puts the address right and sends again, and nobody gets the
//! message twice for it. Only where the server takes fewer recipients at once (RFC 5321 §4.5.3.1.10) do the
//! others follow in a transaction of their own, and then some may have it when the rest are refused.

use std::fmt;
use std::io;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;

use crate::mail::address::Address;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::smtp::client::capabilities::Capabilities;
use crate::smtp::client::commands;
use crate::smtp::client::dots;
use crate::smtp::client::response::Class;
use crate::smtp::client::response::Malformed;
use crate::smtp::client::response::Response;
use crate::smtp::client::shape::Shape;

/// How long one reply may take: as long as the final dot's (RFC 5321 §4.5.3.2.6).
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Each recipient was taken; the last reply.
    Taken(Response),
    /// Nothing was taken.
    Refused(Vec<Refused>),
    /// Some recipients were taken, and these will not be.
    Partly(Vec<Refused>),
}

/// A no.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// To whom; None for all.
    pub to: Option<Address>,
    /// Why.
    pub reply: Response,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Some(to) => write!(f, "<{to}>: {}", self.reply),
            None => self.reply.fmt(f),
        }
    }
}

/// There was no answer, or none that says anything of the message: it can be sent again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke, or nothing came for too long.
    #[error("the connection to the gateway broke")]
    Lost(#[from] io::Error),
    /// What came is no reply.
    #[error("the gateway says what is no reply")]
    Malformed(#[from] Malformed),
    /// It takes nothing now (RFC 5321 §3.8).
    #[error("the gateway says {0}")]
    Away(Response),
}

/// Hands a message over to whoever is at the other end. Blocks, a reply ten minutes at most.
pub fn hand_over(
    stream: &UnixStream,
    envelope: &Envelope,
    message: &Bytes,
) -> Result<Verdict, Error> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut dialogue = Dialogue {
        stream,
        heard: Vec::new(),
    };
    let greeting = dialogue.hear()?;
    if greeting.class() != Class::Done {
        return Ok(Verdict::Refused(vec![no(greeting)]));
    }
    let hello = dialogue.say("EHLO localhost\r\n")?;
    let mut handover = Handover {
        offered: Capabilities::read(&hello),
        shape: Shape::of(&[message]),
        envelope,
        message,
        dialogue,
    };
    let verdict = handover.all()?;
    // Nothing hangs on the answer.
    let _ = handover.dialogue.stream.write_all(b"QUIT\r\n");
    Ok(verdict)
}

struct Handover<'a> {
    dialogue: Dialogue<'a>,
    offered: Capabilities,
    shape: Shape,
    envelope: &'a Envelope,
    message: &'a Bytes,
}

/// What became of one transaction.
enum Ended<'a> {
    /// Taken; these have to come in another one.
    Taken(Response, Vec<&'a Recipient>),
    Refused(Vec<Refused>),
}

impl<'a> Handover<'a> {
    fn all(&mut self) -> Result<Verdict, Error> {
        if let Some(reply) = commands::refused_for_all(&self.offered, self.envelope, self.shape) {
            return Ok(Verdict::Refused(vec![no(reply)]));
        }
        let mut rest: Vec<_> = self.envelope.recipients.iter().collect();
        let mut verdict = Verdict::Refused as fn(Vec<Refused>) -> Verdict;
        loop {
            let is_first = rest.len() == self.envelope.recipients.len();
            rest = match self.some(&rest) {
                Ok(Ended::Taken(reply, rest)) if rest.is_empty() => {
                    return Ok(Verdict::Taken(reply));
                }
                Ok(Ended::Taken(_, rest)) => rest,
                Ok(Ended::Refused(refused)) => return Ok(verdict(refused)),
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    let reply = Response::ours(451, (4, 4, 2), &error.to_string());
                    return Ok(Verdict::Partly(vec![no(reply)]));
                }
            };
            verdict = Verdict::Partly;
        }
    }

    /// One transaction: to these, as far as the server takes so many at once.
    fn some(&mut self, recipients: &[&'a Recipient]) -> Result<Ended<'a>, Error> {
        let is_beyond_ascii = recipients.iter().any(|to| !to.address.is_ascii());
        let smtputf8 = is_beyond_ascii || commands::needs_smtputf8(self.envelope, self.shape);
        let mail = commands::mail(&self.offered, self.envelope, self.shape, smtputf8);
        let reply = self.dialogue.say(&mail)?;
        if reply.class() != Class::Done {
            return Ok(Ended::Refused(vec![no(reply)]));
        }
        let (mut refused, mut rest) = (Vec::new(), Vec::new());
        let mut granted = 0;
        for recipient in recipients {
            let reply = match self.dialogue.say(&commands::rcpt(&self.offered, recipient)) {
                Ok(reply) => reply,
                // So many were refused that we were hung up on; that is an answer.
                Err(Error::Away(_)) if !refused.is_empty() => break,
                Err(error) => return Err(error),
            };
            match reply.class() {
                Class::Done => granted += 1,
                // RFC 5321 §4.5.3.1.10
                Class::Later if reply.code == 452 && granted > 0 => rest.push(*recipient),
                Class::Later | Class::Never | Class::GoOn => refused.push(Refused {
                    to: Some(recipient.address.clone()),
                    reply,
                }),
            }
        }
        if !refused.is_empty() {
            return Ok(Ended::Refused(refused));
        }
        let reply = self.dialogue.say("DATA\r\n")?;
        if reply.class() != Class::GoOn {
            return Ok(Ended::Refused(vec![no(reply)]));
        }
        let mut out = BufWriter::new(self.dialogue.stream);
        for piece in dots::dotted([self.message.as_ref()]) {
            out.write_all(piece)?;
        }
        out.flush()?;
        let reply = self.dialogue.hear()?;
        Ok(match reply.class() {
            Class::Done => Ended::Taken(reply, rest),
            Class::Later | Class::Never | Class::GoOn => Ended::Refused(vec![no(reply)]),
        })
    }
}

fn no(reply: Response) -> Refused {
    Refused { to: None, reply }
}

struct Dialogue<'a> {
    stream: &'a UnixStream,
    heard: Vec<u8>,
}

impl Dialogue<'_> {
    fn say(&mut self, line: &str) -> Result<Response, Error> {
        self.stream.write_all(line.as_bytes())?;
        self.hear()
    }

    /// The next reply. One is bounded in size by its reader.
    fn hear(&mut self) -> Result<Response, Error> {
        let mut buffer = [0; 4096];
        loop {
            if let Some((response, taken)) = Response::read(&self.heard)? {
                self.heard.drain(..taken);
                return match response.is_goodbye() {
                    true => Err(Error::Away(response)),
                    false => Ok(response),
                };
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                octets => self.heard.extend_from_slice(&buffer[..octets]),
            }
        }
    }
}
