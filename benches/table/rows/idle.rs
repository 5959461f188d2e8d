//! Memory of ten thousand sessions that wait, after EHLO and after RCPT TO, plain and with TLS: that of
//! the gateway before and after, divided by their number. What the kernel holds is not counted.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::client::Client;
use crate::client::HONEST;
use crate::client::Trust;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::gateway::UNCHECKED;
use crate::nameserver::Nameserver;
use crate::sending::CLIENT;
use crate::sending::RECIPIENT;
use crate::sending::SENDER;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;
use crate::wait;

/// Until sessions have put away what they needed for their last command.
const SETTLED: Duration = Duration::from_secs(3);

/// KiB of each session after EHLO and after RCPT.
type Sizes = (f64, f64);

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let (trust, certificate) = Trust::make(&setting.folder("certificate")?)?;
    let mut lines = Vec::new();
    for (name, tls, most) in [("plain", None, 4.0), ("TLS", Some(&trust), 16.0)] {
        let sizes = rounds(setting.options.few_rounds(), || {
            measure(setting, &certificate.section(), tls)
        })?;
        let line = |when, size: fn(&Sizes) -> f64| {
            let figures = sizes.iter().map(|sizes| (size(sizes), most));
            let against = (format!("{most} KiB"), Bound::AtMost(1.0));
            Line::new(
                format!("after {when}, {name}"),
                Unit::Kibibytes,
                against,
                figures,
            )
        };
        lines.push(line("EHLO", |(hello, _)| *hello));
        lines.push(line("RCPT", |(_, recipient)| *recipient));
    }
    Ok(lines)
}

fn measure(setting: &Setting, certificate: &str, tls: Option<&Trust>) -> Result<Sizes> {
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let config = Config {
        tls: "starttls",
        ..Config::new(
            format!("lmtp:{}", wait::free_address()?),
            dns.address,
            &format!("{UNCHECKED}{certificate}"),
        )
    };
    let gateway = Gateway::start(setting, &config)?;
    let connect = || {
        let client = Client::hello(gateway.smtp, HONEST, CLIENT)?;
        match tls {
            None => Ok(client),
            Some(trust) => client.start_tls(trust, CLIENT),
        }
    };
    // What the first of all sessions needs once stays out of it.
    drop(connect()?);
    wait::pause(SETTLED)?;
    let before = gateway.anonymous_memory()?;
    let count = setting.options.number(10_000);
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        if wait::is_stopped() {
            bail!("stopped");
        }
        clients.push(connect().with_context(|| format!("session {number}"))?);
    }
    let each = || -> Result<f64> {
        wait::pause(SETTLED)?;
        Ok((gateway.anonymous_memory()? - before) / count as f64 / 1024.0)
    };
    let hello = each()?;
    for client in &mut clients {
        client.expect(&format!("MAIL FROM:<{SENDER}>"), 250)?;
        client.expect(&format!("RCPT TO:<{RECIPIENT}>"), 250)?;
    }
    let recipient = each()?;
    // All are still there: nobody was hung up on to save memory.
    for client in &mut clients {
        client.expect("NOOP", 250)?;
    }
    Ok((hello, recipient))
}
