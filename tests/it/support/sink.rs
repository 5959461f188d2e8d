//! A mail server that takes everything, at an address of loopback and under a name of its own.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;

/// It ends when dropped.
pub struct Sink {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Takes mail at `address`, where it calls itself `name`.
    pub fn at(address: SocketAddr, name: &str) -> Sink {
        let listener = TcpListener::bind(address).expect("the address is free");
        let stop = Arc::new(AtomicBool::new(false));
        let name = name.to_owned();
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                // One client after the other, as the tests have it.
                for stream in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let _ = serve(stream, &name);
                }
            }
        });
        Sink {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

fn serve(stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    write!(writer, "220 {name} ESMTP\r\n")?;
    let mut in_message = false;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let verb = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
        match verb.as_str() {
            "." if in_message => {
                in_message = false;
                write!(writer, "250 2.0.0 taken\r\n")?;
            }
            _ if in_message => {}
            "EHLO" | "HELO" => write!(writer, "250-{name} hi\r\n250 8BITMIME\r\n")?,
            "DATA" => {
                in_message = true;
                write!(writer, "354 go\r\n")?;
            }
            "QUIT" => return write!(writer, "221 bye\r\n"),
            _ => write!(writer, "250 2.0.0 ok\r\n")?,
        }
    }
    Ok(())
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}
