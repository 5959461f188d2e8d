//! Which way mail goes, by its recipient's and its sender's domain.
//!
//! Our own domains go where their sections say; others by the routes that name the recipient's
//! domain, then by those that name the sender's, then by `relay`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::next_hop;
use super::next_hop::NextHop;
use super::route::Route;
use super::target::Target;
use crate::mail::address::Domain;
use crate::mail::address::Host;

/// The name of the route that is always there: to the mail exchangers of each domain, TLS where offered.
pub const INTERNET: &str = "internet";

/// `deliver` and `relay`: the name of a route, or a next hop.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Way {
    /// `[routes.NAME]`
    Route(String),
    /// Written where it is used.
    To(NextHop),
}

/// Knows the way for each recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    ours: BTreeMap<Domain, Arc<Route>>,
    by_recipient: BTreeMap<Domain, Arc<Route>>,
    by_sender: BTreeMap<Domain, Arc<Route>>,
    relay: Arc<Route>,
}

impl Way {
    /// The route that is meant. None where there is none of this name.
    pub fn resolve(&self, routes: &BTreeMap<String, Route>) -> Option<Route> {
        match self {
            Way::To(to) => Some(Route::to(to.clone())),
            Way::Route(name) => match routes.get(name) {
                Some(route) => Some(Route {
                    name: name.clone(),
                    ..route.clone()
                }),
                None if name == INTERNET => Some(Route {
                    name: name.clone(),
                    ..Route::default()
                }),
                None => None,
            },
        }
    }
}

impl Routing {
    /// `ours` and `relay` as their sections say. A domain that two routes name goes by the last of
    /// them in the order of their names.
    pub fn new(
        ours: BTreeMap<Domain, Route>,
        routes: &BTreeMap<String, Route>,
        relay: Route,
    ) -> Routing {
        let mut routing = Routing {
            ours: ours
                .into_iter()
                .map(|(name, route)| (name, Arc::new(route)))
                .collect(),
            by_recipient: BTreeMap::new(),
            by_sender: BTreeMap::new(),
            relay: Arc::new(relay),
        };
        for (name, route) in routes {
            let route = Arc::new(Route {
                name: name.clone(),
                ..route.clone()
            });
            let with = |domain: &Domain| (domain.clone(), Arc::clone(&route));
            routing
                .by_recipient
                .extend(route.recipient_domains.iter().map(with));
            routing
                .by_sender
                .extend(route.sender_domains.iter().map(with));
        }
        routing
    }

    /// Where mail goes from a sender of this domain (None for the null sender, and for one at an
    /// address literal) to a recipient at `to`.
    pub fn target(&self, from: Option<&Domain>, to: &Host) -> Target {
        let by_domain = to.domain().and_then(|domain| {
            let ours = self.ours.get(domain);
            ours.or_else(|| self.by_recipient.get(domain))
        });
        let by_sender = || from.and_then(|domain| self.by_sender.get(domain));
        let route = by_domain.or_else(by_sender).unwrap_or(&self.relay);
        Target::new(route, to)
    }
}

impl TryFrom<String> for Way {
    type Error = next_hop::Error;

    fn try_from(text: String) -> Result<Way, next_hop::Error> {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if text != "mx" && !text.is_empty() && text.bytes().all(is_name) {
            return Ok(Way::Route(text));
        }
        NextHop::parse(&text).map(Way::To)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    #[test]
    fn our_domains_come_first_then_the_recipients_then_the_senders() {
        let routes: BTreeMap<String, Route> = toml::from_str(
            "[partner]\nto = 'smtp:partner'\nrecipient_domains = ['p.example', 'ours.example']\n\
             [smarthost]\nto = 'smtp:smart:587'\nsender_domains = ['s.example']\n",
        )
        .unwrap();
        let ours = BTreeMap::from([(
            domain("ours.example"),
            Way::try_from("lmtp:unix:/l".to_owned())
                .unwrap()
                .resolve(&routes)
                .unwrap(),
        )]);
        let relay = Way::Route(INTERNET.to_owned()).resolve(&routes).unwrap();
        let routing = Routing::new(ours, &routes, relay);
        for (from, to, want) in [
            (None, "ours.example", "lmtp:unix:/l"),
            (Some("s.example"), "ours.example", "lmtp:unix:/l"),
            (Some("s.example"), "p.example", "smtp:partner:25"),
            (Some("s.example"), "x.example", "smtp:smart:587"),
            (Some("s.example"), "[192.0.2.1]", "smtp:smart:587"),
            (Some("t.example"), "x.example", "mx:x.example"),
            (None, "x.example", "mx:x.example"),
            (None, "[192.0.2.1]", "mx:[192.0.2.1]"),
        ] {
            let from = from.map(domain);
            let target = routing.target(from.as_ref(), &Host::parse(to).unwrap());
            assert_eq!(target.to_string(), want, "{from:?} {to}");
        }
    }

    #[test]
    fn to_the_world_each_domain_is_a_target_and_to_a_next_hop_all_are_one() {
        let mx = Arc::new(Route::default());
        let host = Arc::new(Route::to(NextHop::parse("smtp:h").unwrap()));
        let [a, b] = ["a.example", "b.example"].map(|name| Host::Domain(domain(name)));
        assert_ne!(Target::new(&mx, &a), Target::new(&mx, &b));
        assert_eq!(Target::new(&host, &a), Target::new(&host, &b));
    }

    #[test]
    fn a_word_is_the_name_of_a_route_and_all_else_a_next_hop() {
        for (text, want) in [
            ("internet", Some(Way::Route("internet".to_owned()))),
            ("smart-host_2", Some(Way::Route("smart-host_2".to_owned()))),
            ("mx", Some(Way::To(NextHop::MX))),
            ("smtp:h", Some(Way::To(NextHop::parse("smtp:h").unwrap()))),
            ("/run/lmtp", None),
            ("", None),
        ] {
            assert_eq!(Way::try_from(text.to_owned()).ok(), want, "{text:?}");
        }
    }
}
