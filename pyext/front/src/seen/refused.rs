//! Requests for a link that end without a redirect. Anyone can ask for any number of slugs: few are kept.

use hyper::HeaderMap;
use parking_lot::Mutex;

use super::{Counts, END, OBJECTS, PARTS, objects, write_agent};

/// Of requests for no link: slugs, by the program that asks, that are kept at most; all are counted.
const MAX_NAMED: usize = 200;
/// There is no such link.
const MISSED: u8 = b'm';
/// There is none any more.
const GONE: u8 = b'g';

/// Why a request for a link has no redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such link.
    Missed,
    /// It is expired, disabled or has no visits left.
    Gone,
}

/// Requests without a redirect, by the parts of their kind.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<Kinds>);

#[derive(Debug, Default)]
struct Kinds {
    /// With the slug and the user agent.
    named: Counts,
    /// With nothing but the prefix of the domain and the flag.
    unnamed: Counts,
}

impl Refused {
    /// Counts a request for `slug` with these `headers`.
    pub(super) fn note(&self, slug: &[u8], refusal: Refusal, headers: &HeaderMap) {
        PARTS.with_borrow_mut(|parts| {
            let mut kinds = self.0.lock();
            let Kinds { named, unnamed } = &mut *kinds;
            if refusal == Refusal::Missed {
                write_parts(parts, slug, refusal, Some(headers));
                if let Some(count) = named.get_mut(parts.as_slice()) {
                    *count += 1;
                    return;
                }
                if named.len() < MAX_NAMED {
                    named.insert(parts.as_slice().into(), 1);
                    return;
                }
            }
            write_parts(parts, prefix_of(slug), refusal, None);
            *unnamed.entry(parts.as_slice().into()).or_default() += 1;
        });
    }

    /// The requests since the last call, those with a slug last.
    pub(super) fn take(&self) -> impl Iterator<Item = (Box<[u8]>, u64)> {
        let Kinds { named, unnamed } = std::mem::take(&mut *self.0.lock());
        unnamed.into_iter().chain(named)
    }
}

/// Writes the parts of a request without a redirect: of its `headers` whether it objects, and the user agent.
fn write_parts(parts: &mut Vec<u8>, slug: &[u8], refusal: Refusal, headers: Option<&HeaderMap>) {
    parts.clear();
    parts.extend_from_slice(slug);
    parts.extend_from_slice(&[END; 4]);
    parts.push(match refusal {
        Refusal::Missed => MISSED,
        Refusal::Gone => GONE,
    });
    if headers.is_some_and(objects) {
        parts.push(OBJECTS);
    }
    parts.extend_from_slice(&[END; 2]);
    if let Some(headers) = headers {
        write_agent(parts, headers);
    }
}

/// What the keys of the links of a domain begin with, by one of them; nothing for the default domain.
fn prefix_of(key: &[u8]) -> &[u8] {
    // Slugs have no `~`.
    let mut marks = key.iter().enumerate().filter(|(_, byte)| **byte == b'~');
    match (key.first(), marks.nth(1)) {
        (Some(b'~'), Some((end, _))) => &key[..=end],
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderValue, USER_AGENT};

    use super::super::{DNT, Seen};
    use super::*;

    #[test]
    fn requests_without_a_redirect_are_counted_with_few_slugs() {
        let seen = Seen::default();
        let mut sent = HeaderMap::new();
        sent.insert(USER_AGENT, HeaderValue::from_static("Mozilla/5.0"));
        sent.insert(DNT, HeaderValue::from_static("1"));
        seen.note_refusal(b"~1~slae", Refusal::Missed, &sent);
        for number in 0..MAX_NAMED + 3 {
            let slug = format!("~1~{number}");
            seen.note_refusal(slug.as_bytes(), Refusal::Missed, &HeaderMap::new());
        }
        seen.note_refusal(b"~1~slae", Refusal::Missed, &sent);
        seen.note_refusal(b"old", Refusal::Gone, &sent);
        seen.note(b"sale", "192.0.2.1", &sent, ["", ""]);

        let taken = seen.take();
        assert_eq!(taken[0].0.slug, b"sale");
        let count = |slug: &[u8], flags: &[u8], agent: &[u8]| {
            let kinds = taken.iter().filter(|(kind, _)| {
                (&*kind.slug, &*kind.flags, &*kind.agent) == (slug, flags, agent)
            });
            kinds.map(|(_, count)| count).sum::<u64>()
        };
        assert_eq!(count(b"~1~slae", b"mo", b"Mozilla/5.0"), 2);
        assert_eq!(count(b"~1~", b"m", b""), 4);
        assert_eq!(count(b"", b"g", b""), 1);
        assert_eq!(taken.len(), 1 + MAX_NAMED + 2);
        assert!(seen.take().is_empty());
    }
}
