//! Whole TLS handshakes with an ECDSA certificate, after STARTTLS and at once, beside those that rustls alone
//! comes to as a server in memory: how many in a second of the server's processor time.
//!
//! What a handshake costs the gateway is what a session with one costs more than the same without TLS. The whole
//! session is shown, too: with the kernel's work for a connection, greeting and commands, the log, and the end.
//! What clients do counts on neither side.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use anyhow::bail;
use nix::time::ClockId;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::client::Certificate;
use crate::client::Client;
use crate::client::HONEST;
use crate::client::Trust;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::gateway::UNCHECKED;
use crate::nameserver::Nameserver;
use crate::sending::CLIENT;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;
use crate::wait;

/// Clients at a time.
const CLIENTS: usize = 32;

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let (trust, certificate) = Trust::make(&setting.folder("certificate")?)?;
    let trust = trust.without_resumption();
    let alone = in_memory_server(&certificate)?;
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let start = |tls| {
        let config = Config {
            tls,
            ..Config::new(
                format!("lmtp:{}", wait::free_address()?),
                dns.address,
                &format!("{UNCHECKED}{}", certificate.section()),
            )
        };
        Gateway::start(setting, &config)
    };
    let (offering, beginning) = (start("starttls")?, start("implicit")?);
    let count = setting.options.number(4000);
    let spent = |gateway: &Gateway, visit: Visit| -> Result<f64> {
        let before = gateway.cpu()?;
        visit_all(gateway.smtp, count, &trust, visit)?;
        Ok((gateway.cpu()? - before).as_secs_f64() / count as f64)
    };
    let figures = rounds(setting.options.rounds(), || {
        Ok(Figures {
            plain: spent(&offering, without_tls)?,
            starttls: spent(&offering, after_starttls)?,
            implicit: spent(&beginning, at_once)?,
            alone: in_memory(&alone, &trust, count)?,
        })
    })?;
    let line = |what: &str, bound, ours: fn(&Figures) -> f64| {
        let figures = figures.iter().map(|one| (1.0 / ours(one), 1.0 / one.alone));
        let against = ("rustls alone, in memory", bound);
        Line::new(what, Unit::PerCpuSecond, against, figures)
    };
    let least = Bound::AtLeast(0.6);
    Ok(vec![
        line("after STARTTLS", least, |one| one.starttls - one.plain),
        line("at once", least, |one| one.implicit - one.plain),
        line("sessions with STARTTLS", Bound::None, |one| one.starttls),
        line("sessions with TLS at once", Bound::None, |one| one.implicit),
    ])
}

/// Seconds of processor time of the gateway for a session, and of rustls for a handshake.
struct Figures {
    plain: f64,
    starttls: f64,
    implicit: f64,
    alone: f64,
}

/// One session, to its end.
type Visit = fn(SocketAddr, &Trust) -> io::Result<()>;

fn without_tls(server: SocketAddr, _trust: &Trust) -> io::Result<()> {
    Client::hello(server, HONEST, CLIENT)?.expect("QUIT", 221)
}

fn after_starttls(server: SocketAddr, trust: &Trust) -> io::Result<()> {
    let mut client = Client::hello(server, HONEST, CLIENT)?;
    client.expect("STARTTLS", 220)?;
    client.secure(trust)?;
    client.expect("QUIT", 221)
}

fn at_once(server: SocketAddr, trust: &Trust) -> io::Result<()> {
    let mut client = Client::connect(server, HONEST)?;
    client.secure(trust)?;
    client.reply()?;
    client.expect(&format!("EHLO {CLIENT}"), 250)?;
    client.expect("QUIT", 221)
}

fn visit_all(server: SocketAddr, count: usize, trust: &Trust, visit: Visit) -> Result<()> {
    thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|number| {
            scope.spawn(move || -> Result<()> {
                for _ in (number..count).step_by(CLIENTS) {
                    if wait::is_stopped() {
                        bail!("stopped");
                    }
                    visit(server, trust)?;
                }
                Ok(())
            })
        });
        for client in clients.collect::<Vec<_>>() {
            match client.join() {
                Ok(done) => done?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    })
}

/// The server of who takes rustls as it is, with the gateway's certificate.
fn in_memory_server(certificate: &Certificate) -> Result<Arc<ServerConfig>> {
    let chain = vec![CertificateDer::from_pem_file(&certificate.chain)?];
    let key = PrivateKeyDer::from_pem_file(&certificate.key)?;
    let config = ServerConfig::builder().with_no_client_auth();
    Ok(Arc::new(config.with_single_cert(chain, key)?))
}

/// Seconds of processor time that a handshake takes a server.
fn in_memory(server: &Arc<ServerConfig>, trust: &Trust, count: usize) -> Result<f64> {
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        let mut client = trust.in_memory()?;
        let mut connection = None;
        while client.is_handshaking() || connection.is_none() {
            let words = said(&mut client)?;
            let began = cpu()?;
            let connection = match &mut connection {
                Some(connection) => connection,
                none => none.insert(ServerConnection::new(Arc::clone(server))?),
            };
            hear(connection, &words)?;
            let mut answer = Vec::new();
            while connection.wants_write() {
                connection.write_tls(&mut answer)?;
            }
            spent += cpu()? - began;
            client.read_tls(&mut &answer[..])?;
            client.process_new_packets()?;
        }
        // The client's last words, which end it for the server as well.
        let words = said(&mut client)?;
        let began = cpu()?;
        if let Some(mut connection) = connection {
            hear(&mut connection, &words)?;
            let mut tickets = Vec::new();
            connection.write_tls(&mut tickets)?;
            if connection.is_handshaking() {
                bail!("the handshake did not end");
            }
        }
        spent += cpu()? - began;
    }
    Ok(spent.as_secs_f64() / count as f64)
}

fn said(client: &mut ClientConnection) -> Result<Vec<u8>> {
    let mut words = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut words)?;
    }
    Ok(words)
}

fn hear(server: &mut ServerConnection, mut words: &[u8]) -> Result<()> {
    while !words.is_empty() {
        server.read_tls(&mut words)?;
        server.process_new_packets()?;
    }
    Ok(())
}

/// Processor time of this thread.
fn cpu() -> Result<Duration> {
    Ok(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?.into())
}
