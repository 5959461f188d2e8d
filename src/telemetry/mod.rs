//! What happened, for people and for programs: the mail log and the counters.
//!
//! [`events`] has one function for each event; it writes the line and moves the counter, so that the
//! two cannot disagree. [`log`] turns events into lines, [`metrics`] counters into the Prometheus text.

pub mod events;
pub mod log;
pub mod metrics;

mod line;
mod writer;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The messages of all events: the last text of each `info!(.. "message");`.
    fn messages(source: &str) -> BTreeSet<&str> {
        let calls = ["info!(", "warn!(", "error!("];
        let starts = calls.iter().flat_map(|call| source.match_indices(call));
        starts
            .filter_map(|(at, _)| source[at..].split_once(");"))
            .filter_map(|(call, _)| call.rsplit('"').nth(1))
            .collect()
    }

    #[test]
    fn the_page_for_operators_names_each_event() {
        let page = include_str!("../../docs/log.md");
        let events = messages(include_str!("events.rs"));
        assert!(events.len() > 20, "{events:?}");
        for message in events {
            assert!(page.contains(&format!("| `{message}` |")), "{message}");
        }
    }
}
