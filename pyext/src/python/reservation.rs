//! `Reservation`, and the Python functions that sleep.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::limiter::Limiter;
use super::seconds;

#[pyclass(frozen, module = "hopgate_limiter")]
pub(super) struct Reservation {
    pub(super) limiter: Py<Limiter>,
    pub(super) slot: crate::Reservation,
}

/// A function of the Python half.
pub(super) fn waiting<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        py.import("hopgate_limiter._waiting").map(Bound::unbind)
    })?;
    module.bind(py).getattr(name)
}

/// The longest wait, ns: for ever if None.
pub(super) fn max_wait_ns(what: &str, wait: Option<f64>) -> PyResult<u64> {
    let Some(wait_s) = wait else {
        return Ok(u64::MAX);
    };
    if wait_s.is_nan() || wait_s < 0.0 {
        return Err(PyValueError::new_err(format!(
            "{what} must be at least 0 s, got {wait_s}"
        )));
    }
    // Saturates at the largest u64, 584 years.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok((wait_s * 1e9) as u64)
}

#[pymethods]
impl Reservation {
    #[getter]
    fn delay(&self) -> f64 {
        seconds(self.limiter.get().0.delay_ns(&self.slot))
    }

    #[getter]
    fn _is_real_time(&self) -> bool {
        self.limiter.get().0.is_real_time()
    }

    fn cancel(&self) {
        self.limiter.get().0.cancel(&self.slot);
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        waiting(slf.py(), "wait")?.call1((slf,))?;
        Ok(slf.clone())
    }

    #[pyo3(signature = (*_exception))]
    #[allow(clippy::unused_self)]
    fn __exit__(&self, _exception: &Bound<'_, pyo3::types::PyTuple>) {}

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        waiting(slf.py(), "wait_async")?.call1((slf,))
    }

    #[pyo3(signature = (*_exception))]
    #[allow(clippy::unused_self)]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        _exception: &Bound<'py, pyo3::types::PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        waiting(py, "leave_async")?.call0()
    }

    fn __repr__(&self) -> String {
        format!("<Reservation in {} s>", self.delay())
    }
}
