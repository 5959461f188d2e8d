//! A hundred thousand due messages to a thousand destinations after a start, one of which takes
//! connections and never speaks, and one a second for each reply: from the first to the last of the others
//! at the sink, against the same queue with none that is dead or slow.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;

use crate::client::Client;
use crate::client::HONEST;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::gateway::UNCHECKED;
use crate::nameserver::Nameserver;
use crate::rows::delivery::QUEUE;
use crate::sending::CLIENT;
use crate::sending::SENDER;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;
use crate::wait;
use crate::wait::LONG;

const DESTINATIONS: usize = 1000;

/// The first two destinations.
const DEAD: usize = 0;
const SLOW: usize = 1;

const MESSAGE: &[u8] =
    b"From: <sender@client.example>\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\
    Subject: due\r\n\r\nIt is time.\r\n";

/// How long the slow one takes for a reply.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether two of the destinations are not as the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Among {
    DeadAndSlow,
    Healthy,
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let each = setting.options.number(100_000).div_ceil(DESTINATIONS);
    let measured = rounds(setting.options.few_rounds(), || {
        let beside = deliver(setting, &dns, each, Among::DeadAndSlow)?;
        Ok((beside, deliver(setting, &dns, each, Among::Healthy)?))
    })?;
    let what = format!(
        "{} due messages to {DESTINATIONS} destinations, one dead and one slow",
        each * DESTINATIONS
    );
    let against = ("none dead or slow", Bound::AtLeast(0.95));
    Ok(vec![Line::new(what, Unit::PerSecond, against, measured)])
}

/// Messages a second to those that are healthy.
fn deliver(setting: &Setting, dns: &Nameserver, each: usize, among: Among) -> Result<f64> {
    let port = wait::free_address()?.port();
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let slow = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = |number: usize| match (among, number) {
        (Among::DeadAndSlow, DEAD) => dead.local_addr(),
        (Among::DeadAndSlow, SLOW) => slow.local_addr(),
        (Among::DeadAndSlow | Among::Healthy, _) => Ok(healthy(number, port)),
    };
    let mut sections = format!("{UNCHECKED}{QUEUE}");
    for number in 0..DESTINATIONS {
        sections.push_str(&format!(
            "[domains.\"d{number}.example\"]\ndeliver = \"lmtp:{}\"\nrecipients = \"any\"\n",
            address(number)?
        ));
    }
    let next_hop = format!("lmtp:{}", healthy(0, port));
    let config = Config::new(next_hop, dns.address, &sections);
    let mut gateway = Gateway::start(setting, &config)?;
    fill(gateway.smtp, each)?;
    gateway.stop();
    wait::pause(Duration::from_secs(2))?;
    speak_slowly(slow);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let sink = Sink::start_at(setting, Kind::CountingLmtp, everywhere)?;
    let others = match among {
        Among::DeadAndSlow => DESTINATIONS - 2,
        Among::Healthy => DESTINATIONS,
    };
    let messages = others * each;
    gateway.restart()?;
    let first = sink.wait_for(1, LONG)?;
    let last = sink.wait_for(messages as u64, LONG)?;
    Ok((messages - 1) as f64 / (last - first).as_secs_f64())
}

/// A destination of its own, at the one sink that listens on all addresses of loopback.
fn healthy(number: usize, port: u16) -> SocketAddr {
    let address = Ipv4Addr::new(127, 1, (number / 250) as u8, (number % 250) as u8 + 1);
    SocketAddr::from((address, port))
}

/// So many messages for each destination, one after the other.
fn fill(server: SocketAddr, each: usize) -> Result<()> {
    const CLIENTS: usize = 50;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            thread::spawn(move || -> io::Result<()> {
                let mut connection = Client::hello(server, HONEST, CLIENT)?;
                for _ in 0..each {
                    for number in (client..DESTINATIONS).step_by(CLIENTS) {
                        connection.begin(SENDER, &format!("user@d{number}.example"))?;
                        connection.send(MESSAGE)?;
                        connection.expect(".", 250)?;
                    }
                }
                Ok(())
            })
        })
        .collect();
    for client in clients {
        let ended = client.join().map_err(|_| anyhow!("a client panicked"))?;
        ended.context("filling the queue")?;
    }
    Ok(())
}

/// Takes mail by LMTP, slowly, until the run ends.
fn speak_slowly(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || converse(stream));
        }
    });
}

fn converse(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut say = |text: &str| {
        thread::sleep(PAUSE);
        stream.write_all(format!("{text}\r\n").as_bytes())
    };
    say("220 slow.example")?;
    while let Some(line) = lines.next().transpose()? {
        match line.get(..4).unwrap_or_default() {
            "DATA" => {
                say("354 go on")?;
                while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                say("250 2.0.0 taken")?;
            }
            "QUIT" => return say("221 2.0.0 bye"),
            _ => say("250 2.0.0 fine")?,
        }
    }
    Ok(())
}
