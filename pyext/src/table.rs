//! An open-addressed hash table from fingerprints to states.
//!
//! Not from a library for one reason: an incremental sweep over the slots, so that idle keys are evicted as
//! new ones arrive and no call pays for a full sweep.

/// Slots of a table that holds anything.
const MIN_SLOTS: usize = 8;

/// Linear probing at a load of at most 3/4, deletion by shifting back (Knuth, TAOCP 3, 6.4, algorithm R).
#[derive(Debug)]
pub(crate) struct Table<S> {
    /// One per slot; 0 is an empty slot.
    fingerprints: Box<[u64]>,
    /// `stride` per slot.
    states: Box<[S]>,
    /// States per key: one per rate.
    stride: usize,
    /// Occupied slots.
    len: usize,
    /// Most occupied slots.
    max_len: usize,
    /// Slot that the sweep examines next.
    sweep_at: usize,
}

impl<S: Default + Clone> Table<S> {
    pub(crate) fn new(stride: usize, max_len: usize) -> Self {
        Self {
            fingerprints: Box::default(),
            states: Box::default(),
            stride,
            len: 0,
            max_len,
            sweep_at: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.max_len
    }

    pub(crate) fn states_mut(&mut self, slot: usize) -> &mut [S] {
        &mut self.states[slot * self.stride..][..self.stride]
    }

    /// The preferred slot of a fingerprint: its order among all fingerprints, scaled to the table.
    /// The six highest bits have already chosen the shard.
    #[inline]
    fn home(&self, fingerprint: u64) -> usize {
        let scaled = (u128::from(fingerprint << 6) * self.fingerprints.len() as u128) >> 64;
        usize::try_from(scaled).expect("below the number of slots")
    }

    fn next(&self, slot: usize) -> usize {
        if slot + 1 == self.fingerprints.len() {
            0
        } else {
            slot + 1
        }
    }

    /// The number of steps from `home` to `slot`.
    fn distance(&self, home: usize, slot: usize) -> usize {
        if slot >= home {
            slot - home
        } else {
            slot + self.fingerprints.len() - home
        }
    }

    #[inline]
    pub(crate) fn find(&self, fingerprint: u64) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let mut slot = self.home(fingerprint);
        loop {
            match self.fingerprints[slot] {
                0 => return None,
                found if found == fingerprint => return Some(slot),
                _ => slot = self.next(slot),
            }
        }
    }

    /// Adds a fingerprint that is not in the table; there must be room. Takes the states, returns the slot.
    pub(crate) fn insert(&mut self, fingerprint: u64, states: &mut [S]) -> usize {
        debug_assert!(!self.is_full() && self.find(fingerprint).is_none());
        if (self.len + 1) * 4 > self.fingerprints.len() * 3 {
            self.grow();
        }
        let slot = self.place(fingerprint);
        self.states_mut(slot).swap_with_slice(states);
        self.len += 1;
        slot
    }

    fn place(&mut self, fingerprint: u64) -> usize {
        let mut slot = self.home(fingerprint);
        while self.fingerprints[slot] != 0 {
            slot = self.next(slot);
        }
        self.fingerprints[slot] = fingerprint;
        slot
    }

    fn grow(&mut self) {
        // The last step goes to exactly what `max_len` keys need, not to the next doubling.
        let slots = (self.fingerprints.len() * 2)
            .max(MIN_SLOTS)
            .min(self.max_len + self.max_len / 3 + 2);
        let old_fingerprints =
            std::mem::replace(&mut self.fingerprints, vec![0; slots].into_boxed_slice());
        let fresh = vec![S::default(); slots * self.stride].into_boxed_slice();
        let mut old_states = std::mem::replace(&mut self.states, fresh);
        for (old_slot, fingerprint) in old_fingerprints.iter().enumerate() {
            if *fingerprint != 0 {
                let slot = self.place(*fingerprint);
                let from = &mut old_states[old_slot * self.stride..][..self.stride];
                self.states_mut(slot).swap_with_slice(from);
            }
        }
        self.sweep_at = 0;
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        let mut gap = slot;
        let mut candidate = self.next(gap);
        while self.fingerprints[candidate] != 0 {
            let home = self.home(self.fingerprints[candidate]);
            // A key may fill the gap unless that puts it before its own home.
            if self.distance(home, candidate) >= self.distance(gap, candidate) {
                self.fingerprints.swap(gap, candidate);
                for part in 0..self.stride {
                    self.states
                        .swap(gap * self.stride + part, candidate * self.stride + part);
                }
                gap = candidate;
            }
            candidate = self.next(candidate);
        }
        self.fingerprints[gap] = 0;
        self.states_mut(gap).fill(S::default());
        self.len -= 1;
    }

    /// Examines the next `steps` slots and removes the keys that are `idle`; returns their number.
    pub(crate) fn sweep(&mut self, steps: usize, idle: impl Fn(&[S]) -> bool) -> usize {
        let before = self.len;
        for _ in 0..steps.min(self.fingerprints.len()) {
            let slot = self.sweep_at;
            if self.fingerprints[slot] != 0 && idle(self.states_mut(slot)) {
                // Another key may move into this slot, so the sweep stays.
                self.remove(slot);
            } else {
                self.sweep_at = self.next(slot);
            }
        }
        before - self.len
    }

    /// Replaces every key's states; their number may change.
    pub(crate) fn convert(&mut self, stride: usize, convert: impl Fn(&mut [S], &mut [S])) {
        let mut fresh = vec![S::default(); self.fingerprints.len() * stride].into_boxed_slice();
        for (slot, fingerprint) in self.fingerprints.iter().enumerate() {
            if *fingerprint != 0 {
                let old = &mut self.states[slot * self.stride..][..self.stride];
                convert(old, &mut fresh[slot * stride..][..stride]);
            }
        }
        self.states = fresh;
        self.stride = stride;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The table agrees with a hash map under any sequence of insertions, removals and sweeps.
        #[test]
        fn agrees_with_a_hash_map(ops in prop::collection::vec((0_u8..4, 1_u64..60), 1..400), stride in 1_usize..3) {
            let mut table = Table::new(stride, 40);
            let mut model: HashMap<u64, u64> = HashMap::new();
            for (op, n) in ops {
                // Clustered homes, also at the end of the table, so that runs wrap around.
                let fingerprint = (n % 7 + 57) << 52 | n;
                match op {
                    0 | 1 if !model.contains_key(&fingerprint) && !table.is_full() => {
                        table.insert(fingerprint, &mut vec![n; stride]);
                        model.insert(fingerprint, n);
                    }
                    2 => {
                        if let Some(slot) = table.find(fingerprint) {
                            table.remove(slot);
                        }
                        model.remove(&fingerprint);
                    }
                    3 => {
                        table.sweep(5, |states| states[0] % 3 == 0);
                        let kept = |f: &u64, table: &Table<u64>| table.find(*f).is_some();
                        model.retain(|f, n| kept(f, &table) || *n % 3 != 0);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
                for (f, n) in &model {
                    let slot = table.find(*f).expect("every key of the model is found");
                    prop_assert_eq!(table.states_mut(slot), &vec![*n; stride][..]);
                }
            }
            while table.sweep(64, |_| true) > 0 {}
            prop_assert_eq!(table.len(), 0);
        }
    }
}
