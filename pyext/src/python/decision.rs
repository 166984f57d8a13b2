//! `Decision`: the engine's answer; attributes become Python objects when they are read.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

use super::seconds;
use crate::HeaderStyle;

#[pyclass(frozen, freelist = 64, module = "hopgate_limiter")]
pub(super) struct Decision(pub(super) crate::Decision);

#[pymethods]
impl Decision {
    #[getter]
    fn allowed(&self) -> bool {
        self.0.allowed
    }

    #[getter]
    fn limit(&self) -> u64 {
        self.0.rate().limit()
    }

    #[getter]
    fn remaining(&self) -> u64 {
        self.0.remaining
    }

    #[getter]
    fn cost(&self) -> u64 {
        self.0.cost
    }

    #[getter]
    fn retry_after(&self) -> f64 {
        self.0.retry_after_ns.map_or(f64::INFINITY, seconds)
    }

    #[getter]
    fn reset_after(&self) -> f64 {
        seconds(self.0.reset_after_ns)
    }

    #[getter]
    fn policy(&self) -> &str {
        self.0.rate().name()
    }

    #[getter]
    fn source(&self) -> &'static str {
        self.0.source.as_str()
    }

    #[pyo3(signature = (*, style = "ietf", redirect = false, jitter = 0))]
    fn headers<'py>(
        &self,
        py: Python<'py>,
        style: &str,
        redirect: bool,
        jitter: u64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let style = match style {
            "ietf" => HeaderStyle::Ietf,
            "legacy" => HeaderStyle::Legacy,
            "both" => HeaderStyle::Both,
            other => {
                let message = format!("style must be 'ietf', 'legacy' or 'both', got '{other}'");
                return Err(PyValueError::new_err(message));
            }
        };
        self.0.headers(style, redirect, jitter).into_py_dict(py)
    }

    fn __bool__(&self) -> bool {
        self.0.allowed
    }

    fn __repr__(&self) -> String {
        format!(
            "Decision(allowed={}, limit={}, remaining={}, cost={}, retry_after={}, reset_after={}, policy='{}', source='{}')",
            if self.0.allowed { "True" } else { "False" },
            self.limit(),
            self.remaining(),
            self.cost(),
            self.retry_after(),
            self.reset_after(),
            self.policy(),
            self.source(),
        )
    }
}
