//! A look at the servers of a destination, as a message would meet them: what is asked of TLS with each
//! and why, what it shows, and whether mail would go.
//!
//! For an operator who asks, not for mail. Two connections to each server: one that takes any certificate,
//! to see it, and one that is made as for a message. Nothing is sent.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Delivery;
use super::connect::Connector;
use super::exchange::Exchange;
use super::hosts::Candidate;
use super::outcome::Peer;
use super::security::Wish;
use super::target::Target;
use crate::smtp::client::Protocol;
use crate::smtp::client::response::Response;
use crate::tls;
use crate::tls::client;
use crate::tls::client::Trust;

/// One server of a destination. What did not come off is a text that says why.
#[derive(Debug)]
pub struct Look {
    /// What it was looked for by.
    pub host: String,
    /// Where it was found.
    pub address: SocketAddr,
    /// How safe the way has to be, and by whose word: what is configured, DANE or MTA-STS.
    pub wanted: Result<String, String>,
    /// What it shows within TLS.
    pub seen: Result<Seen, String>,
    /// Whether a message would go there, by what is wanted.
    pub mail: Result<(), String>,
}

/// What a handshake with any certificate came to.
#[derive(Debug)]
pub struct Seen {
    /// What was agreed on.
    pub facts: tls::Facts,
    /// The server's certificate; None where it cannot be read.
    pub certificate: Option<tls::Shown>,
    /// Whether this system trusts it to be the host.
    pub trusted: Result<(), String>,
}

impl Delivery {
    /// Looks at each server of a destination, one after the other, the preferred first.
    ///
    /// # Errors
    /// What keeps us from knowing any. Ends by the deadlines of the config. Cancel safe.
    pub async fn look(&self, target: &Target) -> Result<Vec<Look>, Response> {
        let connector = &self.connector;
        let candidates = connector.hosts.of(target).await;
        let candidates = candidates.map_err(|outcome| outcome.reply)?;
        let mut looks = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            looks.push(connector.look(target, candidate).await);
        }
        Ok(looks)
    }
}

impl Connector {
    async fn look(&self, target: &Target, candidate: &Candidate) -> Look {
        let wanted = match self.security(target, Wish::Usual, candidate).await {
            Ok(Some(security)) => Ok(security.to_string()),
            Ok(None) => Ok("none: not SMTP".to_owned()),
            Err(trouble) => Err(trouble.reason.to_string()),
        };
        let seen = self.see(target, candidate).await;
        let mail = match self.try_one(target, Wish::Usual, candidate).await {
            Ok(connected) => {
                connected.quit().await;
                Ok(())
            }
            Err(outcome) => Err(outcome.reply.to_string()),
        };
        Look {
            host: candidate.name.to_string(),
            address: candidate.address,
            wanted,
            seen: seen.map_err(|response| response.to_string()),
            mail,
        }
    }

    /// Shakes hands with a server, whatever certificate it has.
    async fn see(&self, target: &Target, candidate: &Candidate) -> Result<Seen, Response> {
        let route = target.route();
        let peer = Arc::new(Peer {
            name: candidate.name.clone(),
            address: Some(candidate.address),
            source: None,
            tls: None,
        });
        let socket = self.socket(&peer, route).await?;
        let stream = if route.implicit_tls {
            socket
        } else {
            let plain = self.greet(socket, &peer, Protocol::Smtp, route).await?;
            if !plain.offered.starttls {
                plain.quit().await;
                return Err(Response::ours(451, (4, 7, 4), "the server offers no TLS"));
            }
            let started = plain.start_tls().await;
            started.map_err(|broken| broken.response())?
        };
        let failed = |text: String| Response::ours(451, (4, 7, 5), &text);
        let name = ServerName::try_from(candidate.name.to_string());
        let name = name.map_err(|error| failed(error.to_string()))?;
        let connector = TlsConnector::from(client::client_config_any());
        let shaken = timeout(
            self.deadlines.hello,
            connector.connect(name.clone(), stream),
        )
        .await;
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(format!("TLS failed: {error}"))),
            Err(_) => return Err(failed("TLS failed: no answer in time".to_owned())),
        };
        let connection = stream.get_ref().1;
        let seen = Seen {
            facts: tls::facts(connection),
            certificate: client::shown(connection),
            trusted: client::judge(Trust::System, connection, &name),
        };
        let exchange = Exchange::resume(stream, &peer, Protocol::Smtp, self.deadlines);
        exchange.quit().await;
        Ok(seen)
    }
}
