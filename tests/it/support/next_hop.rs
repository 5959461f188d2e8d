//! A next hop that keeps what it takes, and answers each recipient, or every step, as the test says: SMTP
//! or LMTP, by the greeting that it gets.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Lines;
use std::io::Write;
use std::mem;
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

/// A step of the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Somebody has connected.
    Connect,
    /// EHLO, LHLO or HELO.
    Hello,
    /// Usually 454: there is no TLS here.
    StartTls,
    Mail,
    Rcpt,
    Data,
    /// The first line of the message.
    Message,
    /// All of it has come.
    Dot,
    Quit,
}

/// What a next hop does at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conduct {
    /// What a good one does.
    Usual,
    /// Says this instead, takes nothing for it, and hangs up after 421.
    Says(&'static str),
    /// Hangs up.
    HangsUp,
    /// Keeps the message, whose dot has come, and hangs up.
    KeepsAndHangsUp,
}

/// What is done at each step, of which it is given the client's line.
type Conducts = dyn Fn(Step, &str) -> Conduct + Send + Sync;

/// A server on loopback, until the test's process ends.
pub struct NextHop {
    pub address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl NextHop {
    /// `offers` stands in the reply to EHLO, a word a line. `answer` is given the line of each recipient; None
    /// takes the recipient.
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
        NextHop::serve(listener, offers, move |step, line| match step {
            Step::Rcpt => answer(line).map_or(Conduct::Usual, |text| Conduct::Says(text.leak())),
            _ => Conduct::Usual,
        })
    }

    /// As [`NextHop::on`], with something to do at each step.
    pub fn serve(
        listener: TcpListener,
        offers: &'static [&'static str],
        conduct: impl Fn(Step, &str) -> Conduct + Send + Sync + 'static,
    ) -> NextHop {
        let address = listener.local_addr().expect("it is bound");
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let conduct: Arc<Conducts> = Arc::new(conduct);
        let keep = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (keep, conduct) = (Arc::clone(&keep), Arc::clone(&conduct));
                thread::spawn(move || {
                    let _ = converse(stream, offers, &*conduct, &keep);
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
    conduct: &Conducts,
    keep: &Mutex<Vec<Taken>>,
) -> io::Result<()> {
    let mut dialogue = Dialogue {
        out: stream.try_clone()?,
        lines: BufReader::new(stream).lines(),
        conduct,
        keep,
        mail: String::new(),
        rcpt: Vec::new(),
        is_lmtp: false,
    };
    dialogue.step(Step::Connect, "", "220 next.example")?;
    while let Some(line) = dialogue.lines.next().transpose()? {
        match line.get(..4).unwrap_or_default() {
            "EHLO" | "LHLO" => {
                dialogue.is_lmtp = line.starts_with('L');
                let offers = offers.iter().map(|offer| format!("250-{offer}\r\n"));
                let hello = format!(
                    "250-next.example\r\n{}250 8BITMIME",
                    offers.collect::<String>()
                );
                dialogue.step(Step::Hello, &line, &hello)?;
            }
            "HELO" => drop(dialogue.step(Step::Hello, &line, "250 next.example")?),
            "STAR" => drop(dialogue.step(Step::StartTls, &line, "454 4.7.0 no TLS today")?),
            "MAIL" => {
                if dialogue.step(Step::Mail, &line, "250 2.1.0 fine")? {
                    dialogue.mail = line;
                }
            }
            "RCPT" => {
                if dialogue.step(Step::Rcpt, &line, "250 2.1.5 fine")? {
                    dialogue.rcpt.push(line);
                }
            }
            "DATA" if dialogue.rcpt.is_empty() => {
                dialogue.say("503 5.5.1 nobody to take it for")?
            }
            "DATA" => {
                if dialogue.step(Step::Data, &line, "354 go on")? {
                    dialogue.message()?;
                }
            }
            "RSET" => {
                dialogue.rcpt.clear();
                dialogue.say("250 2.0.0 fine")?;
            }
            "QUIT" => return dialogue.step(Step::Quit, &line, "221 2.0.0 bye").map(drop),
            _ => dialogue.say("500 5.5.1 what?")?,
        }
    }
    Ok(())
}

/// A dialogue with one client; it ends with an error where either side hangs up.
struct Dialogue<'a> {
    out: TcpStream,
    lines: Lines<BufReader<TcpStream>>,
    conduct: &'a Conducts,
    keep: &'a Mutex<Vec<Taken>>,
    mail: String,
    rcpt: Vec<String>,
    is_lmtp: bool,
}

impl Dialogue<'_> {
    fn say(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(format!("{text}\r\n").as_bytes())?;
        match text.starts_with("421") {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    /// Says the usual, or does what it is told to do instead; gives whether it was the usual.
    fn step(&mut self, step: Step, line: &str, usual: &str) -> io::Result<bool> {
        match (self.conduct)(step, line) {
            Conduct::Usual => self.say(usual).map(|()| true),
            Conduct::Says(text) => self.say(text).map(|()| false),
            Conduct::HangsUp | Conduct::KeepsAndHangsUp => {
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }

    /// Takes a message up to its dot.
    fn message(&mut self) -> io::Result<()> {
        let mut message = String::new();
        loop {
            let line = self.lines.next().transpose()?;
            let line = line.ok_or(io::ErrorKind::UnexpectedEof)?;
            if message.is_empty() && (self.conduct)(Step::Message, &line) != Conduct::Usual {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if line == "." {
                break;
            }
            message += &(line + "\r\n");
        }
        let (mail, rcpt) = (mem::take(&mut self.mail), mem::take(&mut self.rcpt));
        let replies = if self.is_lmtp { rcpt.len() } else { 1 };
        let (is_kept, reply) = match (self.conduct)(Step::Dot, ".") {
            Conduct::Usual => (true, Some("250 2.0.0 taken")),
            Conduct::Says(text) => (false, Some(text)),
            Conduct::HangsUp => (false, None),
            Conduct::KeepsAndHangsUp => (true, None),
        };
        if is_kept {
            let taken = Taken {
                mail,
                rcpt,
                message,
            };
            let mut keep = self.keep.lock().expect("no thread panics with it");
            keep.push(taken);
        }
        let reply = reply.ok_or(io::ErrorKind::ConnectionAborted)?;
        (0..replies).try_for_each(|_| self.say(reply))
    }
}
