//! The hot table: the L1 cache of the process. What it holds may be answered without asking.

mod entries;
mod entry;
mod order;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

pub use self::entries::{Bounds, Offer};
use self::entries::{Entries, Gone};
pub use self::entry::{Entry, Extras, Forwarding, Link, Marks, Times};

/// Entries that are put or removed under one lock: a request waits for no more.
const CHUNK: usize = 32;

/// Entries by slug. The control plane writes, from one thread; all threads of the front read.
///
/// A lock is held for one look-up, or for `CHUNK` changes.
#[derive(Debug)]
pub struct Table {
    bounds: Bounds,
    entries: Mutex<Entries>,
    /// Entries with clicks that were not taken yet. An entry that was replaced or removed stays until then.
    clicked: Mutex<Vec<Arc<Entry>>>,
}

impl Table {
    /// A table that holds nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: Mutex::new(Entries::new(bounds, None)),
            clicked: Mutex::default(),
        }
    }

    /// The entry of `slug`, if it may be sent at `now`.
    pub fn get(&self, slug: &[u8], now: f64) -> Option<Arc<Entry>> {
        let entries = self.entries.lock();
        let entry = entries.get(slug)?;
        entry.is_fresh(now).then(|| Arc::clone(entry))
    }

    /// The entry of `slug`, which may be sent as the control plane says.
    pub fn held(&self, slug: &[u8]) -> Option<Arc<Entry>> {
        self.entries.lock().get(slug).map(Arc::clone)
    }

    /// The entry of `slug`, if it may be sent at `now` though the control plane does not answer in time.
    pub fn stale(&self, slug: &[u8], now: f64, wall: f64) -> Option<Arc<Entry>> {
        let entries = self.entries.lock();
        let entry = entries.get(slug)?;
        entry.is_stale(now, wall).then(|| Arc::clone(entry))
    }

    /// Whether a link would be held, if it were offered at `now`.
    pub fn accepts(&self, slug: &[u8], version: u64, epoch: i64, now: f64) -> bool {
        self.entries.lock().accepts(slug, version, epoch, now)
    }

    /// Holds each of `offers` instead of any other entry of its slug, unless it is known to be old: of another epoch, or
    /// below its minimum version. Until `until`, older ones are refused. Returns which were accepted.
    pub fn offer(&self, offers: &[Offer], now: f64, until: f64) -> Vec<bool> {
        self.change_each(offers, |entries, offer, gone| {
            entries.offer(offer, now, until, gone)
        })
    }

    /// Holds each of `renewed` instead of the entry of its slug, as the newest if they are `read`: their links are the
    /// same, and what is answered is not. Returns which were held.
    pub fn renew(&self, renewed: &[Arc<Entry>], are_read: bool) -> Vec<bool> {
        self.change_each(renewed, |entries, entry, gone| {
            entries.renew(entry, are_read, gone)
        })
    }

    /// Drops the entries of links that have changed to a later version, and refuses older ones until `until`. Returns
    /// which of `changes` are new.
    pub fn change<S: AsRef<[u8]>>(&self, changes: &[(S, u64)], until: f64) -> Vec<bool> {
        self.change_each(changes, |entries, (slug, version), gone| {
            entries.change(slug.as_ref(), *version, until, gone)
        })
    }

    /// Drops the entry of `slug`; its minimum version stays.
    pub fn remove(&self, slug: &[u8]) {
        let mut gone = Gone::new();
        self.entries.lock().remove(slug, &mut gone);
    }

    /// Drops every entry; the minimum versions stay.
    pub fn clear(&self) {
        let mut is_empty = false;
        while !is_empty {
            let mut gone = Gone::new();
            let mut entries = self.entries.lock();
            is_empty = !(0..CHUNK).all(|_| entries.remove_oldest(&mut gone));
            drop(entries);
        }
    }

    /// Drops every entry and every minimum version: the links have the history `epoch`.
    pub fn begin_epoch(&self, epoch: i64) {
        let begun = Entries::new(self.bounds, Some(epoch));
        let before = std::mem::replace(&mut *self.entries.lock(), begun);
        drop(before);
    }

    /// All entries.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        let mut all = Vec::with_capacity(self.len());
        let starts = (0..).step_by(CHUNK);
        for start in starts {
            let entries = self.entries.lock();
            let Some(part) = entries.part(start, CHUNK) else {
                break;
            };
            all.extend(part.map(Arc::clone));
        }
        all
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

    /// Holds `added`, whatever is known about their slugs.
    #[cfg(test)]
    pub(crate) fn put(&self, added: &[Arc<Entry>]) {
        let offers: Vec<_> = added.iter().cloned().map(Offer::Entry).collect();
        self.offer(&offers, f64::INFINITY, f64::NEG_INFINITY);
    }

    fn change_each<T>(
        &self,
        all: &[T],
        change: impl Fn(&mut Entries, &T, &mut Gone) -> bool,
    ) -> Vec<bool> {
        let mut outcomes = Vec::with_capacity(all.len());
        for some in all.chunks(CHUNK) {
            let mut gone = Gone::new();
            let mut entries = self.entries.lock();
            outcomes.extend(some.iter().map(|one| change(&mut entries, one, &mut gone)));
            drop(entries);
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use hyper::StatusCode;
    use hyper::header::HeaderValue;

    use super::*;

    fn entry(slug: &str, location: &'static str, fresh_until: f64) -> Entry {
        let location = HeaderValue::from_static(location);
        Entry::answering(
            slug.as_bytes(),
            StatusCode::FOUND,
            Some(location),
            Forwarding::Off,
            0,
            Times::fresh(fresh_until),
        )
    }

    fn roomy() -> Table {
        Table::new(Bounds {
            entries: 1_000,
            absent: 1_000,
            long: 1_000,
            min_versions: 1_000,
        })
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
        let table = roomy();
        put(&table, entry("aaa", "https://example.com/", 10.0));

        assert!(table.get(b"aaa", 9.999).is_some());
        assert!(table.get(b"aaa", 10.0).is_none());
        assert!(table.get(b"bbb", 0.0).is_none());
    }

    #[test]
    fn later_entry_replaces_an_earlier_one() {
        let table = roomy();
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
        let table = roomy();
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
        let table = roomy();
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
