//! What the door serves: metrics and health.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::Config;
use crate::admin::Listen;
use crate::admin::health::Health;
use crate::http;
use crate::telemetry::metrics::Metrics;

/// Connections at once. Further ones wait in the kernel.
const MOST_CONNECTIONS: usize = 16;

/// The door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, is not this machine's, or needs privileges.
    #[error("cannot listen on {address} for metrics and health ([admin] listen)")]
    Bind {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// What the system says of it.
        source: io::Error,
    },
}

/// Opens the port, so that one in use is known before anything else runs. None when it is off.
///
/// Cancel safe.
pub async fn bind(config: &Config) -> Result<Option<TcpListener>, Error> {
    let Listen::At(address) = config.listen else {
        return Ok(None);
    };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(Error::Bind { address, source }),
    }
}

/// Serves until `stop`; what is being answered then is cut off.
///
/// Cancel safe: connections end with it.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/health", get(show_health))
        .with_state((metrics, health));
    let served = http::serve(listener, None, router, MOST_CONNECTIONS);
    stop.run_until_cancelled(served).await;
}

async fn show_metrics(State((metrics, _)): State<(Metrics, Health)>) -> impl IntoResponse {
    // The version of the text format that Prometheus asks for.
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, metrics.render())
}

async fn show_health(State((_, health)): State<(Metrics, Health)>) -> impl IntoResponse {
    let reasons = health.reasons();
    if reasons.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::*;
    use crate::telemetry::metrics;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_and_health_are_told_until_stopped() {
        let config = Config {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..Config::default()
        };
        let listener = bind(&config).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Config {
            listen: Listen::At(address),
            ..Config::default()
        };
        assert!(bind(&taken).await.is_err());

        let health = Health::new();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(
            listener,
            metrics::install().unwrap(),
            health.clone(),
            stop.clone(),
        ));
        let get =
            |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = ask(address, &get("/health")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        health.trouble("spool", "the disk is full");
        let answer = ask(address, &get("/health")).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("spool: the disk is full\n"), "{answer}");
        let answer = ask(address, &get("/metrics")).await;
        assert!(answer.contains("\ngatepost_accepted_total "), "{answer}");
        let answer = ask(address, &get("/other")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let answer = ask(
            address,
            &format!("GET /health HTTP/1.1\r\nX: {}", "x".repeat(9000)),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

        stop.cancel();
        tasks.join_next().await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
