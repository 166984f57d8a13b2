//! Fuzzing of what the front parses itself: mutations of good input, for as long as `HOPGATE_FUZZ_S` says.
//!
//! Seeds are fixed, so a run repeats; a longer one begins with the same input. `make test-long` gives ten minutes.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::address::{Network, client_address};
use crate::client::ClientKeys;
use crate::proxy_protocol::{For, binary, text};
use crate::upstream::{is_refused_by_its_head, to_private};

/// The time of one target in seconds, if nothing else is said.
const QUICK_S: f64 = 0.5;

/// A small generator (xorshift64*), which no test needs to be better.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Less than `bound`, or 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap();
        usize::try_from((self.next() >> 16) % bound).unwrap()
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// Calls `target` with mutations of `corpus`, which may take on pieces of `words`.
fn fuzz(seed: u64, corpus: &[&[u8]], words: &[&[u8]], mut target: impl FnMut(&[u8], &mut Random)) {
    let budget = std::env::var("HOPGATE_FUZZ_S").map_or(QUICK_S, |text| text.parse().unwrap());
    let (budget, began) = (Duration::from_secs_f64(budget), Instant::now());
    let mut random = Random(seed);
    let mut runs = 0_u64;
    while began.elapsed() < budget {
        for _ in 0..256 {
            let mut input = random.one(corpus).to_vec();
            for _ in 0..random.below(6) {
                mutate(&mut input, corpus, words, &mut random);
            }
            input.truncate(10_000);
            target(&input, &mut random);
            runs += 1;
        }
    }
    println!("{runs} inputs");
}

fn mutate(input: &mut Vec<u8>, corpus: &[&[u8]], words: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(20)).min(input.len());
    match random.below(7) {
        0 => drop(input.drain(at..end)),
        1 => {
            let word = random.one(words).to_vec();
            input.splice(at..at, word);
        }
        2 => {
            let word = random.one(words).to_vec();
            input.splice(at..end, word);
        }
        3 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        4 => {
            let other = random.one(corpus);
            input.truncate(at);
            input.extend_from_slice(&other[random.below(other.len())..]);
        }
        5 => input.insert(at, random.next().to_le_bytes()[0]),
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

#[test]
fn fuzz_forwarded_for() {
    let corpus: &[&[u8]] = &[
        b"203.0.113.7",
        b"203.0.113.7, 10.0.0.1",
        b"2001:db8::1, [2001:db8::2]:443, 10.1.1.1:80",
        b"fe80::1%eth0,::ffff:10.0.0.1",
        b" , ,\t198.51.100.1 ,, 10.0.0.2",
    ];
    let words: &[&[u8]] = &[
        b",",
        b"10.0.0.3",
        b"[",
        b"]",
        b":",
        b"%",
        b"::",
        b" ",
        b"\t",
        b"unknown",
        b"999",
    ];
    let trusted = [
        Network::parse("10.0.0.0/8").unwrap(),
        Network::parse("fd00::/8").unwrap(),
    ];
    let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
    let proxy: IpAddr = "10.9.9.9".parse().unwrap();
    let other: IpAddr = "203.0.113.99".parse().unwrap();
    fuzz(1, corpus, words, |input, random| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        let Ok(line) = value.to_str() else {
            return;
        };
        assert_eq!(client_address(other, &[line], &trusted), other, "{line:?}");
        let client = client_address(proxy, &[line], &trusted);
        ClientKeys::of(client);
        // What a client puts on the left of what a proxy adds changes nothing.
        if !is_trusted(client) {
            let forged = String::from_utf8_lossy(random.one(corpus)).into_owned();
            let left = client_address(proxy, &[&forged, line], &trusted);
            assert_eq!(left, client, "{forged:?} {line:?}");
        }
        // Lines are one list.
        if let Some((left, right)) = line.split_once(',') {
            let two = client_address(proxy, &[left, right], &trusted);
            assert_eq!(two, client, "{line:?}");
        }
    });
}

#[test]
fn fuzz_proxy_line() {
    let corpus: &[&[u8]] = &[
        b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n",
        b"PROXY TCP6 2001:db8::1 2001:db8::2 7 8\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    ];
    let words: &[&[u8]] = &[
        b" ", b"\r", b"\n", b"\0", b"TCP4", b"TCP6", b"0", b"65536", b"::", b".", b"+",
    ];
    fuzz(2, corpus, words, |input, _| {
        let Some(For::Client(client)) = text(input) else {
            return;
        };
        // What is read is what stands there: written again, it is read as the same.
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let (address, port) = (client.ip(), client.port());
        let again = format!("PROXY {family} {address} {address} {port} 1\r\n");
        assert_eq!(text(again.as_bytes()), Some(For::Client(client)));
        let line = std::str::from_utf8(input).unwrap();
        assert!(line.starts_with(&format!("PROXY {family} ")), "{line:?}");
        assert!(line.contains(&format!(" {port} ")), "{line:?}");
        assert_eq!(line.matches(['\r', '\n']).count(), 2, "{line:?}");
    });
}

#[test]
fn fuzz_proxy_block() {
    let four = [&[0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 9, 0xDC, 4, 1, 0xBB][..]].concat();
    let six = [&[0x21, 0x21][..], &[0x20; 36], &[4, 0, 1, 0]].concat();
    let local = [0x20, 0];
    let corpus: &[&[u8]] = &[&four, &six, &local];
    let words: &[&[u8]] = &[&[0], &[0x21], &[0x20], &[0x11], &[0x31], &[0xFF; 40]];
    fuzz(3, corpus, words, |input, _| {
        let [command, family, rest @ ..] = input else {
            return;
        };
        let Some(For::Client(client)) = binary(*command, *family, rest) else {
            return;
        };
        assert_eq!(*command, 0x21);
        // What follows the addresses changes nothing.
        let length = if client.is_ipv4() { 12 } else { 36 };
        let bare = binary(*command, *family, &rest[..length]);
        assert_eq!(bare, Some(For::Client(client)));
        assert_eq!(binary(*command, *family, &rest[..length - 1]), None);
        assert_eq!(SocketAddr::new(client.ip(), client.port()), client);
    });
}

#[test]
fn fuzz_private_headers() {
    let corpus: &[&[u8]] = &[
        b"x-hopgate-peer: 192.0.2.1:1\nhost: x\ncontent-length: 3",
        b"connection: x-hopgate-peer, close\ntransfer-encoding: chunked\ncontent-length: 99999",
        b"expect: 100-continue\nx-forwarded-for: 192.0.2.1\nupgrade: h2c",
    ];
    let words: &[&[u8]] = &[
        b"\n",
        b": ",
        b"x-hopgate-",
        b"X-HOPGATE-PEER: a\n",
        b"x-hopgate-peer",
        b"connection: ",
        b",",
        b"transfer-encoding: chunked\n",
        b"content-length: 4\n",
        b"-",
        b"_",
        b"\t",
    ];
    let peer = HeaderValue::from_static("203.0.113.7:54321");
    fuzz(4, corpus, words, |input, _| {
        let mut headers = HeaderMap::new();
        for line in input.split(|byte| *byte == b'\n') {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            let (name, value) = line.split_at(colon);
            let name = HeaderName::from_bytes(name);
            let value = HeaderValue::from_bytes(value.strip_prefix(b": ").unwrap_or(b""));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        let is_chunked = headers.contains_key("transfer-encoding");
        let is_refused = is_refused_by_its_head(&mut headers, 65_536);
        to_private(&mut headers, peer.clone(), false);

        let named: Vec<_> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-hopgate"))
            .collect();
        let ours = named
            .iter()
            .filter(|name| name.as_str().starts_with("x-hopgate-"))
            .count();
        assert_eq!(ours, 1, "{named:?}");
        assert_eq!(
            headers.get_all("x-hopgate-peer").iter().collect::<Vec<_>>(),
            [&peer]
        );
        assert!(!headers.contains_key("connection") && !headers.contains_key("transfer-encoding"));
        assert!(!is_chunked || (is_refused && !headers.contains_key("content-length")));
    });
}
