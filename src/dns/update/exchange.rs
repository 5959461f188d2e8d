//! One message to one server and its answer, over TCP (RFC 7766): no answer is too long, and none can be
//! slipped in by somebody who does not see the question.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends a message in wire format and reads the answer to it, all within a time.
///
/// Cancel safe as to us; whether the server has acted is not known then.
pub(super) async fn exchange(
    server: SocketAddr,
    message: &[u8],
    within: Duration,
) -> io::Result<Vec<u8>> {
    let exchanged = timeout(within, async {
        let mut stream = TcpStream::connect(server).await?;
        // RFC 1035 §4.2.2: the length comes first.
        let length = u16::try_from(message.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), message].concat();
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    });
    let answer = exchanged.await??;
    match answer.get(..2) == message.get(..2) {
        true => Ok(answer),
        false => Err(io::Error::other("the answer is to another question")),
    }
}
