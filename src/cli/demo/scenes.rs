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

/// A host elsewhere that a client of the tour poses as.
struct Client {
    address: Ipv4Addr,
    name: &'static str,
}

const FRIEND: Client = Client {
    address: Ipv4Addr::new(192, 0, 2, 10),
    name: "mail.friend.example",
};
const FORWARDER: Client = Client {
    address: Ipv4Addr::new(198, 51, 100, 20),
    name: "mail.forwarder.example",
};
const STRANGER: Client = Client {
    address: Ipv4Addr::new(203, 0, 113, 66),
    name: "mail.stranger.example",
};

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The domains of the tour.
///
/// friend.example says where its mail comes from, signs it, and asks that all else be rejected;
/// bank.example does the same and is what others pose as; strict.example has SPF alone.
pub(super) fn publish(zone: &mut Zone, signer: &Signer) -> anyhow::Result<()> {
    for client in [&FRIEND, &FORWARDER, &STRANGER] {
        zone.host(client.name, client.address)?;
    }
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
        narrator::says("   192.0.2.10 is the mail server of friend.example.");
        let message = self.signed("Lunch?")?;
        let dialogue = self.open(&FRIEND, Extensions::Shown)?;
        submit(dialogue, "alice@friend.example", &message, "250 2.0.0")?;
        let delivered = self.delivered("Lunch?")?;
        ensure!(
            delivered.ends_with(&message.replace("\r\n", "\n")),
            "the message was changed on its way"
        );
        narrator::says("   In bob's Maildir now; what the gateway wrote in front of it:");
        let is_ours = |line: &&str| !line.starts_with("DKIM-Signature:");
        delivered
            .lines()
            .take_while(is_ours)
            .for_each(narrator::quote);
        results_say(
            &delivered,
            &["spf=pass smtp.mailfrom", "dkim=pass", "dmarc=pass"],
        )
    }

    fn spf_fail(&self) -> anyhow::Result<()> {
        narrator::title(
            "2. Not from there: SPF fails, refused at RCPT TO before a byte of the message",
        );
        narrator::says("   203.0.113.66 is none of the servers of strict.example.");
        let mut dialogue = self.open(&STRANGER, Extensions::Skipped)?;
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
        let message = letter("The Bank <service@bank.example>", "Your account");
        let dialogue = self.open(&STRANGER, Extensions::Skipped)?;
        let reply = submit(dialogue, "bulk@stranger.example", &message, "550 5.7.1")?;
        ensure!(
            reply.contains("bank.example"),
            "the refusal does not name the domain"
        );
        Ok(())
    }

    fn forwarded(&self) -> anyhow::Result<()> {
        narrator::title("4. A forward: SPF fails, but the signature holds, and DKIM rescues it");
        narrator::says(
            "   198.51.100.20 hands on a message of friend.example without touching it.",
        );
        let message = self.signed("Fwd: the plans")?;
        let dialogue = self.open(&FORWARDER, Extensions::Skipped)?;
        submit(dialogue, "alice@friend.example", &message, "250 2.0.0")?;
        let delivered = self.delivered("Fwd: the plans")?;
        let is_result = |line: &&str| {
            let methods = ["spf=", "dkim=", "dmarc="];
            methods.iter().any(|method| line.contains(method))
        };
        let results = delivered.lines().filter(is_result).map(str::trim);
        results.for_each(narrator::quote);
        results_say(
            &delivered,
            &["spf=fail smtp.mailfrom", "dkim=pass", "dmarc=pass"],
        )
    }

    fn open(&self, client: &Client, extensions: Extensions) -> anyhow::Result<Dialogue> {
        Dialogue::open(self.gateway, client.address, client.name, extensions)
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

/// Sends a message to bob; the reply to it has to begin with `want`.
fn submit(mut dialogue: Dialogue, from: &str, message: &str, want: &str) -> anyhow::Result<String> {
    dialogue.say(&format!("MAIL FROM:<{from}>"), "250")?;
    dialogue.say("RCPT TO:<bob@gate.example>", "250 2.1.5")?;
    dialogue.say("DATA", "354")?;
    let reply = dialogue.send(message, want)?;
    dialogue.say("QUIT", "221")?;
    Ok(reply)
}

fn results_say(delivered: &str, wants: &[&str]) -> anyhow::Result<()> {
    for want in wants {
        ensure!(
            delivered.contains(want),
            "{want} is not in the result field"
        );
    }
    Ok(())
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
