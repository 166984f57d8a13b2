//! What an entry of the table answers to a visit.

use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use tokio::sync::oneshot;

use super::{Answer, Plane, at_once};
use crate::body::AnswerBody;
use crate::client::ClientKeys;
use crate::intent::Intent;
use crate::misses::Leased;
use crate::quota::Spent;
use crate::table::{Entry, Forwarding};
use crate::visit::Visit;
use crate::{query, utm};

const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

impl Plane {
    /// The response that `entry` stands for, to `visit`; what it has to wait for, if the link has a limit of its
    /// visits and none is leased. Up to the version `unlimited`, it is known to have none any more.
    pub(super) fn sent(
        &self,
        entry: &Arc<Entry>,
        visit: &Visit<'_>,
        client: &ClientKeys,
        now: f64,
        unlimited: u64,
    ) -> Result<Answer, oneshot::Receiver<Leased>> {
        let Some(location) = &entry.location else {
            self.note_refusal(entry, entry.status, visit);
            let is_delayed = entry.status == StatusCode::NOT_FOUND;
            return Ok(Answer {
                response: self.template(entry.status).response_to(visit.headers),
                delay: is_delayed.then(|| self.tarpit.hold(now)).flatten(),
            });
        };
        if !entry.status.is_redirection() {
            self.note_refusal(entry, entry.status, visit);
            let is_delayed = entry.status == StatusCode::NOT_FOUND;
            return Ok(Answer {
                response: self.page(location.clone(), entry.robots()),
                delay: is_delayed.then(|| self.tarpit.hold(now)).flatten(),
            });
        }
        if entry.metered_version() == 0 {
            return Ok(self.redirect(entry, location, visit, client, !visit.is_head));
        }
        let is_visit = match self.intent(visit) {
            // The browser would show its answer to a visitor without asking again.
            Intent::Prefetch => {
                return Ok(at_once(self.not_prefetched.response_to(visit.headers)));
            }
            Intent::Preview => false,
            Intent::Visit => true,
        };
        if entry.metered_version() <= unlimited {
            return Ok(self.redirect(entry, location, visit, client, is_visit));
        }
        let quota = entry.quota();
        match self
            .leases
            .take(quota, entry.metered_version(), is_visit, now)
        {
            Spent::Yes => Ok(self.redirect(entry, location, visit, client, is_visit)),
            Spent::Exhausted => {
                self.note_refusal(entry, StatusCode::GONE, visit);
                Ok(at_once(self.exhausted(entry, visit)))
            }
            Spent::NeedsLease(version) => Err(self.misses.lease(quota, version)),
        }
    }

    /// The answer to a visit of a link that has none left: its own page, or that of its domain.
    fn exhausted(&self, entry: &Entry, visit: &Visit<'_>) -> Response<AnswerBody> {
        if let Some(page) = entry.expired() {
            return self.page(page.clone(), entry.robots());
        }
        match self.reader.domains.expired(entry.as_ref()) {
            Some(page) => self.page(page, None),
            None => self.template(StatusCode::GONE).response_to(visit.headers),
        }
    }

    /// The redirect to a page that a link or its domain has in place of a refusal.
    fn page(&self, location: HeaderValue, robots: Option<&HeaderValue>) -> Response<AnswerBody> {
        self.template(StatusCode::FOUND).with(|headers| {
            headers.insert(LOCATION, location);
            tell(headers, robots);
        })
    }

    fn redirect(
        &self,
        entry: &Arc<Entry>,
        location: &HeaderValue,
        visit: &Visit<'_>,
        client: &ClientKeys,
        is_click: bool,
    ) -> Answer {
        if is_click {
            self.table.click(entry);
            if let Some(seen) = &self.seen {
                let target = std::str::from_utf8(location.as_bytes()).unwrap_or_default();
                let queries = [utm::query_of(target), visit.query.unwrap_or_default()];
                seen.note((**entry).as_ref(), &client.own, visit.headers, queries);
            }
        }
        let location = match visit.query.filter(|query| query::adds(query)) {
            Some(query) if entry.forwarding() != Forwarding::Off => {
                forwarded(location, query, entry.forwarding())
            }
            _ => location.clone(),
        };
        at_once(self.template(entry.status).with(|headers| {
            headers.insert(LOCATION, location);
            tell(headers, entry.robots());
        }))
    }

    /// Why a metered link is requested.
    fn intent(&self, visit: &Visit<'_>) -> Intent {
        if visit.is_head {
            Intent::Preview
        } else {
            self.previews.intent_of(visit.headers)
        }
    }
}

/// Adds the rules for crawlers.
fn tell(headers: &mut HeaderMap, robots: Option<&HeaderValue>) {
    if let Some(robots) = robots {
        headers.insert(ROBOTS, robots.clone());
    }
}

fn forwarded(location: &HeaderValue, query: &str, forwarding: Forwarding) -> HeaderValue {
    let location = location.to_str().expect("targets are ASCII");
    let is_overriding = forwarding == Forwarding::Overriding;
    let joined = query::with_query(location, query, is_overriding);
    HeaderValue::try_from(joined).expect("queries are escaped")
}
