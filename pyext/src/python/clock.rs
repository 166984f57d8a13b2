//! `ManualClock`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

#[pyclass(frozen, module = "hopgate_limiter")]
pub(super) struct ManualClock(pub(super) crate::ManualClock);

fn nanoseconds(what: &str, value: i128) -> PyResult<u64> {
    u64::try_from(value).map_err(|_| {
        PyValueError::new_err(format!("{what} must be 0 to 2**64 - 1 ns, got {value}"))
    })
}

#[pymethods]
impl ManualClock {
    #[new]
    #[pyo3(signature = (now_ns = 0))]
    fn new(now_ns: i128) -> PyResult<Self> {
        Ok(Self(crate::ManualClock::new(nanoseconds(
            "now_ns", now_ns,
        )?)))
    }

    #[getter]
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    #[pyo3(signature = (ns, /))]
    fn advance(&self, ns: i128) -> PyResult<()> {
        self.0.advance(nanoseconds("ns", ns)?);
        Ok(())
    }

    #[pyo3(signature = (ns, /))]
    fn set(&self, ns: i128) -> PyResult<()> {
        self.0.set(nanoseconds("ns", ns)?);
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("ManualClock({})", self.0.now_ns())
    }
}
