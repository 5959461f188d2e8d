//! Bad mail, as fast as it is answered. The dialogue is the same whoever answers it.
//!
//! Twenty connections, each for nineteen transactions, then another: a gateway hangs up after twenty
//! refusals by default.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;

use crate::client::Client;
use crate::mail;
use crate::sending::CLIENT;
use crate::sending::RECIPIENT;
use crate::sending::SENDER;
use crate::sending::SIZE;
use crate::wait;
use crate::wait::LONG;

/// Where floods come from when honest mail comes, too.
pub(crate) const ABROAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

const CONNECTIONS: usize = 20;
const TRANSACTIONS: usize = 19;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// The author's domain asks for rejection: refused after DATA.
    Forged,
    /// Refused at RCPT.
    UnknownRecipient,
}

impl Flood {
    pub(crate) const ALL: [Flood; 2] = [Flood::Forged, Flood::UnknownRecipient];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Flood::Forged => "forged mail",
            Flood::UnknownRecipient => "unknown recipients",
        }
    }

    /// Sends so many, and gives how many were answered in a second. Fails where one was not answered
    /// with `code`.
    pub(crate) fn rate(self, server: SocketAddr, count: usize, code: u16) -> Result<f64> {
        let left = AtomicUsize::new(count);
        let began = Instant::now();
        let dialogue = Dialogue::new(self);
        let one = || {
            let more =
                || left.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            while more().is_ok() {
                let mut client = Client::hello(server, crate::client::HONEST, CLIENT)?;
                for number in 0..TRANSACTIONS {
                    if number != 0 && more().is_err() {
                        break;
                    }
                    if wait::is_stopped() || began.elapsed() > LONG {
                        bail!("the flood took too long, or was stopped");
                    }
                    let answer = dialogue.hold(&mut client)?;
                    if answer != code {
                        bail!("{} was answered {answer}, not {code}", self.name());
                    }
                }
                client.say("QUIT")?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(one)).collect();
            let ended = threads.into_iter().map(|thread| match thread.join() {
                Ok(ended) => ended,
                Err(_) => bail!("a client panicked"),
            });
            ended.collect::<Result<Vec<()>>>()
        })?;
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }

    /// Goes on from [`ABROAD`] for as long as `meanwhile` runs. Who is hung up on comes again after
    /// ten milliseconds.
    pub(crate) fn beside<T>(
        self,
        server: SocketAddr,
        meanwhile: impl FnOnce() -> Result<T>,
    ) -> Result<(T, usize)> {
        let (ended, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
        let dialogue = Dialogue::new(self);
        let session = || -> io::Result<()> {
            let mut client = Client::hello(server, ABROAD, CLIENT)?;
            for _ in 0..TRANSACTIONS {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                dialogue.hold(&mut client)?;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            client.say("QUIT").map(drop)
        };
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        if session().is_err() {
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                });
            }
            let result = wait::pause(Duration::from_secs(1)).and_then(|()| meanwhile());
            ended.store(true, Ordering::Relaxed);
            result.map(|result| (result, answers.load(Ordering::Relaxed)))
        })
    }
}

/// What a client of a flood says in one transaction.
struct Dialogue {
    flood: Flood,
    message: String,
}

impl Dialogue {
    fn new(flood: Flood) -> Dialogue {
        let message = mail::message(mail::STRICT, SIZE) + ".\r\n";
        Dialogue { flood, message }
    }

    /// Gives the answer that a refusal would be.
    fn hold(&self, client: &mut Client) -> io::Result<u16> {
        match self.flood {
            Flood::Forged => {
                client.begin(SENDER, RECIPIENT)?;
                client.send(self.message.as_bytes())?;
                client.reply()
            }
            Flood::UnknownRecipient => {
                client.expect(&format!("MAIL FROM:<{SENDER}>"), 250)?;
                let answer = client.say("RCPT TO:<nobody@gate.example>")?;
                client.expect("RSET", 250)?;
                Ok(answer)
            }
        }
    }
}
