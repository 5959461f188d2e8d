//! What happened, for people and for programs: the mail log and the counters.
//!
//! [`events`] has one function for each event; it writes the line and moves the counter, so that the
//! two cannot disagree.

pub mod events;
