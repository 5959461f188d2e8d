//! No end of data but CRLF.CRLF: a second message cannot be smuggled through us.
//!
//! Each variant ends the data for some server of the world. What follows it in the same stream would
//! be taken for commands by one who believed it (RFC 5321 §2.3.8, §4.1.1.4).

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::mails::mail;

/// Everything that some server takes, or took, for the end of data.
const VARIANTS: &[&str] = &[
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r\n.\r",
    "\r.\r\n",
    "\n.\r",
    "\r.\n",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\r\n.\r\r\n",
    "\r\n.\n\r\n",
    "\r\n..\r\n",
    "\r\n. \r\n",
    "\r\r\n.\r\n",
    "\r\n\r.\r\n",
    "\n\n.\r\n\r\n",
];

/// The variants with a CR or LF that stands alone, which ends the session.
fn has_bare_line_end(variant: &str) -> bool {
    let rest = variant.replace("\r\n", "");
    rest.contains('\r') || rest.contains('\n')
}

fn smuggled() -> String {
    let evil = mail("evil@client.example", "smuggled");
    format!(
        "MAIL FROM:<evil@client.example>\r\nRCPT TO:<second@gate.example>\r\nDATA\r\n{evil}.\r\n"
    )
}

#[test]
fn nothing_behind_a_false_end_of_data_is_taken_for_a_command() {
    let gateway = Gateway::start();
    for variant in VARIANTS {
        let mut client = Client::hello(gateway.smtp());
        client.expect("MAIL FROM:<good@client.example>", "250");
        client.expect("RCPT TO:<user@gate.example>", "250");
        client.expect("DATA", "354");
        let good = mail("good@client.example", "good");
        let good = good.trim_end();
        let _ = client.try_send(format!("{good}{variant}{}QUIT\r\n", smuggled()).as_bytes());
        let said = client.rest();
        let replies: Vec<_> = said.lines().collect();
        if has_bare_line_end(variant) {
            assert!(said.starts_with('5'), "{variant:?} was answered {said:?}");
            assert_eq!(
                replies.len(),
                1,
                "{variant:?}: commands were answered: {said:?}"
            );
        } else {
            // The true end is the smuggled message's; then comes QUIT.
            assert_eq!(replies.len(), 2, "{variant:?} was answered {said:?}");
        }
    }
    let smuggled: Vec<_> = gateway
        .process
        .events("accepted")
        .into_iter()
        .filter(|event| event["from"].to_string().contains("evil"))
        .collect();
    assert!(smuggled.is_empty(), "{smuggled:?}");
    assert!(gateway.site.mailbox("second").messages().is_empty());
}

#[test]
fn a_message_behind_a_refused_data_is_not_taken_for_commands() {
    let gateway = Gateway::start();
    for (recipient, code) in [("user@elsewhere.example", "554"), ("", "503")] {
        let mut client = Client::hello(gateway.smtp());
        client.expect("MAIL FROM:<good@client.example>", "250");
        if !recipient.is_empty() {
            client.expect(&format!("RCPT TO:<{recipient}>"), "550");
        }
        client.send(format!("DATA\r\nRSET\r\n{}", smuggled()).as_bytes());
        let said = client.rest();
        assert!(said.starts_with(code), "{said:?}");
        assert_eq!(said.lines().count(), 1, "commands were answered: {said:?}");
    }
    assert!(gateway.process.events("accepted").is_empty());
}

#[test]
fn bdat_carries_line_ends_that_stand_alone_nowhere() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<good@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    let message = mail("good@client.example", "bdat").replace("Hello.", "Hello.\n.\nRSET");
    client.send(format!("BDAT {} LAST\r\n{message}", message.len()).as_bytes());
    let reply = client.reply();
    assert!(reply.starts_with('5'), "{reply:?}");
    assert!(gateway.process.events("accepted").is_empty());
}

#[test]
fn dots_at_line_starts_come_out_as_they_went_in() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    let body = ".\r\n..\r\n.dot\r\nend.\r\n";
    let message = mail("a@client.example", "dots").replace("Hello.\r\n", body);
    client.hand_over("a@client.example", "user@gate.example", &message);
    let got = gateway.site.mailbox("user").first().replace('\n', "\r\n");
    let got = got.replace("\r\r", "\r");
    assert!(got.ends_with(&message), "{got}");
}
