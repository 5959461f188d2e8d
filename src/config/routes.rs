//! `[routes.NAME]`, `relay` and each `deliver` taken together: is every name known, is each domain
//! routed once, and which way does mail go.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::config::document::KeyPath;
use crate::config::domains::InForce;
use crate::config::domains::Section;
use crate::config::fault::nearest;
use crate::delivery::next_hop;
use crate::delivery::next_hop::NextHop;
use crate::delivery::route::Route;
use crate::delivery::routing::INTERNET;
use crate::delivery::routing::Routing;
use crate::delivery::routing::Way;
use crate::mail::address::Domain;

/// Why there is no way for mail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Where Maildirs would be by default is no place for them.
    #[error(transparent)]
    NextHop(#[from] next_hop::Error),
    /// No route has this name; with those that there are.
    #[error("there is no route \"{0}\"; {1}")]
    Unknown(String, String),
}

impl Config {
    /// Which way mail goes.
    ///
    /// # Errors
    /// Only where [`Config::faults`] finds something.
    pub fn routing(&self) -> Result<Routing, Error> {
        let ours = self.ours()?.into_iter();
        let ours = ours.map(|(name, domain)| (name, domain.route));
        Ok(Routing::new(ours.collect(), &self.routes, self.relay()?))
    }

    /// Where mail goes that is not ours and that no route names.
    ///
    /// # Errors
    /// Only where [`Config::faults`] finds something.
    pub fn relay(&self) -> Result<Route, Error> {
        self.resolve(&self.relay)
    }

    /// What becomes of mail for each of our domains, with the defaults filled in.
    ///
    /// # Errors
    /// Only where [`Config::faults`] finds something.
    pub fn ours(&self) -> Result<BTreeMap<Domain, InForce>, Error> {
        self.domains
            .iter()
            .map(|(name, section)| Ok((name.clone(), section.in_force(self.route_of(section)?))))
            .collect()
    }

    pub(super) fn route_of(&self, section: &Section) -> Result<Route, Error> {
        match &section.deliver {
            Some(way) => self.resolve(way),
            None => Ok(Route::to(self.maildirs()?)),
        }
    }

    /// Where mail goes that nobody said a place for.
    pub(super) fn maildirs(&self) -> Result<NextHop, next_hop::Error> {
        let data_dir = self.data_dir.display();
        NextHop::parse(&format!("maildir:{data_dir}/mail/{{domain}}/{{local}}"))
    }

    fn resolve(&self, way: &Way) -> Result<Route, Error> {
        let found = way.resolve(&self.routes);
        found.ok_or_else(|| match way {
            Way::Route(name) => Error::Unknown(name.clone(), self.remedy(name)),
            // A next hop leads to itself.
            Way::To(to) => Error::Unknown(to.to_string(), String::new()),
        })
    }

    fn remedy(&self, name: &str) -> String {
        let mut known: Vec<&str> = self.routes.keys().map(String::as_str).collect();
        known.push(INTERNET);
        match nearest(name, &known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                format!("add a section [routes.{name}], or give a next hop, as in smtp:HOST:PORT")
            }
        }
    }

    /// What is wrong with the routes, and with who names them.
    pub(super) fn route_faults(&self) -> Vec<(KeyPath, String)> {
        let mut faults = Vec::new();
        let top = KeyPath::default();
        for (name, route) in &self.routes {
            let path = top.key("routes").key(name);
            if !matches!(Way::try_from(name.clone()), Ok(Way::Route(_))) {
                let text = "give a name of letters, digits, - and _, and not mx";
                faults.push((path.clone(), text.to_owned()));
            }
            let found = route.faults().into_iter();
            faults.extend(found.map(|(key, message)| (path.key(&key), message)));
        }
        if let Err(error) = self.relay() {
            faults.push((top.key("relay"), error.to_string()));
        }
        for (name, section) in &self.domains {
            let path = top.key("domains").key(name.as_str());
            let found = match self.route_of(section) {
                Ok(route) => section.faults(Some(&route.to)),
                Err(Error::NextHop(_)) => section.faults(None),
                Err(error @ Error::Unknown(..)) => vec![("deliver".to_owned(), error.to_string())],
            };
            let found = found.into_iter();
            faults.extend(found.map(|(key, message)| (path.join(&KeyPath::parse(&key)), message)));
        }
        faults.extend(self.domain_faults("recipient_domains", |route| &route.recipient_domains));
        faults.extend(self.domain_faults("sender_domains", |route| &route.sender_domains));
        faults
    }

    /// A domain goes one way.
    fn domain_faults(
        &self,
        key: &str,
        domains: impl Fn(&Route) -> &Vec<Domain>,
    ) -> Vec<(KeyPath, String)> {
        let mut faults = Vec::new();
        let mut seen: BTreeMap<&Domain, &str> = BTreeMap::new();
        for (name, route) in &self.routes {
            let path = KeyPath::default().key("routes").key(name).key(key);
            for (index, domain) in domains(route).iter().enumerate() {
                let message = if let Some(other) = seen.insert(domain, name) {
                    format!("{domain} stands in [routes.{other}] too; keep one of them")
                } else if key == "recipient_domains" && self.domains.contains_key(domain) {
                    format!(
                        "{domain} is ours; give deliver = \"{name}\" in [domains.\"{domain}\"] instead"
                    )
                } else {
                    continue;
                };
                faults.push((path.index(index), message));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::fault::Fault;

    fn lines(text: &str) -> Vec<String> {
        let text = format!("hostname = 'mx.example.com'\n{text}");
        let faults = Config::parse(&text).err().unwrap_or_default();
        faults.iter().map(Fault::to_string).collect()
    }

    #[test]
    fn who_names_a_route_that_is_not_there_is_told_so() {
        let routes = "[routes.smart]\nto = 'smtp:smart.example:587'\n";
        for (text, want) in [
            ("relay = 'smart'\n[domains.'a.example']\n", vec![]),
            (
                "relay = 'smtp:smart.example'\n[domains.'a.example']\n",
                vec![],
            ),
            ("[domains.'a.example']\ndeliver = 'internet'\n", vec![]),
            (
                "relay = 'smrat'\n[domains.'A.example']\ndeliver = 'dovecot'\n",
                vec![
                    "2: relay: there is no route \"smrat\"; did you mean \"smart\"?",
                    "4: domains.\"A.example\".deliver: there is no route \"dovecot\"; add a \
                     section [routes.dovecot], or give a next hop, as in smtp:HOST:PORT",
                ],
            ),
            (
                "relay = 'smtp:[::1'\n[domains.'a.example']\n",
                vec![
                    "2: relay: \"smtp:[::1\": \"[::1\" is neither an IP address nor a host name; \
                     write an IPv6 address in brackets, as in smtp:[2001:db8::1]:25",
                ],
            ),
        ] {
            assert_eq!(lines(&format!("{text}{routes}")), want, "{text}");
        }
    }

    #[test]
    fn a_domain_goes_one_way() {
        let text = "[domains.'a.example']\n[routes.a]\nrecipient_domains = ['x.example', 'a.example']\n\
                    sender_domains = ['a.example']\n[routes.b]\nrecipient_domains = ['X.example']\n\
                    [routes.'b c']\n[routes.d]\nto = 'lmtp:h'\nrate = '10'\n";
        assert_eq!(
            lines(text),
            [
                "4: routes.a.recipient_domains[2]: a.example is ours; give deliver = \"a\" in \
                 [domains.\"a.example\"] instead",
                "7: routes.b.recipient_domains[1]: x.example stands in [routes.a] too; keep one of \
                 them",
                "8: routes.\"b c\": give a name of letters, digits, - and _, and not mx",
                "10: routes.d.to: \"lmtp:h\": \"h\" has no port; write lmtp:HOST:PORT, as in \
                 lmtp:127.0.0.1:24",
                "11: routes.d.rate: \"10\" is no rate; write messages and a time, as in \"100/min\"",
            ]
        );
    }
}
