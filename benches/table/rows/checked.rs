//! SPF, DKIM and DMARC on mail signed with RSA of 2048 bits, one message a connection over 20
//! connections, delivered by LMTP: against Postfix with policyd-spf, OpenDKIM and OpenDMARC.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::classic::Classic;
use crate::classic::Unbound;
use crate::client::Client;
use crate::client::HONEST;
use crate::gateway::CHECKED;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::mail;
use crate::mail::Key;
use crate::sending::CLIENT;
use crate::sending::Connection;
use crate::sending::RECIPIENT;
use crate::sending::SENDER;
use crate::sending::SIZE;
use crate::sending::Sending;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;
use crate::wait::LONG;

/// What one server made of one sending.
struct Figures {
    delivered: f64,
    /// Messages a second of processor time.
    economy: f64,
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let key = Key::make()?;
    let dns = Unbound::start(setting, key.record())?;
    let sinks = [
        Sink::start(setting, Kind::CountingLmtp)?,
        Sink::start(setting, Kind::CountingLmtp)?,
    ];
    let classic = Classic::start(setting, &sinks[1], &dns)?;
    let config = Config::new(sinks[0].target(), dns.address, CHECKED);
    let gateway = Gateway::start(setting, &config)?;
    for (server, name) in [
        (gateway.smtp, "gatepost"),
        (classic.postfix.address, "postfix"),
    ] {
        refuses_forged_mail(server).with_context(|| format!("{name} checks nothing"))?;
    }
    let file = mail::write(&setting.folder("signed")?, &key.signed(CLIENT)?)?;
    let many = setting.options.messages();
    let measured = rounds(setting.options.rounds(), || {
        let theirs = sending(&file, many / 5);
        let theirs = send(&theirs, classic.postfix.address, &sinks[1], || {
            classic.cpu()
        })?;
        let ours = sending(&file, many);
        Ok((
            send(&ours, gateway.smtp, &sinks[0], || gateway.cpu())?,
            theirs,
        ))
    })?;
    let pairs = || measured.iter();
    let classic = "Postfix, SPF, OpenDKIM, OpenDMARC";
    Ok(vec![
        Line::new(
            "SPF, DKIM, DMARC",
            Unit::PerCpuSecond,
            (classic, Bound::AtLeast(15.0)),
            pairs().map(|(ours, theirs)| (ours.economy, theirs.economy)),
        ),
        Line::new(
            "CPU a message",
            Unit::Milliseconds,
            ("0.6 ms", Bound::AtMost(1.0)),
            pairs().map(|(ours, _)| (1e3 / ours.economy, 0.6)),
        ),
        Line::new(
            "delivered",
            Unit::PerSecond,
            (classic, Bound::AtLeast(12.0)),
            pairs().map(|(ours, theirs)| (ours.delivered, theirs.delivered)),
        ),
    ])
}

fn sending(file: &Path, messages: usize) -> Sending {
    Sending {
        connections: 20,
        connection: Connection::PerMessage,
        messages,
        file: Some(file.to_owned()),
    }
}

fn send(
    sending: &Sending,
    server: SocketAddr,
    sink: &Sink,
    cpu: impl Fn() -> Result<Duration>,
) -> Result<Figures> {
    let (before, cpu_before) = (sink.count()?, cpu()?);
    let began = Instant::now();
    sending.run(server, Kind::Smtp)?;
    let all_there = sink.wait_for(before + sending.messages as u64, LONG)?;
    let cpu = cpu()? - cpu_before;
    Ok(Figures {
        delivered: sending.rate(all_there - began),
        economy: sending.rate(cpu),
    })
}

/// A server that takes this message would win for doing nothing.
fn refuses_forged_mail(server: SocketAddr) -> Result<()> {
    let mut client = Client::hello(server, HONEST, CLIENT)?;
    client.begin(SENDER, RECIPIENT)?;
    let forged = mail::message(mail::STRICT, SIZE);
    client.send(forged.as_bytes())?;
    let answer = client.say(".")?;
    if answer != 550 {
        bail!("forged mail was answered {answer}");
    }
    Ok(())
}
