//! The limiter as a table of C functions, for extension modules that share no Rust type with this one.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::str;

use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::HeaderStyle;

/// Raised when the layout or the meaning of [`LimiterApi`] changes.
const VERSION: u32 = 1;

const REFUSED: u32 = 0;
const ADMITTED: u32 = 1;
const FAILED: u32 = 2;

/// What the capsule points to. Every function may be called from any thread, with or without the GIL, while the
/// capsule lives; `key` is UTF-8.
#[repr(C)]
struct LimiterApi {
    version: u32,
    context: *const c_void,
    /// Takes one unit of a key: 1 if it was there, 0 if not, 2 if the key is unreadable or the call failed.
    /// Waits for Redis only if the limiter does, which one with `cold="optimistic"` never does.
    allow: unsafe extern "C" fn(*const c_void, *const u8, usize) -> u32,
    /// Gives one unit of a key back. What Redis does not confirm is lost.
    refund: unsafe extern "C" fn(*const c_void, *const u8, usize),
    /// Writes the headers of a refused key into a buffer, as lines `name: value\n`, and the time to wait in
    /// nanoseconds (`u64::MAX`: for ever). Returns the length of the lines; beyond the capacity of the buffer,
    /// nothing was written.
    refusal:
        unsafe extern "C" fn(*const c_void, *const u8, usize, *mut u8, usize, *mut u64) -> usize,
}

/// The functions, and the object of Python that holds the limiter.
#[repr(C)]
struct Exported {
    /// First: the capsule points here.
    api: LimiterApi,
    /// Keeps `api.context` alive.
    _owner: Py<PyAny>,
}

// Safety: `api.context` is a `crate::Limiter`, which is shared between threads, in an object that `_owner` keeps.
unsafe impl Send for Exported {}

/// A capsule `hopgate_limiter.api` over `core`.
///
/// # Safety
/// `core` stays where it is for as long as `owner` lives.
pub(super) unsafe fn export<'py>(
    core: &crate::Limiter,
    owner: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let py = owner.py();
    let exported = Exported {
        api: LimiterApi {
            version: VERSION,
            context: std::ptr::from_ref(core).cast(),
            allow,
            refund,
            refusal,
        },
        _owner: owner.unbind(),
    };
    PyCapsule::new_with_value(py, exported, c"hopgate_limiter.api")
}

/// The limiter and the key of a call; None if the key is not UTF-8.
///
/// # Safety
/// As [`LimiterApi`] asks of its callers.
unsafe fn parts<'a>(
    context: *const c_void,
    key: *const u8,
    len: usize,
) -> Option<(&'a crate::Limiter, &'a str)> {
    // Safety: the context is that of `export`, alive as long as its capsule; the key is a live slice.
    let (core, key) = unsafe {
        (
            &*context.cast::<crate::Limiter>(),
            slice::from_raw_parts(key, len),
        )
    };
    str::from_utf8(key).ok().map(|key| (core, key))
}

unsafe extern "C" fn allow(context: *const c_void, key: *const u8, len: usize) -> u32 {
    // A panic must not leave a function of C.
    let decided = catch_unwind(AssertUnwindSafe(|| {
        // Safety: as the caller was asked.
        let (core, key) = unsafe { parts(context, key, len) }?;
        Some(core.allow(key.into(), 1))
    }));
    match decided {
        Ok(Some(true)) => ADMITTED,
        Ok(Some(false)) => REFUSED,
        Ok(None) | Err(_) => FAILED,
    }
}

unsafe extern "C" fn refund(context: *const c_void, key: *const u8, len: usize) {
    // As in `allow`. A refund that fails takes nothing from other clients.
    drop(catch_unwind(AssertUnwindSafe(|| {
        // Safety: as the caller was asked.
        let (core, key) = unsafe { parts(context, key, len) }?;
        core.refund(key.into(), 1).ok()
    })));
}

unsafe extern "C" fn refusal(
    context: *const c_void,
    key: *const u8,
    len: usize,
    buffer: *mut u8,
    capacity: usize,
    retry_after_ns: *mut u64,
) -> usize {
    let told = catch_unwind(AssertUnwindSafe(|| {
        // Safety: as the caller was asked.
        let (core, key) = unsafe { parts(context, key, len) }?;
        let decision = core.peek(key.into(), 1);
        let mut lines = String::new();
        for (name, value) in decision.headers(HeaderStyle::Ietf, false, 0) {
            lines.extend([name, ": ", &value, "\n"]);
        }
        Some((lines, decision.retry_after_ns.unwrap_or(u64::MAX)))
    }));
    let (lines, wait_ns) = told.ok().flatten().unwrap_or_default();
    // Safety: the caller lends both, and the buffer is as large as stated.
    unsafe {
        retry_after_ns.write(wait_ns);
        if lines.len() <= capacity {
            buffer.copy_from_nonoverlapping(lines.as_ptr(), lines.len());
        }
    }
    lines.len()
}
