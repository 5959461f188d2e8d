//! A next hop that keeps what it takes, and answers each recipient as the test says: SMTP or LMTP, by the
//! greeting that it gets.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use crate::support::SOON;
use crate::support::wait_until;

/// One message.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The whole line.
    pub mail: String,
    /// Each line of a recipient that was accepted.
    pub rcpt: Vec<String>,
    /// As it came, with its dots.
    pub message: String,
}

/// What is said to RCPT; None takes the recipient.
type Answer = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A server on loopback, until the test's process ends.
pub struct NextHop {
    pub address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl NextHop {
    /// `offers` stands in the reply to EHLO, a word a line. `answer` is given the line of each recipient.
    pub fn start(
        offers: &'static [&'static str],
        answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> NextHop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        NextHop::on(listener, offers, answer)
    }

    /// The same on a port that the test chose.
    pub fn on(
        listener: TcpListener,
        offers: &'static [&'static str],
        answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> NextHop {
        let address = listener.local_addr().expect("it is bound");
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let answer: Arc<Answer> = Arc::new(answer);
        let keep = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (keep, answer) = (Arc::clone(&keep), Arc::clone(&answer));
                thread::spawn(move || {
                    let _ = converse(stream, offers, &*answer, &keep);
                });
            }
        });
        NextHop { address, taken }
    }

    /// A target that leads here.
    pub fn target(&self, protocol: &str) -> String {
        format!("{protocol}:{}", self.address)
    }

    /// All messages so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().expect("no thread panics with it").clone()
    }

    /// Waits until there are so many messages.
    pub fn wait_for(&self, count: usize) -> Vec<Taken> {
        wait_until(SOON, "messages at the next hop", || {
            Some(self.taken()).filter(|taken| taken.len() >= count)
        })
    }
}

fn converse(
    stream: TcpStream,
    offers: &[&str],
    answer: &Answer,
    keep: &Mutex<Vec<Taken>>,
) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    let mut say = |text: &str| out.write_all(format!("{text}\r\n").as_bytes());
    say("220 next.example")?;
    let (mut mail, mut rcpt, mut lmtp) = (String::new(), Vec::new(), false);
    while let Some(line) = lines.next().transpose()? {
        match line.get(..4).unwrap_or_default() {
            "EHLO" | "LHLO" => {
                lmtp = line.starts_with('L');
                say("250-next.example")?;
                for offer in offers {
                    say(&format!("250-{offer}"))?;
                }
                say("250 8BITMIME")?;
            }
            "MAIL" => {
                mail = line;
                say("250 2.1.0 fine")?;
            }
            "RCPT" => match answer(&line) {
                Some(refusal) => say(&refusal)?,
                None => {
                    rcpt.push(line);
                    say("250 2.1.5 fine")?;
                }
            },
            "DATA" if rcpt.is_empty() => say("503 5.5.1 nobody to take it for")?,
            "DATA" => {
                say("354 go on")?;
                let mut message = String::new();
                while let Some(line) = lines.next().transpose()?.filter(|line| line != ".") {
                    message += &(line + "\r\n");
                }
                let recipients = rcpt.len();
                let (mail, rcpt) = (std::mem::take(&mut mail), std::mem::take(&mut rcpt));
                let taken = Taken {
                    mail,
                    rcpt,
                    message,
                };
                keep.lock().expect("no thread panics with it").push(taken);
                for _ in 0..if lmtp { recipients } else { 1 } {
                    say("250 2.0.0 taken")?;
                }
            }
            "RSET" => {
                rcpt.clear();
                say("250 2.0.0 fine")?;
            }
            "QUIT" => return say("221 2.0.0 bye"),
            _ => say("500 5.5.1 what?")?,
        }
    }
    Ok(())
}
