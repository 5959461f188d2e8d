//! What the tests stand on: the real gateway, and real peers around it, all on free loopback ports.
//!
//! Nothing here pretends: each part speaks its protocol over a socket and keeps its state in a
//! temporary folder. A wait is for a condition and has a deadline; what is started is ended by its
//! own process id when its value is dropped.

pub mod certs;
pub mod client;
pub mod dialogue;
pub mod dns;
pub mod dnssec;
pub mod dovecot;
pub mod gateway;
pub mod load;
pub mod machine;
pub mod mailbox;
pub mod mails;
pub mod next_hop;
pub mod pebble;
pub mod postfix;
pub mod process;
pub mod sink;
pub mod submission;
pub mod tls_host;

use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rand::Rng;

/// How long a test waits for something that should come at once, on a machine with much to do.
pub const SOON: Duration = Duration::from_secs(20);

/// The ports that this process has given out, each held by a name that it has.
static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A loopback port that nobody has, for TCP and UDP, and that no other test gets while we run.
///
/// Below the range from which the kernel takes ports for outgoing connections, so that none of
/// those takes it before its owner does.
pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(20_000..32_000);
        let Some(name) = reserve(port) else {
            continue;
        };
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
        if tcp.is_ok() && udp.is_ok() {
            TAKEN.lock().expect("nobody panics with it").push(name);
            return port;
        }
    }
}

/// Only one can have a name of this machine's, until it ends; such a name leaves nothing behind.
fn reserve(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("gatepost-test-{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

/// Asks `condition` until it has something, and fails the test, naming `what`, at the deadline.
pub fn wait_until<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} in vain for {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
