//! What the pure part of the server's half of SMTP costs: reading commands, taking a message in, and a
//! whole dialogue in memory.
//!
//! `cargo bench --bench protocol`.

#![expect(clippy::expect_used, reason = "a bench that cannot run stops")]

use std::sync::Arc;

use divan::Bencher;
use divan::black_box;
use divan::counter::BytesCount;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ForwardPath;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;
use gatepost::smtp::command;
use gatepost::smtp::data::Limits;
use gatepost::smtp::data::Progress;
use gatepost::smtp::data::Receiver;
use gatepost::smtp::reply::Reply;
use gatepost::smtp::server::Question;
use gatepost::smtp::server::Rules;
use gatepost::smtp::server::Server;
use gatepost::smtp::server::Step;
use gatepost::smtp::server::Tls;

fn main() {
    divan::main();
}

#[divan::bench(args = [
    "EHLO mx.author.example",
    "MAIL FROM:<ann@author.example> SIZE=4096 BODY=8BITMIME",
    "RCPT TO:<ben@example.net>",
    "DATA",
])]
fn parse(line: &str) -> bool {
    command::parse(black_box(line.as_bytes())).is_ok()
}

const LIMITS: Limits = Limits {
    size: 25 << 20,
    line: 65_536,
};

/// Lines of sixty-two octets, each tenth with a dot in front, and the end.
fn dotted(size: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(size + 64);
    while data.len() < size {
        if data.len() / 62 % 10 == 0 {
            data.push(b'.');
        }
        data.extend_from_slice(b".A line of plain text such as people write, of sixty octets.\r\n");
    }
    data.extend_from_slice(b".\r\n");
    data
}

/// As the session reads it: in pieces of that many octets at most.
const PIECE: usize = 16 << 10;

fn receive(data: &[u8], message: &mut Vec<u8>) {
    let mut receiver = Receiver::new(LIMITS);
    for piece in data.chunks(PIECE) {
        if let Progress::End { .. } = receiver.dotted(piece, message) {
            assert_eq!(receiver.fault(), None);
            return;
        }
    }
    panic!("the end was not found");
}

#[divan::bench(args = [4 << 10, 1 << 20])]
fn data(bencher: Bencher<'_, '_>, size: usize) {
    let data = dotted(size);
    bencher.counter(BytesCount::of_slice(&data)).bench(|| {
        let mut message = Vec::new();
        receive(black_box(&data), &mut message);
        message
    });
}

/// EHLO, MAIL, RCPT, DATA, a message of 4 KiB, QUIT; every question is answered with yes.
#[divan::bench]
fn dialogue(bencher: Bencher<'_, '_>) {
    let rules = Arc::new(Rules {
        hostname: Domain::parse("mx.example.net").expect("a name"),
        size: LIMITS.size,
        recipients: 100,
        errors: 20,
        transactions: 100,
    });
    let data = dotted(4 << 10);
    let id = SpoolId {
        session: SessionId(1),
        serial: 1,
    };
    bencher.bench(|| {
        let mut server = Server::new(Arc::clone(&rules), Tls::Offered);
        let mut output = Vec::with_capacity(1024);
        server.greeting().write(&mut output);
        for line in [
            "EHLO mx.author.example",
            "MAIL FROM:<ann@author.example> SIZE=4096 BODY=8BITMIME",
            "RCPT TO:<ben@example.net>",
            "DATA",
            "QUIT",
        ] {
            let step = server.command(black_box(line.as_bytes()));
            say(&mut server, step, &data, id, &mut output);
        }
        output
    });
}

fn say(server: &mut Server, step: Step, data: &[u8], id: SpoolId, output: &mut Vec<u8>) {
    let next = match step {
        Step::Reply(reply) | Step::Close(reply) => return reply.write(output),
        Step::ReceiveData(reply) => {
            reply.write(output);
            let mut message = Vec::new();
            receive(data, &mut message);
            black_box(message);
            server.data_received(None)
        }
        Step::Ask(Question::Recipient(ForwardPath::Address(address))) => {
            server.recipient_answered(Ok(address))
        }
        Step::Ask(Question::Message(_)) => server.message_answered(Ok(Reply::stored(id))),
        other => panic!("this dialogue has no such step: {other:?}"),
    };
    say(server, next, data, id, output);
}
