//! How a question is put to the resolver: its options, names as it wants them, and the deadline.

use std::future::Future;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

use crate::dns::Config;
use crate::dns::Error;
use crate::dns::Server;

/// What the resolver said, or that it said nothing in time.
pub(super) enum Failure {
    Net(NetError),
    Deadline(Duration),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Net(error) => error.into(),
            Failure::Deadline(limit) => Error::Temporary(format!("no answer within {limit:?}")),
        }
    }
}

/// Waits for an answer no longer than `limit`.
pub(super) async fn within(
    limit: Duration,
    lookup: impl Future<Output = Result<Lookup, NetError>>,
) -> Result<Lookup, Failure> {
    match timeout(limit, lookup).await {
        Ok(result) => result.map_err(Failure::Net),
        Err(_) => Err(Failure::Deadline(limit)),
    }
}

/// The name with its final dot, so that no search domain is tried. Takes any octets in labels, as
/// the DNS does (RFC 2181 §11). None where a label or the whole is too long or empty.
pub(super) fn absolute(name: &str) -> Option<Name> {
    let name = name.strip_suffix('.').unwrap_or(name);
    Name::from_labels(name.split('.').map(str::as_bytes)).ok()
}

/// A name as text without its final dot, its octets as they came.
pub(super) fn text(name: &Name) -> String {
    let labels: Vec<_> = name.iter().map(String::from_utf8_lossy).collect();
    labels.join(".")
}

/// The servers of `/etc/resolv.conf`; as resolv.conf(5) says, the one on this host where there are none.
pub(super) fn system_servers() -> Vec<NameServerConfig> {
    match read_system_conf() {
        Ok((system, _)) => system.into_parts().2,
        Err(_) => vec![NameServerConfig::udp_and_tcp(IpAddr::V4(
            Ipv4Addr::LOCALHOST,
        ))],
    }
}

/// A server of the config in the resolver's words: UDP, and TCP for what does not fit.
pub(super) fn name_server(server: &Server) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.0.port();
    }
    NameServerConfig::new(server.0.ip(), true, connections)
}

/// We ask over plain UDP and TCP. Given no TLS configuration the resolver reads the system's roots,
/// and does not start where there are none, as in a small container.
pub(super) fn trust_nobody() -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Temporary(error.to_string()))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

/// The config in the resolver's words.
pub(super) fn options(config: &Config) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = config.timeout;
    options.attempts = config.attempts.saturating_sub(1);
    options.edns0 = true;
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    options.cache_size = config.cache_size;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_min_ttl = Some(config.min_ttl);
    options.positive_max_ttl = Some(config.max_ttl);
    options.negative_min_ttl = Some(config.negative_min_ttl);
    options.negative_max_ttl = Some(config.negative_max_ttl);
    options.try_tcp_on_error = true;
    // Questions at once on one TCP connection; one too many would be an error.
    options.max_active_requests = 1024;
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_any_octet_but_no_empty_label() {
        assert!(absolute("a b._spf.example.com").is_some());
        assert!(absolute("example.com.").is_some());
        assert!(absolute("a..example.com").is_none());
        assert!(absolute("").is_none());
        assert!(absolute(&"a".repeat(64)).is_none());
        assert!(absolute(&"abcdefg.".repeat(40)).is_none());
    }
}
