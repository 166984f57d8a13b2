//! The hot table: what the front may answer without asking.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use parking_lot::Mutex;

/// What the front answers for a slug, and until when.
#[derive(Debug)]
pub struct Entry {
    slug: Box<[u8]>,
    /// A redirect, 404 or 410.
    pub status: StatusCode,
    /// The target of a redirect.
    pub location: Option<HeaderValue>,
    /// Whether a query of the request is added to the target.
    pub forwards_query: bool,
    /// Until then it may be sent, seconds on the clock of the calls.
    pub free_until: f64,
    /// Redirects sent since they were last taken.
    clicks: AtomicU64,
}

impl Entry {
    /// An entry without clicks.
    pub fn new(
        slug: &[u8],
        status: StatusCode,
        location: Option<HeaderValue>,
        forwards_query: bool,
        free_until: f64,
    ) -> Self {
        Self {
            slug: slug.into(),
            status,
            location,
            forwards_query,
            free_until,
            clicks: AtomicU64::new(0),
        }
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
        (now < entry.free_until).then(|| Arc::clone(entry))
    }

    /// Holds `entry` instead of any other of its slug.
    pub fn put(&self, entry: Entry) {
        let entry = BySlug(Arc::new(entry));
        let before = self.entries.lock().replace(entry);
        // After the lock: freeing it takes as long as the rest.
        drop(before);
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

    fn entry(slug: &str, location: &'static str, free_until: f64) -> Entry {
        let location = HeaderValue::from_static(location);
        Entry::new(
            slug.as_bytes(),
            StatusCode::FOUND,
            Some(location),
            false,
            free_until,
        )
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
        table.put(entry("aaa", "https://example.com/", 10.0));

        assert!(table.get(b"aaa", 9.999).is_some());
        assert!(table.get(b"aaa", 10.0).is_none());
        assert!(table.get(b"bbb", 0.0).is_none());
    }

    #[test]
    fn later_entry_replaces_an_earlier_one() {
        let table = Table::default();
        table.put(entry("aaa", "https://example.com/1", 10.0));
        table.put(entry("aaa", "https://example.com/2", 10.0));

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
            table.put(entry(slug, "https://example.com/", 10.0));
            let found = table.get(slug.as_bytes(), 0.0).unwrap();
            table.click(&found);
            match end {
                0 => {}
                1 => table.remove(slug.as_bytes()),
                2 => table.put(entry(slug, "https://example.com/", 10.0)),
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
        table.put(entry("aaa", "https://example.com/", 10.0));
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
                table.put(entry("aaa", "https://example.com/", 10.0));
            }
        });

        taken += clicks(&table).iter().map(|(_, clicks)| clicks).sum::<u64>();
        assert_eq!(taken, 4 * CLICKS);
    }
}
