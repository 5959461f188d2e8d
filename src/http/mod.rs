//! HTTP as far as a mail gateway needs it: a server of few, small pages, and one request at a time.
//!
//! Both sides are bounded in octets and in time, whoever the peer is. HTTP/1.1 alone (RFC 9112).
//! What is served, and to whom, is said by those who open a listener.

use std::net::SocketAddr;

use serde::Deserialize;

mod client;
mod server;

pub use self::client::Client;
pub use self::client::Error;
pub use self::server::Pages;
pub use self::server::admit;
pub use self::server::answer;
pub use self::server::serve;
pub use self::server::serve_pages;

/// `[http]`: the listeners for the world. Each is opened only where something is to be served on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where HTTP is taken. Default: port 80 of all addresses.
    pub listen: Vec<SocketAddr>,
    /// Where HTTP over TLS is taken. Default: port 443 of all addresses.
    pub tls_listen: Vec<SocketAddr>,
}
