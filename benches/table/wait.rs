//! Waiting for a condition, always with a deadline, and no longer than the run goes on.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;

/// For what should be there at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// For a round of a slow peer.
pub(crate) const LONG: Duration = Duration::from_secs(300);

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Ends all waits of the run.
pub(crate) fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Asks every few milliseconds until there is an answer.
pub(crate) fn until<T>(
    deadline: Duration,
    what: &str,
    mut answer: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = answer()? {
            return Ok(answer);
        }
        if is_stopped() {
            bail!("stopped");
        }
        if began.elapsed() > deadline {
            bail!("waited {deadline:?} for {what}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sleeps, and wakes early with an error where the run is stopped.
pub(crate) fn pause(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if is_stopped() {
            bail!("stopped");
        }
        thread::sleep(Duration::from_millis(20).min(time));
    }
    Ok(())
}

/// Waits until somebody listens there.
pub(crate) fn until_open(address: SocketAddr, who: &str) -> Result<()> {
    until(SOON, &format!("{who} on {address}"), || {
        Ok(TcpStream::connect_timeout(&address, SOON).ok().map(drop))
    })
}

/// An address of loopback on which nobody listens, below the ports of outgoing connections.
pub(crate) fn free_address() -> Result<SocketAddr> {
    const PORTS: std::ops::Range<u16> = 15_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    if NEXT.load(Ordering::Relaxed) == 0 {
        let spread = std::process::id() as u16 % (PORTS.end - PORTS.start);
        NEXT.store(PORTS.start + spread, Ordering::Relaxed);
    }
    for _ in PORTS {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if port + 1 >= PORTS.end {
            NEXT.store(PORTS.start, Ordering::Relaxed);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free");
}
