//! The server: few connections, small requests, short patience.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// For the header of one request.
const HEADER_WITHIN: Duration = Duration::from_secs(5);
/// For a connection in all, whatever it asks; the handshake is a part of it.
const CONNECTION_WITHIN: Duration = Duration::from_secs(30);
/// Nothing that we serve takes a body.
const MOST_BODY: usize = 1024;
/// hyper takes no less.
const MOST_HEADER: usize = 8192;
/// Connections at once with the world, on each listener.
const MOST_OF_THE_WORLD: usize = 64;

/// What the world may read: the text at a host and path, both as the client wrote them, the host
/// without its port.
#[derive(Clone)]
pub struct Pages(Arc<Find>);

type Find = dyn Fn(&str, &str) -> Option<String> + Send + Sync;

impl Pages {
    /// Asked for each request, so it must not wait for anything.
    pub fn new(find: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static) -> Pages {
        Pages(Arc::new(find))
    }

    fn answer(&self, request: &Request) -> Response {
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        match (self.0)(host, request.uri().path()) {
            Some(text) => ([(header::CONTENT_TYPE, "text/plain")], text).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// Serves pages to the world on a listener, within TLS where there is an acceptor. Never returns.
///
/// Cancel safe: connections end with it.
pub async fn serve_pages(listener: TcpListener, tls: Option<TlsAcceptor>, pages: Pages) {
    let answer = move |request: Request| {
        let answer = pages.answer(&request);
        async move { answer }
    };
    let router = Router::new().fallback(answer);
    serve(listener, tls, router, MOST_OF_THE_WORLD).await;
}

/// Serves `router` to at most so many connections at once; further ones wait in the kernel. Never
/// returns.
///
/// Cancel safe: connections end with it.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, most: usize) {
    let router = router.layer(DefaultBodyLimit::max(MOST_BODY));
    let answer = |stream| converse(stream, tls.clone(), router.clone());
    admit(listener, most, CONNECTION_WITHIN, answer).await;
}

/// Takes at most so many connections at once, each for at most so long; further ones wait in the kernel.
/// Never returns.
///
/// Cancel safe: connections end with it.
pub async fn admit<L, A>(
    mut listener: L,
    most: usize,
    within: Duration,
    answer: impl Fn(L::Io) -> A,
) where
    L: Listener,
    A: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        // Where there is none to be had, as when we are out of files, it rests for a second.
        let (stream, _) = listener.accept().await;
        let answered = timeout(within, answer(stream));
        connections.spawn(async move {
            // Whatever ends it, the client sees it; the gateway has nothing to do about it.
            let _ = answered.await;
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    let Some(tls) = tls else {
        return answer(stream, router).await;
    };
    if let Ok(stream) = tls.accept(stream).await {
        answer(stream, router).await;
    }
}

/// Answers the requests of one connection, whose headers have to come in time. Whatever ends it, the client
/// sees it.
///
/// Cancel safe: the connection ends with it.
pub async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(MOST_HEADER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_page_is_found_by_host_and_path_and_nothing_else_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Pages::new(|host, path| {
            let is_there = (host, path) == ("a.example", "/x");
            is_there.then(|| "a text".to_owned())
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_pages(listener, None, pages));
        for (host, path, want) in [
            ("a.example", "/x", "200"),
            ("a.example:80", "/x?y", "200"),
            ("b.example", "/x", "404"),
            ("a.example", "/../x", "404"),
        ] {
            let get = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = ask(address, &get).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {want}")), "{answer}");
            assert_eq!(
                answer.ends_with("\r\n\r\na text"),
                want == "200",
                "{answer}"
            );
        }
    }
}
