//! The decision about a request: answered here, or by the control plane.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Body;
use hyper::header::LOCATION;
use hyper::{Request, Response, StatusCode};
use tokio::sync::oneshot;

use crate::body::AnswerBody;
use crate::client::{ClientKeys, Visitor};
use crate::config::Config;
use crate::limits::{Limit, Verdict};
use crate::misses::Misses;
use crate::recorder::Recorder;
use crate::request::{Reader, head_size};
use crate::table::{Entry, Table};
use crate::tarpit::{Held, Tarpit};
use crate::template::Template;
use crate::upstream::Unanswered;
use crate::watch::Watch;

/// The largest head of a request, its line and its headers. hyper's own limit holds only for a head that does
/// not come at once.
const MAX_HEAD: usize = 32_768;

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
    /// Follows single requests; None: none is reported.
    pub watch: Option<Watch>,
    pub(crate) reader: Reader,
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
            recorder: Recorder::new(config.bounds, statuses),
            watch: config.watch.map(Watch::new),
            reader: Reader {
                base_path: config.base_path,
                reserved: config.reserved,
                trusted: config.trusted,
            },
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
    pub(crate) fn decide<B: Body>(
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
        let Some(client) = self.reader.client(request.headers(), visitor) else {
            return Decision::Pass;
        };
        let client = client.as_ref();
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

    fn find<'a, B: Body>(&self, request: &'a Request<B>, now: f64) -> Found<'a> {
        let Some(slug) = self.reader.visited(request) else {
            return Found::Other;
        };
        match self.table.get(slug, now) {
            Some(entry) if is_rewritten(&entry, request.uri().query()) => Found::Other,
            Some(entry) => Found::Entry(entry),
            None if self.misses.is_open() && !self.reader.is_reserved(slug) => Found::Nothing(slug),
            None => Found::Other,
        }
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

#[cfg(test)]
pub(crate) mod tests;
