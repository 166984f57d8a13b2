//! Follows single requests: those that have a span or a line in the access log, and those that fail or take long.
//!
//! One that is neither costs two ids and a comparison. What is reported goes to [`records`](crate::records).

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::Body;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Version};

use super::Plane;
use crate::client::Visitor;
use crate::config::WatchConfig;
use crate::origins::{Origin, Originated, Origins};
use crate::records::{Is, Record, Records, Span};
use crate::request_id;
use crate::sampling::{Parent, is_below, new_span, new_trace, passed_on};

/// Longer ones are dropped.
const MAX_TRACESTATE: usize = 512;
const MAX_BAGGAGE: usize = 1024;
/// The client hung up, or the process ends.
const NO_ANSWER: u16 = 0;

/// Follows requests.
#[derive(Debug)]
pub struct Watch {
    config: WatchConfig,
    /// Of requests that have ended.
    pub records: Records,
    /// Of look-ups that recorded requests begin.
    pub origins: Arc<Origins>,
}

/// One request, from its head on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noted {
    trace: u128,
    span: u64,
    parent: Option<Parent>,
    began: f64,
    pub(crate) is: Is,
}

/// What is reported of a request besides, if it is reported.
#[derive(Debug)]
struct Details {
    tracestate: String,
    method: &'static str,
    version: &'static str,
    is_redirect: bool,
    client: Box<str>,
    request_id: Box<str>,
}

impl Watch {
    /// Follows as `config` says, on so many `connections` at most.
    pub fn new(config: WatchConfig, connections: usize) -> Self {
        Self {
            config,
            records: Records::new(config.capacity, connections),
            origins: Arc::default(),
        }
    }

    /// Decides about the request that has these `headers`, without an allocation.
    pub(crate) fn note(&self, headers: &HeaderMap, is_trusted: bool, began: f64) -> Noted {
        // Otherwise any client could choose ids, and which requests are recorded.
        let parent = is_trusted.then(|| Parent::of(headers)).flatten();
        let trace = parent.map_or_else(new_trace, |parent| parent.trace);
        let span = match self.config.traced {
            Some((sampling, _)) if sampling.takes(trace, parent) => Span::Recorded,
            _ => Span::None,
        };
        let logged = self
            .config
            .logged
            .is_some_and(|bound| is_below(trace, bound));
        Noted {
            trace,
            span: new_span(),
            parent,
            began,
            is: Is {
                span,
                logged,
                missed: false,
            },
        }
    }

    fn outcome(&self, noted: &Noted, status: u16, took_s: f64) -> Is {
        let has_failed = status >= 500 || status == NO_ANSWER;
        let span = match self.config.traced {
            Some((_, slow_s))
                if noted.is.span == Span::None && (has_failed || took_s >= slow_s) =>
            {
                Span::Late
            }
            _ => noted.is.span,
        };
        let logged = noted.is.logged || (self.config.logged.is_some() && has_failed);
        Is {
            span,
            logged,
            missed: noted.is.missed,
        }
    }

    fn record(&self, noted: &Noted, details: Details, is: Is, status: u16, took_s: f64) {
        self.records.push(Record {
            trace: noted.trace,
            span: noted.span,
            parent: noted.parent.map_or(0, |parent| parent.span),
            tracestate: details.tracestate,
            began: noted.began,
            took_s,
            status,
            is,
            is_redirect: details.is_redirect,
            method: details.method,
            version: details.version,
            client: details.client,
            request_id: details.request_id,
        });
    }
}

impl Plane {
    /// Follows `request` from now on, if anything is reported of single ones.
    pub(crate) fn note<B>(&self, request: &Request<B>, peer: IpAddr, now: f64) -> Option<Noted> {
        let watch = self.watch.as_ref()?;
        Some(watch.note(request.headers(), self.reader.is_trusted(peer), now))
    }

    /// Lets a look-up that `request` may begin be a part of its trace, if it is recorded. Call it before it can begin.
    pub(crate) fn originate<B: Body>(
        self: &Arc<Self>,
        noted: Option<&Noted>,
        request: &Request<B>,
    ) -> Option<Originated> {
        let noted = noted.filter(|noted| noted.is.span == Span::Recorded)?;
        let visited = self.reader.visited(request)?;
        let said = |name, limit| match noted.parent {
            Some(_) => passed_on(request.headers(), name, limit),
            None => String::new(),
        };
        let origin = Origin {
            trace: noted.trace,
            span: noted.span,
            began: noted.began,
            tracestate: said("tracestate", MAX_TRACESTATE),
            baggage: said("baggage", MAX_BAGGAGE),
        };
        let watch = self.watch.as_ref()?;
        Some(Originated::new(&watch.origins, &visited.key, origin))
    }

    /// Whether the control plane has to answer, as only it can write the line of the request in time.
    pub(crate) fn has_no_room(&self, noted: Option<&Noted>) -> bool {
        match (&self.watch, noted) {
            (Some(watch), Some(noted)) => noted.is.logged && !watch.records.has_room(),
            _ => false,
        }
    }

    /// Reports a request that was answered at once.
    pub(crate) fn report<B>(
        &self,
        noted: &Noted,
        request: &Request<B>,
        visitor: &Visitor,
        status: StatusCode,
        took_s: f64,
    ) {
        let Some(watch) = &self.watch else {
            return;
        };
        let is = watch.outcome(noted, status.as_u16(), took_s);
        // A head that is too large has no route.
        let is_reported = is.is_reported() && status != StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        if is_reported {
            let details = self.details(noted, request, visitor);
            watch.record(noted, details, is, status.as_u16(), took_s);
        }
    }

    fn details<B>(&self, noted: &Noted, request: &Request<B>, visitor: &Visitor) -> Details {
        let headers = request.headers();
        let is_logged = self
            .watch
            .as_ref()
            .is_some_and(|watch| watch.config.logged.is_some());
        let client = is_logged
            .then(|| self.reader.client(headers, visitor))
            .flatten();
        Details {
            tracestate: noted.parent.map_or_else(String::new, |_| {
                passed_on(headers, "tracestate", MAX_TRACESTATE)
            }),
            method: named(request.method()),
            version: numbered(request.version()),
            is_redirect: self.reader.is_of_links(request.uri().path()),
            client: client.map_or_else(Box::default, |keys| {
                keys.wide.clone().unwrap_or_else(|| keys.own.clone())
            }),
            request_id: request_id::given(headers)
                .filter(|_| is_logged)
                .map_or_else(Box::default, text),
        }
    }

    /// Follows a request that has to wait.
    pub(crate) fn watched<B>(
        self: &Arc<Self>,
        noted: Option<&Noted>,
        request: &Request<B>,
        visitor: &Visitor,
    ) -> Watched {
        Watched(noted.map(|noted| {
            Box::new(Following {
                details: Some(self.details(noted, request, visitor)),
                plane: Arc::clone(self),
                noted: *noted,
                originated: None,
                is_handed_over: false,
                status: NO_ANSWER,
            })
        }))
    }
}

/// A request that has to wait. It is reported when this is dropped: with its answer, by a panic, or since its
/// connection ended.
#[derive(Debug)]
pub(crate) struct Watched(Option<Box<Following>>);

#[derive(Debug)]
struct Following {
    plane: Arc<Plane>,
    noted: Noted,
    /// None: they have been reported.
    details: Option<Details>,
    originated: Option<Originated>,
    /// The control plane reports it.
    is_handed_over: bool,
    status: u16,
}

impl Watched {
    /// Its answer has `status`.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        if let Some(following) = &mut self.0 {
            following.status = status.as_u16();
        }
    }

    /// Its answer has the id `request_id`.
    pub(crate) fn named(&mut self, request_id: &HeaderValue) {
        if let Some(details) = self.0.as_mut().and_then(|one| one.details.as_mut()) {
            details.request_id = text(request_id);
        }
    }

    /// It waits for a look-up, which is a part of its trace if it has an origin.
    pub(crate) fn looks_up(&mut self, originated: Option<Originated>) {
        if let Some(following) = &mut self.0 {
            following.noted.is.missed = true;
            following.originated = originated;
        }
    }

    /// The control plane goes on with it, and reports it: what that has to know.
    pub(crate) fn hand_over(&mut self) -> Option<HeaderValue> {
        let following = self.0.as_mut()?;
        following.is_handed_over = true;
        let Noted {
            trace,
            span,
            began,
            is,
            ..
        } = following.noted;
        let flags = [is.span == Span::Recorded, is.logged, is.missed];
        let flags = flags
            .iter()
            .rev()
            .fold(0, |all, flag| all << 1 | u8::from(*flag));
        HeaderValue::from_str(&format!("{trace:032x}-{span:016x}-{flags}-{began:.9}")).ok()
    }

    /// The control plane has not seen it, or may not have: the front answers it after all.
    pub(crate) fn take_back(&mut self, is_seen: bool) {
        if let Some(following) = &mut self.0 {
            following.is_handed_over = false;
            if is_seen {
                // Its span may be reported by the control plane as well.
                following.noted.span = new_span();
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let Some(watch) = &self.plane.watch else {
            return;
        };
        let Some(details) = self.details.take().filter(|_| !self.is_handed_over) else {
            return;
        };
        let status = if std::thread::panicking() {
            StatusCode::INTERNAL_SERVER_ERROR.as_u16()
        } else {
            self.status
        };
        let took_s = self.plane.now() - self.noted.began;
        let is = watch.outcome(&self.noted, status, took_s);
        if is.is_reported() {
            watch.record(&self.noted, details, is, status, took_s);
        }
    }
}

fn named(method: &Method) -> &'static str {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let mut methods = METHODS.into_iter();
    methods
        .find(|name| *name == method.as_str())
        .unwrap_or("_OTHER")
}

fn numbered(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_11 => "1.1",
        _ => "1",
    }
}

fn text(id: &HeaderValue) -> Box<str> {
    id.to_str().unwrap_or_default().into()
}

#[cfg(test)]
mod tests;
