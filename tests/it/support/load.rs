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
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::support::client::CLIENT;
use crate::support::client::Client;
use crate::support::submission::plain;

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

/// Where clients send, and as whom.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// As anybody.
    Open(SocketAddr),
    /// As a user, who logs in within TLS.
    Submission {
        address: SocketAddr,
        /// The certificate of this host, which they trust.
        host: &'static str,
        root: CertificateDer<'static>,
        user: &'static str,
        password: &'static str,
    },
}

/// Clients that send until they are stopped.
pub struct Load {
    outbox: Arc<Mutex<Outbox>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

/// What a client goes by.
struct Errand {
    entrance: Entrance,
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
        entrance: &Entrance,
        clients: usize,
        recipients: &'static [&'static str],
        most: usize,
    ) -> Load {
        let outbox = Arc::new(Mutex::new(Outbox::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let errand = |name| Errand {
            entrance: entrance.clone(),
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
                connection = self.entrance.connect();
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
        let from = self.entrance.sender();
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

impl Entrance {
    /// Who sends.
    fn sender(&self) -> String {
        match self {
            Entrance::Open(_) => format!("a@{CLIENT}"),
            Entrance::Submission { user, .. } => (*user).to_owned(),
        }
    }

    /// A connection over which mail may be sent; None where the server is not there or does not want one.
    fn connect(&self) -> Option<Client> {
        let address = match self {
            Entrance::Open(address) | Entrance::Submission { address, .. } => *address,
        };
        let mut client = Client::try_connect(address).ok()?;
        let greeting = client.try_reply().ok()?;
        if !greeting.starts_with("220") {
            return None;
        }
        let hello = format!("EHLO {CLIENT}");
        agreed(&mut client, &hello, "250")?;
        if let Entrance::Submission {
            host,
            root,
            user,
            password,
            ..
        } = self
        {
            agreed(&mut client, "STARTTLS", "220")?;
            client.secure(root, host).ok()?;
            agreed(&mut client, &hello, "250")?;
            agreed(&mut client, &plain(user, password), "235")?;
        }
        Some(client)
    }
}

/// Says a line; None where the answer is another, or there is none.
fn agreed(client: &mut Client, line: &str, want: &str) -> Option<()> {
    client.try_send(format!("{line}\r\n").as_bytes()).ok()?;
    let reply = client.try_reply().ok()?;
    reply.starts_with(want).then_some(())
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
