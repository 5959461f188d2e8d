//! The real gateway on loopback: one module a behaviour.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![expect(
    unreachable_pub,
    reason = "the modules of a test are public to one another"
)]

mod architecture;
mod support;

mod accept;
mod bad_input;
mod bounces;
mod client_certificates;
mod crash;
mod delivery;
mod dialogues;
mod dkim_command;
mod drain;
mod fairness;
mod golden;
mod hostile;
mod in_memory;
mod logins;
mod mta_sts;
mod next_hops;
mod operate;
mod orders;
mod peers;
mod proxy;
mod queue;
mod queue_command;
mod reload;
mod reports;
mod routes;
mod sendmail;
mod smuggling;
mod spf_dmarc;
mod starttls;
mod submission;
mod tls_command;
mod vectors;
mod verify;
