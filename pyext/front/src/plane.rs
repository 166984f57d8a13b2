//! The decision about a request: answered here, or by the control plane.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{HOST, HeaderMap, LOCATION};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::oneshot;

use crate::address::{Network, client_address};
use crate::body::AnswerBody;
use crate::client::{ClientKeys, Visitor};
use crate::limits::{Limit, Verdict};
use crate::misses::Misses;
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
    /// Slugs in lower case that no link has: pages of the control plane.
    pub reserved: Vec<String>,
    /// When negative answers are delayed.
    pub tarpit: TarpitConfig,
    /// The private socket of the control plane.
    pub upstream: PathBuf,
    /// The longest body that the control plane reads, bytes.
    pub max_body: u64,
    /// What the clock of the control plane shows now, seconds that never go back.
    pub monotonic: f64,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The front answers.
    Answer(Answer),
    /// The control plane looks the slug up, then the front answers if it can.
    LookUp(LookUp),
    /// The control plane answers. Nothing is charged.
    Pass,
}

/// An admitted request for a slug that the table does not hold.
#[derive(Debug)]
pub(crate) struct LookUp {
    slug: Box<[u8]>,
    client: ClientKeys,
    /// Whether a unit of the not-found limit is taken.
    is_charged: bool,
    pub(crate) ended: oneshot::Receiver<()>,
}

/// What the table has for a request.
enum Found<'a> {
    Entry(Arc<Entry>),
    Nothing(&'a [u8]),
    /// Not for the front.
    Other,
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
    /// What is being looked up.
    pub misses: Misses,
    reserved: Vec<String>,
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
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(config: Config) -> io::Result<Self> {
        let statuses = config.templates.iter().map(Template::status);
        Ok(Self {
            table: Table::default(),
            misses: Misses::new()?,
            reserved: config.reserved,
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
        })
    }

    /// Seconds on the clock of the control plane.
    pub(crate) fn now(&self) -> f64 {
        self.started_s + self.started.elapsed().as_secs_f64()
    }

    /// What becomes of `request`.
    pub(crate) fn decide<B: hyper::body::Body>(
        &self,
        request: &Request<B>,
        visitor: &Visitor,
        now: f64,
    ) -> Decision {
        if head_size(request) > MAX_HEAD {
            return Decision::Answer(at_once(self.too_large.response()));
        }
        let found = self.find(request, now);
        if matches!(found, Found::Other) {
            return Decision::Pass;
        }
        let forwarded;
        let client = if self.trusted.is_empty() {
            &visitor.keys
        } else {
            match self.forwarded(request.headers(), visitor) {
                None => return Decision::Pass,
                Some(None) => &visitor.keys,
                Some(Some(keys)) => {
                    forwarded = keys;
                    &forwarded
                }
            }
        };
        match self.redirect_limit.admit(client) {
            Verdict::Admitted => {}
            Verdict::Refused => {
                return Decision::Answer(self.refused(&self.redirect_limit, client, now));
            }
            Verdict::Failed => return Decision::Pass,
        }
        match found {
            Found::Entry(entry) => Decision::Answer(self.answer_held(&entry, client, now)),
            Found::Nothing(slug) => self.look_up(slug, client, now),
            Found::Other => Decision::Pass,
        }
    }

    /// The answer of the table to an admitted request.
    fn answer_held(&self, entry: &Arc<Entry>, client: &ClientKeys, now: f64) -> Answer {
        // A limiter that fails refuses nothing.
        if entry.status == StatusCode::NOT_FOUND
            && self.not_found_limit.admit(client) == Verdict::Refused
        {
            self.recorder.count_error(StatusCode::TOO_MANY_REQUESTS);
            return self.refused(&self.not_found_limit, client, now);
        }
        if entry.location.is_none() {
            self.recorder.count_error(entry.status);
        }
        self.sent(entry, now)
    }

    /// The response that `entry` stands for. A redirect is clicked.
    fn sent(&self, entry: &Arc<Entry>, now: f64) -> Answer {
        let template = self.template(entry.status);
        if let Some(location) = entry.location.clone() {
            self.table.click(entry);
            return at_once(template.with(|headers| {
                headers.insert(LOCATION, location);
            }));
        }
        let is_delayed = entry.status == StatusCode::NOT_FOUND;
        Answer {
            response: template.response(),
            delay: is_delayed.then(|| self.tarpit.hold(now)).flatten(),
        }
    }

    /// Begins or joins a look-up for an admitted request.
    ///
    /// The not-found limit is charged before a look-up, or any number could run at once, and refunded if it finds a
    /// link. It refuses hits as well: otherwise a client over the limit could still tell which slugs exist.
    fn look_up(&self, slug: &[u8], client: &ClientKeys, now: f64) -> Decision {
        self.recorder.count_missed();
        let is_known = self.misses.is_pending(slug);
        let is_refused = if is_known {
            let refusal = self.not_found_limit.refusal(client);
            refusal.is_some_and(|refusal| refusal.retry_after_ns > 0)
        } else {
            self.not_found_limit.admit(client) == Verdict::Refused
        };
        if is_refused {
            let refused = StatusCode::TOO_MANY_REQUESTS;
            self.recorder.count_looked_up(refused);
            return Decision::Answer(self.refused(&self.not_found_limit, client, now));
        }
        Decision::LookUp(LookUp {
            slug: slug.into(),
            client: client.clone(),
            is_charged: !is_known,
            ended: self.misses.join(slug),
        })
    }

    /// The answer to a request whose look-up has ended, or took too long. None: the control plane gives it, and
    /// nothing is charged.
    pub(crate) fn conclude(
        &self,
        look_up: &LookUp,
        query: Option<&str>,
        now: f64,
    ) -> Option<Answer> {
        let entry = self.table.get(&look_up.slug, now);
        let entry = entry.filter(|entry| !is_rewritten(entry, query));
        let is_absent = entry
            .as_ref()
            .is_some_and(|entry| entry.status == StatusCode::NOT_FOUND);
        if look_up.is_charged && !is_absent {
            self.not_found_limit.refund(&look_up.client);
        }
        let Some(entry) = entry else {
            self.redirect_limit.refund(&look_up.client);
            self.recorder.count_handed_back();
            return None;
        };
        if is_absent
            && !look_up.is_charged
            && self.not_found_limit.admit(&look_up.client) == Verdict::Refused
        {
            self.recorder.count_looked_up(StatusCode::TOO_MANY_REQUESTS);
            return Some(self.refused(&self.not_found_limit, &look_up.client, now));
        }
        self.recorder.count_looked_up(entry.status);
        Some(self.sent(&entry, now))
    }

    /// What the table has for `request`, if it is one that the front may answer.
    fn find<'a, B: hyper::body::Body>(&self, request: &'a Request<B>, now: f64) -> Found<'a> {
        if request.method() != Method::GET || !request.body().is_end_stream() {
            return Found::Other;
        }
        let Some(slug) = self.slug(request.uri().path()) else {
            return Found::Other;
        };
        if !has_plain_host(request.headers(), request.version()) {
            return Found::Other;
        }
        match self.table.get(slug, now) {
            Some(entry) if is_rewritten(&entry, request.uri().query()) => Found::Other,
            Some(entry) => Found::Entry(entry),
            None if self.misses.is_open() && !self.is_reserved(slug) => Found::Nothing(slug),
            None => Found::Other,
        }
    }

    fn is_reserved(&self, slug: &[u8]) -> bool {
        let mut reserved = self.reserved.iter();
        reserved.any(|name| name.as_bytes().eq_ignore_ascii_case(slug))
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

/// Whether the target is put together from the link and the query of the request.
fn is_rewritten(entry: &Entry, query: Option<&str>) -> bool {
    // An ampersand only separates two parameters.
    entry.forwards_query && query.is_some_and(|query| !query.trim_start_matches('&').is_empty())
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
