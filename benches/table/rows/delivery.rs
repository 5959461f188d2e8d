//! A hundred thousand due messages, delivered to an LMTP sink after a start: from the first to the last
//! at the sink, against smtp-source speaking LMTP to such a sink.

use std::time::Duration;

use anyhow::Result;

use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::gateway::UNCHECKED;
use crate::nameserver::Nameserver;
use crate::sending::Connection;
use crate::sending::Sending;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;
use crate::wait;
use crate::wait::LONG;

/// What waits is due again a second later.
pub(super) const QUEUE: &str = "
[queue]
retry_first = \"1s\"
retry_factor = 1.0
retry_max = \"1s\"
jitter = 0.0
pause_first = \"1s\"
pause_max = \"1s\"
";

/// As many connections as the gateway makes to one destination.
const CONNECTIONS: usize = 20;

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let fill = Sending {
        connections: 128,
        connection: Connection::Reused,
        messages: setting.options.number(100_000),
        file: None,
    };
    let alone = Sending {
        connections: CONNECTIONS,
        messages: fill.messages / 5,
        ..fill.clone()
    };
    let other = Sink::start(setting, Kind::CountingLmtp)?;
    let measured = rounds(setting.options.few_rounds(), || {
        let ours = deliver(setting, &dns, &fill)?;
        let theirs = alone.rate(alone.run(other.address, Kind::CountingLmtp)?);
        Ok((ours, theirs))
    })?;
    let what = format!("{} due messages", fill.messages);
    let against = ("smtp-source to smtp-sink", Bound::AtLeast(0.5));
    Ok(vec![Line::new(what, Unit::PerSecond, against, measured)])
}

/// Messages a second.
fn deliver(setting: &Setting, dns: &Nameserver, fill: &Sending) -> Result<f64> {
    let next_hop = wait::free_address()?;
    let config = Config::new(
        format!("lmtp:{next_hop}"),
        dns.address,
        &format!("{UNCHECKED}{QUEUE}"),
    );
    let mut gateway = Gateway::start(setting, &config)?;
    fill.run(gateway.smtp, Kind::Smtp)?;
    gateway.stop();
    wait::pause(Duration::from_secs(2))?;
    let sink = Sink::start_at(setting, Kind::CountingLmtp, next_hop)?;
    gateway.restart()?;
    let first = sink.wait_for(1, LONG)?;
    let last = sink.wait_for(fill.messages as u64, LONG)?;
    Ok((fill.messages - 1) as f64 / (last - first).as_secs_f64())
}
