//! The address of a client: its peer's, or the one that trusted proxies forward.

use std::net::{IpAddr, Ipv6Addr};

/// The longest address, with port and brackets, is shorter.
const MAX_HOP: usize = 64;
/// The part of `X-Forwarded-For` that is read, from its end.
const MAX_FORWARDED: usize = 4096;

/// An address block, such as that of a trusted proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network that `text` names, `10.0.0.0/8`; None if it names none.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= most).then_some(Self { address, prefix })
    }

    /// Whether `address` is of this network; never if one is IPv4 and the other IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.prefix))
                    .unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix))
                    .unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// The address of the client behind `peer`.
///
/// `forwarded_for`, all lines of `X-Forwarded-For` in order, counts only if `peer` is of a `trusted` network, and
/// then from the right, up to the first address that is not: a client can forge everything left of it. Empty
/// elements do not count; an unreadable one ends the walk at the hop before it.
pub fn client_address(peer: IpAddr, forwarded_for: &[&str], trusted: &[Network]) -> IpAddr {
    let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
    let mut address = peer.to_canonical();
    if !is_trusted(address) {
        return address;
    }
    let joined;
    let text = match forwarded_for {
        [] => return address,
        [line] => *line,
        lines => {
            joined = lines.join(",");
            joined.as_str()
        }
    };
    let start = text.len().saturating_sub(MAX_FORWARDED);
    // Header values that reach this are ASCII, so every index is the start of a character.
    for element in text.get(start..).unwrap_or("").rsplit(',') {
        let hop = element.trim_matches([' ', '\t']);
        if hop.is_empty() {
            continue;
        }
        let Some(next) = read_hop(hop) else {
            return address;
        };
        address = next;
        if !is_trusted(address) {
            return address;
        }
    }
    address
}

/// The address in an element of `X-Forwarded-For`, which may have a port, brackets and a zone.
fn read_hop(hop: &str) -> Option<IpAddr> {
    if hop.len() > MAX_HOP {
        return None;
    }
    let text = if let Some(rest) = hop.strip_prefix('[') {
        rest.split(']').next().unwrap_or(rest)
    } else if hop.bytes().filter(|byte| *byte == b':').count() == 1 {
        hop.split(':').next().unwrap_or(hop)
    } else {
        hop
    };
    let address = match text.split_once('%') {
        None => text.parse::<IpAddr>().ok()?,
        Some((_, zone)) if zone.is_empty() || zone.contains('%') => return None,
        Some((bare, _)) => IpAddr::V6(bare.parse::<Ipv6Addr>().ok()?),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The rows that every program passes which has to find the client.
    const ROWS: &str = include_str!("../../../tests/data/client_addresses.json");

    fn texts(list: &Value) -> Vec<&str> {
        let items = list.as_array().unwrap();
        items.iter().map(|item| item.as_str().unwrap()).collect()
    }

    #[test]
    fn client_address_is_that_of_the_table() {
        let table: Value = serde_json::from_str(ROWS).unwrap();
        for row in table["rows"].as_array().unwrap() {
            let networks = texts(&row["trusted"]);
            let trusted: Vec<_> = networks
                .iter()
                .map(|text| Network::parse(text).unwrap())
                .collect();
            // A peer without an address has no connection to the front.
            let Ok(peer) = row["peer"].as_str().unwrap().parse::<IpAddr>() else {
                continue;
            };
            let found = client_address(peer, &texts(&row["forwarded_for"]), &trusted);
            let expected = row["client"].as_str().unwrap();
            let bare = expected.split('%').next().unwrap();
            assert_eq!(
                found,
                bare.parse::<IpAddr>().unwrap().to_canonical(),
                "{}",
                row["name"]
            );
        }
    }

    #[test]
    fn networks_have_edges() {
        let table = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "203.0.113.7", true),
            ("203.0.113.7/32", "203.0.113.8", false),
            ("fd00::/8", "fdff::1", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.7", false),
            ("::1/128", "::2", false),
        ];
        for (network, address, expected) in table {
            let found = Network::parse(network)
                .unwrap()
                .contains(address.parse().unwrap());
            assert_eq!(found, expected, "{network} {address}");
        }
        assert_eq!(Network::parse("10.0.0.0/33"), None);
        assert_eq!(Network::parse("10.0.0.0"), None);
    }
}
