use hyper::Request;
use hyper::header::HeaderValue;

use super::*;
use crate::body::AnswerBody;
use crate::config::Config;
use crate::domains::Domain;
use crate::intent::Previews;
use crate::limits::Limit;
use crate::limits::tests::constant;
use crate::plane::Decision;
use crate::plane::tests::*;
use crate::quota::Spent;
use crate::table::{Forwarding, Times};

fn waiting(plane: &Plane, request: &Request<AnswerBody>) -> Waits {
    match plane.decide(request, &visitor("192.0.2.1"), plane.now()) {
        Decision::Wait(waits) => waits,
        other => panic!("{other:?}"),
    }
}

/// The answer to `request`, once `settle` has been called.
fn later(plane: &Plane, request: &Request<AnswerBody>, settle: impl FnOnce()) -> Answer {
    let started = plane.now();
    let waits = waiting(plane, request);
    settle();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().build().unwrap();
    runtime.block_on(async {
        let visit = Visit::of(request);
        plane.answer_later(waits, &visit, started).await
    })
}

fn found(entry: Entry) -> Found {
    Found::Entry(Arc::new(entry))
}

fn link(slug: &[u8], times: Times) -> Entry {
    let target = HeaderValue::from_static("https://example.com/later");
    Entry::answering(
        slug,
        StatusCode::FOUND,
        Some(target),
        Forwarding::Off,
        0,
        times,
    )
}

#[test]
fn found_link_is_answered_after_its_look_up() {
    let plane = asking(config());
    let request = request("GET", "/later?a=1", &[HOST], "");

    let answer = later(&plane, &request, || {
        assert_eq!(
            plane.misses.look_ups.take(),
            [(Box::from(&b"later"[..]), 0)]
        );
        let entry = found(link(b"later", Times::fresh(10.0)));
        plane.misses.look_ups.answer([(&b"later"[..], entry)]);
    });

    let headers = answer.response.headers();
    assert_eq!(headers["location"], "https://example.com/later");
    assert_eq!(plane.recorder.take_missed(), 1);
    assert_eq!(plane.recorder.take_looked_up(), [(302, 1)]);
    assert_eq!(plane.table.take_clicks().len(), 1);
}

#[test]
fn absent_slug_is_404_after_its_look_up() {
    let plane = asking(config());
    let request = request("GET", "/later", &[HOST], "");

    let answer = later(&plane, &request, || {
        let times = Times::fresh(10.0);
        let entry = Entry::answering(
            b"later",
            StatusCode::NOT_FOUND,
            None,
            Forwarding::Off,
            0,
            times,
        );
        plane
            .misses
            .look_ups
            .answer([(&b"later"[..], found(entry))]);
    });

    assert_eq!(answer.response.status(), 404);
    assert_eq!(plane.recorder.take_looked_up(), [(404, 1)]);
    assert_eq!(plane.recorder.take_errors(), []);
}

#[test]
fn refusal_of_the_control_plane_is_sent() {
    let plane = asking(config());
    let request = request("GET", "/later", &[HOST], "");

    let answer = later(&plane, &request, || {
        let refused = template(503, ("retry-after", "2"), "too much");
        let refused = [Found::Refused(Arc::new(refused))];
        plane
            .misses
            .look_ups
            .answer_in_turn([&b"later"[..]], &refused);
    });

    assert_eq!(answer.response.status(), 503);
    assert_eq!(answer.response.headers()["retry-after"], "2");
    assert_eq!(plane.recorder.take_looked_up(), [(503, 1)]);
    assert_eq!(plane.recorder.take_late(), (0, 0));
}

#[test]
fn late_look_up_is_a_stale_redirect_or_503() {
    let plane = asking(config());
    let stale = Times {
        stale_until: 300.0,
        ..Times::fresh(-1.0)
    };
    plane.table.put(&[Arc::new(link(b"stale", stale))]);

    let known = later(&plane, &request("GET", "/stale", &[HOST], ""), || {});
    let unknown = later(&plane, &request("GET", "/later", &[HOST], ""), || {});

    assert_eq!(known.response.status(), 302);
    assert_eq!(unknown.response.status(), 503);
    assert_eq!(plane.recorder.take_late(), (1, 1));
    assert_eq!(plane.recorder.take_looked_up(), [(302, 1), (503, 1)]);
}

#[test]
fn visit_waits_for_a_lease() {
    let plane = asking(config());
    let visit = request("GET", "/metered", &[HOST], "");

    let first = later(&plane, &visit, || {
        assert_eq!(
            plane.misses.leases.take(),
            [(Box::from(&b"metered"[..]), 3)]
        );
        assert!(plane.leases.add(b"metered", 3, 1, 0.0, 0.0));
        plane
            .misses
            .leases
            .answer([(&b"metered"[..], Leased::Again)]);
    });
    assert!(plane.leases.add(b"metered", 3, 0, 0.0, 100.0));
    let second = answer(&plane, &visit, &visitor("192.0.2.1"), 0.0).unwrap();

    assert_eq!(first.response.status(), 302);
    assert_eq!(second.response.status(), 410);
    assert_eq!(plane.table.take_clicks().len(), 1);
    assert_eq!(plane.recorder.take_errors(), [(410, 1)]);
}

#[test]
fn end_of_a_limit_holds_for_the_versions_up_to_it() {
    for (version, status) in [(2, 503), (3, 302), (4, 302)] {
        let plane = asking(config());

        let answer = later(&plane, &request("GET", "/metered", &[HOST], ""), || {
            let unlimited = Leased::Unlimited(version);
            plane.misses.leases.answer([(&b"metered"[..], unlimited)]);
        });

        assert_eq!(answer.response.status(), status, "{version}");
        let is_asked_again = plane.misses.leases.is_pending(b"metered");
        assert_eq!(is_asked_again, status == 503);
    }
}

#[test]
fn visit_is_503_if_its_lease_is_late() {
    let plane = asking(config());

    let answer = later(&plane, &request("GET", "/metered", &[HOST], ""), || {});

    assert_eq!(answer.response.status(), 503);
    assert_eq!(plane.recorder.take_late(), (0, 1));
    assert_eq!(plane.recorder.take_errors(), [(503, 1)]);
}

#[test]
fn only_visits_are_spent() {
    let plane = asking(Config {
        previews: Previews {
            anywhere: vec!["unfurl".to_owned()],
            at_start: Vec::new(),
        },
        ..config()
    });
    plane.leases.add(b"metered", 3, 1, 0.0, 0.0);
    let table = [
        ("GET", vec![HOST, ("sec-purpose", "prefetch")], 503),
        ("GET", vec![HOST, ("user-agent", "Unfurl/1")], 302),
        ("HEAD", vec![HOST], 302),
        ("GET", vec![HOST], 302),
    ];

    for (method, headers, status) in table {
        let request = request(method, "/metered", &headers, "");
        let answer = answer(&plane, &request, &visitor("192.0.2.1"), 0.0).unwrap();
        assert_eq!(answer.response.status(), status, "{method} {headers:?}");
    }

    let clicks = plane.table.take_clicks();
    assert_eq!(clicks.iter().map(|(_, clicks)| clicks).sum::<u64>(), 1);
    assert_eq!(
        plane.leases.take(b"metered", 3, false, 0.0),
        Spent::NeedsLease(3)
    );
}

#[test]
fn reserved_slug_is_left_to_the_control_plane() {
    let plane = asking(config());
    plane.reader.domains.set(vec![Domain {
        host: b"".as_slice().into(),
        prefix: b"".as_slice().into(),
        is_case_sensitive: true,
        expired: None,
        has_segments: true,
    }]);
    for slug in [b"healthz".as_slice(), b"v4", b"v4/hot", b"v5/hot"] {
        let times = Times::fresh(10.0);
        let entry = Entry::answering(slug, StatusCode::GONE, None, Forwarding::Off, 0, times);
        plane.table.put(&[Arc::new(entry)]);
    }

    for path in [
        "/healthz",
        "/healthz.",
        "/HEALTHZ",
        "/healthz/x",
        "/v4/hot",
        "/V4/hot/",
    ] {
        assert!(get(&plane, path).is_none(), "{path}");
    }
    for path in ["/v4", "/v5/hot"] {
        assert_eq!(get(&plane, path).unwrap().response.status(), 410, "{path}");
    }
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

    assert!(plane.misses.look_ups.take().is_empty());
    assert_eq!(plane.recorder.take_missed(), 1);
    assert_eq!(plane.recorder.take_looked_up(), [(429, 1)]);
}

#[test]
fn look_ups_gather_while_answers_are_delayed() {
    let plane = asking(config());
    let ask = |target: &str| {
        let request = request("GET", target, &[HOST], "");
        match plane.decide(&request, &visitor("192.0.2.1"), 0.0) {
            Decision::Wait(waits) => waits,
            Decision::Answer(_) | Decision::Pass => panic!("{target} is looked up"),
        }
    };
    let alone = ask("/one");
    assert_eq!(plane.misses.rings(), 1, "at once");
    assert_eq!(plane.misses.look_ups.take().len(), 1);
    while get(&plane, "/absent").unwrap().delay.is_none() {}

    let gathered = [ask("/two"), ask("/three"), ask("/four")];

    assert_eq!(plane.misses.rings(), 0);
    drop(gathered);
    assert_eq!(plane.misses.rings(), 1);
    drop(alone);
}
