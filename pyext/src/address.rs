//! The key for a client's address.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::error::{Error, excerpt};

/// The start of the name of a peer that has no address.
pub(crate) const UNIX_PEER: &str = "unix:";
/// The peer that Starlette's test client names.
const TEST_PEER: &str = "testclient";

/// The key for a client at `address`: an IPv4 address as it is, an IPv6 address as its network of
/// `v6_prefix` bits (`2001:db8::/64`), because one customer commonly owns a whole /64 (RFC 6177).
///
/// An IPv4 address mapped into IPv6 (`::ffff:192.0.2.1`) becomes the IPv4 address. Brackets and a zone
/// (`[fe80::1%eth0]`) are dropped. Ports are not accepted.
///
/// The peer of a Unix socket has no address: `unix:`, alone or with a path, is a key as it is, and so is
/// `testclient`, the peer that Starlette's test client names. All peers of such a socket are one client.
///
/// # Errors
/// [`Error::Invalid`] if `address` is not an address or `v6_prefix` is not 1 to 128.
pub fn client_key(address: &str, v6_prefix: u8) -> Result<Cow<'_, str>, Error> {
    if !(1..=128).contains(&v6_prefix) {
        return Err(Error::invalid(format!(
            "v6_prefix must be 1 to 128 bits, got {v6_prefix}"
        )));
    }
    if is_ipv4(address.as_bytes()) {
        return Ok(Cow::Borrowed(address));
    }
    if address == TEST_PEER || address.starts_with(UNIX_PEER) {
        return Ok(Cow::Borrowed(address));
    }
    let unreadable = || {
        Error::invalid(format!(
            "address must be an IP address without a port, got {}",
            excerpt(address)
        ))
    };
    let inner = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(unreadable)?,
        None => address,
    };
    let bare = match inner.split_once('%') {
        Some((_, "")) => return Err(unreadable()),
        Some((bare, _zone)) => bare,
        None => inner,
    };
    let v6: Ipv6Addr = bare.parse().map_err(|_| unreadable())?;
    if let Some(v4) = v6.to_ipv4_mapped() {
        return Ok(Cow::Owned(v4.to_string()));
    }
    let mask = u128::MAX << (128 - u32::from(v6_prefix));
    let network = Ipv6Addr::from_bits(v6.to_bits() & mask);
    Ok(Cow::Owned(format!("{network}/{v6_prefix}")))
}

/// Whether this is an IPv4 address in its only canonical form: four numbers up to 255, no leading zeros.
/// Checked on every request, so no address value is built: the text itself is the key.
fn is_ipv4(text: &[u8]) -> bool {
    let mut octets = 0;
    for octet in text.split(|byte| *byte == b'.') {
        octets += 1;
        match octet {
            [b'0'..=b'9']
            | [b'1'..=b'9', b'0'..=b'9']
            | [b'1', b'0'..=b'9', b'0'..=b'9']
            | [b'2', b'0'..=b'4', b'0'..=b'9']
            | [b'2', b'5', b'0'..=b'5'] => {}
            _ => return false,
        }
    }
    octets == 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_become_keys() {
        let table = [
            ("192.0.2.1", 64, "192.0.2.1"),
            ("::ffff:192.0.2.1", 64, "192.0.2.1"),
            ("[::ffff:192.0.2.1]", 64, "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64"),
            ("2001:DB8:1:2:0::6", 48, "2001:db8:1::/48"),
            ("[fe80::1%eth0]", 64, "fe80::/64"),
            ("::1", 128, "::1/128"),
            ("ffff::", 1, "8000::/1"),
            ("unix:/run/app.sock", 64, "unix:/run/app.sock"),
            ("testclient", 64, "testclient"),
        ];
        for (address, prefix, key) in table {
            assert_eq!(client_key(address, prefix).unwrap(), key, "{address}");
        }
    }

    #[test]
    fn bad_addresses_are_refused() {
        for address in [
            "",
            "localhost",
            "testclients",
            "unix",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.01",
            "192.0.2.1:80",
            "[192.0.2.1]",
            "[::1",
            "::1]",
            "[::1]:80",
            "::1%",
            "1::2::3",
            " 192.0.2.1",
        ] {
            assert!(client_key(address, 64).is_err(), "{address:?}");
        }
        assert!(client_key("::1", 0).is_err());
        assert!(client_key("::1", 129).is_err());
    }

    proptest! {
        #[test]
        fn ipv4_check_agrees_with_the_standard_library(text in "[0-9.]{0,16}|([0-9]{1,3}\\.){3}[0-9]{1,3}") {
            prop_assert_eq!(is_ipv4(text.as_bytes()), text.parse::<std::net::Ipv4Addr>().is_ok());
        }
    }
}
