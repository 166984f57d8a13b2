//! `Reservation`.

use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::Limiter;
use crate::python::seconds;
use crate::python::waiting::{longest_sleep, waiting, wake};

#[doc = manual!("Reservation")]
#[pyclass(frozen, weakref, module = "hopgate_limiter")]
pub(in crate::python) struct Reservation {
    pub(super) limiter: Py<Limiter>,
    pub(super) slot: crate::Reservation,
    /// One of the constants below. To wait for it once more, or once it is cancelled, would admit what holds
    /// no units.
    pub(super) state: AtomicU8,
}

pub(super) const RESERVED: u8 = 0;
const ENTERED: u8 = 1;
const SERVED: u8 = 2;
const CANCELLED: u8 = 3;

impl Reservation {
    fn enter(&self) -> PyResult<()> {
        let entered =
            self.state
                .compare_exchange(RESERVED, ENTERED, Ordering::Relaxed, Ordering::Relaxed);
        entered.map(|_| ()).map_err(|_| over())
    }
}

fn over() -> PyErr {
    PyRuntimeError::new_err("the reservation has been used or cancelled: reserve another one")
}

#[pymethods]
impl Reservation {
    #[getter]
    #[doc = manual!("Reservation.delay")]
    fn delay(&self) -> f64 {
        seconds(self.limiter.get().core.delay_ns(&self.slot))
    }

    /// `delay` for the caller that waits: an error once the slot is cancelled.
    fn _left(&self) -> PyResult<f64> {
        if self.state.load(Ordering::Relaxed) == CANCELLED {
            return Err(over());
        }
        Ok(self.delay())
    }

    #[getter]
    fn _longest_sleep(&self) -> Option<f64> {
        longest_sleep(&self.limiter.get().core)
    }

    /// Identifies the slot for the function that wakes its caller.
    #[getter]
    fn _id(&self) -> u64 {
        self.slot.id()
    }

    /// The caller waits from now on: the slot may move up.
    fn _wait_for(&self) {
        self.limiter.get().core.wait_for(&self.slot);
    }

    /// The caller has come: an error if the slot was cancelled before.
    #[pyo3(name = "_serve")]
    pub(super) fn serve(&self, py: Python<'_>) -> PyResult<()> {
        let served = |state| (state != CANCELLED).then_some(SERVED);
        self.state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, served)
            .map_err(|_| over())?;
        wake(py, self.limiter.get().core.serve(&self.slot))
    }

    #[doc = manual!("Reservation.cancel")]
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let (id, before) = (
            self.slot.id(),
            self.state.swap(CANCELLED, Ordering::Relaxed),
        );
        wake(py, self.limiter.get().core.cancel(&self.slot))?;
        // Another task or thread may wait for it.
        wake(py, (before == ENTERED).then_some(id))
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        slf.get().enter()?;
        waiting(slf.py(), "wait")?.call1((slf,))?;
        Ok(slf.clone())
    }

    #[pyo3(signature = (*_exception))]
    #[allow(clippy::unused_self)]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {}

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().enter()?;
        waiting(slf.py(), "wait_async")?.call1((slf,))
    }

    #[pyo3(signature = (*_exception))]
    #[allow(clippy::unused_self)]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        _exception: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        waiting(py, "leave_async")?.call0()
    }

    fn __repr__(&self) -> String {
        format!("<Reservation in {} s>", self.delay())
    }
}
