//! A query of a request, added to the target of a link that forwards queries.
//!
//! The same as `with_query` of `app.web.redirects`, byte for byte; the tests of both read one table of rows.

use std::borrow::Cow;
use std::collections::HashSet;

/// What may stand in a query as it is, besides letters and digits. `%` may begin an escape.
const SAFE: &[u8] = b"!$&'()*+,-./:;=?@_~";

/// Whether `query` adds anything. An ampersand only separates two parameters.
pub fn adds(query: &str) -> bool {
    query.bytes().any(|byte| byte != b'&')
}

/// `location` with `query` added to its own; if it `is_overriding`, in place of the parameters of the same names.
pub fn with_query(location: &str, query: &str, is_overriding: bool) -> String {
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
    let own = if is_overriding {
        without(own, added)
    } else {
        Cow::Borrowed(own)
    };
    let mut joined = String::with_capacity(location.len() + added.len() + 8);
    joined.push_str(path);
    joined.push('?');
    joined.push_str(&own);
    if !own.is_empty() {
        joined.push('&');
    }
    push_escaped(&mut joined, added.as_bytes());
    joined.push_str(fragment);
    joined
}

/// The parameters of `own` whose names `query` does not have.
fn without<'a>(own: &'a str, query: &str) -> Cow<'a, str> {
    let names: HashSet<Vec<u8>> = parameters(query).map(name).collect();
    if parameters(own).all(|one| !names.contains(&name(one))) {
        return Cow::Borrowed(own);
    }
    let kept: Vec<&str> = parameters(own)
        .filter(|one| !names.contains(&name(one)))
        .collect();
    Cow::Owned(kept.join("&"))
}

fn parameters(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|one| !one.is_empty())
}

/// The name of a parameter as a server reads it: by that, `a%62` and `ab` are one.
fn name(parameter: &str) -> Vec<u8> {
    let written = parameter.split('=').next().unwrap_or_default().as_bytes();
    let mut read = Vec::with_capacity(written.len());
    let mut at = 0;
    while at < written.len() {
        let byte = written[at];
        at += 1;
        if byte == b'%' && begins_escape(&written[at..]) {
            let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default();
            let code = value(written[at]) << 4 | value(written[at + 1]);
            read.push(u8::try_from(code).unwrap_or_default());
            at += 2;
        } else {
            read.push(if byte == b'+' { b' ' } else { byte });
        }
    }
    read
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
            assert_eq!(
                with_query(&target, &query, false),
                joined,
                "{target} {query}"
            );
            assert_eq!(adds(&query), !query.trim_start_matches('&').is_empty());
        }
    }

    #[test]
    fn overriding_query_takes_the_place_of_parameters_with_the_same_names() {
        let rows: Vec<(String, String, String)> =
            serde_json::from_str(include_str!("../../../tests/data/overriding_queries.json"))
                .unwrap();
        assert!(rows.len() > 15);

        for (target, query, joined) in rows {
            assert_eq!(
                with_query(&target, &query, true),
                joined,
                "{target} {query}"
            );
        }
    }
}
