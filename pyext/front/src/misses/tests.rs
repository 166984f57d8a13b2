use hyper::StatusCode;

use super::*;

fn texts(questions: &[(Box<[u8]>, u64)]) -> Vec<&str> {
    let texts = questions.iter();
    texts
        .map(|(slug, _)| std::str::from_utf8(slug).unwrap())
        .collect()
}

fn refused(status: u16) -> Found {
    let status = StatusCode::from_u16(status).unwrap();
    Found::Refused(Arc::new(Template::bare(status)))
}

fn status(found: Found) -> u16 {
    match found {
        Found::Refused(template) => template.status().as_u16(),
        Found::Entry(entry) => entry.status.as_u16(),
    }
}

#[test]
fn slug_is_looked_up_once_for_all() {
    let misses = Misses::new().unwrap();
    let mut first = misses.look_up(b"aaa");
    let mut second = misses.look_up(b"aaa");
    let mut other = misses.look_up(b"bbb");

    assert_eq!(texts(&misses.look_ups.take()), ["aaa", "bbb"]);
    let mut late = misses.look_up(b"aaa");
    assert_eq!(texts(&misses.look_ups.take()), [] as [&str; 0]);
    assert!(misses.look_ups.is_pending(b"aaa"));
    misses.look_ups.answer([(&b"aaa"[..], refused(503))]);

    for receiver in [&mut first, &mut second, &mut late] {
        assert_eq!(status(receiver.try_recv().unwrap()), 503);
    }
    assert!(other.try_recv().is_err());
    assert!(!misses.look_ups.is_pending(b"aaa"));
}

#[test]
fn slug_that_was_answered_before_it_was_taken_is_taken_once() {
    let misses = Misses::new().unwrap();
    let _first = misses.look_up(b"aaa");
    let _gone = misses.look_up(b"bbb");
    let both = [(&b"aaa"[..], refused(503)), (b"bbb", refused(503))];
    misses.look_ups.answer(both);

    let _second = misses.look_up(b"aaa");

    assert_eq!(texts(&misses.look_ups.take()), ["aaa"]);
    assert_eq!(texts(&misses.look_ups.take()), [] as [&str; 0]);
}

#[test]
fn lease_is_made_for_the_latest_version_asked_for() {
    let misses = Misses::new().unwrap();
    let _waiting = [3, 5, 4].map(|version| misses.lease(b"aaa", version));

    assert_eq!(misses.leases.take(), [(Box::from(&b"aaa"[..]), 5)]);
}

#[test]
fn answers_are_counted_as_they_are_given() {
    let misses = Misses::new().unwrap();
    let _waiting = [misses.look_up(b"aaa"), misses.look_up(b"bbb")];
    drop(misses.look_up(b"aaa"));

    let slugs = [&b"aaa"[..], b"bbb", b"ccc"];
    let answered = misses.look_ups.answer_in_turn(slugs, &[refused(503)]);

    assert_eq!(answered, 2);
}

#[test]
fn answers_are_given_in_turn() {
    let misses = Misses::new().unwrap();
    let waiting: Vec<_> = (0..5).map(|_| misses.look_up(b"aaa")).collect();

    let answers = [refused(503), refused(429)];
    misses.look_ups.answer_in_turn([&b"aaa"[..]], &answers);

    let got: Vec<_> = waiting
        .into_iter()
        .map(|mut one| status(one.try_recv().unwrap()))
        .collect();
    assert_eq!(got, [503, 429, 503, 429, 503]);
}

#[test]
fn look_up_of_clients_that_left_is_not_awaited() {
    let misses = Misses::new().unwrap();
    let (first, second) = (misses.look_up(b"aaa"), misses.look_up(b"aaa"));
    let awaited = || misses.look_ups.awaited([&b"aaa"[..], b"bbb"]);

    assert_eq!(awaited(), [2, 0]);
    drop(first);
    assert_eq!(awaited(), [1, 0]);
    drop(second);
    assert_eq!(awaited(), [0, 0]);
    misses.look_ups.take();

    let _next = misses.look_up(b"aaa");
    assert_eq!(texts(&misses.look_ups.take()), ["aaa"], "it is asked anew");
}

#[test]
fn bell_is_silent_while_there_is_no_room() {
    let misses = Misses::new().unwrap();
    let rings = || {
        let mut bytes = [0; 8];
        (&misses.heard).read(&mut bytes).unwrap_or(0)
    };

    misses.ring_from(3);
    let _few = [misses.look_up(b"aaa"), misses.look_up(b"bbb")];
    assert_eq!(rings(), 0);
    let _third = misses.look_up(b"ccc");
    let _fourth = misses.look_up(b"ddd");
    assert_eq!(rings(), 1);
    misses.ring_from(4);
    assert_eq!(rings(), 1, "as many wait already");
    misses.ring_from(5);
    assert_eq!(rings(), 0);
}

#[test]
fn bell_rings_for_the_first_of_each_kind() {
    let misses = Misses::new().unwrap();
    let rings = || {
        let mut bytes = [0; 8];
        (&misses.heard).read(&mut bytes).unwrap_or(0)
    };

    let _waiting = [misses.look_up(b"aaa"), misses.look_up(b"bbb")];
    let _leasing = [misses.lease(b"aaa", 3), misses.lease(b"bbb", 4)];
    misses.renew(b"ccc");
    misses.renew(b"ddd");
    assert_eq!(rings(), 3);
    assert_eq!(misses.leases.take()[1], (Box::from(&b"bbb"[..]), 4));
    misses.look_ups.take();
    let _later = misses.look_up(b"eee");
    assert_eq!(rings(), 1);
    assert_eq!(misses.take_renewals().len(), 2);
    assert!(!misses.has_renewals());
}
