//! The hash slots of a Redis Cluster: the server that has a key.

use redis::Value;

const SLOTS: u16 = 16384;

/// Host and port of a server.
pub(super) type Address = (String, u16);

/// The slot of a key: CRC16 of the part between the first braces, or of the whole key without such a part.
pub(super) fn slot(key: &[u8]) -> u16 {
    let find = |bytes: &[u8], wanted: u8| bytes.iter().position(|byte| *byte == wanted);
    let tag = find(key, b'{').and_then(|open| {
        let rest = &key[open + 1..];
        find(rest, b'}')
            .filter(|len| *len > 0)
            .map(|len| &rest[..len])
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key)) % SLOTS
}

/// The server of each slot, from the reply to `CLUSTER SLOTS`: first, last, (host, port, ...) of the
/// primary, ...
pub(super) fn slot_table(table: &Value, connected: &Address) -> Vec<Option<Address>> {
    let mut slots = vec![None; usize::from(SLOTS)];
    let Value::Array(ranges) = table else {
        return slots;
    };
    for range in ranges {
        if let Value::Array(range) = range
            && let [
                Value::Int(first),
                Value::Int(last),
                Value::Array(primary),
                ..,
            ] = &range[..]
            && let [host, Value::Int(port), ..] = &primary[..]
            && let Ok(port) = u16::try_from(*port)
            && let (Ok(first), Ok(last)) = (usize::try_from(*first), usize::try_from(*last))
            && last < slots.len()
            && first <= last
        {
            let host = match host {
                Value::BulkString(host) if !host.is_empty() => {
                    String::from_utf8_lossy(host).into_owned()
                }
                // A server that does not know its own name means the address of this connection.
                _ => connected.0.clone(),
            };
            slots[first..=last].fill(Some((host, port)));
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(
            slot(b"foo{}{bar}"),
            crc16::State::<crc16::XMODEM>::calculate(b"foo{}{bar}") % SLOTS
        );
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }
}
