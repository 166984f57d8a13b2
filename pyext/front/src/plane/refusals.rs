//! What is kept for statistics of requests for a link that end without a redirect.

use hyper::StatusCode;

use super::Plane;
use crate::seen::Refusal;
use crate::table::Entry;
use crate::visit::Visit;

impl Plane {
    /// Notes a `visit` of `entry` that is answered by `status`, or by a page in its place. A HEAD is none: a
    /// program checks the link.
    pub(super) fn note_refusal(&self, entry: &Entry, status: StatusCode, visit: &Visit<'_>) {
        let refusal = match status {
            StatusCode::NOT_FOUND => Refusal::Missed,
            StatusCode::GONE => Refusal::Gone,
            _ => return,
        };
        if let (Some(seen), false) = (&self.seen, visit.is_head) {
            seen.note_refusal(entry.as_ref(), refusal, visit.headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::header::HeaderValue;

    use super::*;
    use crate::client::ClientKeys;
    use crate::config::Config;
    use crate::limits::Limit;
    use crate::limits::tests::constant;
    use crate::plane::tests::{HOST, answer, config, filled, request, visitor};
    use crate::table::{Entry, Forwarding, Times};

    #[test]
    fn requests_without_a_redirect_are_noted() {
        let plane = filled(Config {
            describes_visits: true,
            ..config()
        });
        let page = HeaderValue::from_static("https://example.com/none");
        for (slug, status, location) in [
            (&b"slae"[..], StatusCode::NOT_FOUND, None),
            (b"~1~slae", StatusCode::NOT_FOUND, Some(page)),
            (b"blocked", StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, None),
        ] {
            let entry = Entry::answering(
                slug,
                status,
                location,
                Forwarding::Off,
                0,
                Times::fresh(10.0),
            );
            plane.table.put(&[Arc::new(entry)]);
        }
        let known = |slug: &[u8]| plane.table.get(slug, 0.0).unwrap();
        let agent = ("user-agent", "Mozilla/5.0");
        for (method, slug) in [
            ("GET", &b"slae"[..]),
            ("GET", b"~1~slae"),
            ("GET", b"gone"),
            ("GET", b"blocked"),
            ("HEAD", b"slae"),
        ] {
            let request = request(method, "/", &[HOST, agent], "");
            let visit = Visit::of(&request);
            let client = ClientKeys::of("192.0.2.1".parse().unwrap());
            plane.sent(&known(slug), &visit, &client, 0.0, 0).unwrap();
        }

        let seen = plane.seen.as_ref().unwrap().take();
        let mut seen: Vec<_> = seen
            .iter()
            .map(|(kind, count)| (&*kind.slug, &*kind.flags, &*kind.agent, *count))
            .collect();
        seen.sort_unstable();
        assert_eq!(
            seen,
            [
                (&b""[..], &b"g"[..], &b""[..], 1),
                (b"slae", b"m", b"Mozilla/5.0", 1),
                (b"~1~slae", b"m", b"Mozilla/5.0", 1),
            ]
        );
    }

    #[test]
    fn request_refused_by_the_not_found_limit_is_not_noted() {
        let refusing = Limit {
            own: constant(false),
            wide: None,
        };
        let plane = filled(Config {
            describes_visits: true,
            not_found_limit: refusing,
            ..config()
        });
        let times = Times::fresh(10.0);
        let entry = Entry::answering(
            b"slae",
            StatusCode::NOT_FOUND,
            None,
            Forwarding::Off,
            0,
            times,
        );
        plane.table.put(&[Arc::new(entry)]);

        let request = request("GET", "/slae", &[HOST], "");
        let refused = answer(&plane, &request, &visitor("192.0.2.1"), 0.0).unwrap();
        assert_eq!(refused.response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(plane.seen.as_ref().unwrap().take().is_empty());
    }
}
