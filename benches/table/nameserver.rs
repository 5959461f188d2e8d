//! A DNS server on loopback that takes its time and remembers what it was asked.
//!
//! Every domain below `example` may send from loopback, asks for rejection and publishes one key;
//! each address 127.a.b.c is called `h-a-b-c.example`. Everything else does not exist.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use hickory_server::proto::op::Message;
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::Name;
use hickory_server::proto::rr::RData;
use hickory_server::proto::rr::Record;
use hickory_server::proto::rr::RecordType;
use hickory_server::proto::rr::rdata::PTR;
use hickory_server::proto::rr::rdata::SOA;
use hickory_server::proto::rr::rdata::TXT;

const TTL: u32 = 3600;

/// One question, and when it was asked and answered.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

/// Answers that are due: all are late by the same time, so that they leave in the order they came.
type Due = (Instant, SocketAddr, Vec<u8>);

/// The server; its threads end after it was dropped.
pub(crate) struct Nameserver {
    pub(crate) address: SocketAddr,
    questions: Arc<Mutex<Vec<Question>>>,
    ended: Arc<AtomicBool>,
}

impl Nameserver {
    /// Starts one that answers each question after `delay`; `key` is the record of every domain's key.
    pub(crate) fn start(delay: Duration, key: &str) -> Result<Nameserver> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let server = Nameserver {
            address: socket.local_addr()?,
            questions: Arc::default(),
            ended: Arc::default(),
        };
        // Never waits for room: there are more places than questions in flight.
        let (due, answers) = mpsc::sync_channel(100_000);
        thread::spawn({
            let (socket, questions) = (Arc::clone(&socket), Arc::clone(&server.questions));
            let (ended, zone) = (Arc::clone(&server.ended), Zone(key.to_owned()));
            move || receive(&socket, &zone, delay, &due, &questions, &ended)
        });
        thread::spawn(move || send(&socket, &answers));
        Ok(server)
    }

    /// What it was asked since the last time, in the order in which it came.
    pub(crate) fn take_questions(&self) -> Vec<Question> {
        let mut questions = self
            .questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut questions)
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn receive(
    socket: &UdpSocket,
    zone: &Zone,
    delay: Duration,
    due: &SyncSender<Due>,
    questions: &Mutex<Vec<Question>>,
    ended: &AtomicBool,
) {
    let mut buffer = [0; 4096];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let asked = Instant::now();
        let Some((text, reply)) = zone.reply(&buffer[..length]) else {
            continue;
        };
        if delay.is_zero() {
            let _ = socket.send_to(&reply, peer);
            continue;
        }
        let answered = asked + delay;
        let question = Question {
            text,
            asked,
            answered,
        };
        let mut all = questions.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(question);
        drop(all);
        if due.send((answered, peer, reply)).is_err() {
            return;
        }
    }
}

fn send(socket: &UdpSocket, answers: &Receiver<Due>) {
    for (at, peer, reply) in answers {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let _ = socket.send_to(&reply, peer);
    }
}

/// What there is; it holds the record of every domain's key.
struct Zone(String);

impl Zone {
    /// The question as text, and the answer to it.
    fn reply(&self, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let request = Message::from_vec(bytes).ok()?;
        let query = request.queries.first()?.clone();
        let kind = query.query_type();
        let name = query.name().to_ascii().to_ascii_lowercase();
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.metadata.recursion_desired = request.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.add_query(query.clone());
        match self.records(name.trim_end_matches('.'), kind) {
            Some(data) => {
                reply.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
            }
            None => {
                if !exists(name.trim_end_matches('.')) {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                }
                let root = Name::root();
                let soa = SOA::new(root.clone(), root.clone(), 1, 60, 60, 60, TTL);
                reply.add_authority(Record::from_rdata(root, TTL, RData::SOA(soa)));
            }
        }
        Some((format!("{name} {kind}"), reply.to_vec().ok()?))
    }

    fn records(&self, name: &str, kind: RecordType) -> Option<RData> {
        if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
            let [d, c, b, "127"] = reversed.split('.').collect::<Vec<_>>()[..] else {
                return None;
            };
            let name = Name::from_ascii(format!("h-{b}-{c}-{d}.example.")).ok()?;
            return (kind == RecordType::PTR).then_some(RData::PTR(PTR(name)));
        }
        let labels: Vec<_> = name.strip_suffix(".example")?.split('.').collect();
        match (kind, &labels[..]) {
            (RecordType::A, [host]) => address(host).map(|address| RData::A(address.into())),
            (RecordType::TXT, [_]) => Some(text("v=spf1 ip4:127.0.0.0/8 -all")),
            (RecordType::TXT, ["_dmarc", _]) => Some(text("v=DMARC1; p=reject")),
            (RecordType::TXT, ["s1", "_domainkey", _]) => Some(text(&self.0)),
            _ => None,
        }
    }
}

/// Whether the name has records of another type, or names below it.
fn exists(name: &str) -> bool {
    let labels = name
        .strip_suffix(".example")
        .map(|rest| rest.split('.').count());
    name == "example" || name.is_empty() || labels == Some(1)
}

/// 127.a.b.c of `h-a-b-c`.
fn address(host: &str) -> Option<Ipv4Addr> {
    let dotted = host.strip_prefix("h-")?.replace('-', ".");
    match format!("127.{dotted}").parse().ok()? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// A TXT record, cut into strings of 255 octets.
fn text(text: &str) -> RData {
    RData::TXT(TXT::from_bytes(text.as_bytes().chunks(255).collect()))
}
