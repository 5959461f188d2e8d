//! The client's half of the dialogue: whatever a server answers, a recipient counts as delivered only
//! where the server took it and the message.
//!
//! An input is a script: the protocol, the words after EHLO, the recipients, how large the message is;
//! then the replies, a line each.

use std::collections::BTreeSet;

use super::lines;
use super::run;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::smtp::client::Protocol;
use crate::smtp::client::capabilities::Capabilities;
use crate::smtp::client::response::Class;
use crate::smtp::client::response::Response;
use crate::smtp::client::shape::Octets;
use crate::smtp::client::shape::Shape;
use crate::smtp::client::transaction::Connection;
use crate::smtp::client::transaction::Step;
use crate::smtp::client::transaction::Transaction;
use crate::smtp::client::transaction::Wait;
use crate::smtp::line;

const RECIPIENTS: usize = 8;

/// What the server has granted.
#[derive(Debug, Default)]
struct Server {
    granted: BTreeSet<usize>,
    /// A yes to the message: for all, or for one.
    taken: BTreeSet<Option<usize>>,
    /// The message was sent.
    is_sent: bool,
    /// What was answered to what, for the search.
    heard: BTreeSet<(&'static str, u16)>,
    is_confused: bool,
}

#[test]
fn no_answers_make_a_recipient_count_as_delivered_that_the_server_did_not_take() {
    run("handover", |input| {
        let mut script = lines(input).map(|line| String::from_utf8_lossy(line).into_owned());
        let mut next = || script.next().unwrap_or_default();
        let protocol = match next().as_str() {
            "lmtp" => Protocol::Lmtp,
            _ => Protocol::Smtp,
        };
        let offered = offered(&next());
        let envelope = envelope(&next());
        let shape = Shape {
            size: next().parse().unwrap_or(100),
            header: Octets::SevenBit,
            body: Octets::SevenBit,
        };
        let which: Vec<usize> = (0..envelope.recipients.len()).collect();
        let transaction = Transaction::new(protocol, &offered, &envelope, &which, shape);
        let mut server = Server::default();
        let (answers, connection) = play(transaction, &mut server, next);
        assert_eq!(answers.len(), which.len());
        for (place, answer) in answers.iter().enumerate() {
            let Some(answer) = answer
                .as_ref()
                .filter(|answer| answer.class() == Class::Done)
            else {
                continue;
            };
            let taken = server.taken.contains(&None) || server.taken.contains(&Some(place));
            let is_delivered = server.is_sent && server.granted.contains(&place) && taken;
            assert!(is_delivered, "{place}: {answer} after {server:?}");
        }
        assert!(!server.is_confused || connection == Connection::Spent);
        let classes = answers
            .iter()
            .map(|answer| answer.as_ref().map(|answer| answer.class() as u8));
        (
            classes.collect::<BTreeSet<_>>(),
            connection as u8,
            server.heard,
        )
    });
}

fn play(
    mut transaction: Transaction,
    server: &mut Server,
    mut next: impl FnMut() -> String,
) -> (Vec<Option<Response>>, Connection) {
    for _ in 0..2 * RECIPIENTS + 8 {
        match transaction.step() {
            Step::Say(said) => assert_commands(&said),
            Step::SayWithMessage(said) => {
                assert_commands(&said);
                server.is_sent = true;
            }
            Step::Message => server.is_sent = true,
            Step::Done => return transaction.end(),
        }
        while let Some(wait) = transaction.waiting() {
            let line = next();
            let Ok(Some((response, _))) = Response::read(format!("{line}\r\n").as_bytes()) else {
                // The connection broke.
                return transaction.end();
            };
            server.answered(wait, &response);
            if transaction.heard(response).is_err() {
                server.is_confused = true;
                assert_eq!(transaction.waiting(), None);
            }
        }
    }
    panic!("it does not come to an end");
}

impl Server {
    fn answered(&mut self, wait: Wait, response: &Response) {
        let to = match wait {
            Wait::Mail => "mail",
            Wait::Rcpt(_) => "rcpt",
            Wait::Data => "data",
            Wait::Last => "message",
            Wait::LastFor(place) => {
                // RFC 2033 §4.2: no reply for those that were refused.
                assert!(self.granted.contains(&place), "waits for {place}");
                "message"
            }
        };
        self.heard.insert((to, response.code / 100));
        if response.class() != Class::Done {
            return;
        }
        match wait {
            Wait::Rcpt(place) => drop(self.granted.insert(place)),
            Wait::Last => drop(self.taken.insert(None)),
            Wait::LastFor(place) => drop(self.taken.insert(Some(place))),
            Wait::Mail | Wait::Data => {}
        }
    }
}

fn assert_commands(said: &[u8]) {
    let mut rest = said;
    while !rest.is_empty() {
        let Some(line::Line::Whole(length)) = line::first(rest, line::LIMIT) else {
            panic!("not whole lines: {:?}", said.escape_ascii().to_string());
        };
        assert!(!rest[..length].iter().any(u8::is_ascii_control));
        rest = &rest[length + 2..];
    }
}

fn offered(words: &str) -> Capabilities {
    let lines = words.split(',').map(|word| format!("250-{word}\r\n"));
    let reply = format!("250-host\r\n{}250 HELP\r\n", lines.collect::<String>());
    match Response::read(reply.as_bytes()) {
        Ok(Some((response, _))) => Capabilities::read(&response),
        Ok(None) | Err(_) => Capabilities::default(),
    }
}

fn envelope(recipients: &str) -> Envelope {
    let recipients = recipients
        .split(' ')
        .filter_map(|text| Address::parse(text).ok());
    Envelope::new(
        ReversePath::Null,
        recipients.take(RECIPIENTS).map(Recipient::new).collect(),
    )
}
