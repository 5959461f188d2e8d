//! Gatepost: a standalone SMTP gateway and MTA.
//!
//! Mail goes one way: accept, session, pipeline, spool, scheduler, delivery. The modules stand in that order.

pub mod pipeline;

pub mod delivery;
pub mod directory;
pub mod dns;
pub mod mail;
pub mod scheduler;
pub mod sign;
pub mod smtp;
pub mod spool;
pub mod telemetry;
pub mod tls;
pub mod verify;
