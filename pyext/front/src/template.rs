//! Answers that the control plane hands over at the start, by status.
//!
//! Their bytes stay for the life of the process, so that an answer copies references: counting those to each of a
//! page's nine headers took longer than the rest of it.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, SERVER, VARY};
use hyper::{Response, StatusCode};

use crate::accept::wants_page;
use crate::body::AnswerBody;
use crate::limits::Refusal;

const OWN_NAME: HeaderValue = HeaderValue::from_static("hopgate");
/// The header that an answer with a page depends on.
const BY_ACCEPT: HeaderValue = HeaderValue::from_static("accept");
/// The wait that an answer names if there is no end to it.
const LONGEST_WAIT_S: u64 = 86_400;
const NS_PER_S: u64 = 1_000_000_000;

/// Headers and body of an answer.
#[derive(Debug, Clone)]
struct Content {
    headers: HeaderMap,
    body: Bytes,
}

/// What is chosen from if an answer has a page.
#[derive(Debug, Clone)]
struct Variants {
    program: Content,
    page: Content,
}

/// An answer without what differs from one to the next.
#[derive(Debug, Clone)]
pub struct Template {
    status: StatusCode,
    content: Content,
    variants: Option<Box<Variants>>,
}

impl Template {
    /// An answer with these headers; None if one cannot be sent.
    pub fn new(status: StatusCode, headers: &[(String, String)], body: Vec<u8>) -> Option<Self> {
        Some(Self {
            status,
            content: Content::new(headers, body)?,
            variants: None,
        })
    }

    /// This answer, with a page for those that prefer one; None if a header cannot be sent.
    pub fn with_page(self, headers: &[(String, String)], body: Vec<u8>) -> Option<Self> {
        let mut program = self.content.clone();
        program.headers.insert(VARY, BY_ACCEPT);
        let mut page = Content::new(headers, body)?;
        page.headers.insert(VARY, BY_ACCEPT);
        Some(Self {
            variants: Some(Box::new(Variants { program, page })),
            ..self
        })
    }

    /// An answer that is a status alone.
    pub fn bare(status: StatusCode) -> Self {
        Self {
            status,
            content: Content {
                headers: HeaderMap::new(),
                body: Bytes::new(),
            },
            variants: None,
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer as it is, without its page.
    pub fn response(&self) -> Response<AnswerBody> {
        self.with(|_| {})
    }

    /// The answer to a request with these headers, which may prefer its page.
    pub fn response_to(&self, request: &HeaderMap) -> Response<AnswerBody> {
        self.sent(self.variant(|| wants_page(request)), |_| {})
    }

    /// The answer, or its page if that is preferred.
    pub fn response_as(&self, prefers_page: bool) -> Response<AnswerBody> {
        self.sent(self.variant(|| prefers_page), |_| {})
    }

    /// The answer with further headers, without its page.
    pub fn with(&self, add: impl FnOnce(&mut HeaderMap)) -> Response<AnswerBody> {
        self.sent(&self.content, add)
    }

    fn variant(&self, prefers_page: impl FnOnce() -> bool) -> &Content {
        match &self.variants {
            Some(variants) if prefers_page() => &variants.page,
            Some(variants) => &variants.program,
            None => &self.content,
        }
    }

    fn sent(&self, content: &Content, add: impl FnOnce(&mut HeaderMap)) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::of(content.body.clone()));
        *response.status_mut() = self.status;
        let mut headers = content.headers.clone();
        add(&mut headers);
        *response.headers_mut() = headers;
        response
    }

    /// The answer to a request with these headers that names when to try again.
    pub fn refused(&self, refusal: Option<Refusal>, request: &HeaderMap) -> Response<AnswerBody> {
        let Refusal {
            retry_after_ns,
            headers,
        } = refusal.unwrap_or(Refusal {
            retry_after_ns: 0,
            headers: Vec::new(),
        });
        self.sent(self.variant(|| wants_page(request)), |map| {
            for (name, value) in headers {
                append(map, &name.to_ascii_lowercase(), &value);
            }
            if !map.contains_key(RETRY_AFTER) {
                let wait_s = retry_after_ns.div_ceil(NS_PER_S).clamp(1, LONGEST_WAIT_S);
                map.insert(RETRY_AFTER, HeaderValue::from(wait_s));
            }
        })
    }
}

impl Content {
    fn new(headers: &[(String, String)], body: Vec<u8>) -> Option<Self> {
        let mut map = HeaderMap::with_capacity(headers.len() + 2);
        map.insert(SERVER, OWN_NAME);
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let name = HeaderName::from_static(name.as_str().to_owned().leak());
            let value = Bytes::from_static(value.clone().leak().as_bytes());
            map.append(name, HeaderValue::from_maybe_shared(value).ok()?);
        }
        Some(Self {
            headers: map,
            body: Bytes::from_static(body.leak()),
        })
    }
}

fn append(map: &mut HeaderMap, name: &str, value: &str) -> Option<()> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    map.append(name, HeaderValue::from_str(value).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        let headers = [("content-type".to_owned(), "text/plain".to_owned())];
        Template::new(StatusCode::TOO_MANY_REQUESTS, &headers, b"slow".to_vec()).unwrap()
    }

    #[test]
    fn refusal_names_its_wait() {
        let headers = vec![("RateLimit".to_owned(), "\"a\";r=0;t=2".to_owned())];
        let table = [
            (None, None, "1"),
            (Some((1_500_000_000, vec![])), None, "2"),
            (Some((u64::MAX, vec![])), None, "86400"),
            (
                Some((0, vec![("Retry-After".to_owned(), "9".to_owned())])),
                None,
                "9",
            ),
            (Some((2_000_000_000, headers)), Some("\"a\";r=0;t=2"), "2"),
        ];
        for (refusal, limit, wait) in table {
            let refusal = refusal.map(|(retry_after_ns, headers)| Refusal {
                retry_after_ns,
                headers,
            });

            let response = template().refused(refusal, &HeaderMap::new());

            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()[RETRY_AFTER], wait);
            let found = response.headers().get("ratelimit");
            assert_eq!(found.map(|value| value.to_str().unwrap()), limit);
        }
    }

    #[test]
    fn unsendable_header_is_refused() {
        let headers = [("location".to_owned(), "a\r\nb".to_owned())];

        assert!(Template::new(StatusCode::FOUND, &headers, Vec::new()).is_none());
    }
}
