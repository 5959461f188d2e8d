//! A DNS server that owns every name, and can be told to fail.
//!
//! It speaks the real protocol over UDP. Names that nobody gave it do not exist. The tests against
//! unbound and BIND stand in `peers/dns.rs`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_server::proto::op::Message;
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::Name;
use hickory_server::proto::rr::RData;
use hickory_server::proto::rr::Record;
use hickory_server::proto::rr::RecordType;
use hickory_server::proto::rr::rdata::MX;
use hickory_server::proto::rr::rdata::PTR;
use hickory_server::proto::rr::rdata::SOA;
use hickory_server::proto::rr::rdata::TXT;

use crate::support::free_port;

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

#[derive(Debug, Default)]
struct Zone {
    records: Vec<Record>,
    behaviours: HashMap<Name, Behaviour>,
    questions: Vec<String>,
}

/// The server; it ends when dropped.
pub struct Dns {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Starts with no records.
    pub fn start() -> Dns {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let socket = UdpSocket::bind(address).expect("the port is free");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out can be set");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (zone, stop) = (Arc::clone(&zone), Arc::clone(&stop));
            move || serve(&socket, &zone, &stop)
        });
        Dns {
            address,
            zone,
            stop,
            thread: Some(thread),
        }
    }

    pub fn txt(&self, name: &str, text: &str) -> &Dns {
        let pieces = text
            .as_bytes()
            .chunks(255)
            .map(|piece| String::from_utf8_lossy(piece).into_owned())
            .collect();
        self.add(name, RData::TXT(TXT::new(pieces)))
    }

    /// An A or an AAAA record.
    pub fn host(&self, name: &str, address: &str) -> &Dns {
        let data = match address.parse().expect("an address") {
            std::net::IpAddr::V4(address) => RData::A(address.into()),
            std::net::IpAddr::V6(address) => RData::AAAA(address.into()),
        };
        self.add(name, data)
    }

    pub fn mx(&self, name: &str, exchange: &str) -> &Dns {
        self.add(name, RData::MX(MX::new(10, parse(exchange))))
    }

    /// The name of an address (RFC 1035 §3.5).
    pub fn pointer(&self, address: &str, name: &str) -> &Dns {
        let reverse = Name::from(address.parse::<std::net::IpAddr>().expect("an address"));
        self.add(&reverse.to_string(), RData::PTR(PTR(parse(name))))
    }

    /// From now on, questions about `name` and what is below it (`.`: all) go so.
    pub fn behave(&self, name: &str, behaviour: Behaviour) -> &Dns {
        self.zone().behaviours.insert(parse(name), behaviour);
        self
    }

    /// The questions so far, as `NAME TYPE`, in lower case.
    pub fn questions(&self) -> Vec<String> {
        self.zone().questions.clone()
    }

    fn add(&self, name: &str, data: RData) -> &Dns {
        let record = Record::from_rdata(parse(name), 60, data);
        self.zone().records.push(record);
        self
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().expect("no test has panicked with it")
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn parse(name: &str) -> Name {
    let mut name = Name::from_str(name).expect("a name").to_lowercase();
    name.set_fqdn(true);
    name
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((count, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Ok(question) = Message::from_vec(&buffer[..count]) else {
            continue;
        };
        let mut zone = zone.lock().expect("no test has panicked with it");
        if let Some(answer) = zone.answer(&question) {
            let _ = socket.send_to(&answer.to_vec().expect("an answer"), client);
        }
    }
}

impl Zone {
    fn answer(&mut self, question: &Message) -> Option<Message> {
        let query = question.queries.first()?;
        let (name, wanted) = (query.name().to_lowercase(), query.query_type());
        self.questions.push(format!("{name} {wanted}"));
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match self.behaviour(&name) {
            Behaviour::Silent => return None,
            Behaviour::Fails => answer.metadata.response_code = ResponseCode::ServFail,
            Behaviour::Answers => self.fill(&mut answer, &name, wanted),
        }
        Some(answer)
    }

    /// What was said of the name itself or of the nearest name above it.
    fn behaviour(&self, name: &Name) -> Behaviour {
        let named = self
            .behaviours
            .iter()
            .filter(|(zone, _)| zone.zone_of(name));
        named
            .max_by_key(|(zone, _)| zone.num_labels())
            .map_or(Behaviour::Answers, |(_, behaviour)| *behaviour)
    }

    fn fill(&self, answer: &mut Message, name: &Name, wanted: RecordType) {
        let named = self.records.iter().filter(|record| record.name == *name);
        let found: Vec<Record> = named
            .filter(|record| record.record_type() == wanted)
            .cloned()
            .collect();
        if !found.is_empty() {
            answer.add_answers(found);
            return;
        }
        // RFC 8020: a name exists where one below it does.
        if !self.records.iter().any(|record| name.zone_of(&record.name)) {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        // RFC 2308 §3: without the SOA record nobody may remember that there is nothing.
        let owner = parse("dns.example");
        let soa = SOA::new(owner.clone(), owner, 1, 60, 60, 60, 1);
        answer.add_authority(Record::from_rdata(Name::root(), 1, RData::SOA(soa)));
    }
}
