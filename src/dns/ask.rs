//! How a question is put to the resolver: its options, names as it wants them; and its answer in
//! our words.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::net::DnsError;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::system_conf::read_system_conf;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

use crate::dns::Config;
use crate::dns::Error;
use crate::dns::Existence;
use crate::dns::Server;
use crate::dns::SetupError;
use crate::dns::Tlsa;
use crate::dns::answers::Answer;
use crate::dns::answers::Kind;
use crate::dns::answers::Records;
use crate::mail::address::Domain;

/// Asks, as often as the config says.
pub(super) async fn ask(
    resolver: &TokioResolver,
    config: &Config,
    name: Name,
    kind: Kind,
) -> Result<Answer, Error> {
    match resolver.lookup(name, record_type(kind)).await {
        Ok(lookup) => {
            let left = lookup
                .valid_until()
                .saturating_duration_since(Instant::now());
            let records = records(kind, lookup.answers());
            Ok(Answer::new(records, left.min(config.max_ttl)))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
            let (code, ttl) = (nothing.response_code, nothing.negative_ttl);
            Ok(self::nothing(config, code, ttl))
        }
        Err(error) => Err(error.into()),
    }
}

/// The answer that there is nothing.
pub(super) fn nothing(config: &Config, code: ResponseCode, ttl: Option<u32>) -> Answer {
    // RFC 8020 §2: only NXDOMAIN says that there is nothing, not an empty answer.
    let existence = match code {
        ResponseCode::NXDomain => Existence::DoesNotExist,
        _ => Existence::Exists,
    };
    // RFC 2308 §5: without the SOA record nobody says for how long.
    let said = Duration::from_secs(ttl.unwrap_or(0).into());
    let lifetime = said.clamp(config.negative_min_ttl, config.negative_max_ttl);
    Answer::new(Records::Nothing(existence), lifetime)
}

pub(super) fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::Ipv4 => RecordType::A,
        Kind::Ipv6 => RecordType::AAAA,
        Kind::Exchangers => RecordType::MX,
        Kind::Names => RecordType::PTR,
        Kind::Texts => RecordType::TXT,
        Kind::Associations => RecordType::TLSA,
        Kind::Alias => RecordType::CNAME,
    }
}

/// The records of a kind; others, such as aliases on the way, are left out.
pub(super) fn records(kind: Kind, answers: &[Record]) -> Records {
    let data = answers.iter().map(|record| &record.data);
    match kind {
        Kind::Ipv4 | Kind::Ipv6 => some(data.filter_map(|data| match (kind, data) {
            (Kind::Ipv4, RData::A(a)) => Some(IpAddr::V4(a.0)),
            (Kind::Ipv6, RData::AAAA(aaaa)) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        }))
        .map(Records::Addresses),
        Kind::Exchangers => some(data.filter_map(|data| match data {
            RData::MX(mx) => Some((mx.preference, text(&mx.exchange))),
            _ => None,
        }))
        .map(|mut exchangers| {
            exchangers.sort_by_key(|(preference, _)| *preference);
            Records::Exchangers(exchangers)
        }),
        Kind::Names => some(data.filter_map(|data| match data {
            RData::PTR(ptr) => Domain::parse(&text(&ptr.0)).ok(),
            _ => None,
        }))
        .map(Records::Names),
        Kind::Texts => some(data.filter_map(|data| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        }))
        .map(Records::Texts),
        Kind::Associations => some(data.filter_map(|data| match data {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        }))
        .map(Records::Associations),
        Kind::Alias => some(data.filter_map(|data| match data {
            RData::CNAME(alias) => Domain::parse(&text(&alias.0)).ok(),
            _ => None,
        }))
        .map(Records::Names),
    }
    .unwrap_or(Records::Nothing(Existence::Exists))
}

fn some<T>(records: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let records: Vec<T> = records.collect();
    (!records.is_empty()).then_some(records)
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
pub(super) fn trust_nobody() -> Result<ClientConfig, SetupError> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Library(error.to_string()))?
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
    // Ours stands in front of it.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_min_ttl = Some(config.min_ttl);
    options.positive_max_ttl = Some(config.max_ttl);
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
