//! The same flows against the real programs of others.
//!
//! `tests/peers-install` brings them. What is missing is skipped loudly, or fails where
//! `REQUIRE_PEERS=1`.

mod acme;
mod acme_dns;
mod clients;
mod dane;
mod delivery;
mod demo;
mod dns;
mod dovecot;
mod dovecot_auth;
mod next_hops;
mod postfix;
mod routes;
mod sendmail;
mod signing;
mod submission;
mod testssl;
mod tls;
