//! Clients that are slow, loud, greedy or broken: each is answered or sent away, and others go on.

use std::time::Duration;
use std::time::Instant;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mails::mail;

/// The gateway still does its work.
fn assert_alive(gateway: &Gateway) {
    let mut client = Client::hello(gateway.smtp());
    let message = mail("a@client.example", "alive");
    client.hand_over("a@client.example", "user@gate.example", &message);
}

#[test]
fn a_client_that_talks_first_is_sent_away() {
    let gateway = Gateway::start();
    // Its words are there before the session begins: the PROXY header comes in the same packet.
    let mut client = Client::connect(gateway.site.proxied);
    client.send(b"PROXY TCP4 192.0.2.1 192.0.2.25 40000 25\r\nEHLO client.example\r\n");
    let said = client.rest();
    assert!(said.starts_with("554 "), "{said:?}");
    assert!(!said.contains("250"), "{said:?}");
    assert_alive(&gateway);
}

#[test]
fn an_endless_line_is_cut_off() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    let chunk = [b'x'; 65_536];
    let sent = (0..64)
        .take_while(|_| client.try_send(&chunk).is_ok())
        .count();
    client.finish();
    let said = client.rest();
    assert!(
        said.is_empty() || said.starts_with("500") || said.starts_with("421"),
        "{said:?}"
    );
    assert!(sent <= 64);
    assert_alive(&gateway);
}

#[test]
fn a_message_over_the_limit_is_read_to_its_end_and_refused() {
    let gateway = Site::new().with("[session]\nsize = \"64KiB\"").start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    client.expect("DATA", "354");
    let line = format!("{}\r\n", "x".repeat(70));
    client.send(mail("a@client.example", "large").as_bytes());
    client.send(line.repeat(2000).as_bytes());
    client.expect(".", "552 5.3.4");
    let event = gateway.process.wait_for("refused");
    assert!(event["reply"].to_string().contains("552 5.3.4"), "{event}");
    // What was read was not taken for commands, so the session goes on.
    client.expect("NOOP", "250");
    client.expect("MAIL FROM:<a@client.example> SIZE=70000", "552 5.3.4");
    assert!(gateway.process.events("accepted").is_empty());
}

#[test]
fn recipients_beyond_the_limit_are_deferred() {
    let gateway = Site::new().knowing("any").start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    let mut taken = 0;
    for round in 0..20 {
        let line = |number| format!("RCPT TO:<user{round}.{number}@gate.example>\r\n");
        client.send((0..500).map(line).collect::<String>().as_bytes());
        for _ in 0..500 {
            let Ok(reply) = client.try_reply() else {
                // Sent away: that is an answer, too.
                return assert_alive(&gateway);
            };
            // RFC 5321 §4.5.3.1.10: 452, so that the client sends the rest in another transaction.
            match reply.get(..3) {
                Some("250") => taken += 1,
                Some("452" | "421") => {}
                _ => panic!("{reply:?}"),
            }
        }
    }
    // RFC 5321 §4.5.3.1.8: at least 100.
    assert!((100..10_000).contains(&taken), "{taken} were taken");
    assert_alive(&gateway);
}

#[test]
fn too_many_errors_end_the_session() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    for _ in 0..200 {
        match client
            .try_send(b"NONSENSE\r\n")
            .and_then(|()| client.try_reply())
        {
            Ok(reply) if reply.starts_with("421") => return assert_eq!(client.rest(), ""),
            Ok(reply) => assert!(reply.starts_with("500"), "{reply:?}"),
            Err(error) => panic!("hung up without 421: {error}"),
        }
    }
    panic!("200 errors were borne");
}

#[test]
fn a_client_that_says_nothing_is_timed_out() {
    let gateway = Site::new()
        .with("[session]\ncommand_timeout = \"1s\"")
        .start();
    let mut client = Client::hello(gateway.smtp());
    let start = Instant::now();
    let said = client.rest();
    assert!(said.starts_with("421 4.4.2"), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_client_that_sends_a_byte_a_moment_gets_no_more_time_for_it() {
    let gateway = Site::new()
        .with("[session]\ncommand_timeout = \"1s\"")
        .start();
    let mut client = Client::hello(gateway.smtp());
    let start = Instant::now();
    while client.try_send(b"N").is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "it is still listened to"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_message_that_does_not_go_on_is_timed_out_and_not_stored() {
    let gateway = Site::new().with("[session]\ndata_timeout = \"1s\"").start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    client.expect("DATA", "354");
    client.send(mail("a@client.example", "half").as_bytes());
    let said = client.rest();
    assert!(said.starts_with("421 4.4.2"), "{said:?}");
    assert!(gateway.process.events("accepted").is_empty());
}

#[test]
fn a_message_takes_no_longer_than_it_may_however_it_trickles() {
    let gateway = Site::new()
        .with("[session]\nmessage_timeout = \"2s\"")
        .start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    client.expect("DATA", "354");
    let start = Instant::now();
    while client.try_send(b"x\r\n").is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "it is still listened to"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    gateway.process.wait_for("disconnected");
    assert!(gateway.process.events("accepted").is_empty());
}

#[test]
fn a_header_beyond_its_limits_is_refused() {
    let gateway = Gateway::start();
    for header in [
        "X-Field: x\r\n".repeat(20_000),
        format!("X-Long: {}\r\n", "x\r\n ".repeat(500_000)),
    ] {
        let mut client = Client::hello(gateway.smtp());
        let message = header + &mail("a@client.example", "large header");
        let reply = client.deliver("a@client.example", "user@gate.example", &message);
        assert!(reply.starts_with("55"), "{reply:?}");
    }
    assert_alive(&gateway);
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let gateway = Gateway::start();
    for words in [
        "",
        "EHLO client.example\r\n",
        "EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<user@gate.example>\r\n\
         DATA\r\nFrom: <a@client.example>\r\n\r\nhalf a mess",
    ] {
        for _ in 0..50 {
            let mut client = Client::connect(gateway.smtp());
            client.reply();
            let _ = client.try_send(words.as_bytes());
        }
    }
    // RFC 5321 §4.1.1.4: without its end a message is none. Only that of `assert_alive` is there.
    assert_alive(&gateway);
    gateway.process.wait_for("accepted");
    assert_eq!(gateway.process.events("accepted").len(), 1);
}

#[test]
fn rubbish_is_refused_and_never_taken_for_mail() {
    let gateway = Gateway::start();
    let every_byte: Vec<u8> = (0..=255).collect();
    for rubbish in [
        &b"GET / HTTP/1.1\r\nHost: mx.gate.example\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\0\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"\xff\xfe\xfd\r\n",
        &every_byte,
    ] {
        let mut client = Client::connect(gateway.smtp());
        client.reply();
        let _ = client.try_send(rubbish);
        client.finish();
        for line in client.rest().lines() {
            let code = line.get(..1);
            assert!(
                matches!(code, Some("4" | "5")),
                "{rubbish:?} was answered {line:?}"
            );
        }
    }
    assert_alive(&gateway);
}

#[test]
fn commands_between_chunks_do_not_keep_a_message_in_memory() {
    let gateway = Site::new()
        .with("[session]\nmessage_timeout = \"2s\"")
        .start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    client.send(b"BDAT 6\r\nhalf\r\n");
    assert!(client.reply().starts_with("250"));
    let start = Instant::now();
    while client.try_send(b"NOOP\r\n").is_ok() {
        match client.try_reply() {
            Ok(reply) if reply.starts_with("250") => {}
            Ok(reply) => return assert!(reply.starts_with("421 4.4.2"), "{reply:?}"),
            Err(_) => return,
        }
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "the message is still held"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
