//! Decisions about requests, one test each, by the same plane, clients and entries: those of pages stand apart.

use std::net::SocketAddr;

use bytes::Bytes;
use hyper::header::HeaderValue;

use super::*;
use crate::address::Network;
use crate::config::Caps;
use crate::config::WatchConfig;
use crate::intent::Previews;
use crate::limits::tests::{constant, counting};
use crate::table::{Bounds, Extras, Forwarding, Times};
use crate::tarpit::TarpitConfig;

pub(crate) fn template(status: u16, header: (&str, &str), body: &str) -> Template {
    let headers = [(header.0.to_owned(), header.1.to_owned())];
    let status = StatusCode::from_u16(status).unwrap();
    Template::new(status, &headers, body.into()).unwrap()
}

pub(crate) fn config() -> Config {
    let limit = Limit {
        own: constant(true),
        wide: None,
    };
    Config {
        base_path: String::new(),
        trusted: Vec::new(),
        proxy_protocol: false,
        redirect_limit: limit,
        not_found_limit: limit,
        templates: vec![
            template(302, ("cache-control", "private"), ""),
            template(404, ("content-type", "text/plain"), "nothing"),
            template(410, ("content-type", "text/plain"), "gone"),
            template(429, ("content-type", "text/plain"), "slow down"),
            template(500, ("content-type", "text/plain"), "failed"),
            template(503, ("content-type", "text/plain"), "away"),
        ],
        unsure: template(503, ("content-type", "text/plain"), "perhaps"),
        cut_off: template(400, ("connection", "close"), "half"),
        late: template(503, ("content-type", "text/plain"), "late"),
        not_prefetched: template(503, ("retry-after", "1"), "not ahead"),
        previews: Previews::default(),
        limit_s: 0.05,
        bounds: vec![0.001],
        tarpit: TarpitConfig {
            free_per_s: 1.0,
            burst: 1.0,
            delay: Duration::from_millis(100),
            max_held: 10,
        },
        upstream: PathBuf::from("/nowhere"),
        reserved: vec!["healthz".to_owned(), "v4/".to_owned()],
        max_body: 65_536,
        uploads: Vec::new(),
        caps: Caps {
            head: Duration::from_secs(5),
            write: Duration::from_secs(10),
            answer: Duration::from_secs(12),
            connections: 16_384,
        },
        clock: Clock::new(0.0),
        watch: None,
        describes_visits: false,
        table: Bounds {
            entries: 100,
            absent: 100,
            long: 100,
            min_versions: 100,
        },
    }
}

pub(crate) fn plane() -> Plane {
    Plane::new(config()).unwrap()
}

/// A plane that trusts 10.0.0.0/8 and follows requests.
pub(crate) fn watching(watch: WatchConfig) -> Arc<Plane> {
    let trusted = vec![Network::parse("10.0.0.0/8").unwrap()];
    let plane = Plane::new(Config {
        trusted,
        watch: Some(watch),
        ..config()
    });
    Arc::new(plane.unwrap())
}

pub(crate) fn filled(config: Config) -> Plane {
    let plane = Plane::new(config).unwrap();
    let target = HeaderValue::from_static("https://example.com/");
    let put = |slug: &[u8], status, location: Option<&HeaderValue>, forwards, metered_version| {
        let times = Times::fresh(10.0);
        let location = location.cloned();
        let entry = Entry::answering(slug, status, location, forwards, metered_version, times);
        plane.table.put(&[Arc::new(entry)]);
    };
    put(b"hot", StatusCode::FOUND, Some(&target), Forwarding::Off, 0);
    put(
        b"passes-on",
        StatusCode::FOUND,
        Some(&target),
        Forwarding::Added,
        0,
    );
    let with_query = HeaderValue::from_static("https://example.com/?a=1&b=2");
    put(
        b"gives-way",
        StatusCode::FOUND,
        Some(&with_query),
        Forwarding::Overriding,
        0,
    );
    put(
        b"metered",
        StatusCode::FOUND,
        Some(&target),
        Forwarding::Off,
        3,
    );
    put(b"absent", StatusCode::NOT_FOUND, None, Forwarding::Off, 0);
    put(b"gone", StatusCode::GONE, None, Forwarding::Off, 0);
    plane
}

/// A plane that looks up.
pub(crate) fn asking(config: Config) -> Plane {
    let plane = filled(config);
    plane.misses.open(true);
    plane
}

pub(crate) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &'static str)],
    body: &'static str,
) -> Request<AnswerBody> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let body = AnswerBody::of(Bytes::from_static(body.as_bytes()));
    request.body(body).unwrap()
}

pub(crate) fn visitor(address: &str) -> Visitor {
    Visitor::new(SocketAddr::new(address.parse().unwrap(), 54321))
}

pub(crate) const HOST: (&str, &str) = ("host", "hop.example:8000");

pub(crate) fn answer(
    plane: &Plane,
    request: &Request<AnswerBody>,
    visitor: &Visitor,
    now: f64,
) -> Option<Answer> {
    match plane.decide(request, visitor, now) {
        Decision::Answer(answer) => Some(answer),
        Decision::Pass => None,
        Decision::Wait(waits) => panic!("{waits:?}"),
    }
}

pub(crate) fn get(plane: &Plane, target: &str) -> Option<Answer> {
    let request = request("GET", target, &[HOST], "");
    answer(plane, &request, &visitor("192.0.2.1"), 0.0)
}

#[test]
fn clicks_are_described() {
    let plane = filled(Config {
        describes_visits: true,
        ..config()
    });
    let agent = ("user-agent", "Mozilla/5.0");
    for (method, target) in [
        ("GET", "/hot"),
        ("GET", "/hot?a=1"),
        ("HEAD", "/hot"),
        ("GET", "/gone"),
    ] {
        let request = request(method, target, &[HOST, agent], "");
        answer(&plane, &request, &visitor("192.0.2.1"), 0.0).unwrap();
    }

    let seen = plane.seen.as_ref().unwrap().take();
    let [(kind, 2), (refused, 1)] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(kind.slug, b"hot");
    assert_eq!(kind.client, b"192.0.2.1");
    assert_eq!(kind.agent, b"Mozilla/5.0");
    assert_eq!(refused.flags, b"g");
    assert_eq!(plane.table.take_clicks()[0].1, 2);
}

#[test]
fn hot_link_is_redirected_and_clicked() {
    let plane = filled(config());

    for target in [
        "/hot",
        "/hot?a=1",
        "/passes-on",
        "/passes-on?",
        "/passes-on?&&",
    ] {
        let response = get(&plane, target).unwrap().response;

        assert_eq!(response.status(), 302, "{target}");
        assert_eq!(response.headers()["location"], "https://example.com/");
        assert_eq!(response.headers()["cache-control"], "private");
    }

    let clicks: u64 = plane.table.take_clicks().iter().map(|(_, n)| n).sum();
    assert_eq!(clicks, 5);
}

#[test]
fn query_is_forwarded() {
    let plane = filled(config());

    let response = get(&plane, "/passes-on?&a=|").unwrap().response;

    assert_eq!(response.headers()["location"], "https://example.com/?a=%7C");

    let response = get(&plane, "/gives-way?a=3").unwrap().response;

    assert_eq!(
        response.headers()["location"],
        "https://example.com/?b=2&a=3"
    );
}

#[test]
fn head_is_answered_without_a_body_and_no_click() {
    let plane = filled(config());

    for (target, status) in [("/hot", 302), ("/absent", 404)] {
        let request = request("HEAD", target, &[HOST], "");
        let answer = answer(&plane, &request, &visitor("192.0.2.1"), 0.0).unwrap();

        assert_eq!(answer.response.status(), status, "{target}");
        assert!(answer.response.body().is_end_stream(), "{target}");
    }
    assert!(plane.table.take_clicks().is_empty());
    assert_eq!(plane.recorder.take_errors(), [(404, 1)]);
}

#[test]
fn entry_is_renewed_by_its_first_late_visit() {
    let plane = asking(config());
    let times = Times {
        renew_from: 8.0,
        ..Times::fresh(10.0)
    };
    let entry = Entry::answering(b"gone", StatusCode::GONE, None, Forwarding::Off, 0, times);
    plane.table.put(&[Arc::new(entry)]);

    for now in [1.0, 8.5, 9.0] {
        let request = request("GET", "/gone", &[HOST], "");
        assert!(answer(&plane, &request, &visitor("192.0.2.1"), now).is_some());
    }

    assert_eq!(plane.misses.take_renewals(), [Box::from(&b"gone"[..])]);
}

#[test]
fn what_is_pasted_behind_a_slug_is_no_part_of_it() {
    let plane = filled(config());
    for target in ["/hot/", "/hot.", "/hot),", "/hot//"] {
        let request = request("GET", target, &[HOST], "");
        let answer = answer(&plane, &request, &visitor("192.0.2.1"), 0.0);
        assert_eq!(answer.expect(target).response.status(), StatusCode::FOUND);
    }
}

#[test]
fn other_requests_are_left_to_the_control_plane() {
    let plane = filled(config());
    let long = format!("/{}", "a".repeat(129));
    let table = [
        ("POST", "/hot", vec![HOST], ""),
        ("GET", "/hot", vec![HOST], "body"),
        ("GET", "/hot", vec![], ""),
        ("GET", "/hot", vec![HOST, HOST], ""),
        ("GET", "/hot", vec![("host", "a/b")], ""),
        ("GET", "/hot", vec![("host", "a@b")], ""),
        ("GET", "/hot", vec![("host", "a:8x")], ""),
        ("GET", "/hot", vec![("host", "[::1]")], ""),
        ("GET", "/hot/x", vec![HOST], ""),
        ("GET", "/./", vec![HOST], ""),
        ("GET", "/h%6ft", vec![HOST], ""),
        ("GET", "/", vec![HOST], ""),
        ("GET", &long, vec![HOST], ""),
        ("GET", "/unknown", vec![HOST], ""),
    ];
    for (method, target, headers, body) in table {
        let request = request(method, target, &headers, body);

        let answer = super::tests::answer(&plane, &request, &visitor("192.0.2.1"), 0.0);

        assert!(answer.is_none(), "{method} {target} {headers:?} {body:?}");
    }
    assert!(plane.table.take_clicks().is_empty());
}

#[test]
fn expired_entry_is_left_to_the_control_plane() {
    let plane = filled(config());
    let request = request("GET", "/hot", &[HOST], "");

    assert!(answer(&plane, &request, &visitor("192.0.2.1"), 10.0).is_none());
}

#[test]
fn path_before_the_slug_may_be_there_or_not() {
    let plane = filled(Config {
        base_path: "/go/to".to_owned(),
        ..config()
    });

    for (target, is_hot) in [
        ("/go/to/hot", true),
        ("/hot", true),
        ("/go/tohot", false),
        ("/go/to/go/to/hot", false),
        ("/go/to/", false),
    ] {
        assert_eq!(get(&plane, target).is_some(), is_hot, "{target}");
    }
}

#[test]
fn alias_spends_the_visits_of_its_link() {
    let plane = filled(config());
    let target = HeaderValue::from_static("https://example.com/");
    let times = Times::fresh(10.0);
    let off = Forwarding::Off;
    let alias = Entry::answering(b"alias", StatusCode::FOUND, Some(target), off, 3, times);
    let quota = Some(Box::from(&b"metered"[..]));
    let extras = Extras {
        quota,
        ..Extras::default()
    };
    plane.table.put(&[Arc::new(alias.with_extras(extras))]);
    plane.leases.add(b"metered", 3, 2, 1.0, 10.0);

    for status in [302, 302, 410] {
        assert_eq!(get(&plane, "/alias").unwrap().response.status(), status);
    }
    assert_eq!(get(&plane, "/metered").unwrap().response.status(), 410);
    let clicks = plane.table.take_clicks();
    let clicks: Vec<(&[u8], u64)> = clicks.iter().map(|(e, n)| ((**e).as_ref(), *n)).collect();
    assert_eq!(clicks, [(&b"alias"[..], 2)], "counted by slug");
}

#[test]
fn errors_are_counted_by_status() {
    let plane = filled(config());

    let statuses: Vec<_> = ["/absent", "/gone", "/gone"]
        .map(|target| get(&plane, target).unwrap().response.status().as_u16())
        .into();

    assert_eq!(statuses, [404, 410, 410]);
    assert_eq!(plane.recorder.take_errors(), [(404, 1), (410, 2)]);
}

#[test]
fn second_not_found_is_delayed() {
    let plane = filled(config());

    assert!(get(&plane, "/absent").unwrap().delay.is_none());
    assert!(get(&plane, "/absent").unwrap().delay.is_some());
    assert!(get(&plane, "/gone").unwrap().delay.is_none());
    assert!(get(&plane, "/hot").unwrap().delay.is_none());
}

#[test]
fn refused_visitor_gets_429_and_no_click() {
    let plane = filled(Config {
        redirect_limit: Limit {
            own: constant(false),
            wide: None,
        },
        ..config()
    });

    let response = get(&plane, "/hot").unwrap().response;

    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(plane.table.take_clicks().is_empty());
    assert_eq!(plane.recorder.take_errors(), [], "the limiter counts it");
}

#[test]
fn not_found_limit_is_an_answer_to_an_admitted_request() {
    let plane = filled(Config {
        not_found_limit: Limit {
            own: constant(false),
            wide: None,
        },
        ..config()
    });

    assert_eq!(get(&plane, "/absent").unwrap().response.status(), 429);
    assert_eq!(plane.recorder.take_errors(), [(429, 1)]);
}

#[test]
fn client_is_the_one_that_a_trusted_proxy_names() {
    let (limiter, keys) = counting();
    let plane = filled(Config {
        trusted: vec![Network::parse("10.0.0.0/8").unwrap()],
        redirect_limit: Limit {
            own: limiter,
            wide: None,
        },
        ..config()
    });
    let forwarded = ("x-forwarded-for", "198.51.100.1");
    let table = [
        ("10.0.0.1", vec![HOST, forwarded], "198.51.100.1"),
        ("10.0.0.1", vec![HOST], "10.0.0.1"),
        ("203.0.113.7", vec![HOST, forwarded], "203.0.113.7"),
        ("::ffff:10.0.0.1", vec![HOST, forwarded], "198.51.100.1"),
    ];
    for (peer, headers, client) in table {
        let request = request("GET", "/hot", &headers, "");

        assert!(answer(&plane, &request, &visitor(peer), 0.0).is_some());

        assert_eq!(*keys.lock().unwrap(), [client], "{peer} {headers:?}");
        keys.lock().unwrap().clear();
    }
    let unreadable = ("x-forwarded-for", "\u{e9}, 198.51.100.1");
    let request = request("GET", "/hot", &[HOST, unreadable], "");
    assert!(answer(&plane, &request, &visitor("10.0.0.1"), 0.0).is_none());
}

#[test]
fn large_head_is_refused() {
    let plane = filled(config());
    let half: &'static str = Box::leak("a".repeat(MAX_HEAD / 2).into_boxed_str());
    let large = request("GET", "/hot", &[HOST, ("x-a", half), ("x-b", half)], "");

    let answer = super::tests::answer(&plane, &large, &visitor("192.0.2.1"), 0.0).unwrap();

    assert_eq!(answer.response.status(), 431);
}
