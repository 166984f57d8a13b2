//! The PROXY protocol, versions 1 and 2: the first bytes of a connection name the client that a proxy connects for.
//!
//! Read ourselves: crates accept lines that are none (`PROXY:UNKNOWN`, a port `+80`, more than 107 bytes).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How version 2 begins. Version 1 is never shorter.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;
/// Most that version 2 has after its length: addresses, and what is skipped after them. Proxies send up to a few
/// hundred bytes.
const MAX_REST: usize = 4096;

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// The client at this address.
    Client(SocketAddr),
    /// The proxy itself, which looks whether the gateway is there, or does not know.
    Proxy,
}

/// Reads the header of `stream`, and no byte after it.
///
/// # Errors
/// If the connection ends or fails, or begins with anything else.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<For> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let [command, family, high, low] = fixed;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_REST {
            return Err(malformed());
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return binary(command, family, &rest).ok_or_else(malformed);
    }
    let mut line = Vec::with_capacity(MAX_LINE);
    line.extend_from_slice(&start);
    while !line.ends_with(b"\r\n") {
        let mut ahead = [0; MAX_LINE];
        let room = MAX_LINE - line.len();
        if room == 0 || !is_beginning(&line) {
            return Err(malformed());
        }
        let seen = stream.peek(&mut ahead[..room]).await?;
        // What has no end yet is of the line.
        let end = ahead[..seen].iter().position(|byte| *byte == b'\n');
        let part = end.map_or(seen, |end| end + 1);
        if part == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = line.len();
        line.resize(length + part, 0);
        stream.read_exact(&mut line[length..]).await?;
        if end.is_some() {
            break;
        }
    }
    text(&line).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn is_beginning(line: &[u8]) -> bool {
    line.starts_with(b"PROXY ")
}

/// What a line of version 1 names; None if it is malformed.
pub(crate) fn text(line: &[u8]) -> Option<For> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let rest = line.strip_prefix("PROXY ")?;
    // What follows is to be ignored.
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(For::Proxy);
    }
    let mut words = rest.split(' ');
    let family = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let (port, other) = (port(words.next()?)?, words.next()?);
    self::port(other)?;
    if words.next().is_some() {
        return None;
    }
    let address = match family {
        "TCP4" => IpAddr::V4(both::<Ipv4Addr>(source, destination)?),
        "TCP6" => IpAddr::V6(both::<Ipv6Addr>(source, destination)?),
        _ => return None,
    };
    Some(For::Client(SocketAddr::new(address, port)))
}

fn both<T: FromStr>(source: &str, destination: &str) -> Option<T> {
    destination.parse::<T>().ok()?;
    source.parse().ok()
}

fn port(text: &str) -> Option<u16> {
    let is_number =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_number.then(|| text.parse().ok()).flatten()
}

/// What version 2 names; None if it is malformed.
pub(crate) fn binary(command: u8, family: u8, rest: &[u8]) -> Option<For> {
    match (command, family) {
        // LOCAL; UNSPEC; the sockets of the proxy's own machine. What follows is to be ignored.
        (0x20, _) | (0x21, 0x00 | 0x31) => Some(For::Proxy),
        (0x21, 0x11) => {
            let (source, ports) = (rest.first_chunk::<4>()?, rest.get(8..12)?);
            Some(client(Ipv4Addr::from(*source).into(), ports))
        }
        (0x21, 0x21) => {
            let (source, ports) = (rest.first_chunk::<16>()?, rest.get(32..36)?);
            Some(client(Ipv6Addr::from(*source).into(), ports))
        }
        // Datagrams do not come over a connection.
        _ => None,
    }
}

fn client(address: IpAddr, ports: &[u8]) -> For {
    For::Client(SocketAddr::new(
        address,
        u16::from_be_bytes([ports[0], ports[1]]),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let client = |text: &str| Some(For::Client(text.parse().unwrap()));
        let table = [
            (
                "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n",
                client("192.0.2.1:56324"),
            ),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                client("[2001:db8::1]:1"),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n",
                client("[::ffff:192.0.2.1]:1"),
            ),
            ("PROXY UNKNOWN\r\n", Some(For::Proxy)),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Some(For::Proxy)),
            ("PROXY UNKNOWNS\r\n", None),
            ("PROXY:UNKNOWN\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 \r\n", None),
            ("PROXY TCP4  192.0.2.1 192.0.2.9 56324 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 1\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 65536 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 +1 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 01 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 1 -1\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.9  1\r\n", None),
            ("PROXY TCP4 2001:db8::1 192.0.2.9 1 2\r\n", None),
            ("PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n", None),
            ("PROXY TCP6 192.0.2.1 192.0.2.9 1 2\r\n", None),
            ("PROXY UDP4 192.0.2.1 192.0.2.9 1 2\r\n", None),
            ("PROXY TCP4 192.0.2.01 192.0.2.9 1 2\r\n", None),
            ("proxy UNKNOWN\r\n", None),
        ];
        for (line, expected) in table {
            assert_eq!(text(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn blocks_are_read() {
        let four = [192, 0, 2, 1, 192, 0, 2, 9, 0xDC, 4, 1, 0xBB];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        six[33] = 7;
        let longer = [&four[..], &[0x20, 0, 1, 9]].concat();
        let client = |text: &str| Some(For::Client(text.parse().unwrap()));
        let table = [
            (0x21, 0x11, &four[..], client("192.0.2.1:56324")),
            (0x21, 0x11, &longer, client("192.0.2.1:56324")),
            (0x21, 0x21, &six, client("[2001:db8::1]:7")),
            (0x20, 0x11, &four, Some(For::Proxy)),
            (0x20, 0x00, &[], Some(For::Proxy)),
            (0x21, 0x00, &[1, 2, 3], Some(For::Proxy)),
            (0x21, 0x31, &[0; 216], Some(For::Proxy)),
            (0x21, 0x11, &four[..11], None),
            (0x21, 0x21, &six[..35], None),
            (0x21, 0x12, &four, None),
            (0x21, 0x41, &four, None),
            (0x22, 0x11, &four, None),
            (0x11, 0x11, &four, None),
            (0x31, 0x11, &four, None),
        ];
        for (command, family, rest, expected) in table {
            assert_eq!(
                binary(command, family, rest),
                expected,
                "{command:x} {family:x}"
            );
        }
    }
}
