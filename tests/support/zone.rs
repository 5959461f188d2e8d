//! A small DNS server on loopback, UDP and TCP, for tests: it serves what it is told, keeps silent
//! where it is told to, and remembers what it was asked.
//!
//! A zone is a text, one record a line: `name TYPE data`. Besides A, AAAA, CNAME, MX, PTR and TXT
//! there are `TIMEOUT` (no answer at all for types the name has no record of) and `SERVFAIL`.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use gatepost::dns;
use gatepost::dns::Dns;
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::rr::rdata;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

const TTL: u32 = 300;

/// What the server knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Zone {
    records: HashMap<Vec<u8>, Vec<RData>>,
    /// Names, or names and types, for which there is no answer.
    silent: HashSet<(Vec<u8>, Option<RecordType>)>,
    failing: HashSet<Vec<u8>>,
}

impl Zone {
    /// Reads `name TYPE data` lines.
    pub(crate) fn parse(text: &str) -> Zone {
        let mut zone = Zone::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let name = words.next().unwrap();
            let kind = words.next().unwrap();
            let data = words.next().unwrap_or_default();
            zone.add(name, kind, data);
        }
        zone
    }

    /// Adds one record.
    pub(crate) fn add(&mut self, name: &str, kind: &str, data: &str) {
        let data = match kind {
            "A" => RData::A(data.parse().unwrap()),
            "AAAA" => RData::AAAA(data.parse().unwrap()),
            "CNAME" => RData::CNAME(rdata::CNAME(absolute(data))),
            "PTR" => RData::PTR(rdata::PTR(absolute(data))),
            "MX" => {
                let (preference, exchange) = data.split_once(' ').unwrap();
                RData::MX(rdata::MX::new(
                    preference.parse().unwrap(),
                    absolute(exchange),
                ))
            }
            "TXT" => return self.add_txt(name, &[data.as_bytes()]),
            "TIMEOUT" => return self.silence(name, None),
            "SERVFAIL" => {
                self.failing.insert(key(&absolute(name)));
                return;
            }
            _ => panic!("no such type: {kind}"),
        };
        self.push(name, data);
    }

    /// Adds a TXT record of several strings; those too long for one are cut.
    pub(crate) fn add_txt(&mut self, name: &str, strings: &[&[u8]]) {
        let strings = strings
            .iter()
            .flat_map(|text| match text.len() {
                0 => vec![*text],
                _ => text.chunks(255).collect(),
            })
            .collect();
        self.push(name, RData::TXT(rdata::TXT::from_bytes(strings)));
    }

    /// No answer for a type, or for all that the name has no record of.
    pub(crate) fn silence(&mut self, name: &str, kind: Option<RecordType>) {
        self.silent.insert((key(&absolute(name)), kind));
    }

    fn push(&mut self, name: &str, data: RData) {
        self.records
            .entry(key(&absolute(name)))
            .or_default()
            .push(data);
    }

    /// The answer to a question; none where the server keeps silent.
    fn answer(&self, request: &Message) -> Option<Message> {
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.metadata.recursion_desired = true;
        reply.metadata.recursion_available = true;
        let query = request.queries.first()?.clone();
        let kind = query.query_type();
        let mut name = query.name().clone();
        reply.add_query(query);
        for _ in 0..8 {
            let at = key(&name);
            if self.failing.contains(&at) {
                reply.metadata.response_code = ResponseCode::ServFail;
                return Some(reply);
            }
            let found = self.records.get(&at).map(Vec::as_slice).unwrap_or_default();
            let matching: Vec<_> = found.iter().filter(|d| d.record_type() == kind).collect();
            let silent = self.silent.contains(&(at.clone(), Some(kind)))
                || matching.is_empty() && self.silent.contains(&(at.clone(), None));
            if silent {
                return None;
            }
            for data in &matching {
                reply.add_answer(Record::from_rdata(name.clone(), TTL, (*data).clone()));
            }
            let alias = found.iter().find_map(|data| match data {
                RData::CNAME(alias) if matching.is_empty() => Some(alias),
                _ => None,
            });
            let Some(alias) = alias else { break };
            reply.add_answer(Record::from_rdata(
                name.clone(),
                TTL,
                RData::CNAME(alias.clone()),
            ));
            name = alias.0.clone();
        }
        if reply.answers.is_empty() {
            if !self.exists(&key(&name)) {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            let soa = rdata::SOA::new(
                absolute("ns.test"),
                absolute("root.test"),
                1,
                60,
                60,
                60,
                60,
            );
            reply.add_authority(Record::from_rdata(absolute("test"), TTL, RData::SOA(soa)));
        }
        Some(reply)
    }

    /// Whether there is such a name or one below it.
    fn exists(&self, at: &[u8]) -> bool {
        let below = [b".", at].concat();
        self.records
            .keys()
            .any(|name| name == at || name.ends_with(&below))
    }
}

/// A name of any octets, as the DNS allows.
fn absolute(name: &str) -> Name {
    let labels = name.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).unwrap()
}

fn key(name: &Name) -> Vec<u8> {
    let labels: Vec<&[u8]> = name.iter().collect();
    labels.join(&b'.').to_ascii_lowercase()
}

/// The running server; gone when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves a zone on a free port of 127.0.0.1.
    pub(crate) async fn start(zone: Zone) -> Server {
        let (udp, tcp) = bind().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let zone = Arc::new(zone);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, zone.clone(), asked.clone()));
        tasks.spawn(serve_tcp(tcp, zone, asked.clone()));
        Server {
            address,
            asked,
            _tasks: tasks,
        }
    }

    /// Reads a zone text and serves it.
    pub(crate) async fn with(text: &str) -> Server {
        Server::start(Zone::parse(text)).await
    }

    /// How to ask it, with the patience that a busy machine needs.
    pub(crate) fn config(&self) -> dns::Config {
        dns::Config {
            servers: vec![dns::Server(self.address)],
            timeout: Duration::from_secs(3),
            attempts: 1,
            deadline: Duration::from_secs(8),
            ..dns::Config::default()
        }
    }

    /// The door to it.
    pub(crate) fn dns(&self) -> Dns {
        Dns::new(&self.config()).unwrap()
    }

    /// How often it was asked for that.
    pub(crate) fn times_asked(&self, name: &str, kind: RecordType) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(asked, of)| asked.eq_ignore_ascii_case(name) && *of == kind)
            .count()
    }
}

async fn bind() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP");
}

type Asked = Arc<Mutex<Vec<(String, RecordType)>>>;

fn reply_to(bytes: &[u8], zone: &Zone, asked: &Asked) -> Option<(Message, Message)> {
    let request = Message::from_vec(bytes).ok()?;
    let query = request.queries.first()?;
    let name = String::from_utf8_lossy(&key(query.name())).into_owned();
    asked.lock().unwrap().push((name, query.query_type()));
    Some((zone.answer(&request)?, request))
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>, asked: Asked) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Some((mut reply, request)) = reply_to(&buffer[..length], &zone, &asked) else {
            continue;
        };
        let mut bytes = reply.to_vec().unwrap();
        // RFC 1035 §4.1.1: what does not fit is cut; the client asks again over TCP.
        if bytes.len() > usize::from(request.max_payload().max(512)) {
            reply.answers.clear();
            reply.metadata.truncation = true;
            bytes = reply.to_vec().unwrap();
        }
        let _ = socket.send_to(&bytes, peer).await;
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>, asked: Asked) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(stream, zone.clone(), asked.clone()));
    }
}

async fn serve_connection(mut stream: TcpStream, zone: Arc<Zone>, asked: Asked) {
    while let Ok(length) = stream.read_u16().await {
        let mut bytes = vec![0; usize::from(length)];
        if stream.read_exact(&mut bytes).await.is_err() {
            return;
        }
        let Some((reply, _)) = reply_to(&bytes, &zone, &asked) else {
            continue;
        };
        let bytes = reply.to_vec().unwrap();
        let mut frame = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(bytes);
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}
