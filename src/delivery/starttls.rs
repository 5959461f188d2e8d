//! Connections come under TLS, by STARTTLS (RFC 3207) or from the first octet (RFC 8314), with a server that
//! is who it has to be.

use std::sync::Arc;
use std::sync::OnceLock;

use mail_send::SmtpClient;
use mail_send::smtp::tls::build_tls_connector;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;

use super::broken::Broken;
use super::connect::Connected;
use super::connect::Connector;
use super::connect::Stream;
use super::exchange::Exchange;
use super::outcome::Peer;
use super::route::Route;
use super::security::Level;
use super::security::Pins;
use super::security::Security;
use super::security::result::Failure;
use super::security::result::PolicyType;
use super::trouble::Trouble;
use crate::smtp::client::Protocol;
use crate::smtp::client::response::Response;
use crate::tls;
use crate::tls::dane::NoMatch;

/// Why there is no TLS on a connection, which is spent.
pub(super) enum NoTls {
    /// It did not come off: another connection may do without.
    NotMade(Trouble),
    /// The server breaks the protocol.
    Broken(Trouble),
}

impl NoTls {
    fn not_made(broken: Broken, failure: Failure) -> NoTls {
        let policy_type = PolicyType::NoPolicyFound;
        let trouble = Trouble::with_tls(broken.response(), policy_type, failure);
        NoTls::NotMade(trouble.for_now())
    }
}

/// How hands are shaken, by what a server has to be.
pub(super) struct Handshakes {
    any_certificate: TlsConnector,
    /// Made when it is first asked for: a machine without roots can do without.
    trusted_certificate: OnceLock<Result<TlsConnector, String>>,
}

impl Handshakes {
    pub(super) fn new() -> Result<Handshakes, String> {
        Ok(Handshakes {
            any_certificate: build_tls_connector(true)?,
            trusted_certificate: OnceLock::new(),
        })
    }

    fn at(&self, level: &Level) -> Result<TlsConnector, Trouble> {
        match level {
            Level::None | Level::May | Level::Encrypt => Ok(self.any_certificate.clone()),
            Level::Dane(pins) => Ok(pinned(pins)),
            Level::Verify | Level::Trial => self.trusted().cloned().map_err(|error| {
                let text = format!("no certificate can be verified: {error}");
                Response::ours(451, (4, 3, 5), &text).into()
            }),
        }
    }

    /// With whom this system trusts. The error says why it trusts nobody.
    pub(super) fn trusted(&self) -> Result<&TlsConnector, &String> {
        let made = || build_tls_connector(false);
        self.trusted_certificate.get_or_init(made).as_ref()
    }
}

fn pinned(pins: &Pins) -> TlsConnector {
    let names = pins.names.iter().cloned();
    let names = names.filter_map(|name| ServerName::try_from(name.to_string()).ok());
    let config = tls::dane::client_config(pins.associations.clone(), names.collect());
    TlsConnector::from(config)
}

impl Connector {
    /// The same connection under TLS.
    pub(super) async fn secure(
        &self,
        plain: Exchange<TcpStream>,
        peer: &Arc<Peer>,
        route: &Route,
        security: &Security,
    ) -> Result<Connected, NoTls> {
        let connector = self.handshakes.at(&security.level).map_err(NoTls::Broken)?;
        let stream = plain.start_tls().await.map_err(NoTls::from)?;
        let shaken = self.shake_hands(stream, &connector, peer, security).await;
        let (stream, version) = shaken.map_err(NoTls::NotMade)?;
        let mut secure = Exchange::resume(stream, peer, Protocol::Smtp, self.deadlines);
        secure.is_secure = true;
        // RFC 3207 §4.2: what was offered in plain text counts no more.
        let hello = secure.hello(self.hello(route).as_str()).await;
        hello.map_err(NoTls::from)?;
        Ok(secure.noting(version))
    }

    /// A connection that begins under TLS (RFC 8314 §3.3), greeted.
    pub(super) async fn secure_from_the_start(
        &self,
        stream: TcpStream,
        peer: &Arc<Peer>,
        route: &Route,
        security: &Security,
    ) -> Result<Connected, Trouble> {
        let connector = self.handshakes.at(&security.level)?;
        let shaken = self.shake_hands(stream, &connector, peer, security).await;
        let (stream, version) = shaken?;
        let mut secure = self.greet(stream, peer, Protocol::Smtp, route).await?;
        secure.is_secure = true;
        Ok(secure.noting(version))
    }

    /// Gives the stream and the version of TLS.
    async fn shake_hands(
        &self,
        stream: TcpStream,
        connector: &TlsConnector,
        peer: &Peer,
        security: &Security,
    ) -> Result<(Box<dyn Stream>, &'static str), Trouble> {
        let name = match &security.level {
            Level::Dane(pins) => pins.base.as_str(), // RFC 7672 §2.2: also for the name in the handshake
            Level::None | Level::May | Level::Encrypt | Level::Verify | Level::Trial => &peer.name,
        };
        let client = SmtpClient {
            stream,
            timeout: self.deadlines.hello,
        };
        let shaken = client.into_tls(connector, name).await;
        let client = shaken.map_err(|error| not_shaken(peer, &error))?;
        let version = tls::client::version(client.tls_connection());
        Ok((Box::new(client.stream), version))
    }
}

fn not_shaken(peer: &Peer, error: &mail_send::Error) -> Trouble {
    let failure = match error {
        mail_send::Error::Tls(error) => Failure::of(error),
        _ => Failure::Validation,
    };
    let text = match error {
        mail_send::Error::Tls(error) if is_no_match(error) => NoMatch.to_string(),
        error => error.to_string(),
    };
    let text = format!("TLS with {peer} failed: {text}");
    let reason = Response::ours(451, (4, 7, 5), &text);
    let trouble = Trouble::with_tls(reason, PolicyType::NoPolicyFound, failure);
    match error {
        mail_send::Error::Tls(error) if is_about_certificate(error) => trouble,
        _ => trouble.for_now(),
    }
}

fn is_about_certificate(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_))
}

fn is_no_match(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.is::<NoMatch>()
        }
        _ => false,
    }
}

/// A server that hangs up over TLS, or says no to STARTTLS, may do without; what it says otherwise
/// counts.
impl From<Broken> for NoTls {
    fn from(broken: Broken) -> NoTls {
        match broken {
            Broken::Refused { to: "STARTTLS", .. } => {
                NoTls::not_made(broken, Failure::StarttlsNotSupported)
            }
            Broken::Closed { .. } | Broken::Io { .. } => {
                NoTls::not_made(broken, Failure::Validation)
            }
            Broken::Silence { .. }
            | Broken::Stuck { .. }
            | Broken::Malformed { .. }
            | Broken::Unexpected(_)
            | Broken::Refused { .. }
            | Broken::Chatter
            | Broken::TakenForAnother => NoTls::Broken(broken.response().into()),
        }
    }
}
