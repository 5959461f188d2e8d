//! Durable latency: one client, from the final dot to the 250, beside one fdatasync of 4 KiB to a file
//! that has all its blocks, in turn.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
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
use crate::table::Unit;
use crate::table::percentile;
use crate::wait;

/// Lets what goes on behind a message end before the disk is measured.
const PAUSE: Duration = Duration::from_millis(3);

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let sink = Sink::start(setting, Kind::CountingLmtp)?;
    let config = Config::new(sink.target(), dns.address, UNCHECKED);
    let gateway = Gateway::start(setting, &config)?;
    let mut client = Client::hello(gateway.smtp, HONEST, CLIENT)?;
    let mut disk = Disk::make(setting)?;
    let message = mail::message(CLIENT, SIZE);
    let count = setting.options.number(1000);
    let measured = rounds(setting.options.rounds(), || {
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..count {
            if wait::is_stopped() {
                bail!("stopped");
            }
            times.0.push(durable(&mut client, &message)?);
            thread::sleep(PAUSE);
            times.1.push(disk.sync()?);
            thread::sleep(PAUSE);
        }
        Ok(times)
    })?;
    let line = |what, part, most| {
        let times = measured.iter();
        let figures = times.map(|(a, b)| (percentile(a, part), percentile(b, part)));
        let against = ("one fdatasync of 4 KiB", Bound::AtMost(most));
        Line::new(what, Unit::Microseconds, against, figures)
    };
    Ok(vec![
        line("final dot to 250, p50", 0.5, 2.0),
        line("final dot to 250, p99", 0.99, 3.0),
    ])
}

/// Microseconds.
fn durable(client: &mut Client, message: &str) -> Result<f64> {
    client.begin(SENDER, RECIPIENT)?;
    client.send(message.as_bytes())?;
    thread::sleep(Duration::from_millis(1));
    let began = Instant::now();
    client.expect(".", 250).context("the final dot")?;
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

/// A file whose blocks are all there and written, so that a sync of it writes nothing else.
struct Disk {
    file: File,
    at: u64,
}

impl Disk {
    const SIZE: u64 = 16 << 20;

    fn make(setting: &Setting) -> Result<Disk> {
        let file = File::create_new(setting.folder("disk")?.join("file"))?;
        file.write_all_at(&vec![1; Disk::SIZE as usize], 0)?;
        file.sync_all()?;
        Ok(Disk { file, at: 0 })
    }

    /// Microseconds.
    fn sync(&mut self) -> Result<f64> {
        let block = [2; 4096];
        let began = Instant::now();
        self.file.write_all_at(&block, self.at)?;
        self.file.sync_data()?;
        self.at = (self.at + block.len() as u64) % Disk::SIZE;
        Ok(began.elapsed().as_secs_f64() * 1e6)
    }
}
