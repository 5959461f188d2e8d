//! Accepted and durable: against a bare Postfix, and against the smaller of what smtp-sink takes from
//! the same sending and what the log alone can do. Once with delivery meanwhile, once with the next
//! hop away, which is intake alone.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::gateway::UNCHECKED;
use crate::log_alone;
use crate::nameserver::Nameserver;
use crate::postfix::Additions;
use crate::postfix::Postfix;
use crate::process;
use crate::sending::Connection;
use crate::sending::Sending;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Series;
use crate::table::Unit;
use crate::wait;
use crate::wait::LONG;

/// What one server made of one sending.
struct Figures {
    accepted: f64,
    /// A second, until the last was at the sink; none where the next hop is away.
    delivered: f64,
    /// Milliseconds of processor time a message.
    cpu: f64,
}

struct Round {
    ours: Figures,
    away: f64,
    /// None where there is no Postfix.
    postfix: Option<Figures>,
    sink: f64,
    log: f64,
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for connections in [1, 16, 128] {
        lines.extend(at(setting, connections)?);
    }
    Ok(lines)
}

fn at(setting: &Setting, connections: usize) -> Result<Vec<Line>> {
    let all = setting.options.messages();
    let sending = Sending {
        connections,
        connection: Connection::Reused,
        messages: if connections == 1 { all / 5 } else { all },
        file: None,
    };
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let alone = Sink::start(setting, Kind::Smtp)?;
    let sinks = [
        Sink::start(setting, Kind::CountingLmtp)?,
        Sink::start(setting, Kind::CountingLmtp)?,
    ];
    let config = |deliver| Config::new(deliver, dns.address, UNCHECKED);
    let gateway = Gateway::start(setting, &config(sinks[0].target()))?;
    let nowhere = format!("lmtp:{}", wait::free_address()?);
    let away = Gateway::start(setting, &config(nowhere))?;
    let postfix = Postfix::start(setting, &sinks[1], &Additions::default());
    let measured = rounds(setting.options.rounds(), || {
        let postfix = match &postfix {
            Ok(postfix) => {
                let cpu = || process::cpu(&[postfix.pid()]);
                Some(send(&sending, postfix.address, &sinks[1], cpu)?)
            }
            Err(_) => None,
        };
        Ok(Round {
            postfix,
            ours: send(&sending, gateway.smtp, &sinks[0], || gateway.cpu())?,
            away: sending.rate(sending.run(away.smtp, Kind::Smtp)?),
            sink: sending.rate(sending.run(alone.address, Kind::Smtp)?),
            log: log_alone::rate(setting, connections, sending.messages)?,
        })
    })?;
    let missing = postfix.err().map(|error| format!("{error:#}"));
    Ok(lines(connections, &measured, missing))
}

fn send(
    sending: &Sending,
    server: std::net::SocketAddr,
    sink: &Sink,
    cpu: impl Fn() -> Result<Duration>,
) -> Result<Figures> {
    let (before, cpu_before) = (sink.count()?, cpu()?);
    let began = Instant::now();
    let took = sending.run(server, Kind::Smtp)?;
    let all_there = sink.wait_for(before + sending.messages as u64, LONG)?;
    let cpu = cpu()? - cpu_before;
    Ok(Figures {
        accepted: sending.rate(took),
        delivered: sending.rate(all_there - began),
        cpu: cpu.as_secs_f64() * 1e3 / sending.messages as f64,
    })
}

fn lines(connections: usize, rounds: &[Round], missing: Option<String>) -> Vec<Line> {
    let mut lines = Vec::new();
    let what = match connections {
        1 => "1 connection".to_owned(),
        _ => format!("{connections} connections"),
    };
    let pairs: Vec<_> = rounds
        .iter()
        .filter_map(|round| Some((&round.ours, round.postfix.as_ref()?)))
        .collect();
    if let Some(missing) = missing {
        let none = Line::new(&*what, Unit::PerSecond, ("bare Postfix", Bound::None), []);
        lines.push(none.note(format!("Postfix did not run: {missing}")));
    } else {
        let bound = match connections {
            1 => Bound::None,
            _ => Bound::AtLeast(5.0),
        };
        let rates = pairs.iter().map(|(a, b)| (a.accepted, b.accepted));
        let line = Line::new(&*what, Unit::PerSecond, ("bare Postfix", bound), rates);
        let ours = described(pairs.iter().map(|(ours, _)| *ours));
        let theirs = described(pairs.iter().map(|(_, theirs)| *theirs));
        lines.push(line.note(format!("ours {ours}; Postfix {theirs}")));
    }
    if connections == 16 {
        let rates = rounds.iter().map(|round| (round.ours.accepted, 5000.0));
        let bound = ("5,000 a second", Bound::AtLeast(1.0));
        lines.push(Line::new(&*what, Unit::PerSecond, bound, rates));
    }
    let least = |round: &Round| round.sink.min(round.log);
    let bound = || ("smtp-sink or log, the slower", Bound::AtLeast(0.6));
    let alone = format!(
        "smtp-sink {}, the log {}",
        median(rounds.iter().map(|round| round.sink)),
        median(rounds.iter().map(|round| round.log)),
    );
    let rates = rounds
        .iter()
        .map(|round| (round.ours.accepted, least(round)));
    lines.push(Line::new(&*what, Unit::PerSecond, bound(), rates).note(alone));
    let rates = rounds.iter().map(|round| (round.away, least(round)));
    let what = format!("{what}, next hop away");
    lines.push(Line::new(what, Unit::PerSecond, bound(), rates));
    lines
}

fn median(rates: impl Iterator<Item = f64>) -> String {
    Unit::PerSecond.show(Series::of(rates).median())
}

fn described<'a>(figures: impl Iterator<Item = &'a Figures> + Clone) -> String {
    let delivered = median(figures.clone().map(|figures| figures.delivered));
    let cpu = Series::of(figures.map(|figures| figures.cpu)).median();
    format!(
        "{delivered} delivered, {} CPU a message",
        Unit::Milliseconds.show(cpu)
    )
}
