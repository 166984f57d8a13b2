//! What visits look like, until the control plane takes it: visits that look alike are counted together.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_LANGUAGE, HeaderName, HeaderValue, REFERER, USER_AGENT};
use parking_lot::Mutex;

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
const PURPOSE: [HeaderName; 2] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
];

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
    /// `o`: it objects to tracking; `a`: it is a prefetch.
    pub flags: Vec<u8>,
    /// `User-Agent`.
    pub agent: Vec<u8>,
}

/// How often there were visits of each kind. All threads of the front count; the control plane takes.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the parts of the kind, each with its end: one allocation for a kind, none for a visit.
    counts: Mutex<HashMap<Box<[u8]>, u64, RandomState>>,
    dropped: AtomicU64,
}

thread_local! {
    static PARTS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Seen {
    /// Counts a visit of `slug` with these `headers` by `client`.
    pub fn note(&self, slug: &[u8], client: &str, headers: &HeaderMap) {
        PARTS.with_borrow_mut(|parts| {
            parts.clear();
            write_parts(parts, slug, client, headers);
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

    /// The visits since the last call.
    pub fn take(&self) -> Vec<(Kind, u64)> {
        let counts = std::mem::take(&mut *self.counts.lock());
        let kinds = counts.into_iter();
        kinds
            .filter_map(|(parts, count)| Some((kind(&parts)?, count)))
            .collect()
    }

    /// Visits that were not counted since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

fn write_parts(parts: &mut Vec<u8>, slug: &[u8], client: &str, headers: &HeaderMap) {
    parts.extend_from_slice(slug);
    parts.push(END);
    if let Some(referrer) = headers.get(REFERER) {
        parts.extend_from_slice(cut(host_of(referrer.as_bytes()), MAX_HOST));
    }
    parts.push(END);
    if let Some(languages) = headers.get(ACCEPT_LANGUAGE) {
        let languages = languages.as_bytes();
        let end = languages
            .iter()
            .position(|byte| matches!(byte, b',' | b';'));
        let first = &languages[..end.unwrap_or(languages.len())];
        parts.extend_from_slice(cut(first, MAX_LANGUAGE));
    }
    parts.push(END);
    parts.extend_from_slice(client.as_bytes());
    parts.push(END);
    if [DNT, GPC].iter().any(|name| is_one(headers.get(name))) {
        parts.push(OBJECTS);
    }
    if PURPOSE.iter().any(|name| headers.contains_key(name)) {
        parts.push(AHEAD);
    }
    parts.push(END);
    if let Some(agent) = headers.get(USER_AGENT) {
        parts.extend_from_slice(cut(agent.as_bytes(), MAX_AGENT));
    }
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
        agent: parts.next()?,
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn texts(seen: &Seen) -> Vec<([String; 6], u64)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let mut taken: Vec<_> = seen
            .take()
            .into_iter()
            .map(|(kind, count)| {
                let Kind {
                    slug,
                    referrer,
                    language,
                    client,
                    flags,
                    agent,
                } = kind;
                let parts = [slug, referrer, language, client, flags, agent].map(text);
                (parts, count)
            })
            .collect();
        taken.sort();
        taken
    }

    #[test]
    fn visits_that_look_alike_are_counted_together() {
        let seen = Seen::default();
        let sent = headers(&[
            ("user-agent", "Mozilla/5.0"),
            ("referer", "https://News.example:8443/a?b=c"),
            ("accept-language", "de-AT,de;q=0.9"),
        ]);
        seen.note(b"sale", "192.0.2.1", &sent);
        seen.note(b"sale", "192.0.2.1", &sent);
        seen.note(
            b"sale",
            "192.0.2.2",
            &headers(&[("dnt", "1"), ("sec-purpose", "prefetch")]),
        );

        let alike = [
            "sale",
            "News.example",
            "de-AT",
            "192.0.2.1",
            "",
            "Mozilla/5.0",
        ];
        let other = ["sale", "", "", "192.0.2.2", "oa", ""];
        assert_eq!(
            texts(&seen),
            [(other.map(String::from), 1), (alike.map(String::from), 2)]
        );
        assert_eq!(texts(&seen), []);
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
            seen.note(number.to_string().as_bytes(), "192.0.2.1", &none);
        }
        seen.note(b"0", "192.0.2.1", &none);

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
                            seen.note(b"sale", "192.0.2.1", &none);
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
