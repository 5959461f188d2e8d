//! The reports that senders get, octet for octet as in `tests/golden/reports/`, each read by Python's email
//! package, too. `UPDATE_GOLDEN=1` writes the files anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::envelope::Ret;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;
use gatepost::report::Finding;
use gatepost::report::Kind;
use gatepost::report::dsn;
use gatepost::report::dsn::Reader;
use gatepost::report::dsn::Report;
use gatepost::smtp::client::response::Response;
use serde_json::Value;
use serde_json::json;

use crate::support::process;

/// 24 November 2026, 10:00:00 UTC.
const ARRIVED: u64 = 1_795_514_400;
const HOUR: Duration = Duration::from_secs(3600);
const MESSAGE: &str = "Received: from client.example by mx.gate.example; Tue, 24 Nov 2026 10:00:00 +0000\r\n\
    From: Anna <anna@client.example>\r\nTo: bob@far.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
    Date: Tue, 24 Nov 2026 09:59:00 +0000\r\nMessage-ID: <m2@client.example>\r\n\
    References: <m1@client.example>\r\n\r\nHello Bob.\r\n";

/// What a report is made from.
struct Case {
    kind: Kind,
    reader: Reader,
    envelope: Envelope,
    findings: Vec<Finding>,
    content: String,
    full_up_to: u64,
}

impl Case {
    fn new(kind: Kind, to: &[&str], replies: &[&str]) -> Case {
        let recipient = |text: &&str| Recipient::new(Address::parse(text).unwrap());
        let findings = replies
            .iter()
            .enumerate()
            .map(|(recipient, reply)| Finding {
                recipient,
                reply: reply_of(reply),
                remote: Some("mx1.far.example".to_owned()),
                given_up_after: None,
            });
        Case {
            kind,
            reader: Reader::Sender,
            envelope: Envelope::new(
                ReversePath::parse("<anna@client.example>").unwrap(),
                to.iter().map(recipient).collect(),
            ),
            findings: findings.collect(),
            content: MESSAGE.to_owned(),
            full_up_to: 50 << 10,
        }
    }

    fn write(&self) -> String {
        let from = self.envelope.from.address().cloned();
        let hostname = Domain::parse("mx.gate.example").unwrap();
        let content = dsn::write(&Report {
            id: SpoolId {
                session: SessionId(0x0006_6000_0000_0000),
                serial: 1,
            },
            hostname: &hostname,
            from: &Address::mailer_daemon(&hostname),
            to: &from.unwrap_or_else(|| Address::postmaster(&hostname)),
            reader: self.reader,
            kind: self.kind,
            findings: &self.findings,
            envelope: &self.envelope,
            content: &Content::from(Bytes::from(self.content.clone())),
            arrived: at(Duration::ZERO),
            now: at(HOUR),
            full_up_to: self.full_up_to,
        });
        String::from_utf8(content.to_bytes().to_vec()).unwrap()
    }

    /// Compares the report with its file; gives it as Python reads it, where there is Python.
    #[track_caller]
    fn assert_golden(&self, name: &str) -> Option<Value> {
        let report = self.write();
        assert!(
            report
                .split("\r\n")
                .all(|line| line.len() < 998 && !line.contains(['\r', '\n']))
        );
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reports");
        let file = file.join(name).with_extension("txt");
        let text = report.replace("\r\n", "\n");
        if env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let want = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, want, "\n{}:\n{want}\nnot\n{text}", file.display());
        process::present(&["python3"]).then(|| read_by_python(&report))
    }
}

fn at(after: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(ARRIVED) + after
}

/// What a server said; what begins with a colon we found ourselves.
fn reply_of(text: &str) -> Response {
    match text.strip_prefix(':') {
        Some(text) => Response::ours(451, (4, 4, 1), text),
        None => {
            let line = format!("{text}\r\n");
            Response::read(line.as_bytes()).unwrap().unwrap().0
        }
    }
}

/// The report as JSON: its fields, the types of its parts, its text, the groups of its status.
fn read_by_python(report: &str) -> Value {
    let script = r#"
import email, email.policy, json, sys
policy = email.policy.default.clone(utf8=True)
bytes = sys.stdin.buffer.read()
mail = email.message_from_bytes(bytes, policy=policy)
parts = list(mail.iter_parts())
assert not mail.defects, mail.defects
for part in parts:
    assert not part.defects, part.defects
status = parts[1]
if status.get_content_type() == "message/delivery-status":
    groups = [dict(group.items()) for group in status.get_payload()]
else:
    # The package knows no such type: its part is cut out, each group read as a header.
    part = bytes.split(b"\r\n--" + mail.get_boundary().encode())[2]
    text = part.split(b"\r\n\r\n", 1)[1]
    groups = [dict(email.message_from_bytes(group, policy=policy).items())
              for group in text.strip().split(b"\r\n\r\n")]
last = parts[2]
original = last.get_payload()
if not isinstance(original, str):
    original = original[0].as_string(policy=policy)
json.dump({
    "fields": {name: str(value) for name, value in mail.items()},
    "type": mail.get_content_type(),
    "report-type": mail.get_param("report-type"),
    "parts": [part.get_content_type() for part in parts],
    "text": parts[0].get_content(),
    "groups": [{k: " ".join(str(v).split()) for k, v in group.items()} for group in groups],
    "original": original.encode("utf-8", "surrogateescape").decode(),
}, sys.stdout)
"#;
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    input.write_all(report.as_bytes()).unwrap();
    drop(input);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{report}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn assert_has(read: &Value, want: &Value) {
    for (name, want) in want.as_object().unwrap() {
        assert_eq!(&read[name], want, "{name} in {read:#}");
    }
}

#[test]
fn a_failure_says_who_and_in_whose_words_and_brings_the_message_back() {
    let mut case = Case::new(
        Kind::Failed,
        &["bob@far.example", "carol@far.example", "dave@far.example"],
        &[
            "550 5.1.1 <bob@far.example>: no such user here, and that is said in so many words that they \
             take more than one line",
            "552-5.2.2 The mailbox of carol is full\r\n552 5.2.2 and has been for weeks",
        ],
    );
    case.envelope.envid = Some("QQ+2B314159".to_owned());
    case.envelope.recipients[0].orcpt = Some("rfc822;Bob+2Bx@client.example".to_owned());
    let Some(read) = case.assert_golden("failed") else {
        return;
    };
    assert_has(
        &read["fields"],
        &json!({
            "From": "Mail Delivery System <MAILER-DAEMON@mx.gate.example>",
            "To": "anna@client.example",
            "Subject": "Not delivered: Grüße",
            "Auto-Submitted": "auto-replied",
            "MIME-Version": "1.0",
            "Date": "Tue, 24 Nov 2026 11:00:00 +0000",
            "In-Reply-To": "<m2@client.example>",
            "References": "<m1@client.example> <m2@client.example>",
        }),
    );
    assert_has(
        &read,
        &json!({
            "type": "multipart/report",
            "report-type": "delivery-status",
            "parts": ["text/plain", "message/delivery-status", "message/rfc822"],
            "groups": [
                {
                    "Original-Envelope-Id": "QQ+314159",
                    "Reporting-MTA": "dns; mx.gate.example",
                    "Arrival-Date": "Tue, 24 Nov 2026 10:00:00 +0000",
                },
                {
                    "Original-Recipient": "rfc822; Bob+x@client.example",
                    "Final-Recipient": "rfc822; bob@far.example",
                    "Action": "failed",
                    "Status": "5.1.1",
                    "Remote-MTA": "dns; mx1.far.example",
                    "Diagnostic-Code": "smtp; 550 5.1.1 <bob@far.example>: no such user here, and that \
                                        is said in so many words that they take more than one line",
                    "Last-Attempt-Date": "Tue, 24 Nov 2026 11:00:00 +0000",
                },
                {
                    "Final-Recipient": "rfc822; carol@far.example",
                    "Action": "failed",
                    "Status": "5.2.2",
                    "Remote-MTA": "dns; mx1.far.example",
                    "Diagnostic-Code": "smtp; 552 5.2.2 The mailbox of carol is full and has been for \
                                        weeks",
                    "Last-Attempt-Date": "Tue, 24 Nov 2026 11:00:00 +0000",
                },
            ],
        }),
    );
    let text = read["text"].as_str().unwrap();
    assert!(text.contains("Check the address") && text.contains("The mailbox is full"));
    assert!(!text.contains("dave"), "{text}");
    assert!(read["original"].as_str().unwrap().contains("Hello Bob."));
}

#[test]
fn what_was_given_up_says_for_how_long_it_was_tried() {
    let found = ":cannot connect to any address of mx1.far.example";
    let mut case = Case::new(Kind::Failed, &["bob@far.example"], &[found]);
    case.findings[0].given_up_after = Some(120 * HOUR);
    case.findings[0].remote = None;
    case.envelope.ret = Some(Ret::Headers);
    let Some(read) = case.assert_golden("given_up") else {
        return;
    };
    assert_has(
        &read["groups"][1],
        &json!({
            "Action": "failed",
            "Status": "4.4.7",
            "Remote-MTA": null,
            "Diagnostic-Code": "x-gatepost; cannot connect to any address of mx1.far.example (4.4.1)",
        }),
    );
    assert_eq!(read["parts"][2], "text/rfc822-headers");
    let original = read["original"].as_str().unwrap();
    assert!(original.contains("Subject") && !original.contains("Hello"));
    assert!(
        read["text"]
            .as_str()
            .unwrap()
            .contains("It was tried for 5 days.")
    );
}

#[test]
fn a_delay_says_how_long_it_is_tried() {
    let until = at(120 * HOUR);
    let replies = ["450 4.2.0 <bob@far.example>: greylisted"];
    let case = Case::new(Kind::Delayed { until }, &["bob@far.example"], &replies);
    let Some(read) = case.assert_golden("delayed") else {
        return;
    };
    assert_has(
        &read["groups"][1],
        &json!({
            "Final-Recipient": "rfc822; bob@far.example",
            "Action": "delayed",
            "Status": "4.2.0",
            "Diagnostic-Code": "smtp; 450 4.2.0 <bob@far.example>: greylisted",
            "Will-Retry-Until": "Sun, 29 Nov 2026 10:00:00 +0000",
        }),
    );
    assert_eq!(read["parts"][2], "text/rfc822-headers");
    assert_eq!(read["fields"]["Subject"], "Not delivered yet: Grüße");
}

#[test]
fn a_success_says_whether_it_was_the_last_step() {
    for (kind, action, name) in [
        (Kind::Delivered, "delivered", "delivered"),
        (Kind::Relayed, "relayed", "relayed"),
    ] {
        let mut case = Case::new(kind, &["bob@far.example"], &["250 2.0.0 queued as 17"]);
        // RFC 3461 §4.3: it is about failures.
        case.envelope.ret = Some(Ret::Full);
        let Some(read) = case.assert_golden(name) else {
            continue;
        };
        let want =
            json!({ "Action": action, "Status": "2.0.0", "Remote-MTA": "dns; mx1.far.example" });
        assert_has(&read["groups"][1], &want);
        assert_eq!(read["parts"][2], "text/rfc822-headers");
    }
}

#[test]
fn internationalized_mail_has_internationalized_reports() {
    let mut case = Case::new(
        Kind::Failed,
        &["jörg@far.example"],
        &["550 5.1.1 <jörg@far.example>: kein solches Postfach"],
    );
    case.envelope.smtputf8 = true;
    case.envelope.from = ReversePath::parse("<änna@client.example>").unwrap();
    case.envelope.recipients[0].orcpt = Some("utf-8;j\\x{F6}rg@far.example".to_owned());
    case.content = MESSAGE.replace("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße");
    let Some(read) = case.assert_golden("internationalized") else {
        return;
    };
    assert_has(
        &read,
        &json!({
            "parts": ["text/plain", "message/global-delivery-status", "message/global"],
        }),
    );
    assert_has(
        &read["groups"][1],
        &json!({
            "Original-Recipient": "utf-8; jörg@far.example",
            "Final-Recipient": "utf-8; jörg@far.example",
            "Diagnostic-Code": "smtp; 550 5.1.1 <jörg@far.example>: kein solches Postfach",
        }),
    );
    assert_eq!(read["fields"]["To"], "änna@client.example");
    assert_eq!(read["fields"]["Subject"], "Not delivered: Grüße");
    assert!(read["original"].as_str().unwrap().contains("Hello Bob."));
}

#[test]
fn a_sender_in_ascii_gets_a_report_whose_own_header_is_ascii() {
    let mut case = Case::new(Kind::Failed, &["jörg@far.example"], &["550 5.1.1 no"]);
    case.envelope.smtputf8 = true;
    case.content = MESSAGE.replace("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße");
    let report = case.write();
    let (header, _) = report.split_once("\r\n\r\n").unwrap();
    assert!(header.is_ascii(), "{header}");
    assert!(
        report.contains("Final-Recipient: utf-8; jörg@far.example"),
        "{report}"
    );
}

#[test]
fn a_postmaster_is_told_of_mail_without_a_return_path() {
    let mut case = Case::new(
        Kind::Failed,
        &["bob@far.example"],
        &["550 5.1.1 no such user"],
    );
    case.envelope.from = ReversePath::Null;
    case.reader = Reader::Postmaster;
    let Some(read) = case.assert_golden("double_bounce") else {
        return;
    };
    assert_eq!(read["fields"]["To"], "postmaster@mx.gate.example");
    let text = read["text"].as_str().unwrap();
    assert!(
        text.contains("A message without a return address"),
        "{text}"
    );
}

#[test]
fn a_large_message_comes_back_whole_only_where_it_was_asked_for() {
    let mut case = Case::new(Kind::Failed, &["bob@far.example"], &["550 5.1.1 no"]);
    case.full_up_to = 10;
    for (ret, want) in [
        (None, "text/rfc822-headers"),
        (Some(Ret::Headers), "text/rfc822-headers"),
        (Some(Ret::Full), "message/rfc822"),
    ] {
        case.envelope.ret = ret;
        let report = case.write();
        assert!(
            report.contains(&format!("Content-Type: {want}\r\n")),
            "{ret:?}: {report}"
        );
    }
}

#[test]
fn what_others_wrote_ends_no_part_and_no_field() {
    let mut case = Case::new(
        Kind::Failed,
        &["bob@far.example"],
        &["550-5.1.1 --=_0CC00000000.1\r\n550 5.1.1 Action: delivered"],
    );
    case.envelope.envid = Some("a+0D+0AX-Forged:+20y".to_owned());
    case.content = MESSAGE.replace("Hello Bob.", "--=_0CC00000000.1--\r\n\r\nforged");
    case.content = case
        .content
        .replace("<m2@client.example>", "<m2@\r\n\tclient.example>");
    let report = case.write();
    assert!(!report.contains("X-Forged"), "{report}");
    if process::present(&["python3"]) {
        let read = read_by_python(&report);
        assert_eq!(read["parts"].as_array().unwrap().len(), 3);
        assert_eq!(read["groups"][1]["Action"], "failed");
        assert!(read["original"].as_str().unwrap().contains("forged"));
    }
}
