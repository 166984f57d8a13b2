//! The decision about a request: answered here, or by the control plane.

mod answers;
mod refusals;
mod waiting;
pub(crate) mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};

use crate::body::AnswerBody;
use crate::client::{ClientKeys, Visitor};
use crate::clock::Clock;
use crate::config::Config;
use crate::domains::{Domains, Visited};
use crate::intent::Previews;
use crate::limits::{Limit, Verdict};
use crate::misses::Misses;
use crate::quota::Leases;
use crate::recorder::Recorder;
use crate::request::{Reader, head_size};
use crate::request_id::{self, REQUEST_ID};
use crate::seen::Seen;
use crate::table::{Entry, Table};
use crate::tarpit::{Held, Tarpit};
use crate::template::Template;
use crate::upstream::Unanswered;
use crate::visit::Visit;
use waiting::WaitsFor;
use watch::Watch;

pub(crate) use waiting::Waits;

/// The largest head of a request, its line and its headers. hyper's own limit holds only for a head that does
/// not come at once.
const MAX_HEAD: usize = 32_768;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The front answers.
    Answer(Answer),
    /// The front answers, once the control plane has said what.
    Wait(Waits),
    /// The control plane answers. Nothing is charged.
    Pass,
}

/// What the table has for a request.
enum InTable<'a> {
    Entry(Arc<Entry>),
    Nothing(Visited<'a>),
    /// Not for the front.
    Other,
}

/// An answer, and what it has to wait for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<AnswerBody>,
    pub(crate) delay: Option<(Held, Duration)>,
}

impl Answer {
    /// This answer as the method of `visit` has it.
    fn to(mut self, visit: &Visit<'_>) -> Self {
        if visit.is_head {
            *self.response.body_mut() = AnswerBody::Fixed(None);
        }
        self
    }
}

/// What all threads share.
#[derive(Debug)]
pub struct Plane {
    /// What may be answered here.
    pub table: Table,
    /// Counts what was.
    pub recorder: Recorder,
    /// What is being looked up.
    pub misses: Arc<Misses>,
    /// Follows single requests; None: none is reported.
    pub watch: Option<Watch>,
    pub(crate) reader: Reader,
    /// What visits look like; None: nothing is kept of it.
    pub seen: Option<Seen>,
    /// Visits that may be spent here.
    pub leases: Leases,
    previews: Previews,
    redirect_limit: Limit,
    not_found_limit: Limit,
    templates: Vec<Template>,
    unsure: Template,
    cut_off: Template,
    late: Template,
    not_prefetched: Template,
    too_large: Template,
    failed: Template,
    tarpit: Arc<Tarpit>,
    pub(crate) upstream: PathBuf,
    pub(crate) max_body: u64,
    pub(crate) uploads: Vec<String>,
    limit_s: f64,
    pub(crate) clock: Clock,
}

impl Plane {
    /// A plane that answers nothing yet.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(config: Config) -> io::Result<Self> {
        let statuses = config.templates.iter().map(Template::status);
        Ok(Self {
            table: Table::new(config.table),
            misses: Arc::new(Misses::new()?),
            recorder: Recorder::new(config.bounds, statuses),
            watch: config
                .watch
                .map(|watch| Watch::new(watch, config.caps.connections)),
            seen: config.describes_visits.then(Seen::default),
            leases: Leases::default(),
            previews: config.previews,
            reader: Reader {
                base_path: config.base_path,
                reserved: config.reserved,
                trusted: config.trusted,
                domains: Domains::default(),
            },
            redirect_limit: config.redirect_limit,
            not_found_limit: config.not_found_limit,
            templates: config.templates,
            unsure: config.unsure,
            cut_off: config.cut_off,
            late: config.late,
            not_prefetched: config.not_prefetched,
            too_large: Template::bare(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            failed: Template::bare(StatusCode::INTERNAL_SERVER_ERROR),
            tarpit: Arc::new(Tarpit::new(config.tarpit)),
            upstream: config.upstream,
            max_body: config.max_body,
            uploads: config.uploads,
            limit_s: config.limit_s,
            clock: config.clock,
        })
    }

    /// Seconds on the clock of the control plane.
    pub(crate) fn now(&self) -> f64 {
        self.clock.now()
    }

    /// What becomes of `request`.
    pub(crate) fn decide<B: Body>(
        &self,
        request: &Request<B>,
        visitor: &Visitor,
        now: f64,
    ) -> Decision {
        if head_size(request) > MAX_HEAD {
            let mut response = self.too_large.response();
            self.name(&mut response, request);
            return Decision::Answer(at_once(response));
        }
        let held = self.find(request, now);
        if matches!(held, InTable::Other) {
            return Decision::Pass;
        }
        let Some(client) = self.reader.client(request.headers(), visitor) else {
            return Decision::Pass;
        };
        let (client, visit) = (client.as_ref(), Visit::of(request));
        match self.redirect_limit.admit(client) {
            Verdict::Admitted => {}
            Verdict::Refused => {
                let refused = self.refused(&self.redirect_limit, client, visit.headers, now);
                return Decision::Answer(refused.to(&visit));
            }
            Verdict::Failed => return Decision::Pass,
        }
        match held {
            InTable::Entry(entry) => self.answer_held(entry, &visit, client, now),
            InTable::Nothing(visited) => self.look_up(&visited.key, &visit, client, now),
            InTable::Other => Decision::Pass,
        }
    }

    fn find<'a, B: Body>(&self, request: &'a Request<B>, now: f64) -> InTable<'a> {
        let Some(visited) = self.reader.visited(request) else {
            return InTable::Other;
        };
        match self.table.get(&visited.key, now) {
            Some(entry) => InTable::Entry(entry),
            None if self.misses.is_open() => InTable::Nothing(visited),
            None => InTable::Other,
        }
    }

    /// The answer of the table to an admitted request.
    fn answer_held(
        &self,
        entry: Arc<Entry>,
        visit: &Visit<'_>,
        client: &ClientKeys,
        now: f64,
    ) -> Decision {
        // A limiter that fails refuses nothing.
        if entry.status == StatusCode::NOT_FOUND
            && self.not_found_limit.admit(client) == Verdict::Refused
        {
            self.count_held(StatusCode::TOO_MANY_REQUESTS);
            let refused = self.refused(&self.not_found_limit, client, visit.headers, now);
            return Decision::Answer(refused.to(visit));
        }
        if entry.is_to_renew(now) && self.misses.is_open() {
            self.misses.renew((*entry).as_ref());
        }
        match self.sent(&entry, visit, client, now, 0) {
            Ok(answer) => {
                self.count_held(answer.response.status());
                Decision::Answer(answer.to(visit))
            }
            Err(lease) => Decision::Wait(Waits {
                client: client.clone(),
                waits_for: WaitsFor::Lease(entry, lease),
            }),
        }
    }

    /// Counts an answer of the table. Redirects are all the others.
    fn count_held(&self, status: StatusCode) {
        if !status.is_redirection() {
            self.recorder.count_error(status);
        }
    }

    /// Begins or joins a look-up for an admitted request.
    ///
    /// The not-found limit is charged before a look-up, or any number could run at once, and refunded if it finds a
    /// link. It refuses hits as well: otherwise a client over the limit could still tell which slugs exist.
    fn look_up(&self, slug: &[u8], visit: &Visit<'_>, client: &ClientKeys, now: f64) -> Decision {
        self.recorder.count_missed();
        let is_known = self.misses.look_ups.is_pending(slug);
        let is_refused = if is_known {
            let refusal = self.not_found_limit.refusal(client);
            refusal.is_some_and(|refusal| refusal.retry_after_ns > 0)
        } else {
            self.not_found_limit.admit(client) == Verdict::Refused
        };
        if is_refused {
            let refused = StatusCode::TOO_MANY_REQUESTS;
            self.recorder.count_looked_up(refused);
            let refused = self.refused(&self.not_found_limit, client, visit.headers, now);
            return Decision::Answer(refused.to(visit));
        }
        Decision::Wait(Waits {
            client: client.clone(),
            waits_for: WaitsFor::LookUp {
                slug: slug.into(),
                is_charged: !is_known,
                pending: self.misses.look_up(slug, self.tarpit.is_delaying(now)),
            },
        })
    }

    fn refused(&self, limit: &Limit, client: &ClientKeys, request: &HeaderMap, now: f64) -> Answer {
        let template = self.template(StatusCode::TOO_MANY_REQUESTS);
        Answer {
            response: template.refused(limit.refusal(client), request),
            delay: self.tarpit.hold(now),
        }
    }

    /// The answer to a request that has none of the control plane; `prefers_page` unless it is one of the API.
    pub(crate) fn unanswered(
        &self,
        why: Unanswered,
        is_read: bool,
        prefers_page: Option<bool>,
    ) -> Response<AnswerBody> {
        match why {
            Unanswered::CutOff => return self.cut_off.response(),
            Unanswered::NotSent | Unanswered::Sent => self.recorder.count_unanswered(),
        }
        if is_read || why == Unanswered::NotSent {
            let template = self.template(StatusCode::SERVICE_UNAVAILABLE);
            match prefers_page {
                Some(prefers_page) => template.response_as(prefers_page),
                None => template.response(),
            }
        } else {
            self.unsure.response()
        }
    }

    /// The answer to a request whose handling failed.
    pub(crate) fn failure(&self) -> Response<AnswerBody> {
        self.template(StatusCode::INTERNAL_SERVER_ERROR).response()
    }

    /// Gives `response` the id of `request`, if that is one of the API.
    pub(crate) fn name<B, C>(&self, response: &mut Response<B>, request: &Request<C>) {
        if self.reader.is_of_the_api(request.uri().path()) {
            let id = request_id::of(request.headers());
            response.headers_mut().insert(REQUEST_ID, id);
        }
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

#[cfg(test)]
mod page_tests;
#[cfg(test)]
pub(crate) mod tests;
