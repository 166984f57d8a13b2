//! Whether a request prefers a page for people to a document for programs (RFC 9110 12.5.1).
//!
//! The same as `app.web.accept`; the tests of both read one table of rows. Read for refusals alone.

use std::cell::RefCell;

use hyper::header::{ACCEPT, HeaderMap};

/// Bytes of all lines together; no browser sends as many.
const MAX_BYTES: usize = 1000;
/// What a weight of 1 is.
const WHOLE: u16 = 1000;
const PROGRAM: [&str; 2] = ["problem+json", "json"];

/// How well a media type is matched: its weight in thousandths, and how exactly it is named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    weight: u16,
    exactness: u8,
}

impl Match {
    /// The more exact range decides; of two that are alike, the greater weight.
    fn meet(&mut self, weight: u16, exactness: u8) {
        if (exactness, weight) > (self.exactness, self.weight) {
            *self = Self { weight, exactness };
        }
    }
}

#[derive(Debug, Default)]
struct Wanted {
    page: Match,
    program: [Match; 2],
}

thread_local! {
    /// The last line that was read alone, and whether it asks for a page: visitors send one of a few lines, which
    /// take longer to read than the rest of a refusal.
    static LAST: RefCell<(Vec<u8>, bool)> = const { RefCell::new((Vec::new(), false)) };
}

/// Whether `headers` ask for HTML rather than JSON. What cannot be read asks for nothing.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(ACCEPT).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return read(headers);
    };
    LAST.with_borrow_mut(|(last, is_page)| {
        if last != line.as_bytes() {
            *is_page = read(headers);
            last.clear();
            // A longer one asks for nothing, and is not worth its memory.
            last.extend_from_slice(
                line.as_bytes()
                    .get(..MAX_BYTES + 1)
                    .unwrap_or(line.as_bytes()),
            );
        }
        *is_page
    })
}

fn read(headers: &HeaderMap) -> bool {
    let (mut wanted, mut left) = (Wanted::default(), MAX_BYTES);
    for value in headers.get_all(ACCEPT) {
        // What cannot be read is not shown to the control plane either.
        let Ok(line) = value.to_str() else { continue };
        let Some(rest) = left.checked_sub(line.len()) else {
            return false;
        };
        left = rest;
        if wanted.read(line).is_none() {
            return false;
        }
    }
    let [problem, json] = wanted.program;
    wanted.page.weight > 0 && wanted.page > problem.max(json)
}

impl Wanted {
    /// Reads one line; None: it is malformed.
    fn read(&mut self, line: &str) -> Option<()> {
        for range in parts(line, b',') {
            if range.is_empty() {
                continue;
            }
            let mut parts = parts(range, b';');
            let (kind, subtype) = parts.next()?.split_once('/')?;
            if !is_token(kind) || !is_token(subtype) {
                return None;
            }
            let (mut weight, mut is_ours) = (None, true);
            for parameter in parts {
                if parameter.is_empty() {
                    continue;
                }
                let (name, value) = parameter.split_once('=')?;
                if !is_token(name) || !(is_token(value) || is_quoted(value)) {
                    return None;
                }
                if weight.is_some() {
                    continue;
                }
                if name.eq_ignore_ascii_case("q") {
                    weight = Some(weight_of(value)?);
                } else {
                    let value = value.trim_matches('"');
                    is_ours &=
                        name.eq_ignore_ascii_case("charset") && value.eq_ignore_ascii_case("utf-8");
                }
            }
            if is_ours {
                self.meet(kind, subtype, weight.unwrap_or(WHOLE));
            }
        }
        Some(())
    }

    fn meet(&mut self, kind: &str, subtype: &str, weight: u16) {
        let is = |text: &str, other: &str| text.eq_ignore_ascii_case(other);
        let exactness = |own_kind: &str, own_subtype: &str| match (kind, subtype) {
            ("*", "*") => 1,
            (_, "*") if is(kind, own_kind) => 2,
            _ if is(kind, own_kind) && is(subtype, own_subtype) => 3,
            _ => 0,
        };
        let page = exactness("text", "html");
        if page > 0 {
            self.page.meet(weight, page);
        }
        for (held, own) in self.program.iter_mut().zip(PROGRAM) {
            let found = exactness("application", own);
            if found > 0 {
                held.meet(weight, found);
            }
        }
    }
}

/// The parts of `text` between separators that are not quoted, without the space around them.
fn parts(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character: char| {
        if is_escaped {
            is_escaped = false;
        } else if is_quoted && character == '\\' {
            is_escaped = true;
        } else if character == '"' {
            is_quoted = !is_quoted;
        }
        !is_quoted && character == char::from(separator)
    })
    .map(|part| part.trim_matches([' ', '\t']))
}

fn is_token(text: &str) -> bool {
    let is_in = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_in)
}

fn is_quoted(text: &str) -> bool {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else { return false };
    let mut is_escaped = false;
    for byte in inner.bytes() {
        match (is_escaped, byte) {
            (true, _) => is_escaped = false,
            (false, b'\\') => is_escaped = true,
            (false, b'"') => return false,
            (false, _) => {}
        }
    }
    !is_escaped
}

/// A weight in thousandths; None if it is none.
fn weight_of(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || decimals.len() > 3 {
        return None;
    }
    let mut weight = if whole == "1" { WHOLE } else { 0 };
    for (byte, unit) in decimals.bytes().zip([100, 10, 1]) {
        weight += u16::from(byte.is_ascii_digit().then(|| byte - b'0')?) * unit;
    }
    (weight <= WHOLE).then_some(weight)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use serde_json::Value;

    use super::*;

    const ROWS: &str = include_str!("../../../tests/data/accepts.json");

    #[test]
    fn page_is_wanted_as_the_table_says() {
        let rows: Value = serde_json::from_str(ROWS).unwrap();
        for row in rows.as_array().unwrap() {
            let mut headers = HeaderMap::new();
            for line in row["accept"].as_array().unwrap() {
                let line = line.as_str().unwrap();
                headers.append(ACCEPT, HeaderValue::from_str(line).unwrap());
            }

            assert_eq!(
                wants_page(&headers),
                row["page"].as_bool().unwrap(),
                "{row}"
            );
        }
    }

    #[test]
    fn lines_are_told_apart_in_any_order() {
        let wants = |lines: &[&str]| {
            let values = lines
                .iter()
                .map(|line| HeaderValue::from_str(line).unwrap());
            wants_page(&values.map(|value| (ACCEPT, value)).collect())
        };

        for _ in 0..2 {
            assert!(wants(&["text/html"]));
            assert!(wants(&["text/html"]));
            assert!(!wants(&["text/html;q=0"]));
            assert!(!wants(&[]));
            assert!(!wants(&["text/html;q=0.5", "application/json"]));
            assert!(wants(&["text/html;q=0.5"]));
            assert!(!wants(&[""]));
        }
    }

    #[test]
    fn length_is_bounded() {
        for (filling, is_page) in [(MAX_BYTES - 10, true), (MAX_BYTES - 9, false)] {
            let line = format!("text/html,{}", " ".repeat(filling));
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(&line).unwrap())]);

            assert_eq!(wants_page(&headers), is_page);
        }
    }
}
