//! A mail exchanger that offers TLS with a certificate of the test's choice, and keeps what it takes.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::KeyPair;
use rcgen::PublicKeyData;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::rustls::StreamOwned;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// An authority that nobody trusts unless told to.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server's certificate with its key, and the authority's.
#[derive(Clone)]
pub struct Chain {
    pub server: CertificateDer<'static>,
    pub authority: CertificateDer<'static>,
    /// The public key of the server.
    pub spki: Vec<u8>,
    key: Vec<u8>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("authority {}", rand::random::<u64>());
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// In PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs what another made.
    pub fn sign(&self, params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        let signed = params.signed_by(key, &self.0).expect("a certificate");
        signed.der().clone()
    }

    /// A certificate for this name, which ends with this year.
    pub fn issue(&self, name: &str, until: i32) -> Chain {
        self.issue_all(&[name], until)
    }

    /// The same for several names.
    pub fn issue_all(&self, names: &[&str], until: i32) -> Chain {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let server = params.signed_by(&key, &self.0).expect("a certificate");
        Chain {
            server: server.der().clone(),
            authority: self.0.der().clone(),
            spki: key.subject_public_key_info(),
            key: key.serialize_der(),
        }
    }
}

impl Chain {
    /// The configuration of a server that shows it.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("a key");
        let chain = vec![self.server.clone(), self.authority.clone()];
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they belong together");
        Arc::new(config)
    }
}

/// How a host does TLS.
#[derive(Clone)]
pub enum Tls {
    /// It offers none, or somebody on the way takes the offer out.
    NotOffered,
    /// It offers it and hangs up.
    Breaks,
    /// With this certificate.
    With(Arc<ServerConfig>),
}

/// What a message came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Whether it came under TLS, and the name that was asked for in the handshake.
    pub tls: Option<String>,
    /// The line.
    pub mail: String,
}

/// A server on loopback, until the test's process ends.
pub struct TlsHost {
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl TlsHost {
    /// `offers` stands in its reply to EHLO under TLS, too.
    pub fn start(address: SocketAddr, tls: Tls, offers: &'static [&'static str]) -> TlsHost {
        let listener = TcpListener::bind(address).expect("the address is free");
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let keep = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tls, keep) = (tls.clone(), Arc::clone(&keep));
                thread::spawn(move || converse(stream, &tls, offers, &keep));
            }
        });
        TlsHost { taken }
    }

    /// All messages so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().expect("no thread panics with it").clone()
    }
}

fn converse(
    stream: TcpStream,
    tls: &Tls,
    offers: &[&str],
    keep: &Mutex<Vec<Taken>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let offered: Vec<&str> = match tls {
        Tls::NotOffered => offers.to_vec(),
        Tls::Breaks | Tls::With(_) => [offers, &["STARTTLS"]].concat(),
    };
    let mut plain = BufReader::new(stream);
    plain.get_mut().write_all(b"220 host\r\n")?;
    if !dialogue(&mut plain, &offered, None, keep)? {
        return Ok(());
    }
    let Tls::With(config) = tls else {
        return Ok(());
    };
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut secure = StreamOwned::new(connection, plain.into_inner());
    // The handshake is done before the name is known.
    while secure.conn.is_handshaking() {
        secure.conn.complete_io(&mut secure.sock)?;
    }
    let name = secure.conn.server_name().unwrap_or_default().to_owned();
    dialogue(&mut BufReader::new(secure), offers, Some(name), keep).map(drop)
}

/// Gives true where the client wants TLS.
fn dialogue<S: Read + Write>(
    stream: &mut BufReader<S>,
    offers: &[&str],
    tls: Option<String>,
    keep: &Mutex<Vec<Taken>>,
) -> io::Result<bool> {
    let (mut mail, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let reply = match line.get(..4).unwrap_or_default() {
            "EHLO" => {
                let lines = offers.iter().map(|offer| format!("250-{offer}\r\n"));
                format!("250-host\r\n{}250 8BITMIME", lines.collect::<String>())
            }
            "STAR" => {
                stream.get_mut().write_all(b"220 go\r\n")?;
                return Ok(true);
            }
            "MAIL" => {
                mail = line.trim_end().to_owned();
                "250 ok".to_owned()
            }
            "DATA" => {
                stream.get_mut().write_all(b"354 go\r\n")?;
                while line != ".\r\n" {
                    line.clear();
                    if stream.read_line(&mut line)? == 0 {
                        return Ok(false);
                    }
                }
                let (tls, mail) = (tls.clone(), mail.clone());
                let mut taken = keep.lock().expect("no thread panics with it");
                taken.push(Taken { tls, mail });
                "250 taken".to_owned()
            }
            "QUIT" => {
                stream.get_mut().write_all(b"221 bye\r\n")?;
                return Ok(false);
            }
            _ => "250 ok".to_owned(),
        };
        let out = stream.get_mut();
        out.write_all(format!("{reply}\r\n").as_bytes())?;
        out.flush()?;
    }
}
