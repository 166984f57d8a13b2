use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::plane::tests::{HOST, request, visitor, watching};
use crate::sampling::Sampling;

const ALL: u128 = 1 << 64;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PROXY: &str = "10.0.0.1";

fn config(traced: u128, logged: Option<u128>) -> WatchConfig {
    let sampling = Sampling {
        bound: traced,
        follows_parent: true,
    };
    WatchConfig {
        traced: Some((sampling, 0.5)),
        logged,
        capacity: 10,
    }
}

/// Follows a GET with these headers by the proxy, and has it wait.
fn waiting(plane: &Arc<Plane>, headers: &[(&str, &'static str)]) -> Watched {
    let request = request("GET", "/hot", headers, "");
    let noted = plane.note(&request, PROXY.parse().unwrap(), plane.now());
    plane.watched(noted.as_ref(), &request, &visitor(PROXY))
}

fn records(plane: &Plane) -> Vec<Record> {
    plane.watch.as_ref().unwrap().records.take(99)
}

/// The record of a GET by `peer` that was answered at once.
fn answered(
    watch: WatchConfig,
    peer: &str,
    headers: &[(&str, &'static str)],
    outcome: (u16, f64),
) -> Option<Record> {
    let plane = watching(watch);
    let request = request("GET", "/hot", headers, "");
    let noted = plane
        .note(&request, peer.parse().unwrap(), 7.0)
        .expect("it is followed");
    let status = StatusCode::from_u16(outcome.0).unwrap();
    plane.report(&noted, &request, &visitor(peer), status, outcome.1);
    records(&plane).pop()
}

#[test]
fn record_says_what_a_span_and_a_line_need() {
    let headers = [
        HOST,
        ("traceparent", TRACEPARENT),
        ("tracestate", "a=1"),
        ("x-forwarded-for", "2001:db8:1:2::3"),
        ("x-request-id", "of-the-client"),
    ];

    let record = answered(config(0, Some(ALL)), PROXY, &headers, (302, 0.25)).unwrap();

    assert_ne!(record.span, 0);
    let expected = Record {
        trace: TRACE,
        span: record.span,
        parent: 0x00f0_67aa_0ba9_02b7,
        tracestate: "a=1".to_owned(),
        began: 7.0,
        took_s: 0.25,
        status: 302,
        is: Is {
            span: Span::Recorded,
            logged: true,
            missed: false,
        },
        is_redirect: true,
        method: "GET",
        version: "1.1",
        client: "2001:db8:1::/48".into(),
        request_id: "of-the-client".into(),
    };
    assert_eq!(record, expected);
}

#[test]
fn only_a_trusted_proxy_names_a_parent() {
    let headers = [HOST, ("traceparent", TRACEPARENT), ("tracestate", "a=1")];

    let of_a_client = answered(config(ALL, None), "192.0.2.1", &headers, (302, 0.0)).unwrap();
    let of_the_proxy = answered(config(0, None), PROXY, &headers, (302, 0.0)).unwrap();

    assert_ne!(of_a_client.trace, TRACE);
    assert_eq!((of_a_client.parent, &*of_a_client.tracestate), (0, ""));
    assert_eq!(of_the_proxy.trace, TRACE);
    assert_eq!(&*of_the_proxy.client, "", "no line is wanted");
}

#[test]
fn failure_and_slowness_are_reported_afterwards() {
    let table = [
        (302, 0.499, None, false),
        (302, 0.5, Some(Span::Late), false),
        (500, 0.0, Some(Span::Late), true),
        (503, 0.0, Some(Span::Late), true),
        (404, 0.0, None, false),
        (431, 9.0, None, false),
    ];
    for (status, took_s, span, logged) in table {
        let record = answered(config(0, Some(0)), PROXY, &[HOST], (status, took_s));

        let is = span.map(|span| Is {
            span,
            logged,
            missed: false,
        });
        assert_eq!(record.map(|record| record.is), is, "{status} {took_s}");
    }
}

#[test]
fn request_that_waits_is_reported_once_however_it_ends() {
    let plane = watching(config(ALL, Some(ALL)));
    let statuses = |plane: &Plane| -> Vec<u16> {
        let records = records(plane);
        records.iter().map(|record| record.status).collect()
    };

    let mut watched = waiting(&plane, &[HOST]);
    watched.answered(StatusCode::NOT_FOUND);
    assert!(statuses(&plane).is_empty());
    drop(watched);
    assert_eq!(statuses(&plane), [404]);

    drop(waiting(&plane, &[HOST]));
    assert_eq!(statuses(&plane), [NO_ANSWER]);

    let watched = waiting(&plane, &[HOST]);
    let failing = AssertUnwindSafe(move || {
        let _watched = watched;
        panic!("expected by the test");
    });
    assert!(catch_unwind(failing).is_err());
    assert_eq!(statuses(&plane), [500]);
}

#[test]
fn control_plane_reports_what_it_answers() {
    let plane = watching(config(ALL, Some(0)));
    let mut watched = waiting(&plane, &[HOST, ("traceparent", TRACEPARENT)]);

    let said = watched.hand_over().unwrap();

    let said: Vec<&str> = said.to_str().unwrap().split('-').collect();
    let [trace, span, flags, began] = said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(trace, format!("{TRACE:032x}"));
    assert_eq!((span.len(), flags), (16, "1"));
    assert!(began.parse::<f64>().unwrap() <= plane.now());
    drop(watched);
    assert!(records(&plane).is_empty());
}

#[test]
fn request_that_the_control_plane_did_not_answer_is_reported_here() {
    for is_seen in [false, true] {
        let plane = watching(config(ALL, None));
        let mut watched = waiting(&plane, &[HOST]);
        let said = watched.hand_over().unwrap();

        watched.take_back(is_seen);
        watched.answered(StatusCode::SERVICE_UNAVAILABLE);
        drop(watched);

        let [record] = &records(&plane)[..] else {
            panic!("one record");
        };
        let has_its_span = said
            .to_str()
            .unwrap()
            .contains(&format!("{:016x}", record.span));
        assert_eq!((record.status, has_its_span), (503, !is_seen));
    }
}

#[test]
fn look_up_has_the_origin_of_its_first_recorded_request() {
    let plane = watching(config(ALL, None));
    let origins = &plane.watch.as_ref().unwrap().origins;
    let first = request(
        "GET",
        "/hot",
        &[HOST, ("traceparent", TRACEPARENT), ("baggage", "b=2")],
        "",
    );
    let note = |request| plane.note(request, PROXY.parse().unwrap(), 7.0);
    let slugs = [Box::from(&b"hot"[..]), Box::from(&b"other"[..])];
    assert!(origins.is_empty());

    let originated = plane.originate(note(&first).as_ref(), &first);
    let second = request("GET", "/hot", &[HOST], "");
    let joined = plane.originate(note(&second).as_ref(), &second);

    assert!(!origins.is_empty());
    let [Some(origin), None] = &origins.of(&slugs)[..] else {
        panic!("one origin");
    };
    assert_eq!((origin.trace, origin.began), (TRACE, 7.0));
    assert_eq!((&*origin.tracestate, &*origin.baggage), ("", "b=2"));
    drop(joined);
    assert!(origins.of(&slugs)[0].is_some());
    drop(originated);
    assert!(origins.of(&slugs)[0].is_none());
    assert!(origins.is_empty());
}

#[test]
fn line_that_has_no_room_is_left_to_the_control_plane() {
    let plane = watching(config(ALL, Some(ALL)));
    let request = request("GET", "/hot", &[HOST], "");
    let noted = plane.note(&request, PROXY.parse().unwrap(), 0.0).unwrap();
    let unlogged = Noted {
        is: Is {
            logged: false,
            ..noted.is
        },
        ..noted
    };
    for _ in 0..10 {
        assert!(!plane.has_no_room(Some(&noted)));
        drop(waiting(&plane, &[HOST]));
    }

    assert!(plane.has_no_room(Some(&noted)));
    assert!(!plane.has_no_room(Some(&unlogged)));
    records(&plane);
    assert!(!plane.has_no_room(Some(&noted)));
}

#[test]
fn record_says_whether_its_route_is_that_of_links() {
    let table = [
        ("GET", "/hot", true),
        ("POST", "/hot", true),
        ("GET", "/healthz", false),
        ("GET", "/api/v1/links", false),
        ("GET", "/a.b", false),
    ];
    for (method, path, is_redirect) in table {
        let plane = watching(config(ALL, Some(ALL)));
        let request = request(method, path, &[HOST], "");
        let noted = plane.note(&request, PROXY.parse().unwrap(), plane.now());

        let mut watched = plane.watched(noted.as_ref(), &request, &visitor(PROXY));
        watched.named(&HeaderValue::from_static("an-id"));
        drop(watched);

        let [record] = &records(&plane)[..] else {
            panic!("one record");
        };
        assert_eq!(record.is_redirect, is_redirect, "{method} {path}");
        assert_eq!(&*record.request_id, "an-id");
    }
}
