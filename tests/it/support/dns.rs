//! A DNS server that owns every name, keeps silent or fails where it is told to, and remembers what
//! it was asked.
//!
//! It speaks the real protocol over UDP and TCP, from as far away as it is told to ([`Nameserver::away`]). Names that nobody gave it do not exist. Records can
//! be added while it runs. A zone may be given as text, one record a line: `name TYPE data`; besides
//! A, AAAA, CNAME, MX, PTR and TXT there are `TIMEOUT` (no answer) and `SERVFAIL`, each for the types of
//! which the name has no record.
//!
//! The tests against unbound and BIND stand in `peers/dns.rs`.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use gatepost::dns;
use gatepost::dns::Dns;
use hickory_server::proto::op::Message;
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::Name;
use hickory_server::proto::rr::RData;
use hickory_server::proto::rr::Record;
use hickory_server::proto::rr::RecordType;
use hickory_server::proto::rr::rdata::CNAME;
use hickory_server::proto::rr::rdata::MX;
use hickory_server::proto::rr::rdata::PTR;
use hickory_server::proto::rr::rdata::SOA;
use hickory_server::proto::rr::rdata::TXT;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::support::free_port;

/// How many seconds an answer may be remembered, one that there is nothing only for the first.
const TTL: (u32, u32) = (60, 1);

/// What becomes of a question about a name or anything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// The records, or that there are none.
    Answers,
    /// SERVFAIL at once.
    Fails,
    /// No answer at all.
    Silent,
}

/// A name as the DNS has it: labels of any octets, here in lower case and joined by dots.
type Key = Vec<u8>;

#[derive(Debug, Default)]
struct Zone {
    records: HashMap<Key, Vec<RData>>,
    behaviours: HashMap<Key, Behaviour>,
    /// The same for a name alone, and one type or all of which it has no record.
    exceptions: HashMap<(Key, Option<RecordType>), Behaviour>,
    /// Names with records, and all above them.
    there: HashSet<Key>,
    /// How long an answer over UDP takes.
    delay: Duration,
    questions: Vec<String>,
}

/// The server; it ends when dropped.
pub struct Nameserver {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    runtime: Option<Runtime>,
}

impl Nameserver {
    /// Starts with no records.
    pub fn start() -> Nameserver {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().expect("it is bound");
        let zone = Arc::new(Mutex::new(Zone::default()));
        // Of its own, so that it answers while a test blocks.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        runtime.spawn(serve_udp(udp, Arc::clone(&zone)));
        runtime.spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Nameserver {
            address,
            zone,
            runtime: Some(runtime),
        }
    }

    /// Starts with the records of this text.
    pub fn with(text: &str) -> Nameserver {
        let server = Nameserver::start();
        server.add_zone(text);
        server
    }

    /// Adds the records of this text.
    pub fn add_zone(&self, text: &str) -> &Nameserver {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default();
            self.record(word(), word(), word());
        }
        self
    }

    /// Adds one record, written as in a zone's text.
    pub fn record(&self, name: &str, kind: &str, data: &str) -> &Nameserver {
        match kind {
            "A" | "AAAA" => self.host(name, data),
            "TXT" => self.txt(name, data),
            "CNAME" => self.add(name, RData::CNAME(CNAME(parse(data)))),
            "PTR" => self.add(name, RData::PTR(PTR(parse(data)))),
            "MX" => {
                let (preference, exchange) = data.split_once(' ').expect("two words");
                let preference = preference.parse().expect("a number");
                self.add(name, RData::MX(MX::new(preference, parse(exchange))))
            }
            "TIMEOUT" => self.except(name, None, Behaviour::Silent),
            "SERVFAIL" => self.except(name, None, Behaviour::Fails),
            _ => panic!("no such type: {kind}"),
        }
    }

    /// Takes all records of a name away.
    pub fn forget(&self, name: &str) -> &Nameserver {
        self.zone().records.remove(&key(&parse(name)));
        self
    }

    pub fn txt(&self, name: &str, text: &str) -> &Nameserver {
        self.strings(name, &[text.as_bytes()])
    }

    /// A TXT record of several strings; those too long for one are cut.
    pub fn strings(&self, name: &str, strings: &[&[u8]]) -> &Nameserver {
        let strings = strings
            .iter()
            .flat_map(|text| match text.len() {
                0 => vec![*text],
                _ => text.chunks(255).collect(),
            })
            .collect();
        self.add(name, RData::TXT(TXT::from_bytes(strings)))
    }

    /// An A or an AAAA record.
    pub fn host(&self, name: &str, address: &str) -> &Nameserver {
        let data = match address.parse().expect("an address") {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        };
        self.add(name, data)
    }

    /// The name of an address (RFC 1035 §3.5).
    pub fn pointer(&self, address: &str, name: &str) -> &Nameserver {
        let reverse = Name::from(address.parse::<IpAddr>().expect("an address"));
        self.add(&reverse.to_string(), RData::PTR(PTR(parse(name))))
    }

    /// From now on, answers over UDP come after this time.
    pub fn away(&self, delay: Duration) -> &Nameserver {
        self.zone().delay = delay;
        self
    }

    /// From now on, questions about `name` and what is below it (`.`: all) go so.
    pub fn behave(&self, name: &str, behaviour: Behaviour) -> &Nameserver {
        self.zone().behaviours.insert(key(&parse(name)), behaviour);
        self
    }

    /// Questions about this name alone go so, for one type or for all of which it has no record.
    pub fn except(
        &self,
        name: &str,
        kind: Option<RecordType>,
        behaviour: Behaviour,
    ) -> &Nameserver {
        let about = (key(&parse(name)), kind);
        self.zone().exceptions.insert(about, behaviour);
        self
    }

    /// How often it was asked `NAME TYPE`, the name in lower case and without a dot at the end.
    pub fn times_asked(&self, question: &str) -> usize {
        let zone = self.zone();
        zone.questions
            .iter()
            .filter(|asked| *asked == question)
            .count()
    }

    /// How often it was asked anything.
    pub fn questions(&self) -> usize {
        self.zone().questions.len()
    }

    /// How to ask it, with the patience that a busy machine needs.
    pub fn config(&self) -> dns::Config {
        dns::Config {
            servers: vec![dns::Server(self.address)],
            timeout: Duration::from_secs(3),
            attempts: 1,
            deadline: Duration::from_secs(8),
            ..dns::Config::default()
        }
    }

    /// The gateway's own door to it.
    pub fn dns(&self) -> Dns {
        Dns::new(&self.config()).expect("the configuration is right")
    }

    fn add(&self, name: &str, data: RData) -> &Nameserver {
        let key = key(&parse(name));
        let mut zone = self.zone();
        let dots = key.iter().enumerate().filter(|(_, octet)| **octet == b'.');
        let above: Vec<Key> = dots.map(|(at, _)| key[at + 1..].to_vec()).collect();
        zone.there.extend(above);
        zone.there.insert(key.clone());
        zone.records.entry(key).or_default().push(data);
        drop(zone);
        self
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().expect("no test has panicked with it")
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Zone {
    /// The answer to a question; none where the server keeps silent.
    fn answer(&mut self, request: &Message) -> Option<Message> {
        let query = request.queries.first()?;
        let (mut name, kind) = (query.name().clone(), query.query_type());
        let asked = key(&name);
        let question = format!("{} {kind}", String::from_utf8_lossy(&asked));
        self.questions.push(question);
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.metadata.recursion_desired = request.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.add_query(query.clone());
        // A chain of aliases ends somewhere; one that does not is cut.
        for _ in 0..8 {
            let at = key(&name);
            let found = self.records.get(&at).map(Vec::as_slice).unwrap_or_default();
            let matching: Vec<_> = found.iter().filter(|d| d.record_type() == kind).collect();
            match self.behaviour(&at, kind, matching.is_empty()) {
                Behaviour::Answers => {}
                Behaviour::Silent => return None,
                Behaviour::Fails => {
                    reply.metadata.response_code = ResponseCode::ServFail;
                    return Some(reply);
                }
            }
            for data in &matching {
                reply.add_answer(Record::from_rdata(name.clone(), TTL.0, (*data).clone()));
            }
            let alias = found.iter().find_map(|data| match data {
                RData::CNAME(alias) if matching.is_empty() => Some(alias.clone()),
                _ => None,
            });
            let Some(alias) = alias else { break };
            reply.add_answer(Record::from_rdata(name, TTL.0, RData::CNAME(alias.clone())));
            name = alias.0;
        }
        if reply.answers.is_empty() {
            self.deny(&mut reply, &key(&name));
        }
        Some(reply)
    }

    /// What was said of the name, or of the nearest name above it.
    fn behaviour(&self, name: &[u8], kind: RecordType, has_none: bool) -> Behaviour {
        let exception = |kind| self.exceptions.get(&(name.to_owned(), kind)).copied();
        let all = exception(None).filter(|_| has_none);
        if let Some(behaviour) = exception(Some(kind)).or(all) {
            return behaviour;
        }
        let named = self.behaviours.iter().filter(|(zone, _)| is_in(name, zone));
        named
            .max_by_key(|(zone, _)| zone.len())
            .map_or(Behaviour::Answers, |(_, behaviour)| *behaviour)
    }

    fn deny(&self, reply: &mut Message, name: &[u8]) {
        // RFC 8020: a name exists where one below it does.
        if !self.there.contains(name) {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        // RFC 2308 §3: without the SOA record nobody may remember that there is nothing.
        let owner = parse("dns.example");
        let soa = SOA::new(owner.clone(), owner, 1, 60, 60, 60, TTL.1);
        reply.add_authority(Record::from_rdata(Name::root(), TTL.1, RData::SOA(soa)));
    }
}

/// Whether a name is `zone` or below it.
fn is_in(name: &[u8], zone: &[u8]) -> bool {
    zone.is_empty() || name == zone || name.ends_with(&[b".", zone].concat())
}

fn parse(name: &str) -> Name {
    let labels = name.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).expect("a name")
}

fn key(name: &Name) -> Key {
    let labels: Vec<&[u8]> = name.iter().collect();
    labels.join(&b'.').to_ascii_lowercase()
}

/// The same free port for both protocols.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let address = (Ipv4Addr::LOCALHOST, free_port());
        let (Ok(udp), Ok(tcp)) = (UdpSocket::bind(address), TcpListener::bind(address)) else {
            continue;
        };
        udp.set_nonblocking(true).expect("a socket");
        tcp.set_nonblocking(true).expect("a socket");
        return (udp, tcp);
    }
}

/// The question, the answer to it where there is one, and how long that takes.
fn reply_to(bytes: &[u8], zone: &Mutex<Zone>) -> Option<(Message, Message, Duration)> {
    let request = Message::from_vec(bytes).ok()?;
    let mut zone = zone.lock().expect("no test has panicked with it");
    let reply = zone.answer(&request)?;
    Some((request, reply, zone.delay))
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    // As many questions as a resolver has room for before it reads them.
    let _ = SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    let socket = tokio::net::UdpSocket::from_std(socket).expect("it does not block");
    let socket = Arc::new(socket);
    let (queue, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>, SocketAddr)>();
    let sender = Arc::clone(&socket);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some((at, bytes, peer)) = due.recv().await {
            sleep_until(at).await;
            let _ = sender.send_to(&bytes, peer).await;
        }
    });
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let came = Instant::now();
        let Some((request, mut reply, delay)) = reply_to(&buffer[..length], &zone) else {
            continue;
        };
        let mut bytes = reply.to_vec().expect("an answer");
        // RFC 1035 §4.1.1: what does not fit is cut; the client asks again over TCP.
        if bytes.len() > usize::from(request.max_payload().max(512)) {
            reply.answers.clear();
            reply.metadata.truncation = true;
            bytes = reply.to_vec().expect("an answer");
        }
        match delay.is_zero() {
            true => drop(socket.send_to(&bytes, peer).await),
            false => drop(queue.send((came + delay, bytes, peer))),
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(stream, Arc::clone(&zone)));
    }
}

async fn serve_connection(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut bytes = vec![0; usize::from(length)];
        if stream.read_exact(&mut bytes).await.is_err() {
            return;
        }
        let Some((_, reply, _)) = reply_to(&bytes, &zone) else {
            continue;
        };
        let bytes = reply.to_vec().expect("an answer");
        let length = u16::try_from(bytes.len()).expect("shorter than a datagram");
        let frame = [&length.to_be_bytes()[..], &bytes].concat();
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}
