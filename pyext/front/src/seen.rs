//! What visits look like, until the control plane takes it: visits that look alike are counted together.

mod refused;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_LANGUAGE, HeaderName, HeaderValue, REFERER, USER_AGENT};
use parking_lot::Mutex;

use crate::intent::is_ahead;
use crate::utm;

pub use refused::Refusal;
use refused::Refused;

/// Kinds of visits that are counted apart, at most; further ones are dropped, and counted as such.
const MAX_KINDS: usize = 20_000;
/// What is kept of a header, bytes.
const MAX_AGENT: usize = 300;
const MAX_HOST: usize = 253;
const MAX_LANGUAGE: usize = 35;
/// No header value has it, no slug, no address.
const END: u8 = 0;

/// The visitor asks for no tracking.
const OBJECTS: u8 = b'o';
/// A browser asks before its user does.
const AHEAD: u8 = b'a';

const DNT: HeaderName = HeaderName::from_static("dnt");
const GPC: HeaderName = HeaderName::from_static("sec-gpc");

/// Visits that look alike.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// What was visited.
    pub slug: Vec<u8>,
    /// The host that `Referer` names, as it is written.
    pub referrer: Vec<u8>,
    /// The first language of `Accept-Language`.
    pub language: Vec<u8>,
    /// The address of the client, or its IPv6 network.
    pub client: Vec<u8>,
    /// `o`: it objects to tracking; `a`: it is a prefetch; `m`: no link was found, `g`: one that is over.
    pub flags: Vec<u8>,
    /// The `utm_` parameters of the target, then those of the visit's query.
    pub campaign: Vec<u8>,
    /// `User-Agent`.
    pub agent: Vec<u8>,
}

type Counts = HashMap<Box<[u8]>, u64, RandomState>;

/// How often there were visits of each kind. All threads of the front count; the control plane takes.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the parts of the kind, each with its end: one allocation for a kind, none for a visit.
    counts: Mutex<Counts>,
    refused: Refused,
    dropped: AtomicU64,
}

thread_local! {
    static PARTS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Seen {
    /// Counts a visit of `slug` with these `headers` by `client`; `queries` are those of its target and its own.
    pub fn note(&self, slug: &[u8], client: &str, headers: &HeaderMap, queries: [&str; 2]) {
        PARTS.with_borrow_mut(|parts| {
            parts.clear();
            write_parts(parts, slug, client, headers, queries);
            let mut counts = self.counts.lock();
            if let Some(count) = counts.get_mut(parts.as_slice()) {
                *count += 1;
            } else if counts.len() < MAX_KINDS {
                counts.insert(parts.as_slice().into(), 1);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Counts a request for `slug` with these `headers` that has no redirect.
    pub fn note_refusal(&self, slug: &[u8], refusal: Refusal, headers: &HeaderMap) {
        self.refused.note(slug, refusal, headers);
    }

    /// The visits since the last call, then the requests without a redirect.
    pub fn take(&self) -> Vec<(Kind, u64)> {
        let counts = std::mem::take(&mut *self.counts.lock());
        let kinds = counts.into_iter().chain(self.refused.take());
        kinds
            .filter_map(|(parts, count)| Some((kind(&parts)?, count)))
            .collect()
    }

    /// Visits that were not counted since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

fn write_parts(
    parts: &mut Vec<u8>,
    slug: &[u8],
    client: &str,
    headers: &HeaderMap,
    queries: [&str; 2],
) {
    parts.extend_from_slice(slug);
    parts.push(END);
    if let Some(referrer) = readable(headers, REFERER) {
        parts.extend_from_slice(cut(host_of(referrer), MAX_HOST));
    }
    parts.push(END);
    if let Some(languages) = readable(headers, ACCEPT_LANGUAGE) {
        let end = languages
            .iter()
            .position(|byte| matches!(byte, b',' | b';'));
        let first = &languages[..end.unwrap_or(languages.len())];
        parts.extend_from_slice(cut(first, MAX_LANGUAGE));
    }
    parts.push(END);
    parts.extend_from_slice(client.as_bytes());
    parts.push(END);
    if objects(headers) {
        parts.push(OBJECTS);
    }
    if is_ahead(headers) {
        parts.push(AHEAD);
    }
    parts.push(END);
    utm::write(parts, queries);
    parts.push(END);
    write_agent(parts, headers);
}

fn write_agent(parts: &mut Vec<u8>, headers: &HeaderMap) {
    if let Some(agent) = readable(headers, USER_AGENT) {
        parts.extend_from_slice(cut(agent, MAX_AGENT));
    }
}

fn objects(headers: &HeaderMap) -> bool {
    [DNT, GPC].iter().any(|name| is_one(headers.get(name)))
}

/// The first line of a header. The control plane is not shown what is no visible ASCII.
fn readable(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    Some(headers.get(name)?.to_str().ok()?.as_bytes())
}

fn is_one(value: Option<&HeaderValue>) -> bool {
    value.is_some_and(|value| value.as_bytes() == b"1")
}

/// The host of a URL with an authority, without user information and port; nothing, if it has none.
fn host_of(url: &[u8]) -> &[u8] {
    let Some(start) = url.windows(3).position(|three| three == b"://") else {
        return b"";
    };
    let rest = &url[start + 3..];
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\'));
    let authority = &rest[..end.unwrap_or(rest.len())];
    let host = match authority.iter().rposition(|byte| *byte == b'@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    let end = if host.first() == Some(&b'[') {
        host.iter()
            .position(|byte| *byte == b']')
            .map(|end| end + 1)
    } else {
        host.iter().position(|byte| *byte == b':')
    };
    &host[..end.unwrap_or(host.len())]
}

fn cut(value: &[u8], most: usize) -> &[u8] {
    &value[..value.len().min(most)]
}

fn kind(parts: &[u8]) -> Option<Kind> {
    let mut parts = parts.split(|byte| *byte == END).map(<[u8]>::to_vec);
    Some(Kind {
        slug: parts.next()?,
        referrer: parts.next()?,
        language: parts.next()?,
        client: parts.next()?,
        flags: parts.next()?,
        campaign: parts.next()?,
        agent: parts.next()?,
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde_json::Value;

    use super::*;
    use crate::client::ClientKeys;

    /// The looks that the control plane reads from the same requests.
    const LOOKS: &str = include_str!("../../../tests/data/looks.json");

    fn text(value: &Value) -> &str {
        value.as_str().unwrap_or_default()
    }

    #[test]
    fn looks_are_those_of_the_table() {
        let table: Value = serde_json::from_str(LOOKS).unwrap();
        for row in table["rows"].as_array().unwrap() {
            let mut headers = HeaderMap::new();
            for pair in row["headers"].as_array().unwrap() {
                let name = HeaderName::from_bytes(text(&pair[0]).as_bytes()).unwrap();
                // As HTTP/1.1 has them: bytes.
                let value = HeaderValue::from_bytes(text(&pair[1]).as_bytes()).unwrap();
                headers.append(name, value);
            }
            let client = ClientKeys::of(text(&row["client"]).parse().unwrap());
            let queries = [utm::query_of(text(&row["target"])), text(&row["query"])];
            let seen = Seen::default();
            seen.note(b"sale", &client.own, &headers, queries);

            let (kind, visits) = seen.take().pop().unwrap();
            assert_eq!(visits, 1);
            let look = &row["look"];
            let flags = [("objects", 'o'), ("is_ahead", 'a')];
            let flags = flags.iter().filter(|(name, _)| look[name] == true);
            let flags: String = flags.map(|(_, flag)| flag).collect();
            let found = [
                &kind.referrer,
                &kind.language,
                &kind.client,
                &kind.campaign,
                &kind.agent,
                &kind.flags,
            ]
            .map(|part| std::str::from_utf8(part).unwrap());
            let told = [
                text(&look["referrer"]),
                text(&look["language"]),
                text(&look["client"]),
                text(&look["campaign"]),
                text(&look["user_agent"]),
                &flags,
            ];
            assert_eq!(found, told, "{}", row["headers"]);
        }
    }

    #[test]
    fn visits_that_look_alike_are_counted_together() {
        let seen = Seen::default();
        let mut sent = HeaderMap::new();
        sent.insert(USER_AGENT, HeaderValue::from_static("Mozilla/5.0"));
        seen.note(b"sale", "192.0.2.1", &sent, ["", ""]);
        seen.note(b"sale", "192.0.2.1", &sent, ["", "a=1"]);
        seen.note(b"sale", "192.0.2.2", &sent, ["", ""]);
        seen.note(b"sale", "192.0.2.2", &sent, ["", "utm_source=a"]);

        let mut counts: Vec<_> = seen.take().into_iter().map(|(_, visits)| visits).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 1, 2]);
        assert!(seen.take().is_empty());
    }

    #[test]
    fn host_of_a_referrer() {
        let table = [
            ("https://a.example/b", "a.example"),
            ("https://a.example", "a.example"),
            ("https://user:pass@a.example:80?x", "a.example"),
            ("https://[2001:db8::1]:80/", "[2001:db8::1]"),
            ("android-app://com.example.app/", "com.example.app"),
            ("about:blank", ""),
            ("", ""),
            ("://", ""),
        ];
        for (url, host) in table {
            assert_eq!(host_of(url.as_bytes()), host.as_bytes(), "{url}");
        }
    }

    #[test]
    fn no_more_kinds_than_there_is_room_for() {
        let seen = Seen::default();
        let none = HeaderMap::new();
        for number in 0..MAX_KINDS + 3 {
            seen.note(number.to_string().as_bytes(), "192.0.2.1", &none, ["", ""]);
        }
        seen.note(b"0", "192.0.2.1", &none, ["", ""]);

        let taken = seen.take();
        assert_eq!(taken.len(), MAX_KINDS);
        assert_eq!(taken.iter().map(|(_, count)| count).sum::<u64>(), 20_001);
        assert_eq!(seen.take_dropped(), 3);
        assert_eq!(seen.take_dropped(), 0);
    }

    #[test]
    fn no_visit_is_lost_between_threads() {
        const VISITS: u64 = 20_000;
        let seen = Seen::default();
        let none = HeaderMap::new();
        let mut taken = 0;

        thread::scope(|scope| {
            let visiting: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..VISITS {
                            seen.note(b"sale", "192.0.2.1", &none, ["", ""]);
                        }
                    })
                })
                .collect();
            while !visiting.iter().all(thread::ScopedJoinHandle::is_finished) {
                taken += seen.take().iter().map(|(_, count)| count).sum::<u64>();
            }
        });

        taken += seen.take().iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(taken, 4 * VISITS);
    }
}
