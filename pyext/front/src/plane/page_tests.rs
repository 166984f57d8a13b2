use std::time::Instant;

use hyper::header::HeaderValue;

use super::tests::*;
use super::*;
use crate::limits::tests::constant;
use crate::table::{Extras, Forwarding, Times};

const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

fn with_page(status: u16) -> Template {
    let page = [("content-type".to_owned(), "text/html".to_owned())];
    let template = template(status, ("content-type", "text/plain"), "for programs");
    template.with_page(&page, "<p>for people".into()).unwrap()
}

fn paged(config: Config) -> Plane {
    let mut templates = vec![template(302, ("cache-control", "private"), "")];
    templates.extend([404, 410, 429, 503].map(with_page));
    filled(Config {
        templates,
        ..config
    })
}

fn sent(plane: &Plane, method: &str, target: &str, headers: &[(&str, &'static str)]) -> Answer {
    let headers: Vec<_> = [HOST].iter().chain(headers).copied().collect();
    let request = request(method, target, &headers, "");
    answer(plane, &request, &visitor("192.0.2.1"), 0.0).unwrap()
}

fn expires() -> Extras {
    Extras {
        robots: Some(HeaderValue::from_static("noindex")),
        expired: Some(HeaderValue::from_static("https://example.com/over")),
        ..Extras::default()
    }
}

#[test]
fn refusal_is_a_page_for_people() {
    let plane = paged(config());
    for target in ["/absent", "/gone"] {
        for (accept, kind) in [(&[BROWSER][..], "text/html"), (&[], "text/plain")] {
            for method in ["GET", "HEAD"] {
                let response = sent(&plane, method, target, accept).response;

                assert_eq!(response.headers()["content-type"], kind);
                assert_eq!(response.headers()["vary"], "accept");
                assert_eq!(response.body().is_end_stream(), method == "HEAD");
            }
        }
    }
    let redirect = sent(&plane, "GET", "/hot", &[BROWSER]).response;
    assert!(!redirect.headers().contains_key("vary"));
}

#[test]
fn page_names_when_to_try_again() {
    let plane = paged(Config {
        redirect_limit: Limit {
            own: constant(false),
            wide: None,
        },
        ..config()
    });

    let response = sent(&plane, "GET", "/hot", &[BROWSER]).response;

    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["content-type"], "text/html");
    assert_eq!(response.headers()["retry-after"], "1");
}

#[test]
fn request_of_the_api_gets_no_page() {
    let plane = paged(config());
    for (prefers, vary) in [(None, false), (Some(false), true), (Some(true), true)] {
        let response = plane.unanswered(Unanswered::NotSent, true, prefers);

        let is_page = response.headers()["content-type"] == "text/html";
        assert_eq!(is_page, prefers == Some(true));
        assert_eq!(response.headers().contains_key("vary"), vary);
    }
}

#[test]
fn link_has_its_own_page_and_tells_crawlers() {
    let plane = paged(config());
    let target = || Some(HeaderValue::from_static("https://example.com/"));
    let times = Times::fresh(10.0);
    let entries = [
        Entry::answering(
            b"live",
            StatusCode::FOUND,
            target(),
            Forwarding::Off,
            0,
            times,
        ),
        Entry::answering(
            b"over",
            StatusCode::GONE,
            target(),
            Forwarding::Off,
            0,
            times,
        ),
        Entry::answering(
            b"spent",
            StatusCode::FOUND,
            target(),
            Forwarding::Off,
            3,
            times,
        ),
    ];
    let entries = entries.map(|entry| Arc::new(entry.with_extras(expires())));
    plane.table.put(&entries);
    plane.leases.add(b"spent", 3, 0, 0.0, 10.0);

    for (target, location) in [
        ("/live", "https://example.com/"),
        ("/over", "https://example.com/"),
        ("/spent", "https://example.com/over"),
    ] {
        let response = sent(&plane, "GET", target, &[BROWSER]).response;

        assert_eq!(response.status(), 302, "{target}");
        assert_eq!(response.headers()["location"], location);
        assert_eq!(response.headers()["x-robots-tag"], "noindex");
    }
    assert_eq!(plane.table.take_clicks().len(), 1);
}

/// Prints what an answer costs with and without its page: `cargo test --release page_costs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn page_costs() {
    let bytes = |count: usize| vec![b'x'; count];
    let headers = |count: usize| -> Vec<_> {
        let one = |n| (format!("x-header-{n}"), "some value of a header".to_owned());
        (0..count).map(one).collect()
    };
    let json = Template::new(StatusCode::NOT_FOUND, &headers(4), bytes(120)).unwrap();
    let both = json.clone().with_page(&headers(7), bytes(2_500)).unwrap();
    let browser = request("GET", "/absent", &[BROWSER], "");
    let program = request("GET", "/absent", &[("accept", "*/*")], "");
    let rounds = 200_000;
    for (name, template, request) in [
        ("json alone", &json, &program),
        ("json of both", &both, &program),
        ("page", &both, &browser),
    ] {
        let begun = Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(template.response_to(request.headers()));
        }
        let each = begun.elapsed() / rounds;
        println!("{name}: {each:?}");
    }
}
