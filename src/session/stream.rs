//! The client's byte stream, plain or TLS: lines in, replies out, each wait with a deadline.
//!
//! A stream that waits holds no buffer: bytes are read into a scratch buffer of the thread and only
//! what came is kept. What came behind the point where reading stopped is kept for the next read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio::time::timeout_at;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How much is read at once.
const SCRATCH: usize = 32 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Why a stream can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("timed out")]
    TimedOut,
    #[error("closed by the client")]
    Closed,
    #[error("connection lost")]
    Lost(#[source] io::Error),
}

/// What a client has connected to us by.
#[derive(Debug)]
pub enum Socket {
    /// From this machine or any other.
    Tcp(TcpStream),
    /// From this machine alone. There is never TLS on it.
    Unix(UnixStream),
}

impl Socket {
    /// Sends what the socket takes at once.
    pub(super) fn try_write(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_write(octets),
            Socket::Unix(stream) => stream.try_write(octets),
        }
    }
}

pub(super) struct Stream {
    io: Io,
    input: Vec<u8>,
    taken: usize,
    output: Vec<u8>,
}

enum Io {
    Plain(Socket),
    Tls(Box<TlsStream<TcpStream>>),
    /// Between the two, and after a handshake that failed.
    None,
}

impl Stream {
    pub(super) fn new(socket: Socket) -> Stream {
        Stream {
            io: Io::Plain(socket),
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
        }
    }

    /// Octets that were read and not yet taken.
    pub(super) fn input(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    /// Takes octets off the input, at most as many as there are.
    pub(super) fn take(&mut self, octets: usize) {
        self.taken = (self.taken + octets).min(self.input.len());
        if self.taken == self.input.len() {
            self.input.clear();
            self.taken = 0;
        }
    }

    /// Reads more input. Cancel safe.
    pub(super) async fn fill(&mut self, deadline: Instant) -> Result<(), Error> {
        self.receive(deadline, |_| 0).await
    }

    /// Waits for octets and shows them to `take`, which says how many it took; the rest is kept as
    /// input. Looks at what is there already before it waits. Cancel safe.
    pub(super) async fn receive(
        &mut self,
        deadline: Instant,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Result<(), Error> {
        if !self.input().is_empty() {
            let taken = take(self.input());
            self.take(taken);
            if taken > 0 {
                return Ok(());
            }
        }
        // A client that always has more to say would outrun the timer, which is asked last.
        if Instant::now() >= deadline {
            return Err(Error::TimedOut);
        }
        let read = poll_fn(|cx| self.poll_receive(cx, &mut take));
        match timeout_at(deadline, read).await {
            Err(_) => Err(Error::TimedOut),
            Ok(Ok(0)) => Err(Error::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::Lost(error)),
        }
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            if self.io.poll_read(cx, &mut buffer)?.is_pending() {
                if self.input.is_empty() {
                    self.input = Vec::new();
                }
                return Poll::Pending;
            }
            let read = buffer.filled();
            let taken = if self.input.is_empty() { take(read) } else { 0 };
            // What was taken must not pile up under a client whose packets never end with a line.
            self.input.drain(..self.taken);
            self.taken = 0;
            self.input.extend_from_slice(&read[taken..]);
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Whether the client has sent something, without waiting longer than `patience`. One of this
    /// machine is not asked.
    pub(super) async fn talks_within(&mut self, patience: Duration) -> bool {
        let Io::Plain(Socket::Tcp(stream)) = &self.io else {
            return false;
        };
        if patience.is_zero() {
            let mut one = [MaybeUninit::uninit()];
            return matches!(SockRef::from(stream).peek(&mut one), Ok(octets) if octets > 0);
        }
        let peek = tokio::time::timeout(patience, stream.peek(&mut [0])).await;
        matches!(peek, Ok(Ok(octets)) if octets > 0)
    }

    /// Puts octets in line to be sent.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends what is in line.
    pub(super) async fn flush(&mut self, deadline: Instant) -> Result<(), Error> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let io = &mut self.io;
        let send = async {
            io.write_all(&output).await?;
            io.flush().await
        };
        match timeout_at(deadline, send).await {
            Err(_) => Err(Error::TimedOut),
            Ok(result) => result.map_err(Error::Lost),
        }
    }

    /// Shakes hands. The plain stream is gone when that fails.
    pub(super) async fn start_tls(
        &mut self,
        acceptor: &TlsAcceptor,
        deadline: Instant,
    ) -> Result<(), Error> {
        let Io::Plain(Socket::Tcp(stream)) = std::mem::replace(&mut self.io, Io::None) else {
            return Err(Error::Closed);
        };
        match timeout_at(deadline, acceptor.accept(stream)).await {
            Err(_) => Err(Error::TimedOut),
            Ok(Err(error)) => Err(Error::Lost(error)),
            Ok(Ok(stream)) => {
                self.io = Io::Tls(Box::new(stream));
                Ok(())
            }
        }
    }

    /// The TLS connection, where there is one.
    pub(super) fn tls(&self) -> Option<&tokio_rustls::rustls::ServerConnection> {
        match &self.io {
            Io::Tls(stream) => Some(stream.get_ref().1),
            Io::Plain(_) | Io::None => None,
        }
    }

    /// Sends what is in line and hangs up.
    pub(super) async fn close(&mut self, deadline: Instant) {
        // Under TLS the last words wait for its end, and go out with it in one packet.
        if let Io::Tls(stream) = &mut self.io
            && let Ok(taken) = stream.get_mut().1.writer().write(&self.output)
        {
            self.output.drain(..taken);
        }
        if self.flush(deadline).await.is_ok() {
            let _ = timeout_at(deadline, self.io.shutdown()).await;
        }
    }

    /// Hangs up on a client that may still be sending.
    ///
    /// Reads on for a moment and drops what comes: closing with unread octets would reset the
    /// connection, and the client might never see our last reply.
    pub(super) async fn close_on(&mut self, deadline: Instant) {
        const LINGER: Duration = Duration::from_secs(2);
        const MOST: usize = 1024 * 1024;
        self.close(deadline).await;
        let until = Instant::now() + LINGER;
        let mut dropped = 0;
        while dropped < MOST {
            let read = self.receive(until, |octets| {
                dropped += octets.len();
                octets.len()
            });
            if read.await.is_err() {
                return;
            }
        }
    }
}

impl Io {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(Socket::Tcp(stream)) => Pin::new(stream).poll_read(cx, buffer),
            Io::Plain(Socket::Unix(stream)) => Pin::new(stream).poll_read(cx, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(Socket::Tcp(stream)) => Pin::new(stream).poll_write(cx, bytes),
            Io::Plain(Socket::Unix(stream)) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(Socket::Tcp(stream)) => Pin::new(stream).poll_flush(cx),
            Io::Plain(Socket::Unix(stream)) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Io::None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(Socket::Tcp(stream)) => Pin::new(stream).poll_shutdown(cx),
            Io::Plain(Socket::Unix(stream)) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (server, _) = listener.accept().await.unwrap();
        (client.unwrap(), Stream::new(Socket::Tcp(server)))
    }

    #[tokio::test]
    async fn a_client_that_never_pauses_is_timed_out_all_the_same() {
        let (mut client, mut stream) = pair().await;
        client.write_all(b"NOOP\r\n").await.unwrap();
        let read = stream.fill(Instant::now()).await;
        assert!(matches!(read, Err(Error::TimedOut)), "{read:?}");
    }

    #[tokio::test]
    async fn what_was_taken_is_not_kept_however_the_packets_are_cut() {
        let (mut client, mut stream) = pair().await;
        let deadline = Instant::now() + Duration::from_secs(10);
        client.write_all(b"NO").await.unwrap();
        for _ in 0..1000 {
            client.write_all(b"OP\r\nNO").await.unwrap();
            while stream.input() != b"NOOP\r\nNO" {
                stream.fill(deadline).await.unwrap();
            }
            stream.take(6);
        }
        assert!(
            stream.input.len() < 64,
            "{} octets are kept",
            stream.input.len()
        );
    }
}
