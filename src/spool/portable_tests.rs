//! The files of an export, written and read.

use super::*;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

fn read(json: &str, message: &[u8]) -> Result<Portable, String> {
    let now = crate::spool::record::time(5_000_000);
    Portable::read(json.as_bytes(), message, now)
}

fn full() -> Portable {
    let mut envelope = read(r#"{"from": "a@x.example", "recipients": []}"#, MESSAGE);
    assert!(envelope.is_err());
    envelope = read(
        r#"{"from": "a@x.example", "recipients": ["b@y.example", "c@y.example", "d@y.example", "e@y.example"]}"#,
        MESSAGE,
    );
    let mut full = envelope.unwrap();
    full.id = Some("01JDQ4T9X2K.3".parse().unwrap());
    full.envelope.recipients[0].notify = Notify::Never;
    full.envelope.recipients[1].notify = Notify::On {
        success: true,
        failure: false,
        delay: true,
    };
    full.envelope.recipients[2].orcpt = Some("rfc822;d+40y.example".to_owned());
    full.envelope.ret = Some(Ret::Headers);
    full.envelope.envid = Some("QQ+3D1".to_owned());
    full.envelope.client = Some("2001:db8::1".parse().unwrap());
    full.arrived = 1_764_000_000_123_456;
    full.state = State {
        due: 1_764_000_900_000_001,
        attempts: 3,
        held: Some("why \"not\"".to_owned()),
        marked: vec![1, 2, 3],
    };
    full.marks = [
        (1, Mark::Delivered),
        (3, Mark::Failed("550 no such user".to_owned())),
    ]
    .into();
    full
}

#[test]
fn what_was_written_is_read_as_it_was() {
    let full = full();
    let text = full.write(MESSAGE.len(), crc32c::crc32c(MESSAGE)).unwrap();
    assert_eq!(read(&text, MESSAGE), Ok(full), "{text}");
}

#[test]
fn sender_and_recipients_are_enough() {
    let minimal = read(
        r#"{"from": "", "recipients": ["jürgen@y.example"]}"#,
        "Subject: ü\r\n\r\n".as_bytes(),
    );
    let minimal = minimal.unwrap();
    assert_eq!(minimal.envelope.from, ReversePath::Null);
    assert_eq!(minimal.envelope.body, Body::EightBitMime);
    assert!(minimal.envelope.smtputf8);
    assert_eq!((minimal.arrived, minimal.state.due), (5_000_000, 5_000_000));
    assert_eq!(minimal.state.attempts, 0);
}

#[test]
fn each_fault_says_what_is_wrong() {
    let with = |more: &str| format!(r#"{{"from": "", "recipients": ["b@y.example"]{more}}}"#);
    for (json, message, want) in [
        (with(r#", "hold": "x""#), MESSAGE, "unknown field `hold`"),
        (with(r#", "version": 2"#), MESSAGE, "version 2 is not known here"),
        (with(r#", "size": 3"#), MESSAGE, "`size` says 3"),
        (with(r#", "crc32c": "00000000""#), MESSAGE, "`crc32c` differs"),
        (with(r#", "due": "soon""#), MESSAGE, "`due` is not a time"),
        (with(r#", "due": "1960-01-01T00:00:00Z""#), MESSAGE, "`due` is not a time"),
        (with(""), b"A: 1\r\nB: 2\n\r\n", "line 2 of the message"),
        (with(""), b"A: 1\r\n\r\n\rx", "line 3 of the message"),
        (with(""), b"", "the message is empty"),
        ("{".to_owned(), MESSAGE, "EOF"),
        (r#"{"from": "x", "recipients": ["b@y.example"]}"#.to_owned(), MESSAGE, "`from` is not an address, because it has no @"),
        (r#"{"from": "", "recipients": ["b@y.example", "c"]}"#.to_owned(), MESSAGE, "recipient 2: not an address"),
        (r#"{"from": "", "recipients": [{"adress": "c"}]}"#.to_owned(), MESSAGE, "recipient 1: unknown field `adress`"),
        (r#"{"from": "", "recipients": [{"address": "b@y.example", "state": "delivered"}]}"#.to_owned(), MESSAGE, "no recipient left"),
        (r#"{"from": "", "recipients": [{"address": "b@y.example", "notify": ["never", "delay"]}]}"#.to_owned(), MESSAGE, "\"never\" beside others"),
    ] {
        let fault = read(&json, message).unwrap_err();
        assert!(fault.contains(want), "{json}: {fault}");
    }
}
