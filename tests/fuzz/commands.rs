//! Command lines: what one says fits its limits, and said anew it says the same.

use std::mem::discriminant;

use super::replies::assert_well_formed;
use super::run;
use crate::mail::envelope::Body;
use crate::mail::envelope::Notify;
use crate::mail::envelope::Ret;
use crate::smtp::command;
use crate::smtp::command::Command;
use crate::smtp::command::Mail;
use crate::smtp::command::Rcpt;
use crate::smtp::line;
use crate::smtp::line::Line;

#[test]
fn a_command_is_read_within_its_limits_and_as_it_would_be_said_again() {
    run("commands", |input| match command::parse(input) {
        Ok(command) => {
            check(&command);
            (Some(discriminant(&command)), parameters(&command), 0)
        }
        Err(reply) => {
            assert!(reply.is_refusal());
            assert_well_formed(&reply);
            (None, 0, reply.code)
        }
    });
}

fn check(command: &Command) {
    let again = match command {
        Command::Mail(mail) => {
            assert!(mail.envid.as_ref().is_none_or(|envid| envid.len() <= 100));
            said_mail(mail)
        }
        Command::Rcpt(rcpt) => {
            assert!(rcpt.orcpt.as_ref().is_none_or(|orcpt| orcpt.len() <= 500));
            said_rcpt(rcpt)
        }
        Command::Ehlo(hello) | Command::Helo(hello) => {
            assert!((1..=255).contains(&hello.text.len()));
            assert!(hello.text.bytes().all(|octet| octet.is_ascii_graphic()));
            return;
        }
        Command::Auth(auth) => {
            assert!(!auth.mechanism.contains(' '));
            return;
        }
        Command::Bdat { .. }
        | Command::Data
        | Command::StartTls
        | Command::Rset
        | Command::Noop
        | Command::Quit
        | Command::Vrfy
        | Command::Expn
        | Command::Help => return,
    };
    assert!(!again.contains(char::is_control), "{again:?}");
    assert_eq!(command::parse(again.as_bytes()).as_ref(), Ok(command));
}

fn said_mail(mail: &Mail) -> String {
    let mut line = format!("MAIL FROM:{}", mail.from);
    if let Some(size) = mail.size {
        line.push_str(&format!(" SIZE={size}"));
    }
    if mail.body == Body::EightBitMime {
        line.push_str(" BODY=8BITMIME");
    }
    if mail.smtputf8 {
        line.push_str(" SMTPUTF8");
    }
    match mail.ret {
        Some(Ret::Full) => line.push_str(" RET=FULL"),
        Some(Ret::Headers) => line.push_str(" RET=HDRS"),
        None => {}
    }
    if let Some(envid) = &mail.envid {
        line.push_str(&format!(" ENVID={envid}"));
    }
    line
}

fn said_rcpt(rcpt: &Rcpt) -> String {
    let mut line = format!("RCPT TO:{}", rcpt.to);
    match rcpt.notify {
        Notify::Unsaid => {}
        Notify::Never => line.push_str(" NOTIFY=NEVER"),
        Notify::On {
            success,
            failure,
            delay,
        } => {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let words = words.iter().filter(|(is_wanted, _)| *is_wanted);
            let words: Vec<_> = words.map(|(_, word)| *word).collect();
            line.push_str(&format!(" NOTIFY={}", words.join(",")));
        }
    }
    if let Some(orcpt) = &rcpt.orcpt {
        line.push_str(&format!(" ORCPT={orcpt}"));
    }
    line
}

fn parameters(command: &Command) -> usize {
    match command {
        Command::Mail(mail) => said_mail(mail).matches('=').count(),
        Command::Rcpt(rcpt) => said_rcpt(rcpt).matches('=').count(),
        _ => 0,
    }
}

#[test]
fn where_a_line_ends_does_not_depend_on_how_much_has_come() {
    run("lines", |input| {
        let whole = line::first(input, line::LIMIT);
        for come in (0..input.len()).step_by(1 + input.len() / 64) {
            let part = line::first(&input[..come], line::LIMIT);
            assert!(part.is_none() || part == whole, "{part:?} at {come}");
        }
        match whole {
            Some(Line::Whole(length)) => {
                let line = &input[..length];
                assert!(input[length..].starts_with(b"\r\n") && !line.contains(&b'\n'));
                assert!(length + 2 <= line::LIMIT);
                0
            }
            Some(Line::BareNewline) => 1,
            Some(Line::TooLong) => 2,
            None => {
                assert!(input.len() < line::LIMIT);
                3
            }
        }
    });
}
