//! `fork()`: the child has the parent's memory but none of its other threads.
//!
//! Two things would go wrong in the child: it would spend the parent's leases, and it would wait for ever
//! for a lock that one of the parent's threads held at that moment. So forks are counted, for limiters to
//! notice, and a fork waits until no courier is between two locks.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

static FORKS: AtomicU64 = AtomicU64::new(0);
static GATE: Mutex<()> = Mutex::new(());

thread_local! {
    static HELD: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// How many forks lie between the first process and this one.
#[inline]
pub(crate) fn count() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Keeps `fork()` waiting. Threads that take locks of a limiter without holding the interpreter's lock
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
