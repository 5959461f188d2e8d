//! The part of a report that people read: what happened to whom, in whose words, and what to do.

use std::time::Duration;

use super::dsn::Reader;
use super::dsn::Report;
use super::finding::Finding;
use super::finding::Kind;
use super::status::date;

/// How wide the text is, in characters.
const WIDTH: usize = 76;

/// The text, its lines ended by CRLF.
pub(super) fn text(report: &Report<'_>) -> String {
    let mut text = format!("This is the mail server {}.\r\n\r\n", report.hostname);
    text.push_str(&wrapped(&opening(report), ""));
    for finding in report.findings {
        text.push_str("\r\n");
        text.push_str(&of_recipient(report, finding));
    }
    text.push_str("\r\n");
    text.push_str(&wrapped(&closing(report), ""));
    text
}

fn opening(report: &Report<'_>) -> String {
    let message = match report.reader {
        Reader::Sender => "Your message",
        Reader::Postmaster => {
            "A message without a return address, most often a report like this one,"
        }
    };
    let whom = match report.findings {
        [_] => "this recipient:",
        _ => "these recipients:",
    };
    match report.kind {
        Kind::Failed => format!("{message} could not be delivered to {whom}"),
        Kind::Delayed { .. } => format!("{message} could not yet be delivered to {whom}"),
        Kind::Delivered => format!("{message} was delivered to {whom}"),
        Kind::Relayed => format!("{message} was handed on for {whom}"),
    }
}

fn of_recipient(report: &Report<'_>, finding: &Finding) -> String {
    let recipient = report.envelope.recipients.get(finding.recipient);
    let name = recipient.map(|recipient| recipient.address.to_string());
    let mut text = format!("    <{}>\r\n", name.unwrap_or_default());
    match report.kind {
        Kind::Failed | Kind::Delayed { .. } => {
            text.push_str(&wrapped(&who_says(report.kind, finding), "    "));
            text.push_str(&wrapped(&finding.reply.to_string(), "        "));
            if report.kind == Kind::Failed && report.reader == Reader::Sender {
                text.push_str(&wrapped(advice(finding), "    "));
            }
        }
        Kind::Delivered | Kind::Relayed => {
            if let Some(server) = &finding.remote {
                text.push_str(&format!("    by way of {server}\r\n"));
            }
        }
    }
    text
}

fn who_says(kind: Kind, finding: &Finding) -> String {
    let tried = finding.given_up_after;
    let tried = tried.map(|time| format!("It was tried for {}. ", in_words(time)));
    let says = match (finding.speaker(), kind, &tried) {
        (Some(server), Kind::Failed, None) => format!("{server} refused it:"),
        (Some(server), _, _) => format!("The last answer of {server} was:"),
        (None, _, None) => "This server found:".to_owned(),
        (None, _, Some(_)) => "At last this server found:".to_owned(),
    };
    tried.unwrap_or_default() + &says
}

/// In the largest unit that it is a multiple of.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs().max(1);
    let units = [
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let unit = units
        .into_iter()
        .find(|(length, _)| seconds.is_multiple_of(*length));
    let (length, name) = unit.unwrap_or((1, "second"));
    match seconds / length {
        1 => format!("1 {name}"),
        number => format!("{number} {name}s"),
    }
}

/// What the sender can do, by the status (RFC 3463 §3).
fn advice(finding: &Finding) -> &'static str {
    let (_, subject, detail) = finding.reply.enhanced.unwrap_or((5, 0, 0));
    match (subject, detail) {
        (1, 7 | 8) => "Your own address was refused: check how your mail program is set up.",
        (1, _) => "Check the address for typing errors. If it is right, it may not exist any more.",
        (2, 2) => "The mailbox is full. Send the message again later, or tell the recipient.",
        (2, 3) | (3, 4) => "The message is too large for them. Send it with less attached.",
        (2, _) => "The mailbox takes no mail. Reach the recipient in another way.",
        (4, 6) => "Mail for this address goes in a circle. Their postmaster has to mend that.",
        (3, 0) if finding.speaker().is_none() => "The postmaster of this server can tell why.",
        (5, 3) => "Send the message to fewer recipients at a time.",
        (6, _) => "Their server cannot take a message of this form, or an address in it.",
        (7, _) => {
            "Their rules forbid it. The words above may say why; the recipient or their postmaster can \
             tell more."
        }
        _ if finding.given_up_after.is_some() => {
            "Send the message again later, or reach the recipient in another way."
        }
        _ => "The recipient or their postmaster can tell what these words mean.",
    }
}

fn closing(report: &Report<'_>) -> String {
    let first = match report.kind {
        Kind::Failed => "It will not be tried again.".to_owned(),
        Kind::Delayed { until } => format!(
            "You need not send it again: it will be tried until {}. If that fails, too, you will be told.",
            date(until)
        ),
        Kind::Delivered => "You asked to be told of this.".to_owned(),
        Kind::Relayed => {
            "You asked to be told of its delivery. The server that has it now does not report \
                          on that, so this is the last you hear unless it fails."
                .to_owned()
        }
    };
    format!("{first} Details for mail programs follow, and the message or its header.")
}

/// Lines of at most so many characters, each behind `indent`. A word that is longer stands alone.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            lines.push_str("\r\n");
            width = 0;
        }
        let before = if width == 0 { indent } else { " " };
        lines.push_str(before);
        lines.push_str(word);
        width += before.len() + length;
    }
    lines + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_one_unit() {
        for (seconds, want) in [
            (5 * 86400, "5 days"),
            (36 * 3600, "36 hours"),
            (90, "90 seconds"),
            (60, "1 minute"),
            (0, "1 second"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), want);
        }
    }

    #[test]
    fn lines_are_not_too_long_and_keep_their_words() {
        let text = "some words ".repeat(40) + &"x".repeat(100);
        let lines = wrapped(&text, "    ");
        let short = |line: &str| line.len() <= WIDTH || line.trim() == "x".repeat(100);
        assert!(lines.lines().all(short), "{lines}");
        assert!(lines.split_whitespace().eq(text.split_whitespace()));
    }
}
