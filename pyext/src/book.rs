//! The slots of one key that are taken and not used yet, in order.
//!
//! While a key has such slots, its states count them all. The book has the states before the first of
//! them, so that any slot can be given up: the states are computed anew from those that are left.
//!
//! A slot is *promised* to a caller who reads its time once and comes then, or *waited for* by a caller who
//! can be woken. Only the latter move up when a slot before them is given up.

use std::collections::VecDeque;

use crate::meter::Meter;
use crate::panel::{share_states, slot, spend_all};

/// A slot that is not used this long after it has started is taken for used, ns: its caller is gone.
const GRACE_NS: u64 = 1_000_000_000;

/// One slot.
pub(crate) struct Slot<M> {
    /// Identifies it: larger for later slots.
    pub(crate) id: u64,
    /// When it starts, ns on the limiter's clock.
    pub(crate) at: u64,
    pub(crate) cost: u64,
    /// Its caller sleeps until then unless it is woken.
    pub(crate) told_at: u64,
    pub(crate) holder: Holder,
    /// What measures it, if the call had rates of its own.
    pub(crate) own: Option<Box<[M]>>,
}

impl<M> Slot<M> {
    fn meters<'a>(&'a self, limiter: &'a [M]) -> &'a [M] {
        self.own.as_deref().unwrap_or(limiter)
    }
}

/// The caller that a slot belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Comes at the promised time. The marks of the states after the slot: no later call may come before it.
    Promised(Box<[u128]>),
    /// Waits, and can be woken.
    Waiting,
    /// Has come.
    Served,
    /// Has given the slot up.
    Gone,
}

/// The slots of one key.
pub(crate) struct Book<M: Meter> {
    /// The states before all slots in the book.
    base: Box<[M::State]>,
    /// By start, and by id.
    slots: VecDeque<Slot<M>>,
    /// A slot or the base has changed since the states of the key were computed. Until then they owe too
    /// much, never too little.
    is_stale: bool,
}

impl<M: Meter> Book<M> {
    pub(crate) fn new(base: Box<[M::State]>) -> Self {
        Self {
            base,
            slots: VecDeque::new(),
            is_stale: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }

    pub(crate) fn push(&mut self, slot: Slot<M>) {
        self.slots.push_back(slot);
    }

    /// When the last slot starts that is not given up, ns; 0 without one.
    pub(crate) fn last_start(&self) -> u64 {
        let mut slots = self.slots.iter().rev();
        let last = slots.find(|slot| slot.holder != Holder::Gone);
        last.map_or(0, |slot| slot.at)
    }

    /// Slots whose own rates cannot be read beside the limiter's new ones are measured by these from now on.
    pub(crate) fn forget_unreadable(&mut self, meters: &[M]) {
        for slot in &mut self.slots {
            slot.own.take_if(|own| !share_states(own, meters));
        }
    }

    /// The states before all slots, to change: a refund, a reset, other rates.
    pub(crate) fn base_mut(&mut self) -> &mut Box<[M::State]> {
        self.is_stale = true;
        &mut self.base
    }

    pub(crate) fn find(&mut self, id: u64) -> Option<&mut Slot<M>> {
        let index = self.slots.binary_search_by_key(&id, |slot| slot.id).ok()?;
        self.slots.get_mut(index)
    }

    /// Gives a slot up that has not been used. Whether it was in the book.
    pub(crate) fn give_up(&mut self, id: u64) -> bool {
        let Some(slot) = self.find(id) else {
            return false;
        };
        slot.holder = Holder::Gone;
        self.is_stale = true;
        true
    }

    /// Moves slots that cannot be given up any more into the base.
    pub(crate) fn settle(&mut self, meters: &[M], now: u64) {
        while let Some(first) = self.slots.front() {
            let is_over = match first.holder {
                Holder::Gone | Holder::Served => true,
                Holder::Promised(_) => first.at <= now,
                Holder::Waiting => first.at.saturating_add(GRACE_NS) <= now,
            };
            if !is_over {
                break;
            }
            if let Some(first) = self.slots.pop_front() {
                count(meters, &mut self.base, &first);
            }
        }
    }

    /// Moves the first slot that is waited for up, as far as those before it allow. Returns its id if its
    /// caller sleeps for too long; all others are woken in their turn.
    pub(crate) fn move_up(&mut self, meters: &[M], now: u64) -> Option<u64> {
        self.settle(meters, now);
        let mut before = None;
        let mut earliest = 0;
        for taken in &mut self.slots {
            let is_next = taken.holder == Holder::Waiting && taken.at > now;
            if is_next
                && self.is_stale
                && let states = before.as_mut().unwrap_or(&mut self.base)
                && let Some(at) = slot(taken.meters(meters), states, now, taken.cost)
            {
                taken.at = taken.at.min(at.max(earliest));
            }
            if taken.holder == Holder::Waiting && taken.at < taken.told_at {
                taken.told_at = taken.at;
                return Some(taken.id);
            }
            if is_next {
                return None;
            }
            if taken.holder != Holder::Gone {
                earliest = taken.at;
            }
            if self.is_stale {
                let states = before.get_or_insert_with(|| self.base.clone());
                count(meters, states, taken);
            }
        }
        None
    }

    /// The states after all slots. Every slot that is waited for starts as early as the rates allow, and
    /// with `breaks_promises` every slot; none starts later than before.
    pub(crate) fn replay(
        &mut self,
        meters: &[M],
        now: u64,
        breaks_promises: bool,
    ) -> Box<[M::State]> {
        self.slots.retain(|slot| slot.holder != Holder::Gone);
        let mut states = self.base.clone();
        let mut earliest = 0;
        for taken in &mut self.slots {
            let is_movable = breaks_promises || taken.holder == Holder::Waiting;
            let fits_at = if taken.at > now && is_movable {
                slot(taken.meters(meters), &mut states, now, taken.cost)
            } else {
                None
            };
            if let Some(at) = fits_at {
                taken.at = taken.at.min(at.max(earliest));
            }
            earliest = taken.at;
            if breaks_promises && let Holder::Promised(_) = taken.holder {
                spend_all(taken.meters(meters), &mut states, taken.at, taken.cost);
                taken.holder = Holder::Promised(marks(meters, &states));
            } else {
                count(meters, &mut states, taken);
            }
            if breaks_promises && fits_at.is_none_or(|at| at > taken.at) {
                // Rates tighter than when the slot was taken: it empties what they allow, no more.
                for (meter, state) in taken.meters(meters).iter().zip(&mut states) {
                    meter.clamp(state, taken.at);
                }
            }
        }
        self.is_stale = false;
        states
    }
}

/// The marks of all states.
pub(crate) fn marks<M: Meter>(meters: &[M], states: &[M::State]) -> Box<[u128]> {
    let pairs = meters.iter().zip(states);
    pairs.map(|(meter, state)| meter.mark(state)).collect()
}

/// Records a slot in the states.
fn count<M: Meter>(meters: &[M], states: &mut [M::State], taken: &Slot<M>) {
    let meters = taken.meters(meters);
    match &taken.holder {
        Holder::Gone => {}
        Holder::Served | Holder::Waiting => spend_all(meters, states, taken.at, taken.cost),
        Holder::Promised(marks) => {
            spend_all(meters, states, taken.at, taken.cost);
            for ((meter, state), mark) in meters.iter().zip(states).zip(marks) {
                meter.keep_promise(state, *mark);
            }
        }
    }
}
