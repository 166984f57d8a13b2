//! How a decision of Redis reaches the call that waits for it: a sleeping thread, or an event loop.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use parking_lot::Mutex;

use crate::decision::Decision;
use crate::shared::wire::Ask;

/// A result, or the promise of one.
#[derive(Debug)]
pub enum Outcome<T> {
    /// Decided in this process.
    Ready(T),
    /// Redis decides, see [`crate::Limiter::wait`].
    Pending(Pending),
}

impl<T> Outcome<T> {
    /// The result, if it is ready.
    pub(crate) fn ready(self) -> Option<T> {
        match self {
            Self::Ready(value) => Some(value),
            Self::Pending(_) => None,
        }
    }

    /// Applies `f` to a result that is ready.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Ready(value) => Outcome::Ready(f(value)),
            Self::Pending(pending) => Outcome::Pending(pending),
        }
    }
}

/// A decision that Redis makes. If this is dropped without [`crate::Limiter::wait`], the units may still be
/// taken.
#[derive(Debug)]
pub struct Pending {
    pub(crate) cell: Arc<DecisionCell>,
    pub(crate) fingerprint: u64,
    pub(crate) ask: Ask,
    /// The sync thread has not been woken: the caller sends the request.
    pub(crate) sends_itself: bool,
}

/// How a caller receives a decision that is not ready at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReplyTo<'a> {
    /// The calling thread sleeps until then.
    Thread,
    /// Into a queue, under this call id.
    Queue(&'a Arc<CompletionQueue>, u64),
}

/// The receiving end of a call that waits for Redis.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// No caller waits.
    Nothing,
    Thread(Arc<DecisionCell>),
    Queue {
        queue: Arc<CompletionQueue>,
        call_id: u64,
        is_shadow: bool,
    },
}

impl Waiter {
    pub(crate) fn complete(self, decision: Decision) {
        match self {
            Self::Nothing => {}
            Self::Thread(cell) => cell.put(decision),
            Self::Queue {
                queue,
                call_id,
                is_shadow,
            } => {
                let decision = if is_shadow {
                    decision.overruled()
                } else {
                    decision
                };
                queue.put(call_id, decision);
            }
        }
    }
}

/// Room for one decision, and the thread that sleeps until it is filled.
///
/// The lock is the standard library's: see `fork` for why no thread may sleep in `parking_lot`.
#[derive(Debug, Default)]
pub(crate) struct DecisionCell {
    decision: StdMutex<Option<Decision>>,
    filled: Condvar,
}

impl DecisionCell {
    fn put(&self, decision: Decision) {
        *self.decision.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision);
        self.filled.notify_one();
    }

    pub(crate) fn is_filled(&self) -> bool {
        let decision = self.decision.lock();
        decision.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Sleeps until there is a decision, at most for `timeout`.
    pub(crate) fn take(&self, timeout: Duration) -> Option<Decision> {
        let decision = self.decision.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut decision, _) = self
            .filled
            .wait_timeout_while(decision, timeout, |decision| decision.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        decision.take()
    }
}

/// Decisions by call id, for callers that cannot sleep. `wake` is called when the queue was empty.
pub struct CompletionQueue {
    completions: Mutex<VecDeque<(u64, Decision)>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl CompletionQueue {
    /// A queue that calls `wake`, from any thread, when it is no longer empty. `wake` must neither block
    /// nor use the queue.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            completions: Mutex::default(),
            wake: Box::new(wake),
        }
    }

    fn put(&self, call_id: u64, decision: Decision) {
        let mut completions = self.completions.lock();
        let was_empty = completions.is_empty();
        completions.push_back((call_id, decision));
        // Under the lock: once `take_all` returns, no `wake` for earlier completions is under way.
        if was_empty {
            (self.wake)();
        }
    }

    /// Removes and returns everything in the queue, oldest first.
    pub fn take_all(&self) -> VecDeque<(u64, Decision)> {
        std::mem::take(&mut *self.completions.lock())
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue").finish_non_exhaustive()
    }
}
