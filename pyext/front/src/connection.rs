//! One connection: answers its requests in turn.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Incoming};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response};

use crate::accept::wants_page;
use crate::body::AnswerBody;
use crate::client::Visitor;
use crate::idle::Activity;
use crate::plane::watch::{Noted, Watched};
use crate::plane::{Answer, Decision, Plane, Waits};
use crate::request_id::{self, REQUEST_ID};
use crate::upstream::{Unanswered, Upstream};
use crate::visit::Visit;
use crate::wire::Unread;

/// Answers the requests of a connection.
#[derive(Debug)]
pub(crate) struct Answering {
    pub(crate) plane: Arc<Plane>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) visitor: Visitor,
    pub(crate) unread: Unread,
    pub(crate) activity: Arc<Activity>,
}

impl Service<Request<Incoming>> for Answering {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Reply;

    fn call(&self, request: Request<Incoming>) -> Reply {
        let started = self.plane.now();
        let has_body = !request.body().is_end_stream();
        let noted = self.plane.note(&request, self.visitor.peer, started);
        let originated = self.plane.originate(noted.as_ref(), &request);
        let noted = noted.as_ref();
        if self.plane.has_no_room(noted) {
            return self.pass(request, noted);
        }
        // The last resort: a request that panics must not end those of other clients.
        let decided = catch_unwind(AssertUnwindSafe(|| {
            self.plane.decide(&request, &self.visitor, started)
        }));
        if has_body && !matches!(decided, Ok(Decision::Pass)) {
            self.unread.set();
        }
        match decided {
            Ok(Decision::Answer(Answer {
                response,
                delay: None,
            })) => {
                let now = self.plane.now();
                let took_s = now - started;
                let recorder = &self.plane.recorder;
                recorder.observe(is_head(request.method()), response.status(), took_s);
                self.report(noted, &request, &response, took_s);
                self.activity.answered(now);
                Reply::Ready(Some(response))
            }
            Ok(Decision::Answer(answer)) => {
                let plane = Arc::clone(&self.plane);
                let watched = plane.watched(noted, &request, &self.visitor);
                let is_head = is_head(request.method());
                self.reply_later(delayed(plane, answer, watched, is_head, started))
            }
            Ok(Decision::Wait(waits)) => {
                let plane = Arc::clone(&self.plane);
                let mut watched = plane.watched(noted, &request, &self.visitor);
                watched.looks_up(originated);
                let (parts, _) = request.into_parts();
                self.reply_later(waited(plane, waits, parts, watched, started))
            }
            Ok(Decision::Pass) => self.pass(request, noted),
            Err(_) => {
                let mut response = self.plane.failure();
                self.plane.name(&mut response, &request);
                self.report(noted, &request, &response, self.plane.now() - started);
                Reply::Ready(Some(response))
            }
        }
    }
}

/// A request that the control plane answers.
struct Passing {
    upstream: Arc<Upstream>,
    request: Request<Incoming>,
    peer: HeaderValue,
    unread: Unread,
    watched: Watched,
}

impl Answering {
    fn passing(&self, request: Request<Incoming>, noted: Option<&Noted>) -> Passing {
        Passing {
            upstream: Arc::clone(&self.upstream),
            watched: self.plane.watched(noted, &request, &self.visitor),
            request,
            peer: self.visitor.named.clone(),
            unread: self.unread.clone(),
        }
    }

    fn pass(&self, request: Request<Incoming>, noted: Option<&Noted>) -> Reply {
        let plane = Arc::clone(&self.plane);
        self.reply_later(forwarded(plane, self.passing(request, noted)))
    }

    fn report(
        &self,
        noted: Option<&Noted>,
        request: &Request<Incoming>,
        response: &Response<AnswerBody>,
        took_s: f64,
    ) {
        if let Some(noted) = noted {
            let (visitor, status) = (&self.visitor, response.status());
            self.plane.report(noted, request, visitor, status, took_s);
        }
    }

    fn reply_later(
        &self,
        answer: impl Future<Output = Response<AnswerBody>> + Send + 'static,
    ) -> Reply {
        let busy = self.activity.begin();
        let answer = async move {
            let response = answer.await;
            response.map(|body| body.during(busy))
        };
        Reply::Waiting {
            answer: Box::pin(answer),
            plane: Arc::clone(&self.plane),
        }
    }
}

async fn delayed(
    plane: Arc<Plane>,
    answer: Answer,
    mut watched: Watched,
    is_head: bool,
    started: f64,
) -> Response<AnswerBody> {
    if let Some((held, delay)) = answer.delay {
        tokio::time::sleep(delay).await;
        drop(held);
    }
    let took_s = plane.now() - started;
    let recorder = &plane.recorder;
    recorder.observe(is_head, answer.response.status(), took_s);
    watched.answered(answer.response.status());
    answer.response
}

/// Waits for what the control plane says about the link.
async fn waited(
    plane: Arc<Plane>,
    waits: Waits,
    request: Parts,
    watched: Watched,
    started: f64,
) -> Response<AnswerBody> {
    let visit = Visit::of_parts(&request);
    let answer = plane.answer_later(waits, &visit, started).await;
    delayed(plane, answer, watched, visit.is_head, started).await
}

fn is_head(method: &Method) -> bool {
    *method == Method::HEAD
}

async fn forwarded(plane: Arc<Plane>, passing: Passing) -> Response<AnswerBody> {
    let Passing {
        upstream,
        mut request,
        peer,
        unread,
        mut watched,
    } = passing;
    // One id, whichever side answers: the control plane would make another one.
    let is_named = plane.reader.is_of_the_api(request.uri().path());
    let id = is_named.then(|| {
        let id = request_id::of(request.headers());
        request.headers_mut().insert(REQUEST_ID, id.clone());
        id
    });
    let is_read = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    let prefers_page = (is_read && id.is_none()).then(|| wants_page(request.headers()));
    match upstream
        .forward(request, peer, watched.hand_over(), unread.clone())
        .await
    {
        Ok(response) => response,
        Err(why) => {
            unread.set();
            let mut response = plane.unanswered(why, is_read, prefers_page);
            if let Some(id) = id {
                watched.named(&id);
                response.headers_mut().insert(REQUEST_ID, id);
            }
            match why {
                Unanswered::NotSent => watched.take_back(false),
                Unanswered::Sent => watched.take_back(true),
                // The control plane has the head, and reports it.
                Unanswered::CutOff => {}
            }
            watched.answered(response.status());
            response
        }
    }
}

/// The answer to one request. Those at hand are not allocated.
pub(crate) enum Reply {
    /// Taken when it is polled.
    Ready(Option<Response<AnswerBody>>),
    /// Waits for the control plane, or for the tarpit.
    Waiting {
        /// What it waits for.
        answer: Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>,
        /// Has the answer for a panic.
        plane: Arc<Plane>,
    },
}

impl Future for Reply {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(response) => {
                let response = response.take();
                Poll::Ready(Ok(response.expect("a future is polled until it is ready")))
            }
            Self::Waiting { answer, plane } => {
                let poll = || answer.as_mut().poll(context);
                // As in `call`. What a panic leaves behind belongs to this request alone.
                let polled = catch_unwind(AssertUnwindSafe(poll));
                match polled {
                    Ok(polled) => polled.map(Ok),
                    Err(_) => Poll::Ready(Ok(plane.failure())),
                }
            }
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Waiting { .. } => "Waiting",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::plane::tests::plane;

    #[test]
    fn panic_is_a_500() {
        let mut reply = Reply::Waiting {
            answer: Box::pin(async { panic!("expected by the test") }),
            plane: Arc::new(plane()),
        };

        let polled = Pin::new(&mut reply).poll(&mut Context::from_waker(Waker::noop()));

        let Poll::Ready(Ok(response)) = polled else {
            panic!("no answer");
        };
        assert_eq!(response.status(), 500);
    }
}
