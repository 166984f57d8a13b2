//! How a decision of Redis gets to whoever asked for it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::decision::Decision;

/// Whom to tell.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A thread that sleeps until then.
    Thread(Arc<Slot>),
    /// The holder of a ticket, who looks into the mailbox.
    Ticket {
        mailbox: Arc<Mailbox>,
        ticket: u64,
        is_shadow: bool,
    },
}

impl Waiter {
    pub(crate) fn answer(self, decision: Decision) {
        match self {
            Self::Thread(slot) => slot.put(decision),
            Self::Ticket {
                mailbox,
                ticket,
                is_shadow,
            } => {
                let decision = if is_shadow {
                    decision.overruled()
                } else {
                    decision
                };
                mailbox.put(ticket, decision);
            }
        }
    }
}

/// Room for one decision.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    decision: Mutex<Option<Decision>>,
    filled: Condvar,
}

impl Slot {
    fn put(&self, decision: Decision) {
        *self.decision.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision);
        self.filled.notify_one();
    }

    /// Sleeps until the decision has come, at most for `timeout`.
    pub(crate) fn take(&self, timeout: Duration) -> Option<Decision> {
        let until = Instant::now() + timeout;
        let mut decision = self.decision.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(decision) = decision.take() {
                return Some(decision);
            }
            let left = until.checked_duration_since(Instant::now())?;
            let woken = self.filled.wait_timeout(decision, left);
            decision = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Decisions by ticket, for those who cannot sleep. `wake` is called when the first one comes in.
pub struct Mailbox {
    letters: Mutex<VecDeque<(u64, Decision)>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Mailbox {
    /// A mailbox that calls `wake`, from any thread, when it is no longer empty. `wake` must neither block
    /// nor look into the mailbox.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            letters: Mutex::default(),
            wake: Box::new(wake),
        }
    }

    fn put(&self, ticket: u64, decision: Decision) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = letters.is_empty();
        letters.push_back((ticket, decision));
        // Still locked: after a `take_all`, nobody is about to wake anybody because of earlier letters.
        if was_empty {
            (self.wake)();
        }
    }

    /// Everything that has come in, oldest first.
    pub fn take_all(&self) -> VecDeque<(u64, Decision)> {
        std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}
