//! The TLS handshakes of clients: on which terms, how many, and what certificate a client has shown.
//!
//! A handshake costs more processor time than all else in most sessions, and a client may want one
//! without meaning to send mail. How many an address may begin follows from its connections; what
//! a whole network may, which has many addresses, is bounded here. Whoever wants more is told to come back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use ipnet::IpNet;
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use crate::pipeline::loopback;
use crate::smtp::reply::Reply;
use crate::telemetry::events;
use crate::tls;
use crate::tls::ClientCertificates;

use super::Connection;
use super::Ended;
use super::Session;
use super::allowance::Allowances;
use super::allowance::network;

/// `[session.handshakes]`: how many TLS handshakes a network may begin.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Handshakes in a minute for one network: /24 of IPv4, /64 of IPv6. One that was quiet for a minute
    /// may begin as many at once.
    pub per_minute: u32,
    /// Networks that may begin as many as they like.
    pub exempt: Vec<IpNet>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            per_minute: 1200,
            exempt: loopback(),
        }
    }
}

/// What is left to each network. One a process; a clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    left: Arc<Mutex<Allowances>>,
}

impl Pace {
    /// Whether the client may begin one more.
    fn allows(&self, config: &Config, ip: IpAddr, now: Instant) -> bool {
        if config.exempt.iter().any(|net| net.contains(&ip)) {
            return true;
        }
        // No code that could panic runs under the lock, so that poison means nothing here.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.spend(network(ip), config.per_minute, now)
    }
}

/// What clients shake hands with.
pub struct Handshakes {
    /// Outlives a reload.
    pub certificates: tls::Store,
    /// What listeners agree to that have no terms of their own.
    pub config: tls::Config,
    /// Who signs for machines of ours.
    pub authorities: tls::Authorities,
    /// Outlives a reload.
    pub pace: Pace,
}

impl Handshakes {
    fn acceptor(&self, connection: &Connection) -> Result<TlsAcceptor, tls::Error> {
        let policy = self.config.policy(&connection.terms);
        Ok(self.certificates.server_config(&policy)?.into())
    }
}

impl Session<'_> {
    /// Whether the client's network may begin one more handshake. Says so in the log where it may not.
    pub(super) fn may_shake_hands(&self) -> bool {
        let ip = self.connection.peer.ip();
        let config = &self.shared.config.handshakes;
        let pace = &self.shared.handshakes.pace;
        let may = pace.allows(config, ip, Instant::now());
        if !may {
            events::turned_away(ip, "too many handshakes");
        }
        may
    }

    /// STARTTLS: says what it takes, and shakes hands.
    pub(super) async fn start_tls(&mut self, ready: &Reply) -> Result<(), Ended> {
        // RFC 3207 §4.2: what was sent with STARTTLS came over the open wire.
        if !self.stream.input().is_empty() {
            self.say(&Reply::STARTTLS_INJECTION);
            return Err(Ended::ByUs);
        }
        // Not a 454, after which a client would go on in plain text.
        if !self.may_shake_hands() {
            self.say(&Reply::TOO_MANY_HANDSHAKES);
            return Err(Ended::ByUs);
        }
        self.say(ready);
        self.flush().await?;
        self.shake_hands().await
    }

    pub(super) async fn shake_hands(&mut self) -> Result<(), Ended> {
        let (session, peer) = (self.connection.id, self.connection.peer);
        let acceptor = self.shared.handshakes.acceptor(self.connection);
        let acceptor = acceptor.map_err(|error| {
            events::tls_failed(session, peer, &error);
            Ended::NoTls
        })?;
        let deadline = self.deadline(self.shared.config.handshake_timeout);
        let shaken = self.stream.start_tls(&acceptor, deadline).await;
        shaken.map_err(|error| {
            events::tls_failed(session, peer, &error);
            Ended::NoTls
        })?;
        self.look_at_certificate();
        Ok(())
    }

    /// Notes what was agreed on, and by what certificate the client may be known.
    fn look_at_certificate(&mut self) {
        let Some(connection) = self.stream.tls() else {
            return;
        };
        let (session, peer) = (self.connection.id, self.connection.peer);
        let facts = tls::facts(connection);
        events::tls_begun(
            session,
            facts.version,
            facts.cipher,
            facts.key_exchange,
            facts.resumed,
        );
        let shown = match self.connection.terms.client_certificates {
            ClientCertificates::Ask => self.shared.handshakes.authorities.shown(connection),
            ClientCertificates::Off => None,
        };
        self.certificate = shown.map(Arc::new);
        if let Some(identity) = &self.certificate {
            let shown = &identity.shown;
            let may_relay = self.shared.pipeline.knows_certificate(identity);
            events::certificate_shown(
                session,
                peer,
                &shown.subject,
                &shown.issuer,
                &shown.fingerprint,
                &shown.key,
                may_relay,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_network_may_begin_so_many_and_others_are_not_held_up() {
        let config = Config {
            per_minute: 2,
            ..Config::default()
        };
        let pace = Pace::default();
        let start = Instant::now();
        for (client, after, want) in [
            ("192.0.2.1", 0, true),
            ("192.0.2.200", 0, true),
            ("192.0.2.1", 0, false),
            ("192.0.3.1", 0, true),
            ("2001:db8::1", 0, true),
            ("2001:db8::2", 0, true),
            ("2001:db8::3", 0, false),
            ("2001:db8:0:1::3", 0, true),
            ("192.0.2.9", 30, true),
            ("192.0.2.9", 30, false),
        ] {
            let now = start + Duration::from_secs(after);
            let got = pace.allows(&config, client.parse().unwrap(), now);
            assert_eq!(got, want, "{client} after {after} s");
        }
        let loopback = "127.0.0.1".parse().unwrap();
        assert!((0..9).all(|_| pace.allows(&config, loopback, start)));
    }
}
