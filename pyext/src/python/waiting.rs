//! The Python functions that sleep, and the limits of their waits.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::argument::{argument, wrong_value};
use crate::{Health, HealthListener};

/// A function of the module `hopgate_limiter._waiting`.
pub(super) fn waiting<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        py.import("hopgate_limiter._waiting").map(Bound::unbind)
    })?;
    module.bind(py).getattr(name)
}

/// Logs when limits under this prefix lose Redis and find it again.
pub(super) fn health_log(prefix: String) -> HealthListener {
    HealthListener(Arc::new(move |health| {
        let (reason, is_all) = match health {
            Health::Down(reason) => (Some(reason), true),
            Health::Partly(reason) => (Some(reason), false),
            Health::Up => (None, true),
        };
        // Nothing is logged once the interpreter ends. An error of a handler is the handler's.
        Python::try_attach(|py| {
            let logged =
                waiting(py, "log_health").and_then(|log| log.call1((&prefix, reason, is_all)));
            if let Err(error) = logged {
                error.write_unraisable(py, None);
            }
        });
    }))
}

/// Wakes the callers that sleep until these slots.
pub(super) fn wake(py: Python<'_>, slots: impl IntoIterator<Item = u64>) -> PyResult<()> {
    for slot in slots {
        waiting(py, "wake")?.call1((slot,))?;
    }
    Ok(())
}

/// How long a caller may sleep at once, s; None until the clock is moved.
pub(super) fn longest_sleep(limiter: &crate::Limiter) -> Option<f64> {
    limiter.longest_sleep().map(|sleep| sleep.as_secs_f64())
}

/// The longest wait, ns: without a limit if None.
pub(super) fn max_wait_ns(what: &str, wait: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
    let Some(wait) = wait else {
        return Ok(u64::MAX);
    };
    let wait_s: f64 = argument(what, "a number of seconds or None", wait)?;
    if wait_s.is_nan() || wait_s < 0.0 {
        return Err(wrong_value(what, "at least 0 s", wait));
    }
    // Saturates at the largest u64, 584 years.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok((wait_s * 1e9) as u64)
}
