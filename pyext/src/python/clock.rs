//! `ManualClock`, and clocks of the caller's own.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::argument::{argument, wrong_type};
use super::waiting::waiting;
use crate::{Clock, TimeSource};

#[doc = manual!("ManualClock")]
#[pyclass(frozen, weakref, module = "hopgate_limiter")]
pub(super) struct ManualClock(pub(super) crate::ManualClock);

fn nanoseconds(what: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    argument(what, "0 to 2**64 - 1 ns", value)
}

#[pymethods]
impl ManualClock {
    #[new]
    #[pyo3(signature = (now_ns = None), text_signature = "(now_ns=0)")]
    fn new(now_ns: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let now_ns = now_ns.map_or(Ok(0), |now_ns| nanoseconds("now_ns", now_ns))?;
        Ok(Self(crate::ManualClock::new(now_ns)))
    }

    #[getter]
    #[doc = manual!("ManualClock.now_ns")]
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    #[pyo3(signature = (ns, /))]
    #[doc = manual!("ManualClock.advance")]
    fn advance(&self, py: Python<'_>, ns: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.advance(nanoseconds("ns", ns)?);
        waiting(py, "wake_all")?.call0().map(drop)
    }

    #[pyo3(signature = (ns, /))]
    #[doc = manual!("ManualClock.set")]
    fn set(&self, py: Python<'_>, ns: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.set(nanoseconds("ns", ns)?);
        waiting(py, "wake_all")?.call0().map(drop)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (u64,)) {
        (py.get_type::<Self>(), (self.0.now_ns(),))
    }

    fn __repr__(&self) -> String {
        format!("ManualClock({})", self.0.now_ns())
    }
}

/// An object that satisfies the protocol `Clock`.
#[derive(Debug)]
struct ForeignClock(Py<PyAny>);

impl TimeSource for ForeignClock {
    fn now_ns(&self) -> Option<u64> {
        Python::attach(|py| match read(self.0.bind(py)) {
            Ok(ns) => Some(ns),
            Err(error) => {
                error.write_unraisable(py, Some(self.0.bind(py)));
                None
            }
        })
    }
}

fn read(clock: &Bound<'_, PyAny>) -> PyResult<u64> {
    let now = clock.getattr("now_ns")?;
    if !now.hasattr("__index__")? {
        return Err(wrong_type("clock.now_ns", "int", &now));
    }
    nanoseconds("clock.now_ns", &now)
}

/// The clock of a limiter: the system's if none is given. A clock of the caller's own is read once, so that one
/// that cannot be read is refused here.
pub(super) fn clock(given: Option<&Bound<'_, PyAny>>) -> PyResult<Clock> {
    let Some(given) = given else {
        return Ok(Clock::monotonic());
    };
    if let Ok(manual) = given.cast::<ManualClock>() {
        return Ok(Clock::manual(manual.get().0.clone()));
    }
    if !given.hasattr("now_ns")? {
        return Err(wrong_type(
            "clock",
            "a ManualClock, or have an attribute now_ns",
            given,
        ));
    }
    read(given)?;
    Ok(Clock::foreign(Arc::new(ForeignClock(
        given.clone().unbind(),
    ))))
}
