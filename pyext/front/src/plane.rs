//! The decision about a request: answered here, or by the control plane.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{HOST, HeaderMap, LOCATION};
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::address::{Network, client_address};
use crate::body::AnswerBody;
use crate::client::{ClientKeys, Visitor};
use crate::limits::{Limit, Verdict};
use crate::recorder::Recorder;
use crate::table::{Entry, Table};
use crate::tarpit::{Held, Tarpit, TarpitConfig};
use crate::template::Template;
use crate::upstream::Unanswered;

/// The longest slug.
const MAX_SLUG: usize = 128;
/// The largest head of a request, its line and its headers. hyper's own limit holds only for a head that does
/// not come at once.
const MAX_HEAD: usize = 32_768;

/// What a front is made of.
#[derive(Debug)]
pub struct Config {
    /// The path that public links may have before the slug: empty, or `/like/this`.
    pub base_path: String,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted: Vec<Network>,
    /// Limits redirects by client.
    pub redirect_limit: Limit,
    /// Limits slugs that are not found by client.
    pub not_found_limit: Limit,
    /// The answers of the front, one for each status: redirects without their target, 404, 410, 429, 500, 503.
    pub templates: Vec<Template>,
    /// The answer to a request that the control plane may have acted on.
    pub unsure: Template,
    /// The answer to a request whose body has an end that its head did not announce.
    pub cut_off: Template,
    /// Bounds of the buckets that answers are counted in, seconds.
    pub bounds: Vec<f64>,
    /// When negative answers are delayed.
    pub tarpit: TarpitConfig,
    /// The private socket of the control plane.
    pub upstream: PathBuf,
    /// The longest body that the control plane reads, bytes.
    pub max_body: u64,
    /// What the clock of the control plane shows now, seconds that never go back.
    pub monotonic: f64,
}

/// An answer, and what it has to wait for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<AnswerBody>,
    pub(crate) delay: Option<(Held, Duration)>,
}

/// What all threads share.
#[derive(Debug)]
pub struct Plane {
    /// What may be answered here.
    pub table: Table,
    /// Counts what was.
    pub recorder: Recorder,
    base_path: String,
    trusted: Vec<Network>,
    redirect_limit: Limit,
    not_found_limit: Limit,
    templates: Vec<Template>,
    unsure: Template,
    cut_off: Template,
    too_large: Template,
    failed: Template,
    tarpit: Arc<Tarpit>,
    pub(crate) upstream: PathBuf,
    pub(crate) max_body: u64,
    started: Instant,
    started_s: f64,
}

impl Plane {
    /// A plane that answers nothing yet.
    pub fn new(config: Config) -> Self {
        let statuses = config.templates.iter().map(Template::status);
        Self {
            table: Table::default(),
            recorder: Recorder::new(config.bounds, statuses),
            base_path: config.base_path,
            trusted: config.trusted,
            redirect_limit: config.redirect_limit,
            not_found_limit: config.not_found_limit,
            templates: config.templates,
            unsure: config.unsure,
            cut_off: config.cut_off,
            too_large: Template::bare(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            failed: Template::bare(StatusCode::INTERNAL_SERVER_ERROR),
            tarpit: Arc::new(Tarpit::new(config.tarpit)),
            upstream: config.upstream,
            max_body: config.max_body,
            started: Instant::now(),
            started_s: config.monotonic,
        }
    }

    /// Seconds on the clock of the control plane.
    pub(crate) fn now(&self) -> f64 {
        self.started_s + self.started.elapsed().as_secs_f64()
    }

    /// The answer to `request` if the front gives it; None: the control plane does, and nothing is charged.
    pub(crate) fn answer<B: hyper::body::Body>(
        &self,
        request: &Request<B>,
        visitor: &Visitor,
        now: f64,
    ) -> Option<Answer> {
        if head_size(request) > MAX_HEAD {
            return Some(at_once(self.too_large.response()));
        }
        let entry = self.find(request, now)?;
        let forwarded;
        let client = if self.trusted.is_empty() {
            &visitor.keys
        } else {
            match self.forwarded(request.headers(), visitor)? {
                None => &visitor.keys,
                Some(keys) => {
                    forwarded = keys;
                    &forwarded
                }
            }
        };
        match self.redirect_limit.admit(client) {
            Verdict::Admitted => {}
            Verdict::Refused => return Some(self.refused(&self.redirect_limit, client, now)),
            Verdict::Failed => return None,
        }
        if entry.status == StatusCode::NOT_FOUND {
            // A limiter that fails refuses nothing.
            if self.not_found_limit.admit(client) == Verdict::Refused {
                self.recorder.count_error(StatusCode::TOO_MANY_REQUESTS);
                return Some(self.refused(&self.not_found_limit, client, now));
            }
            self.recorder.count_error(entry.status);
            return Some(Answer {
                response: self.template(entry.status).response(),
                delay: self.tarpit.hold(now),
            });
        }
        let template = self.template(entry.status);
        let Some(location) = entry.location.clone() else {
            self.recorder.count_error(entry.status);
            return Some(at_once(template.response()));
        };
        self.table.click(&entry);
        Some(at_once(template.with(|headers| {
            headers.insert(LOCATION, location);
        })))
    }

    /// The entry that answers `request`, if it is one that the front may answer.
    fn find<B: hyper::body::Body>(&self, request: &Request<B>, now: f64) -> Option<Arc<Entry>> {
        if request.method() != Method::GET || !request.body().is_end_stream() {
            return None;
        }
        let slug = self.slug(request.uri().path())?;
        if !has_plain_host(request.headers(), request.version()) {
            return None;
        }
        let entry = self.table.get(slug, now)?;
        let query = request.uri().query().unwrap_or("");
        // An ampersand only separates two parameters.
        let is_rewritten = entry.forwards_query && !query.trim_start_matches('&').is_empty();
        (!is_rewritten).then_some(entry)
    }

    fn slug<'a>(&self, path: &'a str) -> Option<&'a [u8]> {
        let below = path.strip_prefix(self.base_path.as_str());
        let slug = below
            .filter(|_| !self.base_path.is_empty())
            .and_then(|rest| rest.strip_prefix('/'))
            .or_else(|| path.strip_prefix('/'))?
            .as_bytes();
        let is_slug = (1..=MAX_SLUG).contains(&slug.len())
            && slug
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        is_slug.then_some(slug)
    }

    /// The keys of the client that a trusted proxy names; None inside if that is the peer. None if the header is
    /// unreadable: the control plane refuses such a request.
    #[allow(clippy::option_option)] // as described
    fn forwarded(&self, headers: &HeaderMap, visitor: &Visitor) -> Option<Option<ClientKeys>> {
        let mut lines = headers.get_all("x-forwarded-for").into_iter();
        let Some(first) = lines.next() else {
            return Some(None);
        };
        let first = first.to_str().ok()?;
        let peer = visitor.peer;
        let address = match lines.next() {
            None => client_address(peer, &[first], &self.trusted),
            Some(second) => {
                let mut all = vec![first, second.to_str().ok()?];
                for line in lines {
                    all.push(line.to_str().ok()?);
                }
                client_address(peer, &all, &self.trusted)
            }
        };
        Some((address != peer.to_canonical()).then(|| ClientKeys::of(address)))
    }

    fn refused(&self, limit: &Limit, client: &ClientKeys, now: f64) -> Answer {
        let template = self.template(StatusCode::TOO_MANY_REQUESTS);
        Answer {
            response: template.refused(limit.refusal(client)),
            delay: self.tarpit.hold(now),
        }
    }

    /// The answer to a request that has none of the control plane.
    pub(crate) fn unanswered(&self, why: Unanswered, is_read: bool) -> Response<AnswerBody> {
        match why {
            Unanswered::CutOff => return self.cut_off.response(),
            Unanswered::NotSent | Unanswered::Sent => self.recorder.count_unanswered(),
        }
        if is_read || why == Unanswered::NotSent {
            self.template(StatusCode::SERVICE_UNAVAILABLE).response()
        } else {
            self.unsure.response()
        }
    }

    /// The answer to a request whose handling failed.
    pub(crate) fn failure(&self) -> Response<AnswerBody> {
        self.template(StatusCode::INTERNAL_SERVER_ERROR).response()
    }

    fn template(&self, status: StatusCode) -> &Template {
        let mut templates = self.templates.iter();
        templates
            .find(|template| template.status() == status)
            .unwrap_or(&self.failed)
    }
}

fn at_once(response: Response<AnswerBody>) -> Answer {
    Answer {
        response,
        delay: None,
    }
}

fn head_size<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    let headers = request.headers().iter();
    // ": " and the end of the line.
    headers.fold(target, |size, (name, value)| {
        size + name.as_str().len() + value.len() + 4
    })
}

/// Whether the request names one host that needs no closer look. The control plane looks at all others.
fn has_plain_host(headers: &HeaderMap, version: Version) -> bool {
    if version != Version::HTTP_11 && version != Version::HTTP_10 {
        return false;
    }
    let mut hosts = headers.get_all(HOST).into_iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let host = host.as_bytes();
    let (name, port) = match host.iter().position(|byte| *byte == b':') {
        Some(colon) => host.split_at(colon),
        None => (host, &[][..]),
    };
    name.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        && port.iter().skip(1).all(u8::is_ascii_digit)
}

#[cfg(test)]
pub(crate) mod tests;
