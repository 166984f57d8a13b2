//! The other end of a connection, and a client as rate limits count it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::header::HeaderValue;

/// The keys of a client: an IPv4 address, or an IPv6 network of 64 bits and the one of 48 bits around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKeys {
    /// The key of the client's own limit.
    pub own: Box<str>,
    /// The key of the limit that many networks of one owner share; None for IPv4.
    pub wide: Option<Box<str>>,
}

impl ClientKeys {
    /// The keys of the client at `address`: those that the control plane counts it by.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self {
                own: address.to_string().into(),
                wide: None,
            },
            IpAddr::V6(address) => Self {
                own: network(address, 64),
                wide: Some(network(address, 48)),
            },
        }
    }
}

fn network(address: Ipv6Addr, prefix: u32) -> Box<str> {
    let mask = u128::MAX << (128 - prefix);
    let start = Ipv6Addr::from_bits(address.to_bits() & mask);
    format!("{start}/{prefix}").into()
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Visitor {
    /// Its address.
    pub peer: IpAddr,
    /// Its keys, if it is the client itself.
    pub keys: ClientKeys,
    /// Its address and port, for the control plane.
    pub named: HeaderValue,
}

impl Visitor {
    /// The visitor at `peer`.
    ///
    /// # Panics
    /// Never: an address is text of ASCII.
    pub fn new(peer: SocketAddr) -> Self {
        let named = HeaderValue::from_str(&peer.to_string());
        Self {
            peer: peer.ip(),
            keys: ClientKeys::of(peer.ip()),
            named: named.expect("an address is ASCII"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_limiter() {
        let table = [
            ("192.0.2.1", "192.0.2.1", None),
            ("::ffff:192.0.2.1", "192.0.2.1", None),
            (
                "2001:db8:1:2:3:4:5:6",
                "2001:db8:1:2::/64",
                Some("2001:db8:1::/48"),
            ),
            ("::1", "::/64", Some("::/48")),
        ];
        for (address, own, wide) in table {
            let keys = ClientKeys::of(address.parse().unwrap());
            assert_eq!((&*keys.own, keys.wide.as_deref()), (own, wide), "{address}");
        }
    }
}
