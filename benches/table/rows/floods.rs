//! Floods that are refused, against smtp-sink in the same dialogue: refusing is the cheapest path.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use crate::flood::Flood;
use crate::gateway::CHECKED;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::nameserver::Nameserver;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let sink = Sink::start(setting, Kind::Smtp)?;
    let known = setting.folder("recipients")?.join("known");
    fs::write(&known, "user@gate.example\n")?;
    let config = Config {
        recipients: known.display().to_string(),
        ..Config::new(sink.target(), dns.address, CHECKED)
    };
    let gateway = Gateway::start(setting, &config)?;
    let count = 2 * setting.options.messages();
    Flood::ALL
        .into_iter()
        .map(|flood| {
            let measured = rounds(setting.options.rounds(), || {
                let theirs = flood.rate(sink.address, count, 250)?;
                Ok((flood.rate(gateway.smtp, count, 550)?, theirs))
            })?;
            let bound = match flood {
                Flood::Forged => Bound::AtLeast(0.5),
                Flood::UnknownRecipient => Bound::AtLeast(0.7),
            };
            let against = ("smtp-sink", bound);
            Ok(Line::new(flood.name(), Unit::PerSecond, against, measured))
        })
        .collect()
}
