//! What the front reads of a request.

use std::borrow::Cow;
use std::net::IpAddr;

use hyper::body::Body;
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request, Version};

use crate::address::{Network, client_address};
use crate::client::{ClientKeys, Visitor};
use crate::domains::{Domains, Visited};

/// The longest slug.
const MAX_SLUG: usize = 128;
/// What gets behind a slug when a sentence around its link is copied.
const PASTED: [char; 4] = ['/', '.', ',', ')'];

/// How this gateway's links and clients are read.
#[derive(Debug)]
pub(crate) struct Reader {
    /// See [`crate::Config`].
    pub(crate) base_path: String,
    /// See [`crate::Config`].
    pub(crate) reserved: Vec<String>,
    /// See [`crate::Config`].
    pub(crate) trusted: Vec<Network>,
    /// Which host has which links.
    pub(crate) domains: Domains,
}

impl Reader {
    /// The link that `request` visits, if it is a visit that the front may answer: a GET or HEAD without a body,
    /// of one plain host.
    pub(crate) fn visited<'a, B: Body>(&self, request: &'a Request<B>) -> Option<Visited<'a>> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_read || !request.body().is_end_stream() {
            return None;
        }
        let path = request.uri().path();
        let (slug, has_segments) = match self.slug(path) {
            Some(slug) => (slug, false),
            None => (self.segments(path)?, true),
        };
        let named = plain_host(request.headers(), request.version())?;
        // A target with a host wins: RFC 9112 3.2.2.
        let host = request.uri().host().map_or(named, str::as_bytes);
        if has_segments {
            return self.domains.visited_below(host, slug);
        }
        Some(self.domains.visited(host, slug))
    }

    fn slug<'a>(&self, path: &'a str) -> Option<&'a [u8]> {
        let slug = self.name(path)?;
        let is_slug = (1..=MAX_SLUG).contains(&slug.len())
            && slug.iter().copied().all(is_plain)
            && !self.is_reserved(slug);
        is_slug.then_some(slug)
    }

    /// The slug of several segments in `path`, if any domain has such.
    #[cold]
    fn segments<'a>(&self, path: &'a str) -> Option<&'a [u8]> {
        if !self.domains.has_segments() {
            return None;
        }
        let slug = self.name(path)?;
        let mut segments = slug.split(|byte| *byte == b'/');
        let is_slug = slug.len() <= MAX_SLUG
            && segments.all(|one| !one.is_empty() && one.iter().copied().all(is_plain))
            && !self.is_below_reserved(slug);
        is_slug.then_some(slug)
    }

    /// What `path` has in the place of a slug.
    fn name<'a>(&self, path: &'a str) -> Option<&'a [u8]> {
        let below = path.strip_prefix(self.base_path.as_str());
        let name = below
            .filter(|_| !self.base_path.is_empty())
            .and_then(|rest| rest.strip_prefix('/'))
            .or_else(|| path.strip_prefix('/'))?;
        Some(name.trim_end_matches(PASTED).as_bytes())
    }

    /// Whether the route of `path` is that of links, whatever the method.
    pub(crate) fn is_of_links(&self, path: &str) -> bool {
        self.slug(path).or_else(|| self.segments(path)).is_some()
    }

    /// Whether `path` is one of the API.
    pub(crate) fn is_of_the_api(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.base_path.as_str()).unwrap_or(path);
        below.starts_with("/api/") || path.starts_with("/api/")
    }

    /// Whether `slug`, of one segment, is a page, so that the control plane answers.
    fn is_reserved(&self, slug: &[u8]) -> bool {
        let mut reserved = self.reserved.iter();
        reserved.any(|name| name.as_bytes().eq_ignore_ascii_case(slug))
    }

    /// Whether `slug`, of several segments, is below a page, or where routes are.
    fn is_below_reserved(&self, slug: &[u8]) -> bool {
        let Some(slash) = slug.iter().position(|byte| *byte == b'/') else {
            return self.is_reserved(slug);
        };
        self.is_reserved(&slug[..slash]) || self.is_reserved(&slug[..=slash])
    }

    /// Whether `peer` is a trusted proxy.
    pub(crate) fn is_trusted(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(peer))
    }

    /// The keys of the client behind `visitor`. None if a trusted proxy may have named it in a header that cannot
    /// be read: the control plane refuses such a request.
    pub(crate) fn client<'v>(
        &self,
        headers: &HeaderMap,
        visitor: &'v Visitor,
    ) -> Option<Cow<'v, ClientKeys>> {
        let peer = Some(Cow::Borrowed(&visitor.keys));
        if self.trusted.is_empty() {
            return peer;
        }
        let mut lines = headers.get_all("x-forwarded-for").into_iter();
        let Some(first) = lines.next() else {
            return peer;
        };
        let first = first.to_str().ok()?;
        let address = match lines.next() {
            None => client_address(visitor.peer, &[first], &self.trusted),
            Some(second) => {
                let mut all = vec![first, second.to_str().ok()?];
                for line in lines {
                    all.push(line.to_str().ok()?);
                }
                client_address(visitor.peer, &all, &self.trusted)
            }
        };
        if address == visitor.peer.to_canonical() {
            return peer;
        }
        Some(Cow::Owned(ClientKeys::of(address)))
    }
}

/// Whether `byte` is one of a segment.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// The size of the line and the headers, bytes.
pub(crate) fn head_size<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    let headers = request.headers().iter();
    // ": " and the end of the line.
    headers.fold(target, |size, (name, value)| {
        size + name.as_str().len() + value.len() + 4
    })
}

/// The host of the request without its port, if it is one that needs no closer look. The control plane looks at
/// all others.
fn plain_host(headers: &HeaderMap, version: Version) -> Option<&[u8]> {
    if version != Version::HTTP_11 && version != Version::HTTP_10 {
        return None;
    }
    let mut hosts = headers.get_all(HOST).into_iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return None;
    };
    let host = host.as_bytes();
    let (name, port) = match host.iter().position(|byte| *byte == b':') {
        Some(colon) => host.split_at(colon),
        None => (host, &[][..]),
    };
    let is_plain = name
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        && port.iter().skip(1).all(u8::is_ascii_digit);
    is_plain.then_some(name)
}
