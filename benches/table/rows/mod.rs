//! The rows, one file each.

mod accepted;
mod beside_floods;
mod checked;
mod delivery;
mod dns;
mod floods;
mod handshakes;
mod idle;
mod lanes;
mod large;
mod latency;
mod queue;
mod slow;
mod submission;

use anyhow::Result;

use crate::setting::Setting;
use crate::table::Line;

pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What it measures, in one line.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Setting) -> Result<Vec<Line>>,
}

/// In the order of the table.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "accepted",
        about: "messages of 4 KiB, accepted and durable, over connections that stay open",
        run: accepted::run,
    },
    Row {
        name: "latency",
        about: "from the final dot to the 250, one client",
        run: latency::run,
    },
    Row {
        name: "checked",
        about: "SPF, DKIM and DMARC on signed mail, one message a connection, delivered by LMTP",
        run: checked::run,
    },
    Row {
        name: "submission",
        about: "mail of users: TLS, AUTH, a signature, relayed, one message a connection",
        run: submission::run,
    },
    Row {
        name: "floods",
        about: "forged mail refused after DATA, unknown recipients refused at RCPT",
        run: floods::run,
    },
    Row {
        name: "beside_floods",
        about: "honest mail beside a flood from another address",
        run: beside_floods::run,
    },
    Row {
        name: "handshakes",
        about: "whole TLS handshakes, after STARTTLS and at once",
        run: handshakes::run,
    },
    Row {
        name: "idle",
        about: "memory of sessions that wait after EHLO and after RCPT",
        run: idle::run,
    },
    Row {
        name: "slow",
        about: "normal mail beside clients at an octet a second",
        run: slow::run,
    },
    Row {
        name: "large",
        about: "memory while and after many messages of 25 MiB come at once",
        run: large::run,
    },
    Row {
        name: "delivery",
        about: "due messages delivered to an LMTP sink",
        run: delivery::run,
    },
    Row {
        name: "queue",
        about: "memory of a queued message, and a start with a million of them",
        run: queue::run,
    },
    Row {
        name: "lanes",
        about: "a due queue to a thousand destinations, of which one is dead and one slow",
        run: lanes::run,
    },
    Row {
        name: "dns",
        about: "messages at once whose every DNS answer takes 20 ms",
        run: dns::run,
    },
];
