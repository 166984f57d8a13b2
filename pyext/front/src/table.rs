//! The hot table: what the front may answer without asking.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::quality::RandomState;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use parking_lot::Mutex;

/// Entries that are put under one lock: a request waits for no more.
const CHUNK: usize = 32;

/// Until when an entry is what: seconds on the clock of the calls, except for `expires_at`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// From then on a request has it looked up anew.
    pub renew_from: f64,
    /// Until then it is sent without asking.
    pub fresh_until: f64,
    /// Until then it is sent if the control plane does not answer in time.
    pub stale_until: f64,
    /// When the link expires, unix seconds; until then at most it is sent stale.
    pub expires_at: f64,
}

impl Times {
    /// Fresh until then, never renewed, never stale.
    pub const fn fresh(until: f64) -> Self {
        Self {
            renew_from: f64::INFINITY,
            fresh_until: until,
            stale_until: f64::NEG_INFINITY,
            expires_at: f64::INFINITY,
        }
    }
}

/// What becomes of the query of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// It plays no part.
    Off,
    /// It is added to the target's.
    Added,
    /// It is added, and takes the place of the target's parameters of the same names.
    Overriding,
}

/// What few links have.
#[derive(Debug, Default)]
pub struct Extras {
    /// The rules for crawlers, on each redirect of the link.
    pub robots: Option<HeaderValue>,
    /// Where its visitors go once it has no visit left.
    pub expired: Option<HeaderValue>,
    /// Of another slug of a link, the key whose visits it spends.
    pub quota: Option<Box<[u8]>>,
}

/// What the front answers for a slug.
#[derive(Debug)]
pub struct Entry {
    slug: Box<[u8]>,
    /// A redirect, 404 or 410.
    pub status: StatusCode,
    /// The target of a redirect; for another status, the page that its domain has in its place.
    pub location: Option<HeaderValue>,
    /// What a query of the request does to the target.
    pub forwarding: Forwarding,
    /// The version of a link with a limit of its visits; 0 if it has none.
    pub metered_version: u64,
    /// What the link has besides.
    pub extras: Option<Box<Extras>>,
    times: Times,
    /// Redirects sent since they were last taken.
    clicks: AtomicU64,
    /// Whether a request has had it looked up anew.
    is_renewed: AtomicBool,
}

impl Entry {
    /// An entry without clicks.
    pub fn new(
        slug: &[u8],
        status: StatusCode,
        location: Option<HeaderValue>,
        forwarding: Forwarding,
        metered_version: u64,
        times: Times,
    ) -> Self {
        Self {
            slug: slug.into(),
            status,
            location,
            forwarding,
            metered_version,
            extras: None,
            times,
            clicks: AtomicU64::new(0),
            is_renewed: AtomicBool::new(false),
        }
    }

    /// This entry, with `extras`.
    #[must_use]
    pub fn with_extras(self, extras: Extras) -> Self {
        Self {
            extras: Some(Box::new(extras)),
            ..self
        }
    }

    /// The rules for crawlers.
    pub fn robots(&self) -> Option<&HeaderValue> {
        self.extras.as_ref()?.robots.as_ref()
    }

    /// Where visitors go once no visit is left, if the link says so.
    pub fn expired(&self) -> Option<&HeaderValue> {
        self.extras.as_ref()?.expired.as_ref()
    }

    /// The key of the link whose visits it spends, if it has a limit of them.
    pub fn quota(&self) -> &[u8] {
        let extras = self.extras.as_ref();
        let other = extras.and_then(|extras| extras.quota.as_deref());
        other.unwrap_or(&self.slug)
    }

    /// Whether this request, at `now`, should have the entry looked up anew: the first one in the last part of its
    /// life.
    pub fn is_to_renew(&self, now: f64) -> bool {
        now >= self.times.renew_from
            && !self.is_renewed.load(Ordering::Relaxed)
            && !self.is_renewed.swap(true, Ordering::Relaxed)
    }

    /// Whether it may be sent at `now`, `wall` in unix seconds, if the control plane does not answer in time.
    fn is_stale(&self, now: f64, wall: f64) -> bool {
        now < self.times.stale_until && wall < self.times.expires_at
    }
}

/// An entry that is found by its slug.
#[derive(Debug)]
struct BySlug(Arc<Entry>);

impl Borrow<[u8]> for BySlug {
    fn borrow(&self) -> &[u8] {
        &self.0.slug
    }
}

impl Hash for BySlug {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.slug.hash(state);
    }
}

impl PartialEq for BySlug {
    fn eq(&self, other: &Self) -> bool {
        self.0.slug == other.0.slug
    }
}

impl Eq for BySlug {}

// An entry is hashed and compared by its slug, which never changes; its clicks do.
/// Entries by slug. The control plane writes, all threads of the front read.
///
/// It holds what the control plane's L1 cache holds and may be sent without further checks; that cache bounds
/// it and removes in the same call what it drops. A lock is held for one look-up or one change.
#[derive(Debug, Default)]
#[allow(clippy::mutable_key_type)]
pub struct Table {
    entries: Mutex<HashSet<BySlug, RandomState>>,
    /// Entries with clicks that were not taken yet. An entry that was replaced or removed stays until then.
    clicked: Mutex<Vec<Arc<Entry>>>,
}

#[allow(clippy::mutable_key_type)] // as above
impl Table {
    /// The entry of `slug`, if it may be sent at `now`.
    pub fn get(&self, slug: &[u8], now: f64) -> Option<Arc<Entry>> {
        let entries = self.entries.lock();
        let BySlug(entry) = entries.get(slug)?;
        (now < entry.times.fresh_until).then(|| Arc::clone(entry))
    }

    /// The entry of `slug`, which may be sent as the control plane says.
    pub fn held(&self, slug: &[u8]) -> Option<Arc<Entry>> {
        let entries = self.entries.lock();
        entries.get(slug).map(|BySlug(entry)| Arc::clone(entry))
    }

    /// The entry of `slug`, if it may be sent at `now` though the control plane does not answer in time.
    pub fn stale(&self, slug: &[u8], now: f64, wall: f64) -> Option<Arc<Entry>> {
        let entries = self.entries.lock();
        let BySlug(entry) = entries.get(slug)?;
        entry.is_stale(now, wall).then(|| Arc::clone(entry))
    }

    /// Holds each of `added` instead of any other entry of its slug.
    pub fn put(&self, added: &[Arc<Entry>]) {
        for some in added.chunks(CHUNK) {
            let before: Vec<_> = {
                let mut entries = self.entries.lock();
                let some = some.iter().map(|entry| BySlug(Arc::clone(entry)));
                some.map(|entry| entries.replace(entry)).collect()
            };
            // After the lock: freeing them takes as long as the rest.
            drop(before);
        }
    }

    /// Drops the entry of `slug`.
    pub fn remove(&self, slug: &[u8]) {
        let before = self.entries.lock().take(slug);
        drop(before);
    }

    /// Drops every entry.
    pub fn clear(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        drop(entries);
    }

    /// How many entries are held, expired ones included.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether no entry is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts one redirect of `entry`.
    pub fn click(&self, entry: &Arc<Entry>) {
        // The first click since the last `take_clicks` notes the entry. That takes the note before the count, so
        // a click is in the count that it takes, or finds 0 and notes the entry anew; the note's lock orders both.
        if entry.clicks.fetch_add(1, Ordering::Relaxed) == 0 {
            self.clicked.lock().push(Arc::clone(entry));
        }
    }

    /// The clicks since the last call, by slug. A slug may be there twice.
    pub fn take_clicks(&self) -> Vec<(Arc<Entry>, u64)> {
        let clicked = std::mem::take(&mut *self.clicked.lock());
        let counted = clicked.into_iter().map(|entry| {
            let clicks = entry.clicks.swap(0, Ordering::Relaxed);
            (entry, clicks)
        });
        counted.filter(|(_, clicks)| *clicks > 0).collect()
    }
}

/// The slug of an entry.
impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        &self.slug
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn entry(slug: &str, location: &'static str, fresh_until: f64) -> Entry {
        let location = HeaderValue::from_static(location);
        Entry::new(
            slug.as_bytes(),
            StatusCode::FOUND,
            Some(location),
            Forwarding::Off,
            0,
            Times::fresh(fresh_until),
        )
    }

    fn put(table: &Table, entry: Entry) {
        table.put(&[Arc::new(entry)]);
    }

    fn clicks(table: &Table) -> Vec<(String, u64)> {
        let mut taken: Vec<_> = table
            .take_clicks()
            .into_iter()
            .map(|(entry, clicks)| {
                let slug: &[u8] = (*entry).as_ref();
                (String::from_utf8(slug.to_vec()).unwrap(), clicks)
            })
            .collect();
        taken.sort();
        taken
    }

    #[test]
    fn entry_is_found_until_its_end() {
        let table = Table::default();
        put(&table, entry("aaa", "https://example.com/", 10.0));

        assert!(table.get(b"aaa", 9.999).is_some());
        assert!(table.get(b"aaa", 10.0).is_none());
        assert!(table.get(b"bbb", 0.0).is_none());
    }

    #[test]
    fn late_answer_is_a_stale_entry() {
        let table = Table::default();
        let times = Times {
            stale_until: 300.0,
            expires_at: 1_000.0,
            ..Times::fresh(10.0)
        };
        let target = HeaderValue::from_static("https://example.com/");
        let link = Entry::new(
            b"aaa",
            StatusCode::FOUND,
            Some(target),
            Forwarding::Off,
            0,
            times,
        );
        put(&table, link);
        put(&table, entry("bbb", "https://example.com/", 10.0));

        assert!(table.stale(b"aaa", 299.0, 999.0).is_some());
        assert!(table.stale(b"aaa", 300.0, 999.0).is_none());
        assert!(table.stale(b"aaa", 299.0, 1_000.0).is_none(), "expired");
        assert!(table.stale(b"bbb", 20.0, 0.0).is_none());
    }

    #[test]
    fn entry_is_renewed_once() {
        let times = Times {
            renew_from: 8.0,
            ..Times::fresh(10.0)
        };
        let entry = Entry::new(b"aaa", StatusCode::GONE, None, Forwarding::Off, 0, times);

        let renews = [7.9, 8.0, 8.1, 9.9].map(|now| entry.is_to_renew(now));

        assert_eq!(renews, [false, true, false, false]);
    }

    #[test]
    fn later_entry_replaces_an_earlier_one() {
        let table = Table::default();
        put(&table, entry("aaa", "https://example.com/1", 10.0));
        put(&table, entry("aaa", "https://example.com/2", 10.0));

        let found = table.get(b"aaa", 0.0).unwrap();
        assert_eq!(found.location.as_ref().unwrap(), "https://example.com/2");
        assert_eq!(table.len(), 1);
        table.remove(b"aaa");
        assert!(table.get(b"aaa", 0.0).is_none());
    }

    #[test]
    fn clicks_outlive_their_entry() {
        let table = Table::default();
        for (slug, end) in [("aaa", 0), ("bbb", 1), ("ccc", 2), ("ddd", 3)] {
            put(&table, entry(slug, "https://example.com/", 10.0));
            let found = table.get(slug.as_bytes(), 0.0).unwrap();
            table.click(&found);
            match end {
                0 => {}
                1 => table.remove(slug.as_bytes()),
                2 => put(&table, entry(slug, "https://example.com/", 10.0)),
                _ => table.clear(),
            }
        }

        let once = ["aaa", "bbb", "ccc", "ddd"].map(|slug| (slug.to_owned(), 1));
        assert_eq!(clicks(&table), once);
        assert_eq!(clicks(&table), []);
    }

    #[test]
    fn no_click_is_lost_between_threads() {
        const CLICKS: u64 = 20_000;
        let table = Table::default();
        put(&table, entry("aaa", "https://example.com/", 10.0));
        let mut taken = 0;

        thread::scope(|scope| {
            let clicking: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..CLICKS {
                            let found = table.get(b"aaa", 0.0).unwrap();
                            table.click(&found);
                        }
                    })
                })
                .collect();
            while !clicking.iter().all(thread::ScopedJoinHandle::is_finished) {
                taken += clicks(&table).iter().map(|(_, clicks)| clicks).sum::<u64>();
                put(&table, entry("aaa", "https://example.com/", 10.0));
            }
        });

        taken += clicks(&table).iter().map(|(_, clicks)| clicks).sum::<u64>();
        assert_eq!(taken, 4 * CLICKS);
    }
}
