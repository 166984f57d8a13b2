//! What the answer to a visit depends on, besides the link.

use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request};

/// A GET or HEAD of a slug.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit<'r> {
    /// Whether a program checks the link: it is no click, and spends no visit.
    pub(crate) is_head: bool,
    pub(crate) query: Option<&'r str>,
    pub(crate) headers: &'r HeaderMap,
}

impl<'r> Visit<'r> {
    pub(crate) fn of<B>(request: &'r Request<B>) -> Self {
        Self {
            is_head: request.method() == Method::HEAD,
            query: request.uri().query(),
            headers: request.headers(),
        }
    }

    pub(crate) fn of_parts(parts: &'r Parts) -> Self {
        Self {
            is_head: parts.method == Method::HEAD,
            query: parts.uri.query(),
            headers: &parts.headers,
        }
    }
}
