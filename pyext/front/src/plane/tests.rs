use std::net::SocketAddr;

use bytes::Bytes;
use hyper::header::HeaderValue;

use super::*;
use crate::address::Network;
use crate::config::Caps;
use crate::limits::tests::{constant, counting};
use crate::tarpit::TarpitConfig;
use crate::watch::WatchConfig;

fn template(status: u16, header: (&str, &str), body: &str) -> Template {
    let headers = [(header.0.to_owned(), header.1.to_owned())];
    let status = StatusCode::from_u16(status).unwrap();
    Template::new(status, &headers, body.into()).unwrap()
}

fn config() -> Config {
    let limit = Limit {
        own: constant(true),
        wide: None,
    };
    Config {
        base_path: String::new(),
        trusted: Vec::new(),
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
        bounds: vec![0.001],
        tarpit: TarpitConfig {
            free_per_s: 1.0,
            burst: 1.0,
            delay: Duration::from_millis(100),
            max_held: 10,
        },
        upstream: PathBuf::from("/nowhere"),
        reserved: vec!["healthz".to_owned()],
        max_body: 65_536,
        caps: Caps {
            head: Duration::from_secs(5),
            write: Duration::from_secs(10),
            answer: Duration::from_secs(12),
            connections: 16_384,
        },
        monotonic: 0.0,
        watch: None,
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

fn filled(config: Config) -> Plane {
    let plane = Plane::new(config).unwrap();
    let target = HeaderValue::from_static("https://example.com/");
    let put = |slug: &[u8], status, location: Option<&HeaderValue>, forwards| {
        let entry = Entry::new(slug, status, location.cloned(), forwards, 10.0);
        plane.table.put(entry);
    };
    put(b"hot", StatusCode::FOUND, Some(&target), false);
    put(b"passes-on", StatusCode::FOUND, Some(&target), true);
    put(b"absent", StatusCode::NOT_FOUND, None, false);
    put(b"gone", StatusCode::GONE, None, false);
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

fn answer(
    plane: &Plane,
    request: &Request<AnswerBody>,
    visitor: &Visitor,
    now: f64,
) -> Option<Answer> {
    match plane.decide(request, visitor, now) {
        Decision::Answer(answer) => Some(answer),
        Decision::Pass => None,
        Decision::LookUp(look_up) => panic!("{look_up:?}"),
    }
}

fn get(plane: &Plane, target: &str) -> Option<Answer> {
    let request = request("GET", target, &[HOST], "");
    answer(plane, &request, &visitor("192.0.2.1"), 0.0)
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
fn other_requests_are_left_to_the_control_plane() {
    let plane = filled(config());
    let long = format!("/{}", "a".repeat(129));
    let table = [
        ("HEAD", "/hot", vec![HOST], ""),
        ("POST", "/hot", vec![HOST], ""),
        ("GET", "/hot", vec![HOST], "body"),
        ("GET", "/hot", vec![], ""),
        ("GET", "/hot", vec![HOST, HOST], ""),
        ("GET", "/hot", vec![("host", "a/b")], ""),
        ("GET", "/hot", vec![("host", "a@b")], ""),
        ("GET", "/hot", vec![("host", "a:8x")], ""),
        ("GET", "/hot", vec![("host", "[::1]")], ""),
        ("GET", "/hot/", vec![HOST], ""),
        ("GET", "/h%6ft", vec![HOST], ""),
        ("GET", "/", vec![HOST], ""),
        ("GET", &long, vec![HOST], ""),
        ("GET", "/unknown", vec![HOST], ""),
        ("GET", "/passes-on?a=1", vec![HOST], ""),
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

// --- look-ups ------------------------------------------------------------------------------

fn look_up(plane: &Plane, target: &str) -> LookUp {
    let request = request("GET", target, &[HOST], "");
    match plane.decide(&request, &visitor("192.0.2.1"), 0.0) {
        Decision::LookUp(look_up) => look_up,
        other => panic!("{other:?}"),
    }
}

/// A plane that looks up, and the keys that its not-found limit is called with.
fn asking(config: Config) -> Plane {
    let plane = filled(config);
    plane.misses.open(true);
    plane
}

#[test]
fn found_link_is_answered_after_its_look_up() {
    let plane = asking(config());
    let look_up = look_up(&plane, "/later?a=1");
    assert_eq!(plane.misses.take(), [Box::from(&b"later"[..])]);

    let target = HeaderValue::from_static("https://example.com/later");
    let entry = Entry::new(b"later", StatusCode::FOUND, Some(target), false, 10.0);
    plane.table.put(entry);
    let answer = plane.conclude(&look_up, Some("a=1"), 0.0).unwrap();

    assert_eq!(
        answer.response.headers()["location"],
        "https://example.com/later"
    );
    assert_eq!(plane.recorder.missed(), (1, 0));
    assert_eq!(plane.recorder.take_looked_up(), [(302, 1)]);
    assert_eq!(plane.table.take_clicks().len(), 1);
}

#[test]
fn absent_slug_is_404_after_its_look_up() {
    let plane = asking(config());
    let look_up = look_up(&plane, "/later");

    let entry = Entry::new(b"later", StatusCode::NOT_FOUND, None, false, 10.0);
    plane.table.put(entry);
    let answer = plane.conclude(&look_up, None, 0.0).unwrap();

    assert_eq!(answer.response.status(), 404);
    assert_eq!(plane.recorder.take_looked_up(), [(404, 1)]);
    assert_eq!(plane.recorder.take_errors(), []);
}

#[test]
fn what_the_table_cannot_answer_is_handed_back() {
    let plane = asking(config());
    let target = HeaderValue::from_static("https://example.com/");
    let rewritten = look_up(&plane, "/later?a=1");
    let unknown = look_up(&plane, "/never");
    let entry = Entry::new(b"later", StatusCode::FOUND, Some(target), true, 10.0);
    plane.table.put(entry);

    assert!(plane.conclude(&rewritten, Some("a=1"), 0.0).is_none());
    assert!(plane.conclude(&unknown, None, 0.0).is_none());

    assert_eq!(plane.recorder.missed(), (0, 2));
    assert_eq!(plane.recorder.take_looked_up(), []);
    assert!(plane.table.take_clicks().is_empty());
}

#[test]
fn reserved_slug_is_left_to_the_control_plane() {
    let plane = asking(config());

    assert!(get(&plane, "/healthz").is_none());
    assert!(get(&plane, "/HEALTHZ").is_none());
}

#[test]
fn not_found_limit_refuses_before_a_look_up() {
    let plane = asking(Config {
        not_found_limit: Limit {
            own: constant(false),
            wide: None,
        },
        ..config()
    });

    assert_eq!(get(&plane, "/later").unwrap().response.status(), 429);

    assert!(plane.misses.take().is_empty());
    assert_eq!(plane.recorder.missed(), (1, 0));
    assert_eq!(plane.recorder.take_looked_up(), [(429, 1)]);
}
