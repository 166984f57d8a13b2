//! Requests that wait for the control plane: answered in time, by what it says or without it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{Answer, Plane, at_once};
use crate::client::ClientKeys;
use crate::limits::Verdict;
use crate::misses::{Found, Leased, Pending};
use crate::table::Entry;
use crate::visit::Visit;

/// An admitted request that waits.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(super) client: ClientKeys,
    pub(super) waits_for: WaitsFor,
}

/// What a look-up has found for a request.
enum ToSend {
    Entry(Arc<Entry>),
    Refusal(Answer),
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum WaitsFor {
    /// A slug that the table does not hold.
    LookUp {
        slug: Box<[u8]>,
        /// Whether a unit of the not-found limit is taken.
        is_charged: bool,
        pending: Pending,
    },
    /// A visit of a link that the table holds.
    Lease(Arc<Entry>, oneshot::Receiver<Leased>),
}

impl Plane {
    /// The answer to a request that waits, given within the limit from `started` on.
    pub(crate) async fn answer_later(
        &self,
        waits: Waits,
        visit: &Visit<'_>,
        started: f64,
    ) -> Answer {
        let left_s = (started + self.limit_s - self.now()).max(0.0);
        let end = Instant::now() + Duration::from_secs_f64(left_s);
        let Waits { client, waits_for } = waits;
        let answer = match waits_for {
            WaitsFor::LookUp {
                slug,
                is_charged,
                pending,
            } => {
                let found = self.found(&slug, pending.ended_by(end).await, visit);
                let answer = match self.charged(&found, &client, is_charged, visit) {
                    Some(refused) => refused,
                    None => match found {
                        ToSend::Entry(entry) => {
                            self.with_visit(&entry, None, visit, &client, end).await
                        }
                        ToSend::Refusal(answer) => answer,
                    },
                };
                self.recorder.count_looked_up(answer.response.status());
                answer
            }
            WaitsFor::Lease(entry, lease) => {
                let answer = self
                    .with_visit(&entry, Some(lease), visit, &client, end)
                    .await;
                self.count_held(answer.response.status());
                answer
            }
        };
        answer.to(visit)
    }

    /// What is sent after a look-up. None: it is late.
    fn found(
        &self,
        slug: &[u8],
        ended: Option<Result<Found, oneshot::error::RecvError>>,
        visit: &Visit<'_>,
    ) -> ToSend {
        match ended {
            Some(Ok(Found::Entry(entry))) => ToSend::Entry(entry),
            Some(Ok(Found::Refused(template))) => {
                ToSend::Refusal(at_once(template.response_to(visit.headers)))
            }
            Some(Err(_)) | None => {
                let Some(stale) = self.table.stale(slug, self.now(), wall()) else {
                    return ToSend::Refusal(self.late(visit));
                };
                self.recorder.count_stale();
                ToSend::Entry(stale)
            }
        }
    }

    /// Settles what the look-up has cost `client`; the answer instead, if it may not know that there is nothing.
    fn charged(
        &self,
        found: &ToSend,
        client: &ClientKeys,
        is_charged: bool,
        visit: &Visit<'_>,
    ) -> Option<Answer> {
        let is_absent =
            matches!(found, ToSend::Entry(entry) if entry.status == StatusCode::NOT_FOUND);
        match (is_charged, is_absent) {
            (true, false) => self.not_found_limit.refund(client),
            (false, true) if self.not_found_limit.admit(client) == Verdict::Refused => {
                let limit = &self.not_found_limit;
                return Some(self.refused(limit, client, visit.headers, self.now()));
            }
            _ => {}
        }
        None
    }

    /// The answer of `entry`, once a visit of its link is leased if it has a limit of them.
    async fn with_visit(
        &self,
        entry: &Arc<Entry>,
        mut lease: Option<oneshot::Receiver<Leased>>,
        visit: &Visit<'_>,
        client: &ClientKeys,
        end: Instant,
    ) -> Answer {
        let mut unlimited = 0;
        loop {
            if let Some(receiver) = lease.take() {
                match timeout_at(end, receiver).await {
                    Ok(Ok(Leased::Again)) => {}
                    // The link may have got a limit since, if the question was of an earlier version.
                    Ok(Ok(Leased::Unlimited(version))) => unlimited = version,
                    Ok(Ok(Leased::Refused(template))) => {
                        return at_once(template.response_to(visit.headers));
                    }
                    // No time is left to spend a visit in.
                    Ok(Err(_)) | Err(_) => return self.late(visit),
                }
            }
            match self.sent(entry, visit, client, self.now(), unlimited) {
                Ok(answer) => return answer,
                Err(receiver) => lease = Some(receiver),
            }
        }
    }

    fn late(&self, visit: &Visit<'_>) -> Answer {
        self.recorder.count_late();
        at_once(self.late.response_to(visit.headers))
    }
}

/// Unix seconds.
fn wall() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
