//! The four dialogues of the tour, and the part of the DNS that they play in.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::dialogue::Dialogue;
use super::dialogue::Extensions;
use super::narrator;
use super::zone::Zone;
use crate::sign::Signer;

const FRIEND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const FORWARDER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The domains of the tour.
///
/// friend.example says where its mail comes from, signs it, and asks that all else be rejected;
/// bank.example does the same and is what others pose as; strict.example has SPF alone.
pub(super) fn publish(zone: &mut Zone, signer: &Signer) -> anyhow::Result<()> {
    zone.host("mail.friend.example", FRIEND)?;
    zone.host("mail.forwarder.example", FORWARDER)?;
    zone.host("mail.stranger.example", STRANGER)?;
    zone.txt("friend.example", "v=spf1 ip4:192.0.2.10 ip4:127.0.0.1 -all")?;
    zone.txt(signer.dns_name(), &signer.dns_record())?;
    zone.txt("_dmarc.friend.example", "v=DMARC1; p=reject")?;
    zone.txt("bank.example", "v=spf1 ip4:192.0.2.99 -all")?;
    zone.txt("_dmarc.bank.example", "v=DMARC1; p=reject")?;
    zone.txt(
        "strict.example",
        "v=spf1 ip4:192.0.2.98 -all exp=why.strict.example",
    )?;
    zone.txt("why.strict.example", "%{i} is none of our servers")?;
    zone.txt("stranger.example", "v=spf1 ip4:203.0.113.66 -all")
}

/// What the dialogues need.
pub(super) struct Stage<'a> {
    pub(super) gateway: SocketAddr,
    pub(super) mailbox: &'a Path,
    pub(super) signer: &'a Signer,
}

impl Stage<'_> {
    /// Plays all dialogues. An error names the first that did not go as told.
    pub(super) fn play(&self) -> anyhow::Result<()> {
        self.honest().context("scene 1 did not go as told")?;
        self.spf_fail().context("scene 2 did not go as told")?;
        self.forged().context("scene 3 did not go as told")?;
        self.forwarded().context("scene 4 did not go as told")
    }

    fn honest(&self) -> anyhow::Result<()> {
        narrator::title(
            "1. An honest message: SPF, DKIM and DMARC pass, and it lands in a Maildir",
        );
        narrator::says(&format!(
            "   {FRIEND} is the mail server of friend.example."
        ));
        let message = self.signed("Lunch?")?;
        let mut dialogue = Dialogue::open(
            self.gateway,
            FRIEND,
            "mail.friend.example",
            Extensions::Shown,
        )?;
        dialogue.say("MAIL FROM:<alice@friend.example>", "250")?;
        dialogue.say("RCPT TO:<bob@gate.example>", "250 2.1.5")?;
        dialogue.say("DATA", "354")?;
        dialogue.send(&message, "250 2.0.0")?;
        dialogue.say("QUIT", "221")?;
        let delivered = self.delivered("Lunch?")?;
        ensure!(
            delivered.ends_with(&message.replace("\r\n", "\n")),
            "the message was changed on its way"
        );
        narrator::says("   In bob's Maildir now; what the gateway wrote in front of it:");
        for line in delivered
            .lines()
            .take_while(|line| !line.starts_with("DKIM-Signature:"))
        {
            narrator::quote(line);
        }
        for want in ["spf=pass smtp.mailfrom", "dkim=pass", "dmarc=pass"] {
            ensure!(
                delivered.contains(want),
                "{want} is not in the result field"
            );
        }
        Ok(())
    }

    fn spf_fail(&self) -> anyhow::Result<()> {
        narrator::title(
            "2. Not from there: SPF fails, refused at RCPT TO before a byte of the message",
        );
        narrator::says(&format!(
            "   {STRANGER} is none of the servers of strict.example."
        ));
        let mut dialogue = Dialogue::open(
            self.gateway,
            STRANGER,
            "mail.stranger.example",
            Extensions::Skipped,
        )?;
        dialogue.say("MAIL FROM:<office@strict.example>", "250")?;
        dialogue.say("RCPT TO:<bob@gate.example>", "550 5.7.23")?;
        dialogue.say("QUIT", "221")?;
        Ok(())
    }

    fn forged(&self) -> anyhow::Result<()> {
        narrator::title(
            "3. A forged From: the envelope is in order, the letter is not; DMARC rejects at DATA",
        );
        narrator::says(
            "   SPF passes for stranger.example, but the From field says bank.example (p=reject).",
        );
        let mut dialogue = Dialogue::open(
            self.gateway,
            STRANGER,
            "mail.stranger.example",
            Extensions::Skipped,
        )?;
        dialogue.say("MAIL FROM:<bulk@stranger.example>", "250")?;
        dialogue.say("RCPT TO:<bob@gate.example>", "250 2.1.5")?;
        dialogue.say("DATA", "354")?;
        let message = letter("The Bank <service@bank.example>", "Your account");
        let reply = dialogue.send(&message, "550 5.7.1")?;
        ensure!(
            reply.contains("bank.example"),
            "the refusal does not name the domain"
        );
        dialogue.say("QUIT", "221")?;
        Ok(())
    }

    fn forwarded(&self) -> anyhow::Result<()> {
        narrator::title("4. A forward: SPF fails, but the signature holds, and DKIM rescues it");
        narrator::says(&format!(
            "   {FORWARDER} hands on a message of friend.example without touching it."
        ));
        let message = self.signed("Fwd: the plans")?;
        let mut dialogue = Dialogue::open(
            self.gateway,
            FORWARDER,
            "mail.forwarder.example",
            Extensions::Skipped,
        )?;
        dialogue.say("MAIL FROM:<alice@friend.example>", "250")?;
        dialogue.say("RCPT TO:<bob@gate.example>", "250 2.1.5")?;
        dialogue.say("DATA", "354")?;
        dialogue.send(&message, "250 2.0.0")?;
        dialogue.say("QUIT", "221")?;
        let delivered = self.delivered("Fwd: the plans")?;
        for line in delivered.lines().filter(|line| {
            ["spf=", "dkim=", "dmarc="]
                .iter()
                .any(|method| line.contains(method))
        }) {
            narrator::quote(line.trim());
        }
        for want in ["spf=fail smtp.mailfrom", "dkim=pass", "dmarc=pass"] {
            ensure!(
                delivered.contains(want),
                "{want} is not in the result field"
            );
        }
        Ok(())
    }

    fn signed(&self, subject: &str) -> anyhow::Result<String> {
        let message = letter("Alice <alice@friend.example>", subject);
        let signature = self
            .signer
            .sign(message.as_bytes())
            .context("cannot sign")?;
        Ok(format!("{signature}{message}"))
    }

    /// Waits for the message with that subject to appear in bob's Maildir, where lines end with LF.
    fn delivered(&self, subject: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mark = format!("Subject: {subject}\n");
        while Instant::now() < deadline {
            for path in files(&self.mailbox.join("new")) {
                let text = std::fs::read_to_string(&path)?;
                if text.contains(&mark) {
                    return Ok(text);
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "the message {subject:?} did not come to {}",
            self.mailbox.display()
        )
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn letter(from: &str, subject: &str) -> String {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let date = jiff::fmt::rfc2822::to_string(&now).unwrap_or_default();
    format!(
        "From: {from}\r\nTo: Bob <bob@gate.example>\r\nSubject: {subject}\r\nDate: {date}\r\n\
         Message-ID: <{}@demo.example>\r\n\r\nHello Bob.\r\n",
        now.timestamp().as_nanosecond()
    )
}
