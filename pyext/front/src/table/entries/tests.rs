use hyper::StatusCode;
use hyper::header::HeaderValue;

use super::*;
use crate::table::{Extras, Link, Times};

const UNTIL: f64 = 300.0;

fn bounded(entries: usize, absent: usize, long: usize, min_versions: usize) -> Entries {
    let bounds = Bounds {
        entries,
        absent,
        long,
        min_versions,
    };
    Entries::new(bounds, None)
}

fn roomy() -> Entries {
    bounded(100, 100, 100, 100)
}

fn entry(slug: &str, version: u64, epoch: i64, marks: u8) -> Arc<Entry> {
    let link = Link {
        version,
        epoch,
        redirect_code: 302,
        marks: Marks(marks),
    };
    let target = HeaderValue::from_static("https://example.com/");
    let answer = if version == 0 {
        (StatusCode::NOT_FOUND, None)
    } else {
        (StatusCode::FOUND, Some(target))
    };
    let times = Times::fresh(2.0);
    let extras = None::<Extras>;
    Arc::new(Entry::new(slug.as_bytes(), link, answer, extras, times))
}

fn offer(entries: &mut Entries, entry: Arc<Entry>, now: f64) -> bool {
    entries.offer(&Offer::Entry(entry), now, now + UNTIL, &mut Gone::new())
}

fn link(entries: &mut Entries, slug: &str, version: u64) -> bool {
    offer(entries, entry(slug, version, 0, 0), 0.0)
}

fn change(entries: &mut Entries, slug: &str, version: u64, now: f64) -> bool {
    entries.change(slug.as_bytes(), version, now + UNTIL, &mut Gone::new())
}

/// Slugs and versions, the oldest first.
fn held(entries: &mut Entries) -> Vec<(String, u64)> {
    let places = entries.held.places(&mut entries.nodes).into_iter();
    let named = places.map(|at| {
        let entry = entries.nodes[at as usize].held().unwrap();
        let slug = String::from_utf8_lossy((**entry).as_ref()).into_owned();
        (slug, entry.link().version)
    });
    named.collect()
}

fn slugs(entries: &mut Entries) -> Vec<String> {
    held(entries).into_iter().map(|(slug, _)| slug).collect()
}

#[test]
fn oldest_entry_is_evicted_and_leaves_its_minimum_version() {
    let mut entries = bounded(2, 2, 2, 100);
    for slug in ["aaa", "bbb", "aaa", "ccc"] {
        assert!(link(&mut entries, slug, 5));
    }

    assert_eq!(slugs(&mut entries), ["aaa", "ccc"]);
    assert!(!link(&mut entries, "bbb", 4));
    assert!(link(&mut entries, "bbb", 5));
    assert_eq!(slugs(&mut entries), ["ccc", "bbb"]);
}

#[test]
fn few_are_evicted_by_their_own_kind() {
    let mut entries = bounded(100, 2, 2, 100);
    for slug in ["link", "l1", "l2", "l3"] {
        let marks = if slug == "link" { 0 } else { Marks::LONG };
        assert!(offer(&mut entries, entry(slug, 1, 0, marks), 0.0));
    }
    for slug in ["a1", "a2", "a3"] {
        assert!(link(&mut entries, slug, 0));
    }
    assert_eq!(slugs(&mut entries), ["link", "l2", "l3", "a2", "a3"]);

    // One of each becomes another kind, and makes room.
    assert!(link(&mut entries, "l2", 2));
    assert!(link(&mut entries, "a2", 1));
    assert!(offer(&mut entries, entry("l4", 1, 0, Marks::LONG), 0.0));
    assert!(link(&mut entries, "a4", 0));

    let all = ["link", "l3", "a3", "l2", "a2", "l4", "a4"];
    assert_eq!(slugs(&mut entries), all);
}

#[test]
fn older_version_is_refused_until_its_time() {
    let mut entries = roomy();
    assert!(link(&mut entries, "aaa", 3));
    assert!(change(&mut entries, "bbb", 3, 0.0));

    for slug in ["aaa", "bbb"] {
        assert!(!offer(&mut entries, entry(slug, 2, 0, 0), 299.9));
        assert!(offer(&mut entries, entry(slug, 2, 0, 0), 300.0));
    }
    assert_eq!(held(&mut entries), [("aaa".into(), 2), ("bbb".into(), 2)]);
    assert!(!offer(&mut entries, entry("aaa", 1, 0, 0), 300.0));
}

#[test]
fn change_drops_an_older_entry_and_is_new_once() {
    let mut entries = roomy();
    assert!(link(&mut entries, "aaa", 3));

    assert!(!change(&mut entries, "aaa", 3, 100.0));
    assert!(!entries.accepts(b"aaa", 2, 0, 399.0), "longer than read");
    assert!(change(&mut entries, "aaa", 4, 0.0));
    assert!(!change(&mut entries, "aaa", 4, 0.0));

    assert_eq!(entries.len(), 0);
    assert!(!link(&mut entries, "aaa", 3));
    assert!(link(&mut entries, "aaa", 4));
}

#[test]
fn created_slug_is_absent_no_more() {
    let mut entries = roomy();
    assert!(link(&mut entries, "aaa", 0));

    assert!(change(&mut entries, "aaa", 1, 0.0));

    assert_eq!(entries.len(), 0);
    assert!(!link(&mut entries, "aaa", 0));
}

#[test]
fn link_that_cannot_be_sent_leaves_its_minimum_version() {
    let mut entries = roomy();
    assert!(link(&mut entries, "aaa", 1));
    let unsendable = |version| Offer::Unsendable {
        slug: b"aaa".as_slice().into(),
        version,
        epoch: 0,
    };

    assert!(entries.offer(&unsendable(2), 0.0, UNTIL, &mut Gone::new()));
    assert!(!entries.offer(&unsendable(1), 0.0, UNTIL, &mut Gone::new()));

    assert_eq!(entries.len(), 0);
    assert!(!link(&mut entries, "aaa", 1));
}

#[test]
fn minimum_versions_are_bounded() {
    let mut entries = bounded(100, 100, 100, 2);
    for slug in ["aaa", "bbb", "aaa", "ccc"] {
        change(&mut entries, slug, 9, 0.0);
    }

    let accepted = ["aaa", "bbb", "ccc"].map(|slug| link(&mut entries, slug, 1));

    assert_eq!(accepted, [false, true, false]);
}

#[test]
fn gap_leaves_minimum_versions_and_an_epoch_does_not() {
    let mut entries = roomy();
    for (slug, version) in [("aaa", 2), ("bbb", 0)] {
        assert!(link(&mut entries, slug, version));
    }
    while entries.remove_oldest(&mut Gone::new()) {}
    assert_eq!(entries.len(), 0);
    assert!(!link(&mut entries, "aaa", 1));

    let mut entries = Entries::new(entries.bounds, Some(7));
    assert!(!link(&mut entries, "aaa", 1), "of another epoch");
    assert!(link(&mut entries, "bbb", 0), "absent slugs have none");
    assert!(offer(&mut entries, entry("aaa", 1, 7, 0), 0.0));
}

#[test]
fn renewed_entry_is_the_newest_if_it_was_read() {
    let mut entries = roomy();
    for slug in ["aaa", "bbb", "ccc"] {
        link(&mut entries, slug, 1);
    }
    let mut gone = Gone::new();

    assert!(entries.renew(&entry("aaa", 1, 0, 0), false, &mut gone));
    assert_eq!(slugs(&mut entries), ["aaa", "bbb", "ccc"]);
    assert!(entries.renew(&entry("aaa", 1, 0, 0), true, &mut gone));
    assert_eq!(slugs(&mut entries), ["bbb", "ccc", "aaa"]);
    assert!(!entries.renew(&entry("ddd", 1, 0, 0), true, &mut gone));
    assert_eq!(gone.len(), 2);
}

#[test]
fn node_is_small() {
    assert!(size_of::<Node>() <= 40, "{}", size_of::<Node>());
}

#[test]
fn places_are_used_again() {
    let mut entries = bounded(4, 4, 4, 4);
    for number in 0..1_000 {
        link(&mut entries, &format!("slug{number}"), number % 2);
    }

    assert_eq!(entries.len(), 4);
    assert!(entries.nodes.len() <= 10, "{}", entries.nodes.len());
    assert_eq!(
        entries.index.len() + entries.free.len(),
        entries.nodes.len()
    );
}
