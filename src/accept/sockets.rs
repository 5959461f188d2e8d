//! Where we listen: the `[[listen]]` sections, and the sockets bound for them.
//!
//! Binds with plain blocking calls, before there is a runtime and while the process may still be
//! root. An IPv6 socket takes IPv6 only, so that `[::]:25` and `0.0.0.0:25` stand side by side.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use nix::errno::Errno;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

use crate::session::Cipher;
use crate::session::ClientCertificates;
use crate::session::MinimumVersion;
use crate::session::Service;
use crate::session::Terms;
use crate::session::TlsMode;
use crate::telemetry::events;

/// One `[[listen]]`. Where the file has none, [`Defaults`] say what is listened on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// What connections are for.
    pub service: Service,
    /// Where to listen: `"0.0.0.0:25"`, `"[::]:25"`, or a list of such.
    #[serde(deserialize_with = "addresses")]
    pub address: Vec<SocketAddr>,
    /// Whether TLS is offered, comes first, or is not to be had. Default: `"starttls"`.
    #[serde(default = "starttls")]
    pub tls: TlsMode,
    /// The oldest version of TLS that is spoken here. Default: that of `[tls]`.
    #[serde(default)]
    pub tls_minimum_version: Option<MinimumVersion>,
    /// The cipher suites that are spoken here. Default: those of `[tls]`.
    #[serde(default)]
    pub tls_ciphers: Option<Vec<Cipher>>,
    /// Whether clients are asked for a certificate. Default: `"off"`.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Networks whose connections have to begin with a PROXY header. Default: none.
    #[serde(default)]
    pub proxy_protocol_from: Vec<IpNet>,
}

/// Where we listen if the file does not say: on these ports of all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// 25 for mail from the world.
    Mx,
    /// And 465 and 587 for mail from our users (RFC 8314 §3.3, RFC 6409 §3.1).
    MxAndSubmission,
}

impl Defaults {
    /// Ports, what they are for, and their TLS.
    pub fn ports(self) -> &'static [(u16, Service, TlsMode)] {
        const ALL: [(u16, Service, TlsMode); 3] = [
            (25, Service::Mx, TlsMode::Starttls),
            (465, Service::Submission, TlsMode::Implicit),
            (587, Service::Submission, TlsMode::Starttls),
        ];
        match self {
            Defaults::Mx => &ALL[..1],
            Defaults::MxAndSubmission => &ALL,
        }
    }
}

fn starttls() -> TlsMode {
    TlsMode::Starttls
}

impl Listen {
    /// What it has of its own instead of what `[tls]` says.
    pub fn terms(&self) -> Terms {
        Terms {
            minimum_version: self.tls_minimum_version,
            ciphers: self.tls_ciphers.clone(),
            client_certificates: self.client_certificates,
        }
    }

    /// The ports of all sections; that of the default where there is none.
    pub fn ports(all: &[Listen]) -> BTreeSet<u16> {
        let ports = all.iter().flat_map(|listen| &listen.address);
        let ports: BTreeSet<u16> = ports.map(SocketAddr::port).collect();
        match ports.is_empty() {
            true => BTreeSet::from([25]),
            false => ports,
        }
    }

    /// What is wrong with all sections taken together: key path (`1.address`), and what would be right.
    pub fn faults(all: &[Listen]) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut seen: Vec<SocketAddr> = Vec::new();
        for (index, listen) in all.iter().enumerate() {
            let key = || format!("{index}.address");
            if listen.address.is_empty() {
                let right = "no address is given; one looks like \"0.0.0.0:25\"".to_owned();
                faults.push((key(), right));
            }
            // RFC 8314 §3.3: no password goes over an open wire.
            if listen.service == Service::Submission && listen.tls == TlsMode::Off {
                let right = "submission is never without TLS; give \"starttls\" or \"implicit\"";
                faults.push((format!("{index}.tls"), right.to_owned()));
            }
            for address in &listen.address {
                // Port 0 is any free port, another one each time.
                if address.port() != 0 && seen.contains(address) {
                    let right = format!("{address} is given twice; one of them has to go");
                    faults.push((key(), right));
                }
                seen.push(*address);
            }
        }
        faults
    }
}

/// Takes `"ADDRESS:PORT"` or a list of such.
fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an address with port or a list of such")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let texts = match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    };
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            D::Error::custom(format!(
                "{text:?} is no IP address with port; one looks like \"0.0.0.0:25\" or \"[::]:25\""
            ))
        })
    };
    texts.iter().map(parse).collect()
}

/// A socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, is not this machine's, or needs privileges.
    #[error("cannot listen on {address}{}", hint(.source, .address.port()))]
    Bind {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// What the system says of it.
        source: io::Error,
    },
    /// The runtime would not take the socket for users of this machine.
    #[error("cannot watch the socket {}", .path.display())]
    WatchLocal {
        /// Where it is.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The runtime would not take the socket.
    #[error("cannot watch the socket of {address}")]
    Watch {
        /// Where it listens.
        address: SocketAddr,
        /// What the system says of it.
        source: io::Error,
    },
}

/// What an operator can do about it.
fn hint(error: &io::Error, port: u16) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            " (another mail server on this port? `ss -ltnp 'sport = :{port}'` shows who holds it)"
        ),
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need root or CAP_NET_BIND_SERVICE, and a restart rather than a reload)"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            " (no network interface of this machine has this address)".to_owned()
        }
        _ => String::new(),
    }
}

/// One address and how its connections are served.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) service: Service,
    pub(super) tls: TlsMode,
    pub(super) terms: Arc<Terms>,
    proxies: Vec<IpNet>,
}

impl Endpoint {
    /// Whether a connection from here has to begin with a PROXY header.
    pub(super) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&peer))
    }

    pub(super) fn service_name(&self) -> &'static str {
        self.service.name()
    }

    pub(super) fn tls_name(&self) -> &'static str {
        match self.tls {
            TlsMode::Off => "off",
            TlsMode::Starttls => "starttls",
            TlsMode::Implicit => "implicit",
        }
    }
}

/// Sockets that are bound and listen; clients queue in the kernel until [`super::run`] takes them.
#[derive(Debug)]
pub struct Sockets {
    bound: Vec<(Endpoint, TcpListener)>,
}

impl Sockets {
    /// Binds all addresses of all sections, or none. Without a section the defaults, of which IPv6
    /// is left out, with a warning, on a machine without it.
    pub fn bind(listen: &[Listen], defaults: Defaults) -> Result<Sockets, Error> {
        plan(listen, defaults, &[]).map(|plan| plan.fresh)
    }

    /// The addresses that are bound, with the port that was chosen where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let local = |(endpoint, socket): &(Endpoint, TcpListener)| {
            socket.local_addr().unwrap_or(endpoint.address)
        };
        self.bound.iter().map(local).collect()
    }

    pub(super) fn into_bound(self) -> Vec<(Endpoint, TcpListener)> {
        self.bound
    }
}

/// What is to be done to listen as told when the addresses of `held` are bound already.
pub(super) struct Plan {
    /// Held and still wanted, as they are served from now on.
    pub(super) kept: Vec<Endpoint>,
    /// Wanted and bound just now.
    pub(super) fresh: Sockets,
}

pub(super) fn plan(
    listen: &[Listen],
    defaults: Defaults,
    held: &[SocketAddr],
) -> Result<Plan, Error> {
    let mut kept = Vec::new();
    let mut bound = Vec::new();
    for endpoint in endpoints(listen, defaults) {
        if held.contains(&endpoint.address) {
            kept.push(endpoint);
            continue;
        }
        match listening_socket(endpoint.address) {
            Ok(socket) => bound.push((endpoint, socket)),
            Err(error) if listen.is_empty() && is_missing_ipv6(&error, endpoint.address) => {
                events::listener_skipped(endpoint.address, &error);
            }
            Err(source) => {
                let address = endpoint.address;
                return Err(Error::Bind { address, source });
            }
        }
    }
    let fresh = Sockets { bound };
    Ok(Plan { kept, fresh })
}

/// Listens at the addresses; where there is none, at a port of all addresses, of which IPv6 is left out,
/// with a warning, on a machine without it. For what is not mail.
pub fn bind_others(addresses: &[SocketAddr], port: u16) -> Result<Vec<TcpListener>, Error> {
    let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let all = all.map(|ip| SocketAddr::new(ip, port));
    let wanted = if addresses.is_empty() {
        &all
    } else {
        addresses
    };
    let mut bound = Vec::new();
    for &address in wanted {
        match listening_socket(address) {
            Ok(socket) => bound.push(socket),
            Err(error) if addresses.is_empty() && is_missing_ipv6(&error, address) => {
                events::listener_skipped(address, &error);
            }
            Err(source) => return Err(Error::Bind { address, source }),
        }
    }
    Ok(bound)
}

fn endpoints(listen: &[Listen], defaults: Defaults) -> Vec<Endpoint> {
    if listen.is_empty() {
        let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        let on_port = |&(port, service, tls): &(u16, Service, TlsMode)| {
            all.map(|ip| Endpoint {
                address: SocketAddr::new(ip, port),
                service,
                tls,
                terms: Arc::default(),
                proxies: Vec::new(),
            })
        };
        return defaults.ports().iter().flat_map(on_port).collect();
    }
    let of_section = |listen: &Listen| {
        let terms = Arc::new(listen.terms());
        let endpoint = |address: &SocketAddr| Endpoint {
            address: *address,
            service: listen.service,
            tls: listen.tls,
            terms: Arc::clone(&terms),
            proxies: listen.proxy_protocol_from.clone(),
        };
        listen.address.iter().map(endpoint).collect::<Vec<_>>()
    };
    listen.iter().flat_map(of_section).collect()
}

/// Connections that the kernel keeps until we take them; `net.core.somaxconn` may allow fewer.
const BACKLOG: i32 = 1024;

fn listening_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait until the old connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn is_missing_ipv6(error: &io::Error, address: SocketAddr) -> bool {
    let missing = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];
    let code = error.raw_os_error().map(Errno::from_raw);
    address.is_ipv6() && code.is_some_and(|code| missing.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Result<Listen, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_address_is_a_string_or_a_list() {
        let one = listen("service = \"mx\"\naddress = \"0.0.0.0:25\"").unwrap();
        assert_eq!(one.address, ["0.0.0.0:25".parse().unwrap()]);
        assert_eq!(one.tls, TlsMode::Starttls);
        assert!(one.proxy_protocol_from.is_empty());
        let two = "service = \"mx\"\naddress = [\"0.0.0.0:465\", \"[::]:465\"]\ntls = \"implicit\"\n\
                   proxy_protocol_from = [\"10.0.0.0/8\"]";
        let two = listen(two).unwrap();
        assert_eq!(two.address.len(), 2);
        assert_eq!(two.tls, TlsMode::Implicit);
    }

    #[test]
    fn a_wrong_section_says_what_would_be_right() {
        for (text, want) in [
            ("service = \"mx\"\naddress = \"0.0.0.0\"", "0.0.0.0:25"),
            ("service = \"mx\"\naddress = [\"x:25\"]", "[::]:25"),
            ("service = \"mx\"\naddress = 25", "an address with port"),
            ("service = \"mx\"", "address"),
            ("address = \"0.0.0.0:25\"", "service"),
        ] {
            let error = listen(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_given_twice_is_a_fault() {
        let one = listen("service = \"mx\"\naddress = \"0.0.0.0:25\"").unwrap();
        assert_eq!(Listen::faults(std::slice::from_ref(&one)), []);
        let faults = Listen::faults(&[one.clone(), one]);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].0, "1.address");
    }

    #[test]
    fn submission_without_tls_is_a_fault_and_has_ports_of_its_own() {
        let text = "service = \"submission\"\naddress = \"0.0.0.0:587\"\ntls = \"off\"";
        let faults = Listen::faults(&[listen(text).unwrap()]);
        assert_eq!(faults[0].0, "0.tls");
        let ports = |defaults| {
            let all = endpoints(&[], defaults).into_iter();
            all.filter(|one| one.address.is_ipv4())
                .map(|one| (one.address.port(), one.service, one.tls))
                .collect::<Vec<_>>()
        };
        assert_eq!(ports(Defaults::Mx), [(25, Service::Mx, TlsMode::Starttls)]);
        assert_eq!(
            ports(Defaults::MxAndSubmission)[1..],
            [
                (465, Service::Submission, TlsMode::Implicit),
                (587, Service::Submission, TlsMode::Starttls)
            ]
        );
    }

    #[test]
    fn both_families_listen_on_one_port() {
        let v4 = listen("service = \"mx\"\naddress = \"0.0.0.0:0\"").unwrap();
        let first = Sockets::bind(&[v4], Defaults::Mx).unwrap();
        let port = first.addresses()[0].port();
        let v6 = listen(&format!("service = \"mx\"\naddress = \"[::]:{port}\"")).unwrap();
        match Sockets::bind(&[v6], Defaults::Mx) {
            Ok(second) => assert_eq!(second.addresses()[0].port(), port),
            Err(Error::Bind { address, source }) => {
                assert!(is_missing_ipv6(&source, address), "{source}");
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let wanted = listen(&format!("service = \"mx\"\naddress = \"{address}\"")).unwrap();
        let error = Sockets::bind(&[wanted], Defaults::Mx)
            .unwrap_err()
            .to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("another mail server"), "{error}");
    }
}
