//! `fork()`: the child has the parent's memory but none of its other threads.
//!
//! Two things would go wrong in the child: it would spend the parent's leases, and it would wait for ever
//! for a lock that another thread of the parent held at that moment. So forks are counted, for limiters to
//! detect, and a fork waits until the sync thread holds no lock.
//!
//! `parking_lot` keeps sleeping threads in a table of the whole process, which a fork would copy while
//! another thread is changing it: with threads asleep in it, up to 16 of 100 forked children hung, with the
//! standard library's locks none of 1,000. So it is used only for locks that are taken under the gate or under the
//! interpreter's lock. The gate itself and [`super::completion::DecisionCell`], in which threads sleep
//! under neither, are the standard library's: a futex, with no state elsewhere.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

static FORKS: AtomicU64 = AtomicU64::new(0);
static GATE: Mutex<()> = Mutex::new(());

thread_local! {
    static HELD: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// The number of forks between the first process and this one.
#[inline]
pub(crate) fn count() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Makes `fork()` wait. A thread that takes locks of a limiter without holding the interpreter's lock
/// must hold this meanwhile, and must not block.
pub(crate) fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts counting.
pub(crate) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        #[cfg(unix)]
        // SAFETY: the three functions live as long as the program, and take no arguments.
        unsafe {
            libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child));
        }
    });
}

#[cfg(unix)]
unsafe extern "C" fn before() {
    HELD.with(|held| *held.borrow_mut() = Some(gate()));
}

#[cfg(unix)]
unsafe extern "C" fn after_in_parent() {
    HELD.with(|held| held.borrow_mut().take());
}

#[cfg(unix)]
unsafe extern "C" fn after_in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    HELD.with(|held| held.borrow_mut().take());
}
