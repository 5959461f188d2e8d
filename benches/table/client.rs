//! A small SMTP client, for what `smtp-source` does not do. It blocks, with a deadline on each step.

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use rcgen::CertificateParams;
use rcgen::KeyPair;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::StreamOwned;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::wait::SOON;

/// Where honest clients come from.
pub(crate) const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const SERVER: &str = "mx.gate.example";

pub(crate) struct Client {
    stream: Stream,
    unread: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Between the two, for a moment.
    Gone,
}

impl Client {
    /// Connects from this address, and reads nothing.
    pub(crate) fn connect(server: SocketAddr, from: IpAddr) -> io::Result<Client> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // A port that an earlier row has used serves again, as long as it is to another server.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&server.into(), SOON)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream: Stream::Plain(stream),
            unread: Vec::new(),
        })
    }

    /// Connects from this address, is greeted and says EHLO.
    pub(crate) fn hello(server: SocketAddr, from: IpAddr, name: &str) -> io::Result<Client> {
        let mut client = Client::connect(server, from)?;
        wanted(client.reply()?, 220)?;
        client.expect(&format!("EHLO {name}"), 250)?;
        Ok(client)
    }

    /// Says STARTTLS, shakes hands and says EHLO again.
    pub(crate) fn start_tls(mut self, trust: &Trust, name: &str) -> io::Result<Client> {
        self.expect("STARTTLS", 220)?;
        self.secure(trust)?;
        self.expect(&format!("EHLO {name}"), 250)?;
        Ok(self)
    }

    /// Speaks TLS from now on; the handshake comes with the next words.
    pub(crate) fn secure(&mut self, trust: &Trust) -> io::Result<()> {
        let server = ServerName::try_from(SERVER).map_err(io::Error::other)?;
        let config = Arc::clone(&trust.0);
        let connection = ClientConnection::new(config, server).map_err(io::Error::other)?;
        if let Stream::Plain(tcp) = std::mem::replace(&mut self.stream, Stream::Gone) {
            self.stream = Stream::Tls(Box::new(StreamOwned::new(connection, tcp)));
        }
        Ok(())
    }

    /// Says a line; fails where the answer is another.
    pub(crate) fn expect(&mut self, line: &str, code: u16) -> io::Result<()> {
        wanted(self.say(line)?, code)
    }

    /// Says a line and gives the code of the answer.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<u16> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// MAIL, RCPT and DATA, up to where the message may begin.
    pub(crate) fn begin(&mut self, sender: &str, recipient: &str) -> io::Result<()> {
        self.expect(&format!("MAIL FROM:<{sender}>"), 250)?;
        self.expect(&format!("RCPT TO:<{recipient}>"), 250)?;
        self.expect("DATA", 354)
    }

    /// The same in one go, as clients do where PIPELINING is offered (RFC 2920).
    pub(crate) fn begin_at_once(&mut self, sender: &str, recipient: &str) -> io::Result<()> {
        let lines = format!("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n");
        self.send(lines.as_bytes())?;
        [250, 250, 354]
            .into_iter()
            .try_for_each(|code| wanted(self.reply()?, code))
    }

    /// The code of the next reply.
    pub(crate) fn reply(&mut self) -> io::Result<u16> {
        loop {
            let line = self.line()?;
            if line.get(3) != Some(&b'-') {
                let code = line.get(..3).and_then(|code| str::from_utf8(code).ok());
                let code = code.and_then(|code| code.parse().ok());
                return code.ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.iter().position(|octet| *octet == b'\n') {
                return Ok(self.unread.drain(..=end).collect());
            }
            let mut buffer = [0; 1024];
            let count = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut buffer)?,
                Stream::Tls(stream) => stream.read(&mut buffer)?,
                Stream::Gone => 0,
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend_from_slice(&buffer[..count]);
        }
    }
}

fn wanted(code: u16, wanted: u16) -> io::Result<()> {
    match code == wanted {
        true => Ok(()),
        false => Err(io::Error::other(format!("answered {code}, not {wanted}"))),
    }
}

/// Whom TLS clients trust: the server with the certificate that was made with it.
pub(crate) struct Trust(Arc<ClientConfig>);

/// A certificate and its key, PEM.
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// The section of the configuration that names the files.
    pub(crate) fn section(&self) -> String {
        let Certificate { chain, key } = self;
        format!("[tls]\ncertificates = [{{ chain = {chain:?}, key = {key:?} }}]\n")
    }
}

impl Trust {
    /// Makes a certificate in `folder`, ECDSA with P-256.
    pub(crate) fn make(folder: &Path) -> Result<(Trust, Certificate)> {
        let pair = KeyPair::generate()?;
        let made = CertificateParams::new([SERVER.to_owned()])?.self_signed(&pair)?;
        let files = Certificate {
            chain: folder.join("chain.pem"),
            key: folder.join("key.pem"),
        };
        fs::write(&files.key, pair.serialize_pem())?;
        fs::write(&files.chain, made.pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.der().clone())?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok((Trust(Arc::new(config)), files))
    }

    /// A connection to nowhere, for a server in memory.
    pub(crate) fn in_memory(&self) -> Result<ClientConnection> {
        let server = ServerName::try_from(SERVER)?;
        Ok(ClientConnection::new(Arc::clone(&self.0), server)?)
    }

    /// The same for clients that have never been there before: each handshake is a whole one.
    pub(crate) fn without_resumption(self) -> Trust {
        let mut config = Arc::unwrap_or_clone(self.0);
        config.resumption = Resumption::disabled();
        Trust(Arc::new(config))
    }
}
