//! The domains that links are visited at: which link a slug is depends on the host.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::quality::RandomState;
use hyper::header::HeaderValue;
use parking_lot::RwLock;

/// The longest host that is looked up.
const MAX_HOST: usize = 253;

/// A host whose slugs are its own.
#[derive(Debug, Clone)]
pub struct Domain {
    /// In lower case, without a port; empty: the default domain, which has all hosts that no other has.
    pub host: Box<[u8]>,
    /// What the keys of its links begin with; nothing for the default domain.
    pub prefix: Box<[u8]>,
    /// Whether slugs are looked up as they are; otherwise in lower case.
    pub is_case_sensitive: bool,
    /// Where visitors of a link go that has no visit left; None: they get 410.
    pub expired: Option<HeaderValue>,
    /// Whether a slug may have several segments.
    pub has_segments: bool,
}

/// A link that is visited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Visited<'a> {
    /// What the table and the control plane call it.
    pub(crate) key: Cow<'a, [u8]>,
}

#[derive(Debug, Default)]
struct Known {
    by_host: HashMap<Box<[u8]>, Domain, RandomState>,
    /// Those that have a page, by their prefix.
    expired: HashMap<Box<[u8]>, HeaderValue, RandomState>,
    /// That of all other hosts.
    default: Option<Domain>,
}

/// All domains. The control plane writes, all threads of the front read.
#[derive(Debug, Default)]
pub struct Domains {
    known: RwLock<Arc<Known>>,
    /// Most services have none: their requests need no look at the host, and no lock.
    has_others: AtomicBool,
    has_segments: AtomicBool,
}

impl Domains {
    /// Knows these and no others.
    pub fn set(&self, domains: Vec<Domain>) {
        let mut known = Known::default();
        let has_segments = domains.iter().any(|domain| domain.has_segments);
        for domain in domains {
            if let Some(page) = &domain.expired {
                known.expired.insert(domain.prefix.clone(), page.clone());
            }
            if domain.host.is_empty() {
                known.default = Some(domain);
            } else {
                known.by_host.insert(domain.host.clone(), domain);
            }
        }
        let has_others = !known.by_host.is_empty();
        *self.known.write() = Arc::new(known);
        self.has_others.store(has_others, Ordering::Release);
        self.has_segments.store(has_segments, Ordering::Release);
    }

    /// Whether a slug of any domain may have several segments.
    pub(crate) fn has_segments(&self) -> bool {
        self.has_segments.load(Ordering::Acquire)
    }

    /// The link `name`, of several segments, at `host`, which has no port; None if no link there can have it.
    pub(crate) fn visited_below<'a>(&self, host: &[u8], name: &'a [u8]) -> Option<Visited<'a>> {
        let known = Arc::clone(&self.known.read());
        let domain = known.at(host).or(known.default.as_ref())?;
        domain.has_segments.then(|| domain.visited(name))
    }

    /// The link `name` at `host`, which has no port.
    pub(crate) fn visited<'a>(&self, host: &[u8], name: &'a [u8]) -> Visited<'a> {
        if self.has_others.load(Ordering::Acquire) {
            let known = Arc::clone(&self.known.read());
            if let Some(domain) = known.at(host) {
                return domain.visited(name);
            }
        }
        Visited {
            key: Cow::Borrowed(name),
        }
    }

    /// Where visitors of the link `key` go if it has no visit left; None: they get 410.
    pub(crate) fn expired(&self, key: &[u8]) -> Option<HeaderValue> {
        let known = Arc::clone(&self.known.read());
        // Slugs have no `~`.
        let prefix = match key.first() {
            Some(b'~') => key.iter().skip(1).position(|byte| *byte == b'~')? + 2,
            _ => 0,
        };
        known.expired.get(&key[..prefix]).cloned()
    }
}

impl Known {
    fn at(&self, host: &[u8]) -> Option<&Domain> {
        let host = host.strip_suffix(b".").unwrap_or(host);
        if host.len() > MAX_HOST {
            return None;
        }
        if !host.iter().any(u8::is_ascii_uppercase) {
            return self.by_host.get(host);
        }
        self.by_host.get(host.to_ascii_lowercase().as_slice())
    }
}

impl Domain {
    fn visited<'a>(&self, name: &[u8]) -> Visited<'a> {
        let mut key = Vec::with_capacity(self.prefix.len() + name.len());
        key.extend_from_slice(&self.prefix);
        key.extend_from_slice(name);
        if !self.is_case_sensitive {
            key.make_ascii_lowercase();
        }
        Visited {
            key: Cow::Owned(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(host: &str, prefix: &str, is_case_sensitive: bool) -> Domain {
        Domain {
            host: host.as_bytes().into(),
            prefix: prefix.as_bytes().into(),
            is_case_sensitive,
            expired: (prefix != "~2~").then(|| HeaderValue::from_static("https://example.com/")),
            has_segments: prefix == "~2~",
        }
    }

    #[test]
    fn slug_belongs_to_its_host() {
        let domains = Domains::default();
        let key = |host: &str, name: &str| {
            let visited = domains.visited(host.as_bytes(), name.as_bytes());
            String::from_utf8(visited.key.to_vec()).unwrap()
        };
        assert_eq!(key("go.example", "Abc"), "Abc");
        domains.set(vec![
            domain("", "", true),
            domain("go.example", "~1~", true),
            domain("low.example", "~2~", false),
        ]);

        assert_eq!(key("go.example", "Abc"), "~1~Abc");
        assert_eq!(key("GO.Example.", "Abc"), "~1~Abc");
        assert_eq!(key("low.example", "Abc"), "~2~abc");
        for host in ["hop.example", "x.go.example", "", ".", "go.example.."] {
            assert_eq!(key(host, "Abc"), "Abc");
        }
        domains.set(vec![]);
        assert_eq!(key("go.example", "Abc"), "Abc");
    }

    #[test]
    fn slug_of_several_segments_belongs_to_a_host_that_has_such() {
        let domains = Domains::default();
        assert!(!domains.has_segments());
        assert_eq!(domains.visited_below(b"low.example", b"A/b"), None);
        domains.set(vec![
            domain("", "", true),
            domain("go.example", "~1~", true),
            domain("low.example", "~2~", false),
        ]);

        assert!(domains.has_segments());
        let found = domains.visited_below(b"low.example", b"A/b").unwrap();
        assert_eq!(found.key.as_ref(), b"~2~a/b");
        assert_eq!(domains.visited_below(b"go.example", b"A/b"), None);
        assert_eq!(domains.visited_below(b"other.example", b"A/b"), None);
    }

    #[test]
    fn page_of_an_expired_link_is_that_of_its_domain() {
        let domains = Domains::default();
        assert_eq!(domains.expired(b"abc"), None);
        domains.set(vec![
            domain("", "", true),
            domain("go.example", "~1~", true),
        ]);

        assert!(domains.expired(b"abc").is_some());
        assert!(domains.expired(b"~1~abc").is_some());
        for key in [&b"~2~abc"[..], b"~", b"~1", b""] {
            assert_eq!(domains.expired(key).is_some(), key.is_empty());
        }
    }
}
