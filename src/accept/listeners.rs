//! The sockets while the runtime watches them: one queue of connections out of all, and the exchange
//! of one set for another without losing a client.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::telemetry::events;

use super::sockets;
use super::sockets::Defaults;
use super::sockets::Endpoint;
use super::sockets::Error;
use super::sockets::Listen;
use super::sockets::Sockets;

/// All sockets that listen.
#[derive(Debug)]
pub(super) struct Listeners {
    open: Vec<Listener>,
    /// Which is asked first, so that a busy one can't starve the others.
    turn: usize,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    endpoint: Arc<Endpoint>,
}

/// A new connection, and how those of its listener are served.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) endpoint: Arc<Endpoint>,
}

impl Listeners {
    /// To be called in the runtime.
    pub(super) fn new(sockets: Sockets) -> Result<Listeners, Error> {
        let open = watched(sockets)?;
        Ok(Listeners { open, turn: 0 })
    }

    /// The next connection on any of the sockets, or what keeps one of them from giving any. Cancel
    /// safe.
    pub(super) async fn next(&mut self) -> Result<Accepted, (SocketAddr, io::Error)> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Accepted, (SocketAddr, io::Error)>> {
        self.turn = (self.turn + 1) % self.open.len().max(1);
        let (before, after) = self.open.split_at(self.turn);
        for listener in after.iter().chain(before) {
            if let Poll::Ready(result) = listener.poll_accept(cx) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    }

    /// Listens as told from now on: keeps the sockets whose address is still wanted, binds the new
    /// ones, closes the others and returns who stood in their queues. After an error all is as it was.
    pub(super) fn rebind(
        &mut self,
        listen: &[Listen],
        defaults: Defaults,
    ) -> Result<Vec<Accepted>, Error> {
        let address = |listener: &Listener| listener.endpoint.address;
        let held: Vec<_> = self.open.iter().map(address).collect();
        let plan = sockets::plan(listen, defaults, &held)?;
        let fresh = watched(plan.fresh)?;
        let mut queued = Vec::new();
        for mut listener in std::mem::take(&mut self.open) {
            let wanted = |kept: &&Endpoint| kept.address == listener.endpoint.address;
            match plan.kept.iter().find(wanted) {
                Some(endpoint) => {
                    listener.endpoint = Arc::new(endpoint.clone());
                    self.open.push(listener);
                }
                None => queued.extend(listener.close()),
            }
        }
        self.open.extend(fresh);
        Ok(queued)
    }

    /// Closes all sockets. Who stands in a queue is disconnected.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }
}

impl Listener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Accepted, (SocketAddr, io::Error)>> {
        loop {
            match self.socket.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok((stream, peer))) => {
                    let endpoint = Arc::clone(&self.endpoint);
                    return Poll::Ready(Ok(Accepted {
                        stream,
                        peer,
                        endpoint,
                    }));
                }
                Poll::Ready(Err(error)) if is_the_clients(&error) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err((self.endpoint.address, error))),
            }
        }
    }

    /// Closes the socket; returns who stood in its queue.
    fn close(self) -> Vec<Accepted> {
        let mut queued = Vec::new();
        // The kernel is asked itself: the runtime may not have heard of the last ones yet.
        let Ok(socket) = self.socket.into_std() else {
            return queued;
        };
        while let Ok((stream, peer)) = socket.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            queued.extend(stream.map(|stream| Accepted {
                stream,
                peer,
                endpoint: Arc::clone(&self.endpoint),
            }));
        }
        queued
    }
}

fn watched(sockets: Sockets) -> Result<Vec<Listener>, Error> {
    let mut open = Vec::new();
    for (endpoint, socket) in sockets.into_bound() {
        let address = endpoint.address;
        let socket =
            TcpListener::from_std(socket).map_err(|source| Error::Watch { address, source })?;
        let local = socket.local_addr().unwrap_or(address);
        events::listening(endpoint.service_name(), local, endpoint.tls_name());
        let endpoint = Arc::new(endpoint);
        open.push(Listener { socket, endpoint });
    }
    Ok(open)
}

/// Whether accepting failed because this one client hung up first.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use crate::session::TlsMode;

    use super::*;

    fn listen(addresses: &[&str]) -> Listen {
        let addresses: Vec<_> = addresses.iter().map(|text| format!("{text:?}")).collect();
        let text = format!("service = \"mx\"\naddress = [{}]", addresses.join(","));
        toml::from_str(&text).unwrap()
    }

    async fn accepted(listeners: &mut Listeners) -> Accepted {
        let next = timeout(Duration::from_secs(10), listeners.next());
        next.await.unwrap().unwrap()
    }

    fn local(listeners: &Listeners) -> Vec<SocketAddr> {
        let local = |listener: &Listener| listener.socket.local_addr().unwrap();
        listeners.open.iter().map(local).collect()
    }

    #[tokio::test]
    async fn a_busy_listener_does_not_starve_the_others() {
        let sockets =
            Sockets::bind(&[listen(&["127.0.0.1:0", "127.0.0.2:0"])], Defaults::Mx).unwrap();
        let mut listeners = Listeners::new(sockets).unwrap();
        let [busy, quiet] = local(&listeners)[..] else {
            panic!("two listeners")
        };
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(TcpStream::connect(busy).await.unwrap());
        }
        clients.push(TcpStream::connect(quiet).await.unwrap());
        let mut first = Vec::new();
        for _ in 0..2 {
            let stream = accepted(&mut listeners).await.stream;
            first.push(stream.local_addr().unwrap());
        }
        assert!(first.contains(&quiet), "{first:?}");
    }

    #[tokio::test]
    async fn a_change_of_listeners_loses_nobody() {
        let sockets =
            Sockets::bind(&[listen(&["127.0.0.1:0", "127.0.0.2:0"])], Defaults::Mx).unwrap();
        let mut listeners = Listeners::new(sockets).unwrap();
        let [kept, dropped] = local(&listeners)[..] else {
            panic!("two listeners")
        };
        let _kept_client = TcpStream::connect(kept).await.unwrap();
        let queued_client = TcpStream::connect(dropped).await.unwrap();
        let mut wanted = listen(&["127.0.0.1:0", "127.0.0.3:0"]);
        wanted.tls = TlsMode::Off;
        let queued = listeners.rebind(&[wanted], Defaults::Mx).unwrap();
        let peers: Vec<_> = queued.iter().map(|accepted| accepted.peer).collect();
        assert_eq!(peers, [queued_client.local_addr().unwrap()]);
        assert_eq!(local(&listeners)[0], kept);
        assert!(TcpStream::connect(dropped).await.is_err());
        let next = accepted(&mut listeners).await;
        assert_eq!(next.stream.local_addr().unwrap(), kept);
        assert_eq!(next.endpoint.tls, TlsMode::Off, "as the new section says");
    }

    #[tokio::test]
    async fn listeners_that_cannot_be_had_change_nothing() {
        let sockets = Sockets::bind(&[listen(&["127.0.0.1:0"])], Defaults::Mx).unwrap();
        let mut listeners = Listeners::new(sockets).unwrap();
        let before = local(&listeners);
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().to_string();
        let error = listeners.rebind(&[listen(&["127.0.0.2:0", &taken])], Defaults::Mx);
        assert!(matches!(error, Err(Error::Bind { .. })), "{error:?}");
        assert_eq!(local(&listeners), before);
        let _client = TcpStream::connect(before[0]).await.unwrap();
        accepted(&mut listeners).await;
    }
}
