//! A client that says its lines, waits for each reply and shows both.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;

use super::narrator;

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the long answer to EHLO is shown; once is enough.
#[derive(Clone, Copy)]
pub(super) enum Extensions {
    Shown,
    Skipped,
}

impl Extensions {
    fn show(self, line: &str) {
        match self {
            Extensions::Shown => narrator::server(line),
            Extensions::Skipped => {}
        }
    }
}

/// One connection to the gateway.
pub(super) struct Dialogue {
    stream: BufReader<TcpStream>,
    extensions: Extensions,
}

impl Dialogue {
    /// Connects and poses as a client at `client`, by way of a PROXY header (the gateway believes
    /// those of the demo's own network).
    pub(super) fn open(
        gateway: SocketAddr,
        client: Ipv4Addr,
        hello: &str,
        extensions: Extensions,
    ) -> anyhow::Result<Dialogue> {
        let stream = TcpStream::connect(gateway).context("cannot connect to the gateway")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut dialogue = Dialogue {
            stream: BufReader::new(stream),
            extensions,
        };
        let header = format!("PROXY TCP4 {client} 192.0.2.25 40000 25\r\n");
        dialogue.stream.get_mut().write_all(header.as_bytes())?;
        dialogue.expect("220")?;
        dialogue.say(&format!("EHLO {hello}"), "250")?;
        Ok(dialogue)
    }

    /// Says a line; the reply has to begin with `want`.
    pub(super) fn say(&mut self, line: &str, want: &str) -> anyhow::Result<String> {
        narrator::client(line);
        self.stream
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())?;
        self.expect(want)
    }

    /// Sends a message, which holds no line that begins with a dot.
    pub(super) fn send(&mut self, message: &str, want: &str) -> anyhow::Result<String> {
        for line in message.lines().take_while(|line| !line.is_empty()) {
            narrator::client(line);
        }
        narrator::client("...");
        self.stream.get_mut().write_all(message.as_bytes())?;
        self.say(".", want)
    }

    fn expect(&mut self, want: &str) -> anyhow::Result<String> {
        loop {
            let mut line = String::new();
            if self
                .stream
                .read_line(&mut line)
                .context("the gateway did not answer")?
                == 0
            {
                bail!("the gateway hung up where {want} was due");
            }
            let line = line.trim_end();
            if line.get(3..4) == Some("-") {
                self.extensions.show(line);
                continue;
            }
            narrator::server(line);
            if !line.starts_with(want) {
                bail!("the gateway said {line:?} where {want} was due");
            }
            return Ok(line.to_owned());
        }
    }
}
