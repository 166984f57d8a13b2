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
    let misses = Arc::new(Misses::new().unwrap());
    let mut first = misses.look_up(b"aaa", false);
    let mut second = misses.look_up(b"aaa", false);
    let mut other = misses.look_up(b"bbb", false);

    assert_eq!(texts(&misses.look_ups.take()), ["aaa", "bbb"]);
    let mut late = misses.look_up(b"aaa", false);
    assert_eq!(texts(&misses.look_ups.take()), [] as [&str; 0]);
    assert!(misses.look_ups.is_pending(b"aaa"));
    misses.look_ups.answer([(&b"aaa"[..], refused(503))]);

    for receiver in [&mut first, &mut second, &mut late] {
        assert_eq!(status(receiver.ended.try_recv().unwrap()), 503);
    }
    assert!(other.ended.try_recv().is_err());
    assert!(!misses.look_ups.is_pending(b"aaa"));
}

#[test]
fn slug_that_was_answered_before_it_was_taken_is_taken_once() {
    let misses = Arc::new(Misses::new().unwrap());
    let _first = misses.look_up(b"aaa", false);
    let _gone = misses.look_up(b"bbb", false);
    let both = [(&b"aaa"[..], refused(503)), (b"bbb", refused(503))];
    misses.look_ups.answer(both);

    let _second = misses.look_up(b"aaa", false);

    assert_eq!(texts(&misses.look_ups.take()), ["aaa"]);
    assert_eq!(texts(&misses.look_ups.take()), [] as [&str; 0]);
}

#[test]
fn lease_is_made_for_the_latest_version_asked_for() {
    let misses = Arc::new(Misses::new().unwrap());
    let _waiting = [3, 5, 4].map(|version| misses.lease(b"aaa", version));

    assert_eq!(misses.leases.take(), [(Box::from(&b"aaa"[..]), 5)]);
}

#[test]
fn answers_are_counted_as_they_are_given() {
    let misses = Arc::new(Misses::new().unwrap());
    let _waiting = [misses.look_up(b"aaa", false), misses.look_up(b"bbb", false)];
    drop(misses.look_up(b"aaa", false));

    let slugs = [&b"aaa"[..], b"bbb", b"ccc"];
    let answered = misses.look_ups.answer_in_turn(slugs, &[refused(503)]);

    assert_eq!(answered, 2);
}

#[test]
fn answers_are_given_in_turn() {
    let misses = Arc::new(Misses::new().unwrap());
    let waiting: Vec<_> = (0..5).map(|_| misses.look_up(b"aaa", false)).collect();

    let answers = [refused(503), refused(429)];
    misses.look_ups.answer_in_turn([&b"aaa"[..]], &answers);

    let got: Vec<_> = waiting
        .into_iter()
        .map(|mut one| status(one.ended.try_recv().unwrap()))
        .collect();
    assert_eq!(got, [503, 429, 503, 429, 503]);
}

#[test]
fn look_up_of_clients_that_left_is_not_awaited() {
    let misses = Arc::new(Misses::new().unwrap());
    let (first, second) = (misses.look_up(b"aaa", false), misses.look_up(b"aaa", false));
    let awaited = || misses.look_ups.awaited([&b"aaa"[..], b"bbb"]);

    assert_eq!(awaited(), [2, 0]);
    drop(first);
    assert_eq!(awaited(), [1, 0]);
    drop(second);
    assert_eq!(awaited(), [0, 0]);
    misses.look_ups.take();

    let _next = misses.look_up(b"aaa", false);
    assert_eq!(texts(&misses.look_ups.take()), ["aaa"], "it is asked anew");
}

#[test]
fn bell_is_silent_while_there_is_no_room() {
    let misses = Arc::new(Misses::new().unwrap());

    misses.ring_from(3);
    let _few = [misses.look_up(b"aaa", false), misses.look_up(b"bbb", false)];
    assert_eq!(misses.rings(), 0);
    let _third = misses.look_up(b"ccc", false);
    let _fourth = misses.look_up(b"ddd", false);
    assert_eq!(misses.rings(), 1);
    misses.ring_from(4);
    assert_eq!(misses.rings(), 1, "as many wait already");
    misses.ring_from(5);
    assert_eq!(misses.rings(), 0);
}

#[test]
fn bell_rings_for_the_first_of_each_kind() {
    let misses = Arc::new(Misses::new().unwrap());

    let _waiting = [misses.look_up(b"aaa", false), misses.look_up(b"bbb", false)];
    let _leasing = [misses.lease(b"aaa", 3), misses.lease(b"bbb", 4)];
    misses.renew(b"ccc");
    misses.renew(b"ddd");
    assert_eq!(misses.rings(), 3);
    assert_eq!(misses.leases.take()[1], (Box::from(&b"bbb"[..]), 4));
    misses.look_ups.take();
    let _later = misses.look_up(b"eee", false);
    assert_eq!(misses.rings(), 1);
    assert_eq!(misses.take_renewals().len(), 2);
    assert!(!misses.has_renewals());
}

#[test]
fn slugs_gather_until_there_are_many() {
    let misses = Arc::new(Misses::new().unwrap());
    let slugs: Vec<_> = (0..=GATHERS).map(|n| format!("slug{n}")).collect();
    let mut waiting = Vec::new();
    for slug in &slugs[1..] {
        assert_eq!(misses.rings(), 0);
        waiting.push(misses.look_up(slug.as_bytes(), true));
    }
    assert_eq!(misses.rings(), 1);
    assert_eq!(misses.look_ups.take().len(), GATHERS);

    waiting.clear();
    assert_eq!(misses.rings(), 0, "all are taken");
}

#[test]
fn bell_rings_for_slugs_that_gather_when_the_first_waits_no_more() {
    let misses = Arc::new(Misses::new().unwrap());
    let first = misses.look_up(b"aaa", true);
    let _second = misses.look_up(b"bbb", true);
    let _other = misses.look_up(b"ccc", false);
    assert_eq!(misses.rings(), 0);

    drop(first); // its client has gone

    assert_eq!(misses.rings(), 1);
    assert_eq!(texts(&misses.look_ups.take()), ["aaa", "bbb", "ccc"]);
}

/// Runs `test` on a clock that jumps to whatever is waited for.
fn in_no_time(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn bell_rings_for_slugs_that_gather_after_a_while() {
    in_no_time(async {
        let misses = Arc::new(Misses::new().unwrap());
        let began = Instant::now();
        let end = began + Duration::from_millis(500);
        let first = tokio::spawn(misses.look_up(b"aaa", true).ended_by(end));
        let _second = misses.look_up(b"bbb", true);

        tokio::time::sleep(GATHERS_FOR / 2).await;
        assert_eq!(misses.rings(), 0);
        tokio::time::sleep(GATHERS_FOR).await;
        assert_eq!(misses.rings(), 1);

        misses.look_ups.answer([(&b"aaa"[..], refused(503))]);
        assert_eq!(status(first.await.unwrap().unwrap().unwrap()), 503);
        assert!(began.elapsed() < 2 * GATHERS_FOR);
    });
}

#[test]
fn look_up_that_gathers_ends_at_its_end() {
    in_no_time(async {
        let misses = Arc::new(Misses::new().unwrap());
        let began = Instant::now();
        let asked = misses.look_up(b"aaa", true);

        assert!(
            asked
                .ended_by(began + Duration::from_millis(1))
                .await
                .is_none()
        );

        assert_eq!(began.elapsed(), Duration::from_millis(1));
        assert_eq!(misses.rings(), 1, "others may have joined");
    });
}
