//! `Decision`: attributes become Python objects when they are read.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyList, PyTuple};

use super::argument::argument_or;
use super::rate::{Rate, count};
use super::{Reduced, seconds, word};
use crate::{HeaderStyle, Source};

#[doc = manual!("Decision")]
#[pyclass(frozen, weakref, freelist = 64, module = "hopgate_limiter")]
pub(super) struct Decision(pub(super) crate::Decision);

#[pymethods]
impl Decision {
    #[getter]
    #[doc = manual!("Decision.allowed")]
    fn allowed(&self) -> bool {
        self.0.allowed
    }

    #[getter]
    #[doc = manual!("Decision.limit")]
    fn limit(&self) -> u64 {
        self.0.rate().limit()
    }

    #[getter]
    #[doc = manual!("Decision.remaining")]
    fn remaining(&self) -> u64 {
        self.0.remaining
    }

    #[getter]
    #[doc = manual!("Decision.cost")]
    fn cost(&self) -> u64 {
        self.0.cost
    }

    #[getter]
    #[doc = manual!("Decision.retry_after")]
    fn retry_after(&self) -> f64 {
        self.0.retry_after_ns.map_or(f64::INFINITY, seconds)
    }

    #[getter]
    #[doc = manual!("Decision.reset_after")]
    fn reset_after(&self) -> f64 {
        seconds(self.0.reset_after_ns)
    }

    #[getter]
    #[doc = manual!("Decision.policy")]
    fn policy(&self) -> &str {
        self.0.rate().name()
    }

    #[getter]
    #[doc = manual!("Decision.source")]
    fn source(&self) -> &'static str {
        self.0.source.as_str()
    }

    #[pyo3(signature = (*, style = None, redirect = None, jitter = None), text_signature = "($self, *, style='ietf', redirect=False, jitter=0)")]
    #[doc = manual!("Decision.headers")]
    fn headers<'py>(
        &self,
        py: Python<'py>,
        style: Option<&Bound<'py, PyAny>>,
        redirect: Option<&Bound<'py, PyAny>>,
        jitter: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let style = style_of(argument_or(
            "style",
            "'ietf', 'legacy' or 'both'",
            style,
            "ietf",
        )?)?;
        let redirect = argument_or("redirect", "bool", redirect, false)?;
        let jitter = jitter.map_or(Ok(0), |jitter| count("jitter", jitter, 0))?;
        self.0.headers(style, redirect, jitter).into_py_dict(py)
    }

    /// `headers` as ASGI has them: names in lower case, bytes.
    fn _fields<'py>(
        &self,
        py: Python<'py>,
        style: &str,
        redirect: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let headers = self.0.headers(style_of(style)?, redirect, 0);
        let field = |(name, value): (&str, String)| {
            let name = PyBytes::new(py, name.to_ascii_lowercase().as_bytes());
            (name, PyBytes::new(py, value.as_bytes()))
        };
        PyList::new(py, headers.into_iter().map(field))
    }

    fn __bool__(&self) -> bool {
        self.0.allowed
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    /// For `copy` and `pickle`.
    #[staticmethod]
    #[allow(clippy::too_many_arguments)] // the fields
    fn _restore(
        allowed: bool,
        cost: u64,
        remaining: u64,
        retry_after_ns: Option<u64>,
        reset_after_ns: u64,
        source: &str,
        rates: &Bound<'_, PyTuple>,
        tightest: usize,
    ) -> PyResult<Self> {
        let rates = super::rate::rates(rates.iter())?;
        if tightest >= rates.len() {
            return Err(PyValueError::new_err(
                "tightest must be the index of a rate",
            ));
        }
        Ok(Self(crate::Decision::restored(
            allowed,
            cost,
            remaining,
            retry_after_ns,
            reset_after_ns,
            word(
                "source",
                source,
                &Source::ALL.map(|word| (word.as_str(), word)),
            )?,
            rates,
            tightest,
        )))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        let decision = &self.0;
        let rates = PyTuple::new(py, decision.rates.iter().cloned().map(Rate))?;
        let fields = (
            decision.allowed,
            decision.cost,
            decision.remaining,
            decision.retry_after_ns,
            decision.reset_after_ns,
            decision.source.as_str(),
            rates,
            decision.tightest,
        );
        let restore = py.get_type::<Self>().getattr("_restore")?;
        Ok((restore, fields.into_pyobject(py)?))
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

fn style_of(word: &str) -> PyResult<HeaderStyle> {
    match word {
        "ietf" => Ok(HeaderStyle::Ietf),
        "legacy" => Ok(HeaderStyle::Legacy),
        "both" => Ok(HeaderStyle::Both),
        other => {
            let message = format!("style must be 'ietf', 'legacy' or 'both', got '{other}'");
            Err(PyValueError::new_err(message))
        }
    }
}
