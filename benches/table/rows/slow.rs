//! Normal mail beside ten thousand clients that send an octet a second, one half of them within a
//! command, the other within a message; against the same mail alone.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::client::Client;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::gateway::UNCHECKED;
use crate::nameserver::Nameserver;
use crate::sending::CLIENT;
use crate::sending::Connection;
use crate::sending::RECIPIENT;
use crate::sending::SENDER;
use crate::sending::Sending;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;
use crate::wait;

const SLOW: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let sink = Sink::start(setting, Kind::CountingLmtp)?;
    let config = Config::new(sink.target(), dns.address, UNCHECKED);
    let gateway = Gateway::start(setting, &config)?;
    let normal = Sending {
        connections: 16,
        connection: Connection::Reused,
        messages: setting.options.messages(),
        file: None,
    };
    let count = setting.options.number(10_000);
    let send = || Ok(normal.rate(normal.run(gateway.smtp, Kind::Smtp)?));
    let measured = rounds(setting.options.few_rounds(), || {
        let alone = send()?;
        let mut clients = connect(gateway.smtp, count)?;
        Ok((beside(&mut clients, send)?, alone))
    })?;
    let against = ("normal mail alone", Bound::AtLeast(0.9));
    let what = format!("beside {count} slow clients");
    Ok(vec![Line::new(what, Unit::PerSecond, against, measured)])
}

fn connect(server: SocketAddr, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        if wait::is_stopped() {
            bail!("stopped");
        }
        let client = one(server, number).with_context(|| format!("slow client {number}"))?;
        clients.push(client);
    }
    Ok(clients)
}

fn one(server: SocketAddr, number: usize) -> io::Result<Client> {
    let mut client = Client::hello(server, SLOW, CLIENT)?;
    match number % 2 {
        0 => client.send(b"NOOP ")?,
        _ => client.begin(SENDER, RECIPIENT)?,
    }
    Ok(client)
}

/// Runs `meanwhile` while each client sends an octet a second, spread over the second.
fn beside<T>(clients: &mut [Client], meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
    const SLICES: u32 = 100;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let trickle = scope.spawn(|| {
            let began = Instant::now();
            let size = clients.len().div_ceil(SLICES as usize);
            for slice in 0.. {
                if ended.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let of_second = slice % SLICES as usize;
                for client in clients.iter_mut().skip(of_second * size).take(size) {
                    client.send(b"x")?;
                }
                let due = Duration::from_secs(1) / SLICES * (slice as u32 + 1);
                thread::sleep(due.saturating_sub(began.elapsed()));
            }
            io::Result::Ok(())
        });
        // They are all on their way when the mail begins.
        let result = wait::pause(Duration::from_secs(1)).and_then(|()| meanwhile());
        ended.store(true, Ordering::Relaxed);
        match trickle.join() {
            Ok(sent) => sent.context("a slow client was hung up on")?,
            Err(_) => bail!("the slow clients panicked"),
        }
        result
    })
}
