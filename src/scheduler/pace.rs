//! How many messages may be tried in a time, over all destinations of one route.
//!
//! Pure: it is told the time. Messages go out evenly spaced. A lane that has to wait is given its time
//! then and there, so that lanes of one route take turns in the order in which they asked.

use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::route::Rate;
use crate::delivery::route::Route;

/// The paces of all routes that have one.
#[derive(Debug, Default)]
pub(super) struct Paces(Vec<Pace>);

#[derive(Debug)]
struct Pace {
    route: String,
    rate: Rate,
    /// When the next message may go; None: at any time.
    next: Option<Instant>,
}

impl Paces {
    /// The pace of a route; None where it has none.
    pub(super) fn of(&mut self, route: &Route) -> Option<usize> {
        let rate = route.rate?;
        let is_its = |pace: &Pace| pace.route == route.name && pace.rate == rate;
        Some(self.0.iter().position(is_its).unwrap_or_else(|| {
            self.0.push(Pace {
                route: route.name.clone(),
                rate,
                next: None,
            });
            self.0.len() - 1
        }))
    }

    /// When the next message may go at this pace. Nobody else is given this time.
    pub(super) fn take(&mut self, pace: usize, now: Instant) -> Instant {
        let Some(pace) = self.0.get_mut(pace) else {
            return now;
        };
        let time = pace.next.map_or(now, |next| next.max(now));
        pace.next = Some(time + pace.interval());
        time
    }
}

impl Pace {
    fn interval(&self) -> Duration {
        self.rate.per / self.rate.messages.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, rate: &str) -> Route {
        Route {
            name: name.to_owned(),
            rate: Some(rate.parse().unwrap()),
            ..Route::default()
        }
    }

    #[test]
    fn times_are_evenly_spaced_and_none_is_given_twice() {
        let now = Instant::now();
        let mut paces = Paces::default();
        let pace = paces.of(&route("a", "120/min")).unwrap();
        assert_eq!(paces.of(&route("a", "120/min")), Some(pace));
        assert_eq!(paces.of(&Route::default()), None);
        let half = Duration::from_millis(500);
        assert_eq!(paces.take(pace, now), now);
        assert_eq!(paces.take(pace, now), now + half);
        assert_eq!(paces.take(pace, now + half), now + 2 * half);
        // What was not made use of is not made up for.
        assert_eq!(paces.take(pace, now + 10 * half), now + 10 * half);
        assert_eq!(paces.take(pace, now + 10 * half), now + 11 * half);
        let other = paces.of(&route("b", "120/min")).unwrap();
        assert_eq!(paces.take(other, now), now);
    }
}
