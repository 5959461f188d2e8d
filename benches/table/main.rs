//! The table of `make bench`: each row is a ratio of two things that ran in turn in this one run.
//!
//! `cargo bench --bench table -- [ROW]... [--messages N] [--rounds N] [--quick] [--markdown FILE]`
//!
//! Measured is the release binary on loopback, against `smtp-source`, `smtp-sink` and Debian's daemons
//! (`tests/peers-install opendkim opendmarc postfix-policyd-spf-python`). A row that cannot run here
//! says why in the table. All that was started is stopped at the end, also after SIGINT and SIGTERM.

mod classic;
mod classic_submission;
mod client;
mod flood;
mod gateway;
mod log_alone;
mod mail;
mod nameserver;
mod options;
mod postfix;
mod process;
mod rows;
mod sending;
mod setting;
mod sink;
mod table;
mod wait;

use std::io;
use std::thread;

use anyhow::Result;
use clap::Parser;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use tokio::runtime::Builder;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::options::Options;
use crate::rows::ROWS;
use crate::setting::Setting;
use crate::table::Table;

fn main() -> Result<()> {
    let options = Options::parse();
    stop_on_signals()?;
    allow_many_files()?;
    let setting = Setting::new(options)?;
    let mut table = Table::new(&setting);
    table.print_head(&mut io::stdout())?;
    for row in ROWS.iter().filter(|row| setting.options.wants(row.name)) {
        if wait::is_stopped() {
            break;
        }
        eprintln!("{}: {}", row.name, row.about);
        let lines = (row.run)(&setting);
        table.add(row.name, lines);
        table.print_newest(&mut io::stdout())?;
    }
    match &setting.options.markdown {
        Some(file) => table.write_markdown(file),
        None => Ok(()),
    }
}

/// SIGINT and SIGTERM end every wait, so that all guards are dropped on the way out.
///
/// Caught, not blocked: what is started would inherit a mask, and could not be told to end.
fn stop_on_signals() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        eprintln!("stopping");
        wait::stop();
    });
    Ok(())
}

/// Files at once: ten thousand clients and some more.
const FILES: u64 = 11_000;

fn allow_many_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < FILES {
        // Only root may go beyond the hard limit; rows that need more say so themselves.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, FILES, hard.max(FILES))
            .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    }
    Ok(())
}
