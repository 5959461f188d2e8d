//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): who the client behind a
//! load balancer is.
//!
//! [`parse`] is pure. [`read`] takes from the socket the header and not one byte more, for what
//! follows may be a TLS handshake. Extensions of version 2 (TLV) are passed over.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::str::FromStr;

use memchr::memchr;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// The proxy speaks for itself, or does not know: the socket's own addresses hold.
    Local,
    Proxied {
        client: SocketAddr,
        server: SocketAddr,
    },
}

/// Why a connection has no header that we can believe.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no PROXY header came in time")]
    Late,
    #[error("closed before the end of its PROXY header")]
    Closed,
    #[error("does not begin with a PROXY header")]
    Missing,
    #[error("its PROXY header is broken: {0}")]
    Broken(&'static str),
    #[error("its PROXY header could not be read: {0}")]
    Read(io::Error),
}

/// How far the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The header goes on behind them.
    Partial,
    /// The header is their first `length`.
    Whole { header: Header, length: usize },
}

/// Reads the header and leaves what follows in the socket. Not cancel safe.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Header, Error> {
    let mut seen = Vec::new();
    let mut chunk = [0; 512];
    loop {
        let ready = stream.peek(&mut chunk).await.map_err(Error::Read)?;
        if ready == 0 {
            return Err(Error::Closed);
        }
        let taken = seen.len();
        seen.extend_from_slice(&chunk[..ready]);
        let progress = parse(&seen)?;
        let ours = match progress {
            Progress::Partial => ready,
            Progress::Whole { length, .. } => length.saturating_sub(taken).min(ready),
        };
        let read = stream.read_exact(&mut chunk[..ours]).await;
        read.map_err(Error::Read)?;
        if let Progress::Whole { header, .. } = progress {
            return Ok(header);
        }
    }
}

const V1_PREFIX: &[u8] = b"PROXY ";
const V2_PREFIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn parse(bytes: &[u8]) -> Result<Progress, Error> {
    if begins(bytes, V1_PREFIX) {
        parse_v1(bytes)
    } else if begins(bytes, V2_PREFIX) {
        parse_v2(bytes)
    } else {
        Err(Error::Missing)
    }
}

/// Whether the bytes, as far as there are any, agree with the prefix.
fn begins(bytes: &[u8], prefix: &[u8]) -> bool {
    let common = bytes.len().min(prefix.len());
    bytes[..common] == prefix[..common]
}

/// proxy-protocol.txt §2.1: the longest line there can be, with its CRLF.
const V1_LIMIT: usize = 107;

fn parse_v1(bytes: &[u8]) -> Result<Progress, Error> {
    let window = &bytes[..bytes.len().min(V1_LIMIT)];
    let Some(end) = memchr(b'\n', window) else {
        return match bytes.len() < V1_LIMIT {
            true => Ok(Progress::Partial),
            false => Err(Error::Broken("the line is too long")),
        };
    };
    let line = window[..end]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(Error::Broken("the line does not end in CRLF"))?;
    let words: Vec<_> = line.split(' ').collect();
    let header = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Header::Local,
        ["PROXY", "TCP4", client, server, from, to] => Header::Proxied {
            client: socket_address::<Ipv4Addr>(client, from)?,
            server: socket_address::<Ipv4Addr>(server, to)?,
        },
        ["PROXY", "TCP6", client, server, from, to] => Header::Proxied {
            client: socket_address::<Ipv6Addr>(client, from)?,
            server: socket_address::<Ipv6Addr>(server, to)?,
        },
        _ => return Err(Error::Broken("neither TCP4, TCP6 nor UNKNOWN")),
    };
    let length = end + 1;
    Ok(Progress::Whole { header, length })
}

fn socket_address<A: FromStr + Into<IpAddr>>(ip: &str, port: &str) -> Result<SocketAddr, Error> {
    let ip = ip
        .parse::<A>()
        .map_err(|_| Error::Broken("not an address of its family"))?;
    // Digits only: `parse` alone would take "+25".
    let port = match port.bytes().all(|byte| byte.is_ascii_digit()) {
        true => port.parse().ok(),
        false => None,
    };
    let port = port.ok_or(Error::Broken("not a port"))?;
    Ok(SocketAddr::new(ip.into(), port))
}

/// Prefix, version and command, family and protocol, length of the rest.
const V2_FIXED: usize = V2_PREFIX.len() + 4;

/// More than any proxy sends with all of its extensions.
const V2_LIMIT: usize = 4096;

fn parse_v2(bytes: &[u8]) -> Result<Progress, Error> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED) else {
        return Ok(Progress::Partial);
    };
    let [.., command, family, high, low] = fixed else {
        return Ok(Progress::Partial);
    };
    let rest_length = usize::from(u16::from_be_bytes([*high, *low]));
    let length = V2_FIXED + rest_length;
    if length > V2_LIMIT {
        return Err(Error::Broken("longer than 4096 octets"));
    }
    let is_proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(Error::Broken("not version 2, or an unknown command")),
    };
    let Some(addresses) = rest.get(..rest_length) else {
        return Ok(Progress::Partial);
    };
    let header = match (is_proxied, family) {
        (false, _) => Header::Local,
        // Unspecified, or a client of the proxy's unix socket.
        (true, 0x00 | 0x31) => Header::Local,
        (true, 0x11) => addresses_v2::<4>(addresses)?,
        (true, 0x21) => addresses_v2::<16>(addresses)?,
        (true, _) => return Err(Error::Broken("not a stream of a known family")),
    };
    Ok(Progress::Whole { header, length })
}

/// Two addresses of `N` octets, then their ports.
fn addresses_v2<const N: usize>(bytes: &[u8]) -> Result<Header, Error>
where
    IpAddr: From<[u8; N]>,
{
    let short = Error::Broken("too short for its addresses");
    let parts = || {
        let (client, rest) = bytes.split_first_chunk::<N>()?;
        let (server, rest) = rest.split_first_chunk::<N>()?;
        let (from, rest) = rest.split_first_chunk::<2>()?;
        let (to, _extensions) = rest.split_first_chunk::<2>()?;
        Some(Header::Proxied {
            client: SocketAddr::new((*client).into(), u16::from_be_bytes(*from)),
            server: SocketAddr::new((*server).into(), u16::from_be_bytes(*to)),
        })
    };
    parts().ok_or(short)
}

#[cfg(test)]
#[path = "../../tests/fuzz/proxy.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::prelude::proptest;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = V2_PREFIX.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn proxied(client: &str, server: &str) -> Header {
        Header::Proxied {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
        }
    }

    const V4_REST: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0, 25];

    fn good() -> Vec<(Vec<u8>, Header)> {
        let v4 = proxied("192.0.2.1:12345", "198.51.100.2:25");
        let v6 = proxied("[2001:db8::1]:12345", "[2001:db8::2]:25");
        let mut v6_rest = Vec::new();
        v6_rest.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6_rest.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        v6_rest.extend([0x30, 0x39, 0, 25]);
        let mut extended = V4_REST.to_vec();
        extended.extend([0x04, 0, 3, 1, 2, 3]);
        let v1_v6 = "PROXY TCP6 2001:db8::1 2001:db8::2 12345 25\r\n";
        vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\r\n".into(), v4),
            (v1_v6.into(), v6),
            (b"PROXY UNKNOWN\r\n".into(), Header::Local),
            (b"PROXY UNKNOWN ff:: what ever\r\n".into(), Header::Local),
            (v2(0x21, 0x11, &V4_REST), v4),
            (v2(0x21, 0x21, &v6_rest), v6),
            (v2(0x21, 0x11, &extended), v4),
            (v2(0x20, 0x11, &V4_REST), Header::Local),
            (v2(0x20, 0x00, &[]), Header::Local),
            (v2(0x21, 0x00, &[7; 99]), Header::Local),
            (v2(0x21, 0x31, &[0; 216]), Header::Local),
        ]
    }

    #[test]
    fn headers_are_read_to_their_end_and_no_further() {
        for (bytes, want) in good() {
            let length = bytes.len();
            for cut in 0..length {
                let got = parse(&bytes[..cut]).unwrap();
                assert_eq!(got, Progress::Partial, "{bytes:?} cut at {cut}");
            }
            let more = [&bytes[..], b"EHLO\r\n"].concat();
            let header = want;
            let want = Progress::Whole { header, length };
            assert_eq!(parse(&bytes).unwrap(), want, "{bytes:?}");
            assert_eq!(parse(&more).unwrap(), want, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bytes in [
            &b"EHLO client.example\r\n"[..],
            b"P\r\n",
            b"PROXY\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 12345\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25 1\r\n",
            b"PROXY TCP4  192.0.2.1 198.51.100.2 12345 25\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 25\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2  25\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 12345 25\r\n",
            b"PROXY TCP6 192.0.2.1 198.51.100.2 12345 25\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.2 12345 25\r\n",
            b"PROXY UNKNOWN\xff\r\n",
            b"PROXY unknown\r\n",
            long.as_bytes(),
            &v2(0x11, 0x11, &V4_REST),
            &v2(0x22, 0x11, &V4_REST),
            &v2(0x21, 0x12, &V4_REST),
            &v2(0x21, 0x41, &V4_REST),
            &v2(0x21, 0x11, &V4_REST[..11]),
            &v2(0x21, 0x21, &V4_REST),
            &v2(0x21, 0x11, &[0; V2_LIMIT]),
        ] {
            let got = parse(bytes);
            assert!(got.is_err(), "{:?}: {got:?}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, version in 0..3, cut in any::<u8>()) {
            let prefix = [&b""[..], V1_PREFIX, V2_PREFIX][version as usize];
            let mut all = prefix.to_vec();
            all.extend(bytes);
            let _ = parse(&all);
            for (mut good, _) in good() {
                let at = usize::from(cut) % good.len();
                good[at] ^= cut | 1;
                let _ = parse(&good);
            }
        }
    }

    #[tokio::test]
    async fn over_a_socket_what_follows_is_left_wherever_it_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (bytes, want) in good() {
            let more = [&bytes[..], b"EHLO client.example\r\n"].concat();
            for cut in 0..more.len() {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.set_nodelay(true).unwrap();
                let (mut server, _) = listener.accept().await.unwrap();
                let send = async {
                    client.write_all(&more[..cut]).await.unwrap();
                    tokio::task::yield_now().await;
                    client.write_all(&more[cut..]).await.unwrap();
                    client.shutdown().await.unwrap();
                };
                let receive = async {
                    let header = read(&mut server).await.unwrap();
                    let mut rest = Vec::new();
                    server.read_to_end(&mut rest).await.unwrap();
                    (header, rest)
                };
                let ((), (header, rest)) = tokio::join!(send, receive);
                assert_eq!(header, want, "cut at {cut}");
                assert_eq!(rest, b"EHLO client.example\r\n", "cut at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_that_breaks_off_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(b"PROXY TCP4 192.").await.unwrap();
        client.shutdown().await.unwrap();
        assert!(matches!(read(&mut server).await, Err(Error::Closed)));
    }
}
