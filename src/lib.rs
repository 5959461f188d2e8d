//! Gatepost: a standalone SMTP gateway and MTA.
//!
//! Mail goes one way, and the modules stand in that order: [`accept`] takes the connection,
//! [`session`] carries the dialogue that [`smtp`] speaks, [`pipeline`] decides, [`spool`] keeps what
//! was accepted until [`scheduler`] has had [`delivery`] hand it on, or [`report`] tell its sender.
//! ARCHITECTURE.md is the map.

pub mod cli;

pub mod app;
pub mod config;

pub mod accept;
pub mod session;

pub mod pipeline;

pub mod acme;
pub mod admin;
pub mod delivery;
pub mod directory;
pub mod dns;
pub mod http;
pub mod mail;
pub mod report;
pub mod scheduler;
pub mod sign;
pub mod smtp;
pub mod spool;
pub mod telemetry;
pub mod tls;
pub mod verify;

#[cfg(test)]
#[path = "../tests/fuzz/mod.rs"]
mod fuzz;
