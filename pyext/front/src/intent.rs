//! Tells a visitor from a program that only looks at a link: a prefetch, or a maker of previews.
//!
//! The same as `app.web.intent`, which hands over its words; the tests of both read one table of rows.

use hyper::header::{HeaderMap, USER_AGENT};

/// Where browsers announce a request that the user has not asked for yet.
const PURPOSE: [&str; 4] = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
const AHEAD: [&str; 3] = ["prefetch", "prerender", "preview"];

/// Why a link is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// A visitor wants to go there.
    Visit,
    /// A browser asks before its user does.
    Prefetch,
    /// A program looks at it.
    Preview,
}

/// The words that tell programs that only look from browsers.
#[derive(Debug, Default)]
pub struct Previews {
    /// In lower case, anywhere in `User-Agent`.
    pub anywhere: Vec<String>,
    /// In lower case, at its beginning.
    pub at_start: Vec<String>,
}

impl Previews {
    /// Why a request with these headers was made.
    pub fn intent_of(&self, headers: &HeaderMap) -> Intent {
        if is_ahead(headers) {
            return Intent::Prefetch;
        }
        let mut agent = String::new();
        for value in headers.get_all(USER_AGENT) {
            // What cannot be read is not shown to the control plane either.
            let Ok(value) = value.to_str() else { continue };
            if !agent.is_empty() {
                agent.push(' ');
            }
            agent.push_str(value);
        }
        agent.make_ascii_lowercase();
        if self.has(&agent) {
            Intent::Preview
        } else {
            Intent::Visit
        }
    }

    fn has(&self, agent: &str) -> bool {
        has_bot(agent)
            || self.anywhere.iter().any(|word| agent.contains(word))
            || self.at_start.iter().any(|word| agent.starts_with(word))
    }
}

/// Whether a browser asks before its user does.
pub(crate) fn is_ahead(headers: &HeaderMap) -> bool {
    PURPOSE.iter().any(|name| says_ahead(headers, name))
}

fn says_ahead(headers: &HeaderMap, name: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok()).any(|value| {
        let mut tokens = value.split([';', ',']);
        tokens.any(|token| {
            AHEAD
                .iter()
                .any(|one| token.trim().eq_ignore_ascii_case(one))
        })
    })
}

/// Whether a word ends with `bot`. Cubot makes telephones.
fn has_bot(agent: &str) -> bool {
    agent.match_indices("bot").any(|(at, found)| {
        let next = agent.as_bytes().get(at + found.len());
        let is_end = next.is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        is_end && !agent[..at].ends_with("cu")
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use hyper::header::{HeaderName, HeaderValue};
    use serde_json::Value;

    use super::*;

    const ROWS: &str = include_str!("../../../tests/data/intents.json");

    fn words(list: &Value) -> Vec<String> {
        let items = list.as_array().unwrap();
        items
            .iter()
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn intent_is_that_of_the_table() {
        let table: Value = serde_json::from_str(ROWS).unwrap();
        let previews = Previews {
            anywhere: words(&table["anywhere"]),
            at_start: words(&table["at_start"]),
        };
        for row in table["rows"].as_array().unwrap() {
            let mut headers = HeaderMap::new();
            for pair in row["headers"].as_array().unwrap() {
                let pair = words(pair);
                let name = HeaderName::from_bytes(pair[0].as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_str(&pair[1]).unwrap());
            }
            let intent = format!("{:?}", previews.intent_of(&headers)).to_lowercase();
            assert_eq!(
                intent,
                row["intent"].as_str().unwrap(),
                "{}",
                row["headers"]
            );
        }
    }
}
