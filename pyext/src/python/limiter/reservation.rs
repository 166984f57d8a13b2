//! `Reservation`.

use std::sync::atomic::{AtomicBool, Ordering};

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
    /// It was entered or cancelled: to wait for it again would admit what holds no units.
    pub(super) is_over: AtomicBool,
}

impl Reservation {
    fn enter(&self) -> PyResult<()> {
        if self.is_over.swap(true, Ordering::Relaxed) {
            let message = "the reservation has been used or cancelled: reserve another one";
            return Err(PyRuntimeError::new_err(message));
        }
        Ok(())
    }
}

#[pymethods]
impl Reservation {
    #[getter]
    #[doc = manual!("Reservation.delay")]
    fn delay(&self) -> f64 {
        seconds(self.limiter.get().core.delay_ns(&self.slot))
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

    /// The caller has come.
    #[pyo3(name = "_serve")]
    pub(super) fn serve(&self, py: Python<'_>) -> PyResult<()> {
        wake(py, self.limiter.get().core.serve(&self.slot))
    }

    #[doc = manual!("Reservation.cancel")]
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.is_over.store(true, Ordering::Relaxed);
        wake(py, self.limiter.get().core.cancel(&self.slot))
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
