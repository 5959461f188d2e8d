//! Many clients that send all the time, whatever becomes of the server, and remember what it said.
//!
//! Each message has a Message-ID of its own and is sent once, also where the answer to it was lost, so
//! that a second copy of one is the gateway's doing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use rand::Rng;
use rand::rngs::ThreadRng;
use rand::seq::IndexedRandom;

use crate::support::client::CLIENT;
use crate::support::client::Client;

/// A message as it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub recipients: Vec<&'static str>,
    /// The checksum of its body, with line ends of LF.
    pub body: u32,
    /// By which name the gateway acknowledged it; None: it did not, or the answer was lost.
    pub stored_as: Option<String>,
}

/// By Message-ID.
pub type Outbox = BTreeMap<String, Sent>;

/// Clients that send until they are stopped.
pub struct Load {
    outbox: Arc<Mutex<Outbox>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

/// What a client goes by.
struct Errand {
    address: SocketAddr,
    name: usize,
    recipients: &'static [&'static str],
    /// The most recipients of one message.
    most: usize,
    outbox: Arc<Mutex<Outbox>>,
    stop: Arc<AtomicBool>,
}

/// How large bodies are; one in thirty is large.
const SMALL: std::ops::Range<usize> = 1..4096;
const LARGE: std::ops::Range<usize> = 80_000..200_000;
/// How long a client waits at most between two messages.
const PAUSE: u64 = 100;

impl Load {
    /// Starts so many clients that send to some of `recipients`, to `most` of them at once.
    pub fn start(
        address: SocketAddr,
        clients: usize,
        recipients: &'static [&'static str],
        most: usize,
    ) -> Load {
        let outbox = Arc::new(Mutex::new(Outbox::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let errand = |name| Errand {
            address,
            name,
            recipients,
            most,
            outbox: Arc::clone(&outbox),
            stop: Arc::clone(&stop),
        };
        let clients = (0..clients)
            .map(errand)
            .map(|errand| thread::spawn(move || errand.run()))
            .collect();
        Load {
            outbox,
            stop,
            clients,
        }
    }

    /// How many messages were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let outbox = self.outbox.lock().expect("no client panics with it");
        let acknowledged = outbox.values().filter(|sent| sent.stored_as.is_some());
        acknowledged.count()
    }

    /// Lets each client finish its message, and gives all that was sent.
    pub fn stop(self) -> Outbox {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client ends");
        }
        let outbox = self.outbox.lock().expect("no client panics with it");
        outbox.clone()
    }
}

impl Errand {
    fn run(self) {
        let mut rng = rand::rng();
        let mut connection = None;
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(rng.random_range(0..PAUSE)));
            let Some(client) = &mut connection else {
                connection = connect(self.address);
                continue;
            };
            number += 1;
            let id = format!("{}.{number}@{CLIENT}", self.name);
            if !self.send(client, &id, &mut rng) {
                connection = None;
            }
        }
    }

    /// Sends one message; says whether the connection is good for another.
    fn send(&self, client: &mut Client, id: &str, rng: &mut ThreadRng) -> bool {
        let count = rng.random_range(1..=self.most);
        let recipients: Vec<_> = self
            .recipients
            .choose_multiple(rng, count)
            .copied()
            .collect();
        let body = body(rng);
        let sent = Sent {
            recipients: recipients.clone(),
            body: checksum(&body),
            stored_as: None,
        };
        self.remember(id, |outbox, id| drop(outbox.insert(id, sent)));
        let from = format!("a@{CLIENT}");
        let message = format!(
            "From: <{from}>\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{id}>\r\n\r\n{body}"
        );
        let Ok(reply) = client.try_deliver_to_all(&from, &recipients, &message) else {
            return false;
        };
        let Some(name) = reply.strip_prefix("250 2.0.0 OK, stored as ") else {
            return false;
        };
        self.remember(id, |outbox, id| {
            outbox
                .entry(id)
                .and_modify(|sent| sent.stored_as = Some(name.to_owned()));
        });
        true
    }

    fn remember(&self, id: &str, what: impl FnOnce(&mut Outbox, String)) {
        let mut outbox = self.outbox.lock().expect("no client panics with it");
        what(&mut outbox, id.to_owned());
    }
}

/// A connection that was greeted; None where the server is not there or does not want one.
fn connect(address: SocketAddr) -> Option<Client> {
    let mut client = Client::try_connect(address).ok()?;
    let greeting = client.try_reply().ok()?;
    client
        .try_send(format!("EHLO {CLIENT}\r\n").as_bytes())
        .ok()?;
    let hello = client.try_reply().ok()?;
    (greeting.starts_with("220") && hello.starts_with("250")).then_some(client)
}

/// Lines of letters and dots.
fn body(rng: &mut ThreadRng) -> String {
    let size = match rng.random_range(0..30) {
        0 => rng.random_range(LARGE),
        _ => rng.random_range(SMALL),
    };
    let mut body = String::with_capacity(size + 80);
    while body.len() < size {
        let line = (0..rng.random_range(0..76)).map(|_| char::from(rng.random_range(b'.'..=b'z')));
        body.extend(line);
        body.push_str("\r\n");
    }
    body
}

/// Of a body, whatever its line ends are.
pub fn checksum(body: &str) -> u32 {
    crc32c::crc32c(body.replace("\r\n", "\n").as_bytes())
}
