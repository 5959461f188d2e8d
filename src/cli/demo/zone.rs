//! The demo's own piece of the DNS: a root zone with a handful of names, on loopback.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use anyhow::anyhow;
use hickory_server::Server;
use hickory_server::proto::rr::LowerName;
use hickory_server::proto::rr::Name;
use hickory_server::proto::rr::RData;
use hickory_server::proto::rr::Record;
use hickory_server::proto::rr::rdata::PTR;
use hickory_server::proto::rr::rdata::SOA;
use hickory_server::proto::rr::rdata::TXT;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::AxfrPolicy;
use hickory_server::zone_handler::Catalog;
use hickory_server::zone_handler::ZoneType;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;

/// Seconds for which an answer may be remembered.
const TTL: u32 = 60;

/// The names of the demo while they are being written down.
pub(super) struct Zone {
    records: InMemoryZoneHandler,
}

impl Zone {
    pub(super) fn new() -> Zone {
        let mut zone = Zone {
            records: InMemoryZoneHandler::empty(Name::root(), ZoneType::Primary, AxfrPolicy::Deny),
        };
        zone.add(
            Name::root(),
            RData::SOA(SOA::new(Name::root(), Name::root(), 1, 60, 60, 60, TTL)),
        );
        zone
    }

    /// A TXT record; cut into strings of 255 octets (RFC 7208 §3.3).
    pub(super) fn txt(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let strings = text.as_bytes().chunks(255);
        let strings = strings
            .map(|piece| String::from_utf8_lossy(piece).into_owned())
            .collect();
        self.add(absolute(name)?, RData::TXT(TXT::new(strings)));
        Ok(())
    }

    /// An address and the name that it leads back to.
    pub(super) fn host(&mut self, name: &str, address: Ipv4Addr) -> anyhow::Result<()> {
        let host = absolute(name)?;
        self.add(host.clone(), RData::A(address.into()));
        let reverse = Name::from(std::net::IpAddr::V4(address));
        self.add(reverse, RData::PTR(PTR(host)));
        Ok(())
    }

    fn add(&mut self, name: Name, data: RData) {
        self.records
            .upsert_mut(Record::from_rdata(name, TTL, data), 1);
    }

    /// Answers on a free loopback port until the server is dropped.
    pub(super) async fn serve(self) -> anyhow::Result<(SocketAddr, Server<Catalog>)> {
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::new(&Name::root()), vec![Arc::new(self.records)]);
        let mut server = Server::new(catalog);
        let (udp, tcp) = sockets().await.context("cannot open a port for DNS")?;
        let address = udp.local_addr()?;
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 16 * 1024);
        Ok((address, server))
    }
}

/// One free port for both protocols. The system picks it for UDP; for TCP it may be taken.
async fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0..20;
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Err(_) if tries.next().is_some() => {}
            tcp => return Ok((udp, tcp?)),
        }
    }
}

fn absolute(name: &str) -> anyhow::Result<Name> {
    let mut name =
        Name::from_str(name).map_err(|error| anyhow!("{name} is no DNS name: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
}
