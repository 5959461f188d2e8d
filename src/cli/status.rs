//! `gatepost status`: how the running gateway is.

use clap::Args;
use jiff::Timestamp;

use crate::admin::control::Lane;
use crate::admin::control::Status as Gateway;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::queue::steer::ask;
use crate::cli::say;

/// Shows how the running gateway is: troubles, rates, the queue by destination.
///
/// The status is 1 where something is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost status --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let gateway = match ask(&arguments.file, async |client| client.status().await) {
        Ok(gateway) => gateway,
        Err(status) => return status,
    };
    match arguments.json {
        true => say(serde_json::json!(gateway)),
        false => tell(&gateway),
    }
    match gateway.troubles.as_slice() {
        [] => Status::Ok,
        _ => Status::Flawed,
    }
}

fn tell(gateway: &Gateway) {
    say(format!(
        "gatepost {}, up for {}",
        gateway.version,
        span(gateway.uptime)
    ));
    for trouble in &gateway.troubles {
        say(format!("trouble   {trouble}"));
    }
    let oldest = gateway.oldest.map(|oldest| {
        let age = Timestamp::now().as_second() - oldest.as_second();
        format!(", the oldest for {}", span(age.unsigned_abs()))
    });
    let held = match gateway.held {
        0 => String::new(),
        held => format!(", {held} of them held"),
    };
    let loading = match gateway.loading {
        true => "; what the last run left is still being read",
        false => "",
    };
    say(format!(
        "queue     {}{held}{}{loading}",
        super::queue::messages(gateway.messages),
        oldest.unwrap_or_default()
    ));
    for rate in &gateway.rates {
        let per_minute = rate.per_minute.map(|rate| format!(", {rate:.0} a minute"));
        let per_minute = per_minute.unwrap_or_default();
        say(format!("{:<9} {}{per_minute}", rate.what, rate.total));
    }
    if gateway.destinations.is_empty() {
        return;
    }
    say(format!(
        "\n{:>8} {:>9} {:>8}  DESTINATION",
        "READY", "PUT OFF", "RUNNING"
    ));
    for lane in &gateway.destinations {
        say(line(lane));
    }
    let more = gateway.lanes.saturating_sub(gateway.destinations.len());
    if more > 0 {
        say(format!("and {more} more destinations"));
    }
}

fn line(lane: &Lane) -> String {
    let mut line = format!(
        "{:>8} {:>9} {:>8}  {}",
        lane.ready, lane.put_off, lane.running, lane.destination
    );
    if let (Some(reason), Some(again)) = (&lane.down, lane.again_in) {
        line.push_str(&format!(
            "\n{:29}rests, and is tried again in {}: {reason}",
            "",
            span(again)
        ));
    }
    line
}

fn span(seconds: u64) -> String {
    let span = std::time::Duration::from_secs(seconds);
    humantime_serde::re::humantime::format_duration(span).to_string()
}
