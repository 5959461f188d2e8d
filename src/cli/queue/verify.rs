//! `gatepost queue verify`: says what is in the queue, and each place that is not as it was written.

use std::path::Path;

use bytesize::ByteSize;
use clap::Args;
use serde_json::Value;
use serde_json::json;

use super::check_there;
use super::directory;
use super::messages;
use super::refuse;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::check::faults_json;
use crate::cli::complain;
use crate::cli::faults_text;
use crate::cli::say;
use crate::cli::sources;
use crate::cli::status_of;
use crate::config::Config;
use crate::spool::verify::Finding;
use crate::spool::verify::Report;
use crate::spool::verify::Weight;
use crate::spool::verify::verify;

/// Reads the whole queue on disk and checks every checksum; says what is there and what is damaged.
/// Changes nothing, and needs nothing stopped. The status is 1 where something is damaged.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost queue verify --config /etc/gatepost/gatepost.toml")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let path = &arguments.file.config;
    let config = match Config::read(path) {
        Ok(config) => config,
        Err(faults) => {
            match arguments.json {
                true => say(faults_json(path, &faults)),
                false => complain(&faults_text(&faults)),
            }
            return status_of(&faults);
        }
    };
    let directory = directory(&config);
    if let Err(status) = check_there(&directory) {
        return status;
    }
    let report = match verify(&directory) {
        Ok(report) => report,
        Err(error) if arguments.json => {
            let error = sources(&error).join(": ");
            say(json!({ "spool": directory, "ok": false, "error": error }));
            return Status::Unavailable;
        }
        Err(error) => return refuse(&error),
    };
    if arguments.json {
        say(as_json(&directory, &report));
    } else {
        tell(&directory, &report);
    }
    match report.is_sound() {
        true => Status::Ok,
        false => Status::Flawed,
    }
}

fn tell(directory: &Path, report: &Report) {
    let verdict = match report.is_sound() {
        true => "sound",
        false => "damaged",
    };
    say(format!("{}: {verdict}\n", directory.display()));
    for line in lines(report) {
        say(line);
    }
    let notes = report
        .findings
        .iter()
        .filter(|found| found.weight == Weight::Note);
    for note in notes {
        say(format!("{:<9} {}", "note", in_words(note)));
    }
    let damage = report
        .findings
        .iter()
        .filter(|found| found.weight == Weight::Damage);
    for damage in damage {
        complain(&format!("{:<9} {}", "damage", in_words(damage)));
    }
}

fn in_words(finding: &Finding) -> String {
    let Finding {
        file, offset, text, ..
    } = finding;
    match offset {
        0 => format!("{}: {text}", file.display()),
        _ => format!("{}: at octet {offset}: {text}", file.display()),
    }
}

/// What is there, one thing a line.
fn lines(report: &Report) -> Vec<String> {
    let records = &report.records;
    [
        (
            "log",
            format!("{} segments, {}", report.segments, ByteSize(report.octets)),
        ),
        (
            "records",
            format!(
                "{} accept, {} result, {} defer, {} hold, {} release, {} done",
                records.accept,
                records.result,
                records.defer,
                records.hold,
                records.release,
                records.done
            ),
        ),
        (
            "queue",
            format!(
                "{}, {}: {} held, {} deferred, {} partly delivered",
                messages(report.queued),
                ByteSize(report.queued_octets),
                report.held,
                report.deferred,
                report.partly
            ),
        ),
        (
            "large",
            format!(
                "{} in files of their own, {}",
                report.large,
                ByteSize(report.large_octets)
            ),
        ),
        ("finished", messages(report.finished)),
    ]
    .into_iter()
    .map(|(name, text)| format!("{name:<9} {text}"))
    .collect()
}

/// The same for programs.
fn as_json(directory: &Path, report: &Report) -> Value {
    let records = &report.records;
    let findings: Vec<_> = report.findings.iter().map(finding_json).collect();
    json!({
        "spool": directory, "ok": report.is_sound(),
        "segments": report.segments, "octets": report.octets,
        "records": {
            "accept": records.accept, "result": records.result, "defer": records.defer,
            "hold": records.hold, "release": records.release, "done": records.done,
        },
        "queue": {
            "messages": report.queued, "octets": report.queued_octets, "held": report.held,
            "deferred": report.deferred, "partly": report.partly,
        },
        "large": { "files": report.large, "octets": report.large_octets },
        "finished": report.finished, "findings": findings,
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "damage": finding.weight == Weight::Damage, "file": finding.file,
        "offset": finding.offset, "message": finding.text,
        "ids": finding.messages.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
