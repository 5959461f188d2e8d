//! Honest mail from one address beside a flood from another, against honest mail alone.
//!
//! Loopback is exempt from limits by default. Here it is not, but for the honest client, whose runs
//! follow each other faster than a client may connect in a minute.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use crate::flood::Flood;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::mail;
use crate::mail::Key;
use crate::nameserver::Nameserver;
use crate::sending::CLIENT;
use crate::sending::Connection;
use crate::sending::Sending;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;

const SECTIONS: &str = "
[limits]
exempt = [\"127.0.0.1/32\"]
[session]
transactions = 4000000000
[session.refusals]
exempt = []
[spf]
exempt = []
[dmarc]
exempt = []
";

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let key = Key::make()?;
    let dns = Nameserver::start(Duration::ZERO, key.record())?;
    let sink = Sink::start(setting, Kind::CountingLmtp)?;
    let known = setting.folder("recipients")?.join("known");
    fs::write(&known, "user@gate.example\n")?;
    let config = Config {
        recipients: known.display().to_string(),
        ..Config::new(sink.target(), dns.address, SECTIONS)
    };
    let gateway = Gateway::start(setting, &config)?;
    let honest = Sending {
        connections: 20,
        connection: Connection::Reused,
        messages: setting.options.messages(),
        file: Some(mail::write(
            &setting.folder("signed")?,
            &key.signed(CLIENT)?,
        )?),
    };
    let send = || Ok(honest.rate(honest.run(gateway.smtp, Kind::Smtp)?));
    Flood::ALL
        .into_iter()
        .map(|flood| {
            let mut answers = Vec::new();
            let measured = rounds(setting.options.rounds(), || {
                let alone = send()?;
                let (beside, answered) = flood.beside(gateway.smtp, send)?;
                answers.push(answered);
                Ok((beside, alone))
            })?;
            let against = ("honest mail alone", Bound::AtLeast(0.9));
            let what = format!("beside {}", flood.name());
            let line = Line::new(what, Unit::PerSecond, against, measured);
            let answers: Vec<_> = answers.iter().map(usize::to_string).collect();
            let answers = answers.join(", ");
            Ok(line.note(format!(
                "answers that the flood got, round for round: {answers}"
            )))
        })
        .collect()
}
