//! A small SMTP client that does what it is told, right or wrong.
//!
//! It blocks, with a deadline on each read. It has raw access to the bytes, so that a test can
//! break any rule; [`Client::deliver`] is the one transaction that keeps them.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::StreamOwned;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::support::SOON;

/// The name by which the client greets, and whose SPF record names 127.0.0.1 and ::1.
pub const CLIENT: &str = "client.example";

/// One connection.
pub struct Client {
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
    /// Connects and reads nothing.
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).expect("the server takes connections")
    }

    /// Connects and reads nothing; the server may be gone.
    pub fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream: Stream::Plain(stream),
            unread: Vec::new(),
        })
    }

    /// Connects, is greeted and says EHLO.
    pub fn hello(address: SocketAddr) -> Client {
        let mut client = Client::connect(address);
        client.greet(CLIENT);
        client
    }

    /// Connects to a listener that believes PROXY headers, as if from `source`, and says EHLO.
    pub fn hello_from(address: SocketAddr, source: &str, helo: &str) -> Client {
        let mut client = Client::connect_from(address, source);
        client.greet(helo);
        client
    }

    /// Connects to a listener that believes PROXY headers, as if from `source`, and reads nothing.
    pub fn connect_from(address: SocketAddr, source: &str) -> Client {
        let mut client = Client::connect(address);
        let source: IpAddr = source.parse().expect("an address");
        let header = match source {
            IpAddr::V4(_) => format!("PROXY TCP4 {source} 192.0.2.25 40000 25\r\n"),
            IpAddr::V6(_) => format!("PROXY TCP6 {source} 2001:db8::25 40000 25\r\n"),
        };
        client.send(header.as_bytes());
        client
    }

    fn greet(&mut self, helo: &str) {
        let greeting = self.reply();
        assert!(greeting.starts_with("220"), "greeted with {greeting:?}");
        let hello = self.say(&format!("EHLO {helo}"));
        assert!(hello.starts_with("250"), "EHLO was answered {hello:?}");
    }

    /// Sends these bytes and nothing else.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server reads");
    }

    /// Sends these bytes; the server may have hung up.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Sends a line and reads the reply.
    pub fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends a line and reads the reply; fails where it begins otherwise than `want`.
    pub fn expect(&mut self, line: &str, want: &str) -> String {
        let reply = self.say(line);
        assert!(
            reply.starts_with(want),
            "{line:?} was answered {reply:?}, not {want}"
        );
        reply
    }

    /// The next reply, its lines joined by LF, without line ends.
    pub fn reply(&mut self) -> String {
        self.try_reply().expect("a reply")
    }

    /// The next reply; the server may hang up or say nothing.
    pub fn try_reply(&mut self) -> io::Result<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line);
            if !more {
                return Ok(lines.join("\n"));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.unread.drain(..end + 2).collect::<Vec<_>>();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.read()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let count = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut buffer)?,
            Stream::Tls(stream) => stream.read(&mut buffer)?,
            Stream::Gone => 0,
        };
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// All that the server still says until it hangs up; fails where it does not hang up.
    pub fn rest(&mut self) -> String {
        loop {
            match self.read() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => panic!("the server did not hang up"),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// Says nothing more, but goes on reading.
    pub fn finish(&mut self) {
        if let Stream::Plain(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Shakes hands, after STARTTLS or on a listener with implicit TLS; trusts only `root`.
    pub fn secure(&mut self, root: &CertificateDer<'static>, name: &str) -> io::Result<()> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).expect("a certificate");
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        self.secure_with(&Arc::new(config), name)
    }

    /// Shakes hands as this configuration says, which remembers sessions for the next connection.
    pub fn secure_with(&mut self, config: &Arc<ClientConfig>, name: &str) -> io::Result<()> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection =
            ClientConnection::new(Arc::clone(config), name).expect("a client's configuration");
        let Stream::Plain(tcp) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            panic!("there is TLS already");
        };
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        self.stream = Stream::Tls(Box::new(stream));
        Ok(())
    }

    /// Whether the handshake resumed an older session.
    pub fn has_resumed(&self) -> bool {
        match &self.stream {
            Stream::Tls(stream) => stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
            Stream::Plain(_) | Stream::Gone => false,
        }
    }

    /// The certificate that the server showed.
    pub fn server_certificate(&self) -> Option<CertificateDer<'static>> {
        let Stream::Tls(stream) = &self.stream else {
            return None;
        };
        let chain = stream.conn.peer_certificates()?;
        chain.first().map(|first| first.clone().into_owned())
    }

    /// One whole transaction; gives the first reply that is not a yes, or that to the final dot.
    /// `message` ends its lines with CRLF.
    pub fn deliver(&mut self, from: &str, to: &str, message: &str) -> String {
        self.try_deliver(from, to, message).expect("replies")
    }

    /// As [`Client::deliver`], for a message that must be taken. Gives the reply.
    #[track_caller]
    pub fn hand_over(&mut self, from: &str, to: &str, message: &str) -> String {
        let reply = self.deliver(from, to, message);
        assert!(reply.starts_with("250 2.0.0 "), "{reply:?}");
        reply
    }

    /// As [`Client::deliver`]; the server may be gone at any point.
    pub fn try_deliver(&mut self, from: &str, to: &str, message: &str) -> io::Result<String> {
        self.try_deliver_to_all(from, &[to], message)
    }

    /// As [`Client::try_deliver`], to several recipients, each of which has to be granted.
    pub fn try_deliver_to_all(
        &mut self,
        from: &str,
        to: &[&str],
        message: &str,
    ) -> io::Result<String> {
        let mail = (format!("MAIL FROM:<{from}>"), '2');
        let recipients = to.iter().map(|to| (format!("RCPT TO:<{to}>"), '2'));
        let data = ("DATA".to_owned(), '3');
        for (line, yes) in std::iter::once(mail).chain(recipients).chain([data]) {
            self.try_send(format!("{line}\r\n").as_bytes())?;
            let reply = self.try_reply()?;
            if !reply.starts_with(yes) {
                return Ok(reply);
            }
        }
        let stuffed = message.replace("\r\n.", "\r\n..");
        self.try_send(format!("{stuffed}.\r\n").as_bytes())?;
        self.try_reply()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
