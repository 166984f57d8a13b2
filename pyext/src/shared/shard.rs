//! The keys of one lock: found, made, and forgotten when they have nothing to lose.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::entry::{Entry, Ledger};
use super::terms::Terms;
use crate::limiter::{Key, OnFull, Stats};

/// Entries looked at for forgettable ones whenever a key is new.
const SWEEP_STEPS: usize = 4;
/// The same when there is no room.
const FULL_SWEEP_STEPS: usize = 64;
/// Spreads fingerprints, which are hashes already, over a table.
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
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

pub(super) type Entries = HashMap<u64, Entry, BuildHasherDefault<Spread>>;

#[derive(Debug)]
pub(super) struct Shard {
    /// Its place among the shards.
    pub(super) index: usize,
    pub(super) entries: Entries,
    pub(super) terms: Arc<Terms>,
    pub(super) stats: Stats,
    /// Keys in the order in which they are looked at for forgetting.
    pub(super) hands: VecDeque<u64>,
    /// Of keys that have been forgotten.
    pub(super) ledger: Ledger,
    pub(super) room: usize,
    pub(super) on_full: OnFull,
}

impl Shard {
    /// The fingerprint under which the key is kept. None if there is no room, and the policy is to refuse.
    pub(super) fn place(&mut self, fingerprint: u64, key: Key<'_>, now: u64) -> Option<u64> {
        if self.entries.contains_key(&fingerprint) {
            return Some(fingerprint);
        }
        self.sweep(now);
        if self.entries.len() < self.room {
            self.insert(fingerprint, redis_key(key), now);
            return Some(fingerprint);
        }
        if self.on_full == OnFull::Deny {
            return None;
        }
        self.stats.overflowed += 1;
        let overflow = self.overflow();
        if !self.entries.contains_key(&overflow) {
            // A key in Redis for each shard: under one they would overwrite each other's lease.
            let key = format!("\0overflow{}", self.index).into_bytes();
            self.insert(overflow, key.into(), now);
        }
        Some(overflow)
    }

    /// The fingerprint of what all keys share which found no room here. It leads back to this shard, as that of
    /// any key does. That a key has the same is no likelier than for two keys, and no worse.
    pub(super) fn overflow(&self) -> u64 {
        (self.index as u64) << 32
    }

    fn insert(&mut self, fingerprint: u64, key: Box<[u8]>, now: u64) {
        self.entries.insert(fingerprint, Entry::new(key, now));
        self.hands.push_back(fingerprint);
    }

    /// Drops keys that have nothing to lose. Looks at more than one for each newcomer, so it keeps up.
    fn sweep(&mut self, now: u64) {
        let steps = if self.entries.len() < self.room {
            SWEEP_STEPS
        } else {
            FULL_SWEEP_STEPS
        };
        for _ in 0..steps.min(self.hands.len()) {
            let Some(fingerprint) = self.hands.pop_front() else {
                return;
            };
            let forgettable = self
                .entries
                .get(&fingerprint)
                .is_some_and(|entry| entry.is_forgettable(now));
            if forgettable && let Some(entry) = self.entries.remove(&fingerprint) {
                self.ledger.add(&entry.ledger(now));
                self.stats.evicted_idle += 1;
            } else {
                self.hands.push_back(fingerprint);
            }
        }
    }
}

/// What follows the prefix in Redis. Keys of different kinds stay different; text stays readable.
fn redis_key(key: Key<'_>) -> Box<[u8]> {
    match key {
        // What begins with NUL is another kind's, or the limiter's own.
        Key::Text(bytes @ [0, ..]) => [b"\0t", bytes].concat().into(),
        Key::Text(bytes) => bytes.into(),
        Key::Bytes(bytes) => [b"\0b", bytes].concat().into(),
        Key::Int(number) => format!("\0i{number}").into_bytes().into(),
        Key::BigInt(bytes) => [b"\0I", bytes].concat().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_one_in_redis() {
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
        keys.extend([Key::Int(7), Key::BigInt(b"7")].map(redis_key));
        keys.extend([&b"\0nodes"[..], b"\0overflow0"].map(Into::into));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert_eq!(&*redis_key(Key::Text(b"alice")), b"alice");
    }
}
