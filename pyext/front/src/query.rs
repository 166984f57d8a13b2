//! A query of a request, added to the target of a link that forwards queries.
//!
//! The same as `with_query` of `app.web.redirects`, byte for byte; the tests of both read one table of rows.

/// What may stand in a query as it is, besides letters and digits. `%` may begin an escape.
const SAFE: &[u8] = b"!$&'()*+,-./:;=?@_~";

/// Whether `query` adds anything. An ampersand only separates two parameters.
pub fn adds(query: &str) -> bool {
    query.bytes().any(|byte| byte != b'&')
}

/// `location` with `query` added to its own.
pub fn with_query(location: &str, query: &str) -> String {
    let added = query.trim_start_matches('&');
    if added.is_empty() {
        return location.to_owned();
    }
    let (target, fragment) = match location.find('#') {
        Some(at) => location.split_at(at),
        None => (location, ""),
    };
    let (path, own) = target.split_once('?').unwrap_or((target, ""));
    let own = own.trim_end_matches('&');
    let mut joined = String::with_capacity(location.len() + added.len() + 8);
    joined.push_str(path);
    joined.push('?');
    joined.push_str(own);
    if !own.is_empty() {
        joined.push('&');
    }
    push_escaped(&mut joined, added.as_bytes());
    joined.push_str(fragment);
    joined
}

fn push_escaped(to: &mut String, query: &[u8]) {
    for (at, byte) in query.iter().enumerate() {
        let is_safe = byte.is_ascii_alphanumeric()
            || SAFE.contains(byte)
            || (*byte == b'%' && begins_escape(&query[at + 1..]));
        if is_safe {
            to.push(char::from(*byte));
        } else {
            to.push('%');
            for digit in [byte >> 4, byte & 15] {
                to.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
    }
}

fn begins_escape(rest: &[u8]) -> bool {
    matches!(rest, [first, second, ..] if first.is_ascii_hexdigit() && second.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_joined_by_the_ampersands_it_needs() {
        let rows: Vec<(String, String, String)> =
            serde_json::from_str(include_str!("../../../tests/data/forwarded_queries.json"))
                .unwrap();
        assert!(rows.len() > 15);

        for (target, query, joined) in rows {
            assert_eq!(with_query(&target, &query), joined, "{target} {query}");
            assert_eq!(adds(&query), !query.trim_start_matches('&').is_empty());
        }
    }
}
