//! The keys under one lock: found, added, and evicted when nothing is lost by it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Write as _;
use std::sync::Arc;

use super::entry::{Entry, LONGEST_KEY};
use super::ledger::Ledger;
use super::terms::Terms;
use crate::config::OnFull;
use crate::key::Key;
use crate::stats::Stats;

/// Entries examined for eviction whenever a key is new.
const SWEEP_STEPS: usize = 4;
/// The same when there is no room.
const FULL_SWEEP_STEPS: usize = 64;

/// Spreads fingerprints, which are hashes already, over a table.
#[derive(Debug, Default)]
pub(super) struct FingerprintHasher(u64);

impl Hasher for FingerprintHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("fingerprints are numbers");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        // The highest bits are the same for all keys of a shard.
        self.0 = fingerprint.rotate_left(32);
    }
}

pub(super) type Entries = HashMap<u64, Entry, BuildHasherDefault<FingerprintHasher>>;

#[derive(Debug)]
pub(super) struct EntryShard {
    /// Its place among the shards.
    pub(super) index: usize,
    pub(super) entries: Entries,
    pub(super) terms: Arc<Terms>,
    pub(super) stats: Stats,
    /// Keys in the order in which the sweep examines them.
    pub(super) sweep_order: VecDeque<u64>,
    /// Of evicted keys.
    pub(super) ledger: Ledger,
    /// Most keys.
    pub(super) room: usize,
    pub(super) on_full: OnFull,
}

impl EntryShard {
    /// The fingerprint under which the key is kept. None if there is no room, and `on_full` refuses.
    pub(super) fn place(&mut self, fingerprint: u64, key: Key<'_>, now: u64) -> Option<u64> {
        if self.entries.contains_key(&fingerprint) {
            return Some(fingerprint);
        }
        self.sweep(now);
        if self.entries.len() < self.room {
            self.insert(fingerprint, shortened(redis_key(key)), now);
            return Some(fingerprint);
        }
        match self.on_full {
            OnFull::Deny => None,
            OnFull::SharedBucket | OnFull::EvictIdle => Some(self.place_in_overflow(now)),
        }
    }

    /// As [`EntryShard::place`], for a call under these terms, or those of the limiter. Keys without room count
    /// by the rates of the limiter. Returns the terms that count.
    pub(super) fn place_under(
        &mut self,
        own: Option<Arc<Terms>>,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
    ) -> Option<(u64, Arc<Terms>)> {
        let placed = self.place(fingerprint, key, now)?;
        let own = own.filter(|_| placed == fingerprint);
        let entry = self.entries.get_mut(&placed).expect("just placed");
        let is_same = match (entry.own_terms(), &own) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            entry.use_terms(own);
        }
        Some((placed, entry.terms(&self.terms)))
    }

    fn place_in_overflow(&mut self, now: u64) -> u64 {
        self.stats.overflowed += 1;
        let overflow = self.overflow();
        if !self.entries.contains_key(&overflow) {
            // A key in Redis for each shard: under one they would overwrite each other's lease.
            let key = format!("\0overflow{}", self.index).into_bytes();
            self.insert(overflow, key.into(), now);
        }
        overflow
    }

    /// The fingerprint of the bucket that keys without room share. Like that of any key, it maps to this
    /// shard. A key with the same fingerprint is as unlikely as two keys with one, and no worse.
    pub(super) fn overflow(&self) -> u64 {
        (self.index as u64) << 32
    }

    fn insert(&mut self, fingerprint: u64, key: Box<[u8]>, now: u64) {
        self.entries.insert(fingerprint, Entry::new(key, now));
        self.sweep_order.push_back(fingerprint);
    }

    /// Evicts keys that lose nothing. Examines several for each new key, so it keeps up.
    fn sweep(&mut self, now: u64) {
        let steps = if self.entries.len() < self.room {
            SWEEP_STEPS
        } else {
            FULL_SWEEP_STEPS
        };
        for _ in 0..steps.min(self.sweep_order.len()) {
            let Some(fingerprint) = self.sweep_order.pop_front() else {
                return;
            };
            let is_evictable = self
                .entries
                .get(&fingerprint)
                .is_some_and(|entry| entry.is_evictable(now));
            if is_evictable && let Some(entry) = self.entries.remove(&fingerprint) {
                self.ledger.add(&entry.ledger(now));
                self.stats.evicted_idle += 1;
            } else {
                self.sweep_order.push_back(fingerprint);
            }
        }
    }
}

/// The key in Redis, without the prefix. Keys of different kinds stay different; text stays readable.
fn redis_key(key: Key<'_>) -> Box<[u8]> {
    match key {
        // A leading NUL marks the other kinds, and the limiter's own keys.
        Key::Text(bytes @ [0, ..]) => [b"\0t", bytes].concat().into(),
        Key::Text(bytes) => bytes.into(),
        Key::Bytes(bytes) => [b"\0b", bytes].concat().into(),
        Key::Int(number) => format!("\0i{number}").into_bytes().into(),
        Key::BigInt(bytes) => [b"\0I", bytes].concat().into(),
        Key::Compound(bytes) => [b"\0c", bytes].concat().into(),
    }
}

/// A long key, which may come from a client's header, becomes its SHA-256: it costs neither this process nor Redis
/// more than this.
fn shortened(key: Box<[u8]>) -> Box<[u8]> {
    if key.len() <= LONGEST_KEY {
        return key;
    }
    let mut short = b"\0h".to_vec();
    for byte in ring::digest::digest(&ring::digest::SHA256, &key).as_ref() {
        write!(short, "{byte:02x}").expect("a Vec takes everything");
    }
    short.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_hashed() {
        let longest = vec![b'a'; LONGEST_KEY].into_boxed_slice();
        assert_eq!(shortened(longest.clone()), longest);
        let text = [b'a'; LONGEST_KEY + 1];
        let short = shortened(redis_key(Key::Text(&text)));
        assert_eq!(short.len(), 2 + 64);
        assert_eq!(&short[..10], b"\0he8d95cc2");
        assert_ne!(short, shortened(redis_key(Key::Bytes(&text))));
        // The text that looks like it is another key.
        assert_ne!(short, redis_key(Key::Text(&short)));
    }

    #[test]
    fn redis_keys_are_distinct() {
        let texts: [&[u8]; 9] = [
            b"",
            b"\0",
            b"\0\0",
            b"7",
            b"\0i7",
            b"\0b7",
            b"\0t\0i7",
            b"\0nodes",
            b"\0overflow0",
        ];
        let mut keys: Vec<_> = texts.map(Key::Text).map(redis_key).into();
        keys.extend(texts.map(Key::Bytes).map(redis_key));
        keys.extend(texts.map(Key::Compound).map(redis_key));
        keys.extend([Key::Int(7), Key::BigInt(b"7")].map(redis_key));
        keys.extend([&b"\0nodes"[..], b"\0overflow0"].map(Into::into));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert_eq!(&*redis_key(Key::Text(b"alice")), b"alice");
    }
}
