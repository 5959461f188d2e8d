//! Deliveries to servers that follow a script, on loopback.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use rcgen::generate_simple_self_signed;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

mod routes;

use super::*;
use crate::dns;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::id::SessionId;

/// One connection of a script. "S " lines are said, "C " lines have to be heard (by their beginning),
/// "message" reads to the final dot, "chunk N" reads N octets, "tls" shakes hands, "no tls" sees that none comes about, "silence" says
/// nothing any more. At its end the connection is closed.
type Connection = &'static [&'static str];

const HELLO: [&str; 3] = ["S 220 hi", "C EHLO mx.example", "S 250 plain"];

struct Server {
    port: u16,
    tasks: JoinSet<Vec<String>>,
}

impl Server {
    /// Serves one connection after the other. `hello` precedes each.
    async fn start(hello: &'static [&'static str], connections: &'static [Connection]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut messages = Vec::new();
            for connection in connections {
                let (stream, _) = listener.accept().await.unwrap();
                play(stream, &[hello, connection].concat(), &mut messages).await;
            }
            messages
        });
        Server { port, tasks }
    }

    fn target(&self, scheme: &str) -> Target {
        Target::parse(&format!("{scheme}:127.0.0.1:{}", self.port)).unwrap()
    }

    /// The messages, once each line of the script was played.
    async fn messages(mut self) -> Vec<String> {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.tasks.join_next());
        ended
            .await
            .expect("the script has more lines")
            .unwrap()
            .unwrap()
    }
}

async fn play(stream: TcpStream, script: &[&str], messages: &mut Vec<String>) {
    let mut stream = BufReader::new(stream);
    for (at, line) in script.iter().enumerate() {
        if *line == "tls" {
            let stream = acceptor().accept(stream.into_inner()).await.unwrap();
            let mut stream = BufReader::new(stream);
            for line in &script[at + 1..] {
                act(&mut stream, line, messages).await;
            }
            return;
        }
        if *line == "no tls" {
            assert!(acceptor().accept(stream.into_inner()).await.is_err());
            return;
        }
        act(&mut stream, line, messages).await;
    }
}

async fn act<S>(stream: &mut BufReader<S>, line: &str, messages: &mut Vec<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match line.split_at_checked(2) {
        Some(("S ", said)) => {
            let said = format!("{}\r\n", said.replace('|', "\r\n"));
            stream.write_all(said.as_bytes()).await.unwrap();
        }
        Some(("C ", want)) => {
            let mut got = String::new();
            stream.read_line(&mut got).await.unwrap();
            assert!(got.starts_with(want), "{got:?} instead of {want:?}");
        }
        _ if line == "message" => {
            let mut message = String::new();
            while !message.ends_with("\r\n.\r\n") {
                assert_ne!(stream.read_line(&mut message).await.unwrap(), 0);
            }
            messages.push(message);
        }
        _ if line == "silence" => std::future::pending().await,
        _ => {
            let size = line.strip_prefix("chunk ").unwrap().parse().unwrap();
            let mut message = vec![0; size];
            stream.read_exact(&mut message).await.unwrap();
            messages.push(String::from_utf8(message).unwrap());
        }
    }
}

fn acceptor() -> TlsAcceptor {
    let made = generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn delivery(config: &Config) -> Delivery {
    let hostname = Domain::parse("mx.example").unwrap();
    let dns = Dns::new(&dns::Config::default()).unwrap();
    Delivery::new(config, hostname, dns).unwrap()
}

const ID: SpoolId = SpoolId {
    session: SessionId(1),
    serial: 1,
};

fn envelope(to: &[&str]) -> Envelope {
    let recipient = |text: &&str| Recipient::new(Address::parse(text).unwrap());
    Envelope {
        body: Default::default(),
        ..Envelope::new(ReversePath::Null, to.iter().map(recipient).collect())
    }
}

/// Delivers a small message to `to`, and tells what came of each as text.
async fn attempt(delivery: &Delivery, target: &Target, to: &[&str]) -> Vec<String> {
    attempt_with(delivery, target, to, "A: b\r\n\r\n.\r\n").await
}

async fn attempt_with(
    delivery: &Delivery,
    target: &Target,
    to: &[&str],
    message: &str,
) -> Vec<String> {
    let envelope = envelope(to);
    let which: Vec<usize> = (0..to.len()).collect();
    let content = Content::from(Bytes::copy_from_slice(message.as_bytes()));
    let outcomes = delivery.attempt(target, ID, &envelope, &which, &content);
    let shown = |outcome: Outcome| match (outcome.fate, outcome.reply) {
        (Fate::Delivered(_), reply) => format!("delivered {reply}"),
        (Fate::Deferred(cause), reply) => format!("deferred {cause:?} {reply}"),
        (Fate::Failed, reply) => format!("failed {reply}"),
    };
    outcomes.await.into_iter().map(shown).collect()
}

const TAKEN: [&str; 8] = [
    "C MAIL FROM:<>",
    "S 250 ok",
    "C RCPT TO:<a@y.example>",
    "S 250 ok",
    "C DATA",
    "S 354 go",
    "message",
    "S 250 taken",
];

#[tokio::test]
async fn a_used_connection_that_died_is_replaced_without_a_second_delivery() {
    const TWO: Connection = &[
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 taken",
        // The next message comes, and the server goes without a word.
        "C MAIL",
    ];
    const GOODBYE: Connection = &[
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 taken",
        "C MAIL",
        "S 421 4.4.2 idle for too long",
    ];
    for first in [
        &[&TAKEN as Connection, &TAKEN],
        &[TWO, &TAKEN],
        &[GOODBYE, &TAKEN],
    ] {
        let server = Server::start(&HELLO, first).await;
        let (delivery, target) = (delivery(&Config::default()), server.target("smtp"));
        for _ in 0..2 {
            let outcomes = attempt(&delivery, &target, &["a@y.example"]).await;
            assert_eq!(outcomes, ["delivered 250 taken"], "{first:?}");
        }
        assert_eq!(server.messages().await, ["A: b\r\n\r\n..\r\n.\r\n"; 2]);
    }
}

#[tokio::test]
async fn a_message_that_the_server_may_have_is_not_sent_again() {
    const CHUNKED: Connection = &[
        "C MAIL",
        "C RCPT",
        "C BDAT 11 LAST",
        "chunk 11",
        "S 250 ok|250 ok|250 taken",
        "C MAIL",
        "C RCPT",
        "C BDAT 11 LAST",
        "chunk 11",
    ];
    const DOTTED: Connection = &[
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 taken",
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
    ];
    const CHUNKING: &[&str] = &["S 220 hi", "C EHLO", "S 250-x|250-PIPELINING|250 CHUNKING"];
    for (hello, script) in [(CHUNKING, &[CHUNKED]), (&HELLO as _, &[DOTTED])] {
        let server = Server::start(hello, script).await;
        let (delivery, target) = (delivery(&Config::default()), server.target("smtp"));
        let to = ["a@y.example"];
        assert_eq!(
            attempt(&delivery, &target, &to).await,
            ["delivered 250 taken"]
        );
        let outcomes = attempt(&delivery, &target, &to).await;
        assert!(
            outcomes[0].starts_with("deferred Message the server closed"),
            "{outcomes:?}"
        );
        assert_eq!(server.messages().await.len(), 2);
    }
}

#[tokio::test]
async fn a_server_that_is_no_server_defers_within_the_deadlines() {
    let mut config = Config::default();
    let short = Duration::from_millis(100);
    config.deadlines.greeting = short;
    config.deadlines.hello = short;
    config.deadlines.mail = short;
    let rows: &[(Connection, &str)] = &[
        (
            &["silence"],
            "deferred Destination no reply to the connection",
        ),
        (
            &["S hello"],
            "deferred Destination the reply to the connection is no reply",
        ),
        (
            &["S 554 5.3.2 no mail here"],
            "deferred Destination 554 5.3.2 no mail here",
        ),
        (
            &["S 220 hi", "C EHLO", "silence"],
            "deferred Destination no reply to EHLO",
        ),
        (
            &["S 220 hi", "C EHLO", "S 250 x", "C MAIL", "silence"],
            "deferred Message no reply to MAIL",
        ),
        (
            &["S 220 hi", "C EHLO", "S 250 x", "C MAIL", "S 354 what"],
            "deferred Message unexpected reply 354 what",
        ),
        (
            &["S 220 hi", "C EHLO", "S 250 x", "C MAIL", "S 421 4.3.2 bye"],
            "deferred Destination 421 4.3.2 bye",
        ),
    ];
    for (script, want) in rows {
        let scripts: &'static [Connection] = Box::leak(Box::new([*script]));
        let server = Server::start(&[], scripts).await;
        let began = Instant::now();
        let delivery = delivery(&config);
        let outcomes = attempt(&delivery, &server.target("smtp"), &["a@y.example"]).await;
        assert!(
            outcomes[0].starts_with(want),
            "{outcomes:?} instead of {want}"
        );
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    let target = Target::parse("lmtp:unix:/nonexistent/socket").unwrap();
    let outcomes = attempt(&delivery(&config), &target, &["a@y.example"]).await;
    assert!(outcomes[0].starts_with("deferred Destination cannot connect to /nonexistent"));
}

#[tokio::test]
async fn a_server_that_gets_on_too_slowly_loses_its_attempt() {
    let server = Server::start(&[], &[&["S 220-hi", "silence"]]).await;
    let mut config = Config::default();
    config.deadlines.attempt = Duration::from_millis(300);
    let target = server.target("smtp");
    let outcomes = attempt(&delivery(&config), &target, &["a@y.example", "b@y.example"]).await;
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert!(outcome.contains("took longer than it may"), "{outcome}");
    }
}

#[tokio::test]
async fn who_has_the_message_when_the_time_is_up_is_not_tried_again() {
    const SCRIPT: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 LIMITS RCPTMAX=1",
        "C MAIL",
        "S 250 ok",
        "C RCPT TO:<a@",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 a",
        "C MAIL",
        "S 250 ok",
        "C RCPT TO:<b@",
        "silence",
    ];
    let server = Server::start(&[], &[SCRIPT]).await;
    let mut config = Config::default();
    config.deadlines.attempt = Duration::from_secs(1);
    let to = ["a@y.example", "b@y.example", "c@y.example"];
    let outcomes = attempt(&delivery(&config), &server.target("smtp"), &to).await;
    assert_eq!(outcomes[0], "delivered 250 a");
    for outcome in &outcomes[1..] {
        assert!(outcome.contains("took longer than it may"), "{outcome}");
    }
}

#[tokio::test]
async fn an_old_server_is_greeted_with_helo_and_reset_after_a_refusal() {
    const SCRIPT: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 500 what",
        "C HELO mx.example",
        "S 250 ok",
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 550 no",
        "C RSET",
        "S 250 ok",
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 taken",
    ];
    let server = Server::start(&[], &[SCRIPT]).await;
    let (delivery, target) = (delivery(&Config::default()), server.target("smtp"));
    assert_eq!(
        attempt(&delivery, &target, &["a@y.example"]).await,
        ["failed 550 no"]
    );
    let outcomes = attempt(&delivery, &target, &["a@y.example"]).await;
    assert_eq!(outcomes, ["delivered 250 taken"]);
    assert_eq!(server.messages().await.len(), 1);
}

#[tokio::test]
async fn recipients_go_in_as_many_transactions_as_the_server_wants() {
    const SCRIPT: Connection = &[
        "S 220 hi",
        "C LHLO",
        "S 250-x|250 LIMITS RCPTMAX=2",
        "C MAIL",
        "S 250 ok",
        "C RCPT TO:<a@",
        "S 250 ok",
        "C RCPT TO:<b@",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 a|250 b",
        "C MAIL",
        "S 250 ok",
        "C RCPT TO:<c@",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 c",
    ];
    let server = Server::start(&[], &[SCRIPT]).await;
    let to = ["a@y.example", "b@y.example", "c@y.example"];
    let outcomes = attempt(&delivery(&Config::default()), &server.target("lmtp"), &to).await;
    assert_eq!(
        outcomes,
        ["delivered 250 a", "delivered 250 b", "delivered 250 c"]
    );
    assert_eq!(server.messages().await.len(), 2);
}

#[tokio::test]
async fn tls_is_taken_where_offered_with_any_certificate() {
    const SCRIPT: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250-PIPELINING|250 STARTTLS",
        "C STARTTLS",
        "S 220 go",
        "tls",
        // What was offered in plain text is forgotten.
        "C EHLO mx.example",
        "S 250 x",
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 taken",
    ];
    let server = Server::start(&[], &[SCRIPT]).await;
    let (delivery, target) = (delivery(&Config::default()), server.target("smtp"));
    let outcomes = attempt(&delivery, &target, &["a@y.example"]);
    assert_eq!(outcomes.await, ["delivered 250 taken"]);
    assert_eq!(server.messages().await.len(), 1);
}

#[tokio::test]
async fn where_tls_does_not_come_off_the_message_goes_in_plain_text() {
    const BROKEN: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 STARTTLS",
        "C STARTTLS",
        "S 220 go",
    ];
    const REFUSED: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 STARTTLS",
        "C STARTTLS",
        "S 454 4.7.0 not now",
    ];
    const PLAIN: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 STARTTLS",
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 taken",
    ];
    const CLOSED: Connection = &["S 220 hi", "C EHLO", "S 250-x|250 STARTTLS", "C STARTTLS"];
    // As a server does that wants a certificate of ours.
    const CLOSED_WITHIN: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 STARTTLS",
        "C STARTTLS",
        "S 220 go",
        "tls",
        "C EHLO",
    ];
    for script in [
        &[BROKEN, PLAIN],
        &[REFUSED, PLAIN],
        &[CLOSED, PLAIN],
        &[CLOSED_WITHIN, PLAIN],
    ] {
        let server = Server::start(&[], script).await;
        let delivery = delivery(&Config::default());
        let outcomes = attempt(&delivery, &server.target("smtp"), &["a@y.example"]).await;
        assert_eq!(outcomes, ["delivered 250 taken"]);
    }
}

#[tokio::test]
async fn a_reply_injected_before_tls_is_not_believed() {
    const SCRIPT: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 STARTTLS",
        "C STARTTLS",
        "S 220 go|250 injected",
    ];
    let server = Server::start(&[], &[SCRIPT]).await;
    let (delivery, target) = (delivery(&Config::default()), server.target("smtp"));
    let outcomes = attempt(&delivery, &target, &["a@y.example"]);
    let want = "deferred Destination the server talks before its turn (4.5.0)";
    assert_eq!(outcomes.await, [want]);
}

#[tokio::test]
async fn a_callout_tells_who_exists_and_leaves_the_connection_usable() {
    const SCRIPT: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 PIPELINING",
        "C MAIL FROM:<>",
        "C RCPT TO:<a@y.example>",
        "C RSET",
        "S 250 ok|250 ok|250 ok",
        "C MAIL FROM:<>",
        "C RCPT TO:<b@y.example>",
        "C RSET",
        "S 250 ok|550 5.1.1 no|250 ok",
        "C MAIL FROM:<>",
        "C RCPT TO:<c@y.example>",
        "C RSET",
        "S 250 ok|450 later|250 ok",
        "C MAIL FROM:<>",
        "C RCPT TO:<d@y.example>",
        "C RSET",
        "S 550 no bounces|503 x|250 ok",
    ];
    let server = Server::start(&[], &[SCRIPT]).await;
    let (delivery, target) = (delivery(&Config::default()), server.target("smtp"));
    let mut answers = Vec::new();
    for local in ["a", "b", "c", "d"] {
        let address = Address::parse(&format!("{local}@y.example")).unwrap();
        let answer = delivery.probe(&target, &Recipient::new(address)).await;
        answers.push(match answer {
            Answer::Exists => "exists".to_owned(),
            Answer::Unknown(reply) => format!("unknown {reply}"),
            Answer::Unsure(reason) => format!("unsure {reason}"),
        });
    }
    let want = [
        "exists",
        "unknown 550 5.1.1 no",
        "unsure 450 later",
        "unsure 550 no bounces",
    ];
    assert_eq!(answers, want);
}

#[tokio::test]
async fn only_what_speaks_of_the_mailbox_says_that_there_is_none() {
    for (reply, want) in [
        ("550 no such user", "unknown"),
        ("550 5.1.1 no such user", "unknown"),
        ("553 5.1.3 no such address", "unknown"),
        ("551 5.1.6 moved away", "unknown"),
        ("550 5.1.10 no such user", "unknown"),
        ("550 5.1.8 who are you", "unsure"),
        ("550 5.2.1 closed for a while", "unsure"),
        ("550 5.7.1 not from you", "unsure"),
        ("552 5.2.2 mailbox full", "unsure"),
        ("552 mailbox full", "unsure"),
        ("554 no", "unsure"),
        ("452 4.2.2 mailbox full", "unsure"),
    ] {
        let replies = Box::leak(format!("S 250 ok|{reply}|250 ok").into_boxed_str());
        let script = ["S 220 hi", "C EHLO", "S 250-x|250 PIPELINING", "C MAIL"];
        let script = [&script[..], &["C RCPT", "C RSET", replies]].concat();
        let scripts: &'static [Connection] = Box::leak(Box::new([&*script.leak()]));
        let server = Server::start(&[], scripts).await;
        let recipient = Recipient::new(Address::parse("a@y.example").unwrap());
        let delivery = delivery(&Config::default());
        let got = match delivery.probe(&server.target("smtp"), &recipient).await {
            Answer::Exists => "exists",
            Answer::Unknown(_) => "unknown",
            Answer::Unsure(_) => "unsure",
        };
        assert_eq!(got, want, "{reply}");
    }
}

#[tokio::test]
async fn after_a_callout_that_was_not_reset_no_message_goes_over_the_connection() {
    const ASKED: Connection = &[
        "C MAIL FROM:<>",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C RSET",
        "S 500 what",
        "C ",
        "S 503 5.5.1 one after the other",
    ];
    let server = Server::start(&HELLO, &[ASKED, &TAKEN]).await;
    let (delivery, target) = (delivery(&Config::default()), server.target("smtp"));
    let recipient = Recipient::new(Address::parse("a@y.example").unwrap());
    delivery.probe(&target, &recipient).await;
    let outcomes = attempt(&delivery, &target, &["a@y.example"]).await;
    assert_eq!(outcomes, ["delivered 250 taken"]);
}

#[tokio::test]
async fn a_server_that_offers_chunks_and_knows_none_gets_the_message_by_data() {
    const CHUNKED: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250-PIPELINING|250 CHUNKING",
        "C MAIL",
        "C RCPT",
        "C BDAT 11 LAST",
        "S 250 ok|250 ok|502 5.5.2 what|500 what",
    ];
    const DOTTED: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250-PIPELINING|250 CHUNKING",
        "C MAIL",
        "C RCPT",
        "C DATA",
        "S 250 ok|250 ok|354 go",
        "message",
        "S 250 taken",
    ];
    let server = Server::start(&[], &[CHUNKED, DOTTED]).await;
    let delivery = delivery(&Config::default());
    let outcomes = attempt(&delivery, &server.target("smtp"), &["a@y.example"]).await;
    assert_eq!(outcomes, ["delivered 250 taken"]);
}

#[tokio::test]
async fn a_message_of_many_pieces_arrives_whole() {
    let server = Server::start(&HELLO, &[&TAKEN]).await;
    let delivery = delivery(&Config::default());
    let body = ".\r\n".repeat(5000);
    let outcomes = attempt_with(&delivery, &server.target("smtp"), &["a@y.example"], &body).await;
    assert_eq!(outcomes, ["delivered 250 taken"]);
    assert_eq!(server.messages().await, ["..\r\n".repeat(5000) + ".\r\n"]);
}

#[tokio::test]
async fn idle_connections_are_closed_with_a_goodbye() {
    const SCRIPT: Connection = &[
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 taken",
        "C QUIT",
    ];
    let server = Server::start(&HELLO, &[SCRIPT]).await;
    let mut config = Config::default();
    config.reuse.idle = Duration::from_millis(50);
    let (delivery, target) = (delivery(&config), server.target("smtp"));
    attempt(&delivery, &target, &["a@y.example"]).await;
    tokio::select! {
        () = delivery.tend() => {}
        messages = server.messages() => assert_eq!(messages.len(), 1),
    }
}

#[tokio::test]
async fn a_maildir_gets_one_return_path_and_each_recipient_its_own_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("maildir:{}/{{domain}}/{{local}}", folder.path().display());
    let target = Target::parse(&path).unwrap();
    let to = ["Joe@y.example", "\"../sue\"@y.example"];
    let outcomes = attempt(&delivery(&Config::default()), &target, &to).await;
    for (local, outcome) in ["joe", "%2E.%2Fsue"].iter().zip(outcomes) {
        assert!(outcome.starts_with("delivered written as "), "{outcome}");
        let new = folder.path().join("y.example").join(local).join("new");
        let file = std::fs::read_dir(new).unwrap().next().unwrap().unwrap();
        let message = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(message, "Return-Path: <>\nA: b\n\n.\n");
    }
    let recipient = Recipient::new(Address::parse("anyone@y.example").unwrap());
    let answer = delivery(&Config::default())
        .probe(&target, &recipient)
        .await;
    assert_eq!(answer, Answer::Exists);
}
