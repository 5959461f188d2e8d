//! Memory before, while and after sixty-four messages of 25 MiB come at once.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use anyhow::bail;

use crate::client::Client;
use crate::client::HONEST;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::gateway::UNCHECKED;
use crate::mail;
use crate::nameserver::Nameserver;
use crate::sending::CLIENT;
use crate::sending::RECIPIENT;
use crate::sending::SENDER;
use crate::sending::SIZE;
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

const LARGE: usize = 25 << 20;

/// What the configuration allows: `[session] memory`, `[spool] waiting` and `[spool] in_memory`.
const ALLOWED: f64 = 1024.0 + 64.0 + 64.0;

const IDLE: Duration = Duration::from_secs(10);

/// Octets.
struct Memory {
    before: f64,
    peak: f64,
    after: f64,
    /// Before and after, of the whole process (PSS).
    whole: [f64; 2],
    /// How often a client was told to come back later.
    put_off: usize,
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let message = mail::message(CLIENT, LARGE) + ".\r\n";
    let count = setting.options.number(64);
    let measured = rounds(setting.options.few_rounds(), || {
        measure(setting, &message, count)
    })?;
    let mebibytes = |octets: f64| octets / f64::from(1 << 20);
    let whole = [0, 1]
        .map(|when| Series::of(measured.iter().map(|round| mebibytes(round.whole[when]))).median());
    let put_off: Vec<_> = measured
        .iter()
        .map(|round| round.put_off.to_string())
        .collect();
    Ok(vec![
        Line::new(
            format!("{count} of 25 MiB, then idle"),
            Unit::Mebibytes,
            ("before", Bound::AtMost(1.5)),
            measured
                .iter()
                .map(|round| (mebibytes(round.after), mebibytes(round.before))),
        )
        .note(format!(
            "of the whole process (PSS): {} before, {} after",
            Unit::Mebibytes.show(whole[0]),
            Unit::Mebibytes.show(whole[1])
        )),
        Line::new(
            "the peak while they come",
            Unit::Mebibytes,
            ("what the configuration allows", Bound::AtMost(1.0)),
            measured
                .iter()
                .map(|round| (mebibytes(round.peak), ALLOWED)),
        )
        .note(format!(
            "times a client was told to come back later, round for round: {}",
            put_off.join(", ")
        )),
    ])
}

fn measure(setting: &Setting, message: &str, count: usize) -> Result<Memory> {
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let sink = Sink::start(setting, Kind::CountingLmtp)?;
    let config = Config::new(sink.target(), dns.address, UNCHECKED);
    let gateway = Gateway::start(setting, &config)?;
    // What a gateway needs at all is there after the first message.
    let put_off = AtomicUsize::new(0);
    deliver(
        gateway.smtp,
        &(mail::message(CLIENT, SIZE) + ".\r\n"),
        &put_off,
    )?;
    sink.wait_for(1, LONG)?;
    wait::pause(Duration::from_secs(1))?;
    let before = gateway.anonymous_memory()?;
    let whole_before = gateway.whole_memory()?;
    let ended = AtomicBool::new(false);
    let peak = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut peak = before;
            while !ended.load(Ordering::Relaxed) {
                peak = gateway.anonymous_memory().unwrap_or(peak).max(peak);
                thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let one = || deliver(gateway.smtp, message, &put_off);
        let clients: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        let sent = clients.into_iter().map(|client| match client.join() {
            Ok(sent) => sent,
            Err(_) => bail!("a client panicked"),
        });
        let sent: Result<Vec<()>> = sent.collect();
        let delivered = sent.and_then(|_| sink.wait_for(count as u64 + 1, LONG));
        ended.store(true, Ordering::Relaxed);
        delivered?;
        watching
            .join()
            .or_else(|_| bail!("the watching thread panicked"))
    })?;
    wait::pause(IDLE)?;
    Ok(Memory {
        before,
        peak,
        after: gateway.anonymous_memory()?,
        whole: [whole_before, gateway.whole_memory()?],
        put_off: put_off.into_inner(),
    })
}

/// Sends a message, as often as it takes.
fn deliver(server: SocketAddr, message: &str, put_off: &AtomicUsize) -> Result<()> {
    let mut client = Client::hello(server, HONEST, CLIENT)?;
    loop {
        client.begin(SENDER, RECIPIENT)?;
        client.send(message.as_bytes())?;
        match client.reply()? {
            250 => return Ok(()),
            452 => put_off.fetch_add(1, Ordering::Relaxed),
            other => bail!("a large message was answered {other}"),
        };
        wait::pause(Duration::from_millis(500))?;
    }
}
