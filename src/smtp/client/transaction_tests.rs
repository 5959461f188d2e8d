//! Transcripts of transactions, checked without a network.

use super::*;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Notify;
use crate::mail::envelope::Recipient;
use crate::mail::envelope::Ret;

const LMTP_FULL: &str = "PIPELINING CHUNKING 8BITMIME SMTPUTF8 SIZE";

fn envelope(from: &str, to: &[&str]) -> Envelope {
    let recipient = |text: &&str| Recipient::new(Address::parse(text).unwrap());
    Envelope {
        body: Default::default(),
        ..Envelope::new(
            ReversePath::parse(from).unwrap(),
            to.iter().map(recipient).collect(),
        )
    }
}

fn offered(words: &str) -> Capabilities {
    let mut reply = "250-host\r\n".to_owned();
    for word in words.split(' ') {
        reply.push_str(&format!("250-{}\r\n", word.replace('=', " ")));
    }
    reply.push_str("250 HELP\r\n");
    let (response, _) = Response::read(reply.as_bytes()).unwrap().unwrap();
    Capabilities::read(&response)
}

fn response(line: &str) -> Response {
    let line = format!("{line}\r\n");
    Response::read(line.as_bytes()).unwrap().unwrap().0
}

/// Plays `script`: "C" lines have to be said, "S" lines are the replies. `<m>` stands for the message
/// with dots, `<b>` for the message as it is.
fn play(mut transaction: Transaction, script: &[&str]) -> (Vec<String>, Connection) {
    let mut script = script.iter();
    loop {
        let (mut said, mark) = match transaction.step() {
            Step::Say(bytes) => (String::from_utf8(bytes).unwrap(), ""),
            Step::SayWithMessage(bytes) => (String::from_utf8(bytes).unwrap(), "<b>"),
            Step::Message => (String::new(), "<m>"),
            Step::Done => break,
        };
        said.push_str(mark);
        for line in said.split_terminator("\r\n") {
            assert_eq!(*script.next().unwrap(), format!("C {line}"));
        }
        while transaction.waiting().is_some() {
            let reply = script.next().expect("a reply").strip_prefix("S ").unwrap();
            if transaction.heard(response(reply)).is_err() {
                break;
            }
        }
    }
    assert_eq!(script.next(), None);
    let (answers, connection) = transaction.end();
    let shown = |answer: Option<Response>| answer.map_or("-".to_owned(), |a| a.to_string());
    (answers.into_iter().map(shown).collect(), connection)
}

#[test]
fn each_recipient_gets_the_answer_that_its_replies_mean() {
    use Connection::Ready;
    use Connection::ResetFirst;
    use Connection::Spent;
    use Protocol::Lmtp;
    use Protocol::Smtp;
    type Row<'a> = (Protocol, &'a str, &'a [&'a str], &'a [&'a str], Connection);
    let rows: &[Row] = &[
        (
            Smtp,
            "HELP",
            &[
                "C MAIL FROM:<s@x.example>",
                "S 250 ok",
                "C RCPT TO:<a@y.example>",
                "S 250 ok",
                "C RCPT TO:<b@y.example>",
                "S 550 5.1.1 no b",
                "C DATA",
                "S 354 go",
                "C <m>",
                "S 250 2.0.0 taken",
            ],
            &["250 2.0.0 taken", "550 5.1.1 no b"],
            Ready,
        ),
        (
            Smtp,
            "HELP",
            &[
                "C MAIL FROM:<s@x.example>",
                "S 250 ok",
                "C RCPT TO:<a@y.example>",
                "S 552 too many",
                "C RCPT TO:<b@y.example>",
                "S 552 5.2.2 full",
            ],
            &[
                "the next hop takes fewer recipients at once: 552 too many (4.5.3)",
                "552 5.2.2 full",
            ],
            ResetFirst,
        ),
        (
            Smtp,
            "HELP",
            &["C MAIL FROM:<s@x.example>", "S 451 4.3.0 later"],
            &["451 4.3.0 later", "451 4.3.0 later"],
            Ready,
        ),
        (
            Smtp,
            "HELP",
            &[
                "C MAIL FROM:<s@x.example>",
                "S 250 ok",
                "C RCPT TO:<a@y.example>",
                "S 452 4.5.3 too many",
                "C RCPT TO:<b@y.example>",
                "S 550 no b",
            ],
            &["452 4.5.3 too many", "550 no b"],
            ResetFirst,
        ),
        (
            Smtp,
            "HELP",
            &[
                "C MAIL FROM:<s@x.example>",
                "S 250 ok",
                "C RCPT TO:<a@y.example>",
                "S 421 4.3.2 bye",
            ],
            &["421 4.3.2 bye", "421 4.3.2 bye"],
            Spent,
        ),
        (
            Smtp,
            "PIPELINING SIZE=1000",
            &[
                "C MAIL FROM:<s@x.example> SIZE=20",
                "C RCPT TO:<a@y.example>",
                "C RCPT TO:<b@y.example>",
                "C DATA",
                "S 250 ok",
                "S 250 ok",
                "S 250 ok",
                "S 354 go",
                "C <m>",
                "S 554 5.7.1 spam",
            ],
            &["554 5.7.1 spam", "554 5.7.1 spam"],
            Ready,
        ),
        (
            Smtp,
            "PIPELINING",
            &[
                "C MAIL FROM:<s@x.example>",
                "C RCPT TO:<a@y.example>",
                "C RCPT TO:<b@y.example>",
                "C DATA",
                "S 550 5.7.1 not you",
                "S 503 5.5.1 mail first",
                "S 250 odd",
                "S 503 5.5.1 mail first",
            ],
            &["550 5.7.1 not you", "550 5.7.1 not you"],
            Ready,
        ),
        (
            Smtp,
            "PIPELINING",
            &[
                "C MAIL FROM:<s@x.example>",
                "C RCPT TO:<a@y.example>",
                "C RCPT TO:<b@y.example>",
                "C DATA",
                "S 250 ok",
                "S 550 no a",
                "S 550 no b",
                "S 354 go all the same",
            ],
            &["550 no a", "550 no b"],
            Spent,
        ),
        (
            Smtp,
            "PIPELINING",
            &[
                "C MAIL FROM:<s@x.example>",
                "C RCPT TO:<a@y.example>",
                "C RCPT TO:<b@y.example>",
                "C DATA",
                "S 250 ok",
                "S 354 what",
            ],
            &["-", "-"],
            Spent,
        ),
        (
            Lmtp,
            "PIPELINING",
            &[
                "C MAIL FROM:<s@x.example>",
                "C RCPT TO:<a@y.example>",
                "C RCPT TO:<b@y.example>",
                "C DATA",
                "S 250 ok",
                "S 250 ok",
                "S 250 ok",
                "S 354 go",
                "C <m>",
                "S 250 2.0.0 a has it",
                "S 452 4.2.2 b is full",
            ],
            &["250 2.0.0 a has it", "452 4.2.2 b is full"],
            Ready,
        ),
        (
            Lmtp,
            LMTP_FULL,
            &[
                "C MAIL FROM:<s@x.example> SIZE=20",
                "C RCPT TO:<a@y.example>",
                "C RCPT TO:<b@y.example>",
                "C BDAT 20 LAST",
                "C <b>",
                "S 250 ok",
                "S 550 5.1.1 no a",
                "S 250 ok",
                "S 250 2.0.0 b has it",
            ],
            &["550 5.1.1 no a", "250 2.0.0 b has it"],
            Ready,
        ),
        (
            Lmtp,
            LMTP_FULL,
            &[
                "C MAIL FROM:<s@x.example> SIZE=20",
                "C RCPT TO:<a@y.example>",
                "C RCPT TO:<b@y.example>",
                "C BDAT 20 LAST",
                "C <b>",
                "S 250 ok",
                "S 550 5.1.1 no a",
                "S 450 4.2.1 b later",
                "S 503 5.5.1 no recipients",
            ],
            &["550 5.1.1 no a", "450 4.2.1 b later"],
            ResetFirst,
        ),
    ];
    let shape = Shape::of(&[b"Subject: x\r\n\r\nbody\r\n"]);
    for (protocol, words, script, want, connection) in rows {
        let envelope = envelope("<s@x.example>", &["a@y.example", "b@y.example"]);
        let offered = offered(words);
        let transaction = Transaction::new(*protocol, &offered, &envelope, &[0, 1], shape);
        let (got, after) = play(transaction, script);
        assert_eq!(got, *want, "{script:#?}");
        assert_eq!(after, *connection, "{script:#?}");
    }
}

/// The MAIL command and the answers that need no server.
fn planned(words: &str, envelope: &Envelope, content: &str) -> (String, Vec<Option<u16>>) {
    let which: Vec<usize> = (0..envelope.recipients.len()).collect();
    let shape = Shape::of(&[content.as_bytes()]);
    let offered = offered(words);
    let transaction = Transaction::new(Protocol::Smtp, &offered, envelope, &which, shape);
    let refused = |answer: &Option<Response>| answer.as_ref().map(|r| r.code);
    let answers = transaction.answers.iter().map(refused).collect();
    (transaction.mail.trim_end().to_owned(), answers)
}

#[test]
fn extensions_are_asked_for_where_needed_and_offered() {
    let seven = "A: b\r\n\r\nbody\r\n";
    let eight = "A: b\r\n\r\nb\u{f6}dy\r\n";
    let header = "A: \u{f6}\r\n\r\nbody\r\n";
    let plain = "MAIL FROM:<s@x.example>";
    let all = "8BITMIME SMTPUTF8";
    // Offered, sender, came with SMTPUTF8, message, MAIL, refused with.
    type Row<'a> = (&'a str, &'a str, bool, &'a str, &'a str, Option<u16>);
    let rows: &[Row] = &[
        ("HELP", "<s@x.example>", false, seven, plain, None),
        ("HELP", "<s@x.example>", true, seven, plain, None),
        ("HELP", "<s@x.example>", false, eight, "", Some(554)),
        ("HELP", "<ö@x.example>", true, seven, "", Some(553)),
        ("8BITMIME", "<s@x.example>", true, header, "", Some(554)),
        (
            "SIZE=14",
            "<s@x.example>",
            false,
            seven,
            "MAIL FROM:<s@x.example> SIZE=14",
            None,
        ),
        ("SIZE=13", "<s@x.example>", false, seven, "", Some(552)),
        (
            "SIZE=0",
            "<s@x.example>",
            false,
            seven,
            "MAIL FROM:<s@x.example> SIZE=14",
            None,
        ),
        (
            all,
            "<s@x.example>",
            true,
            eight,
            "MAIL FROM:<s@x.example> BODY=8BITMIME",
            None,
        ),
        (
            all,
            "<s@x.example>",
            false,
            header,
            "MAIL FROM:<s@x.example> BODY=8BITMIME",
            None,
        ),
        (
            all,
            "<s@x.example>",
            true,
            header,
            "MAIL FROM:<s@x.example> BODY=8BITMIME SMTPUTF8",
            None,
        ),
        (
            all,
            "<ö@x.example>",
            true,
            seven,
            "MAIL FROM:<ö@x.example> SMTPUTF8",
            None,
        ),
        (all, "<>", false, seven, "MAIL FROM:<>", None),
    ];
    for (words, from, smtputf8, content, mail, refused) in rows {
        let mut envelope = envelope(from, &["a@y.example"]);
        envelope.smtputf8 = *smtputf8;
        let got = planned(words, &envelope, content);
        assert_eq!(
            got,
            ((*mail).to_owned(), vec![*refused]),
            "{words} {from} {content}"
        );
    }
}

#[test]
fn an_internationalised_recipient_fails_alone() {
    let envelope = envelope("<s@x.example>", &["a@y.example", "ö@y.example"]);
    let (mail, answers) = planned("HELP", &envelope, "A: b\r\n\r\n");
    assert_eq!(mail, "MAIL FROM:<s@x.example>");
    assert_eq!(answers, [None, Some(553)]);
}

#[test]
fn wishes_for_notifications_are_passed_on_where_offered() {
    let mut envelope = envelope("<s@x.example>", &["a@y.example"]);
    envelope.ret = Some(Ret::Headers);
    envelope.envid = Some("id+2B1".to_owned());
    envelope.recipients[0].orcpt = Some("rfc822;a@y.example".to_owned());
    envelope.recipients[0].notify = Notify::On {
        success: true,
        failure: false,
        delay: true,
    };
    let (mail, _) = planned("DSN", &envelope, "");
    assert_eq!(mail, "MAIL FROM:<s@x.example> RET=HDRS ENVID=id+2B1");
    assert_eq!(
        commands::rcpt(&offered("DSN"), &envelope.recipients[0]),
        "RCPT TO:<a@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@y.example\r\n"
    );
    assert_eq!(planned("HELP", &envelope, "").0, "MAIL FROM:<s@x.example>");
    envelope.envid = Some("a\r\nRSET".to_owned());
    assert_eq!(
        planned("DSN", &envelope, "").0,
        "MAIL FROM:<s@x.example> RET=HDRS"
    );
}

#[test]
fn a_message_without_its_last_line_end_is_counted_with_it() {
    for (pieces, size) in [
        (&[b"a\r\n" as &[u8]] as &[&[u8]], 3),
        (&[b"a"], 3),
        (&[b"a\r", b"\n"], 3),
        (&[], 0),
    ] {
        assert_eq!(Shape::of(pieces).size, size, "{pieces:?}");
    }
}
