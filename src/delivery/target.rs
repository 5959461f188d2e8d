//! A destination and the way to it: the name of a lane and of a pool of connections.
//!
//! Two targets are equal where the same connection could serve both. To the mail exchangers of
//! others there is one target for each recipient domain and route; to any other next hop one for each
//! route. Cheap to clone.

use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

use super::next_hop;
use super::next_hop::NextHop;
use super::route::Route;
use crate::mail::address::Host;

/// Where mail goes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    route: Arc<Route>,
    /// Whose mail exchangers; None where the route names the next hop.
    host: Option<Host>,
}

impl Target {
    /// Where a route leads for a recipient at `host`.
    pub fn new(route: &Arc<Route>, host: &Host) -> Target {
        let host = match route.to {
            NextHop::Mx(_) => Some(host.clone()),
            NextHop::LmtpUnix(_) | NextHop::Lmtp(_) | NextHop::Smtp(_) | NextHop::Maildir(_) => {
                None
            }
        };
        Target {
            route: Arc::clone(route),
            host,
        }
    }

    /// The target of a route that only says where it leads. `mx` is none without a domain.
    ///
    /// # Errors
    /// A text that says what would be right.
    pub fn parse(text: &str) -> Result<Target, next_hop::Error> {
        let to = NextHop::parse(text)?;
        if let NextHop::Mx(_) = to {
            return Err(next_hop::Error::Kind(text.to_owned()));
        }
        let route = Arc::new(Route::to(to));
        Ok(Target { route, host: None })
    }

    /// How it is gone there.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Whose mail exchangers are asked; None where the route names the next hop.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }
}

/// Routes differ in their names, so this need not be the whole of one.
impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.route.name.hash(state);
        self.route.to.hash(state);
        self.host.hash(state);
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{}:{host}", self.route.to),
            None => self.route.to.fmt(f),
        }
    }
}
