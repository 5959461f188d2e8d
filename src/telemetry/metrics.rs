//! The counters, as Prometheus reads them.
//!
//! The counters move in [`crate::telemetry::events`]; here they get their help texts. Few label
//! values, and never one that a stranger chose.

use jiff::Timestamp;
use metrics::counter;
use metrics::describe_counter;
use metrics::describe_gauge;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::PrometheusHandle;

/// Counters without labels. They are shown from the start, at zero.
const COUNTERS: &[(&str, &str)] = &[
    (
        "gatepost_connections_total",
        "Connections that got a session.",
    ),
    (
        "gatepost_tls_failures_total",
        "TLS handshakes with clients that did not come off.",
    ),
    ("gatepost_logins_total", "Clients that logged in."),
    (
        "gatepost_drops_taken_total",
        "Files of the drop directory that were taken for a session.",
    ),
    (
        "gatepost_drops_refused_total",
        "Files of the drop directory that were set aside or removed.",
    ),
    (
        "gatepost_login_failures_total",
        "Logins that failed for a wrong password, an unknown user and the like.",
    ),
    (
        "gatepost_login_errors_total",
        "Logins of which nobody could tell whether they are right.",
    ),
    (
        "gatepost_logins_banned_total",
        "Logins that were refused unseen, because their client or user is banned.",
    ),
    (
        "gatepost_slowed_replies_total",
        "Refusals that waited before they went out, because the client had too many of them.",
    ),
    (
        "gatepost_accepted_total",
        "Messages stored and acknowledged.",
    ),
    (
        "gatepost_accepted_bytes_total",
        "Bytes of the messages acknowledged.",
    ),
    (
        "gatepost_signed_total",
        "Messages of ours signed, once for each domain that signs.",
    ),
    (
        "gatepost_sign_failures_total",
        "Messages of ours that could not be signed; the client was told to try again.",
    ),
    (
        "gatepost_limits_near_total",
        "Times that a user came near a limit of what it may send.",
    ),
    (
        "gatepost_store_failures_total",
        "Messages that the spool could not take; the client was told to try again.",
    ),
    (
        "gatepost_delivered_total",
        "Recipients whose message the next hop has taken.",
    ),
    (
        "gatepost_deferred_total",
        "Delivery attempts for a recipient that will be made again.",
    ),
    (
        "gatepost_failed_total",
        "Recipients that will not be tried again.",
    ),
    (
        "gatepost_unreported_total",
        "Recipients that have failed and of whom nobody is told.",
    ),
    (
        "gatepost_report_failures_total",
        "Reports to senders that could not be stored.",
    ),
    (
        "gatepost_held_total",
        "Messages kept until an operator releases them.",
    ),
    (
        "gatepost_spool_corrupt_total",
        "Parts of the spool that could not be read and were set aside.",
    ),
    (
        "gatepost_spool_failures_total",
        "Writes or syncs of the spool that failed.",
    ),
    (
        "gatepost_accept_failures_total",
        "Times that a connection could not be accepted.",
    ),
    (
        "gatepost_proxy_refused_total",
        "Connections of proxies without a PROXY header to believe.",
    ),
    (
        "gatepost_session_panics_total",
        "Sessions ended by a fault in the program.",
    ),
    (
        "gatepost_destination_down_total",
        "Times that a destination could not be reached and its queue paused.",
    ),
    (
        "gatepost_host_tls_failures_total",
        "TLS handshakes with next hops that failed, after which mail went in plain text.",
    ),
    (
        "gatepost_host_tls_total",
        "What came of TLS with mail exchangers, by policy and result (RFC 8460).",
    ),
    (
        "gatepost_host_login_failures_total",
        "Times that a next hop did not let us log in.",
    ),
    (
        "gatepost_passed_back_total",
        "Messages that a next hop did not take while their client waited.",
    ),
    (
        "gatepost_load_failures_total",
        "Times that a queued message could not be read for delivery.",
    ),
    (
        "gatepost_certificates_obtained_total",
        "Certificates that an authority has given us.",
    ),
    (
        "gatepost_certificate_failures_total",
        "Times that an authority was asked for a certificate and gave none.",
    ),
    (
        "gatepost_certificate_warnings_total",
        "Days on which a certificate in use was near its end.",
    ),
    (
        "gatepost_log_dropped_total",
        "Log lines dropped because nobody read the log fast enough.",
    ),
];

/// Counters with a label, shown once they have counted something.
const LABELLED: &[(&str, &str)] = &[
    (
        "gatepost_turned_away_total",
        "Connections turned away for a limit, by reason.",
    ),
    (
        "gatepost_tls_handshakes_total",
        "TLS handshakes with clients that came off, by version.",
    ),
    (
        "gatepost_refused_total",
        "Refusals, by the stage of the dialogue.",
    ),
    (
        "gatepost_login_bans_total",
        "Bans for failed logins, of addresses and of users.",
    ),
    (
        "gatepost_would_refuse_total",
        "Refusals that a rule in observe mode would have given, by stage.",
    ),
    (
        "gatepost_reports_total",
        "Reports of what became of a message, by what they tell: failed, delayed, delivered, relayed.",
    ),
];

const GAUGES: &[(&str, &str)] = &[
    (
        "gatepost_build_info",
        "Always 1; the label says which version runs.",
    ),
    ("gatepost_sessions", "Sessions that are open now."),
    (
        "gatepost_queue_messages",
        "Messages in the spool, held ones too.",
    ),
    (
        "gatepost_certificate_expires_seconds",
        "When a certificate in use ends, in seconds since 1970, by the first of its names.",
    ),
];

/// The counters could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A process has one set of counters for all of its life.
    #[error("counters were set up before in this process")]
    Twice,
}

/// All counters and gauges of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// Sets the counters up. Once a process; what was counted before is lost.
pub fn install() -> Result<Metrics, Error> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| Error::Twice)?;
    describe();
    Ok(Metrics { handle })
}

impl Metrics {
    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// What these counters stand at, over all their labels.
    pub fn totals<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<u64> {
        let text = self.render();
        let total = |name: &str| {
            let of_name = text.lines().filter_map(|line| line.strip_prefix(name));
            let values = of_name.filter(|rest| rest.starts_with([' ', '{']));
            let values = values.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum::<f64>() as u64
        };
        names.map(total).collect()
    }
}

/// So many sessions are open now.
pub fn sessions(open: usize) {
    gauge!("gatepost_sessions").set(open as f64);
}

/// So many messages are in the spool.
pub fn queue(messages: usize) {
    gauge!("gatepost_queue_messages").set(messages as f64);
}

/// The certificate for this name ends then.
pub fn certificate_expires(name: &str, expires: Timestamp) {
    gauge!("gatepost_certificate_expires_seconds", "name" => name.to_owned())
        .set(expires.as_second() as f64);
}

fn describe() {
    for &(name, help) in COUNTERS {
        describe_counter!(name, help);
        counter!(name).increment(0);
    }
    for &(name, help) in LABELLED {
        describe_counter!(name, help);
    }
    for &(name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    sessions(0);
    queue(0);
    gauge!("gatepost_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn each_metric_of_the_code_has_a_help_text_and_the_other_way_round() {
        let mut used = BTreeSet::new();
        collect(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
            &mut used,
        );
        let described: BTreeSet<String> = [COUNTERS, LABELLED, GAUGES]
            .concat()
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        assert_eq!(used, described);
    }

    fn collect(directory: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, names);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for kind in ["counter", "gauge", "histogram"] {
                for rest in text.split(&format!("{kind}!(\"")).skip(1) {
                    names.extend(rest.split('"').next().map(str::to_owned));
                }
            }
        }
    }

    #[test]
    fn what_is_counted_is_rendered_with_its_help() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            sessions(3);
        });
        let text = Metrics { handle }.render();
        for line in [
            "# HELP gatepost_accepted_total Messages stored and acknowledged.",
            "# TYPE gatepost_accepted_total counter",
            "gatepost_accepted_total 0",
            "gatepost_sessions 3",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
    }
}
