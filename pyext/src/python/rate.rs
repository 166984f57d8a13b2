//! `Rate`.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

#[pyclass(frozen, eq, hash, skip_from_py_object, module = "hopgate_limiter")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Rate(pub(super) crate::Rate);

#[pymethods]
impl Rate {
    #[new]
    #[pyo3(signature = (limit, per, *, burst = None, name = "default"))]
    fn new(
        limit: &Bound<'_, PyAny>,
        per: &Bound<'_, PyAny>,
        burst: Option<&Bound<'_, PyAny>>,
        name: &str,
    ) -> PyResult<Self> {
        let limit = count("limit", limit)?;
        let burst = burst.map(|burst| count("burst", burst)).transpose()?;
        Ok(Self(crate::Rate::new(limit, period_ns(per)?, burst, name)?))
    }

    #[staticmethod]
    fn parse<'py>(py: Python<'py>, spec: &str) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, crate::Rate::parse(spec)?.into_iter().map(Self))
    }

    #[getter]
    fn limit(&self) -> u64 {
        self.0.limit()
    }

    #[getter]
    fn period_ns(&self) -> u64 {
        self.0.period_ns()
    }

    #[getter]
    fn burst(&self) -> u64 {
        self.0.burst()
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    fn __repr__(&self) -> String {
        format!(
            "Rate({}, '{}ns', burst={}, name='{}')",
            self.0.limit(),
            self.0.period_ns(),
            self.0.burst(),
            self.0.name()
        )
    }
}

/// A positive count. Python's integers have no bounds, so the message must come from here.
fn count(what: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if value.lt(1)? {
        return Err(PyValueError::new_err(format!(
            "{what} must be at least 1, got {value}"
        )));
    }
    match value.extract::<u64>() {
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyOverflowError>(value.py()) => {
            Err(crate::Error::TooLarge(format!("{what} must be below 2**63, got {value}")).into())
        }
        other => other,
    }
}

/// A period given as text ("10s"), seconds, or a `timedelta`.
fn period_ns(per: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(text) = per.cast::<PyString>() {
        return Ok(crate::rate::parse_period(text.to_str()?)?);
    }
    if let Ok(seconds) = per.extract::<f64>() {
        let ns = (seconds * 1e9).round();
        if ns.is_nan() || ns < 1.0 {
            return Err(PyValueError::new_err(format!(
                "per must be at least 1 ns, got {seconds} s"
            )));
        }
        if ns >= 2f64.powi(63) {
            return Err(crate::Error::TooLarge(format!(
                "per must be below 2**63 ns, got {seconds} s"
            ))
            .into());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range, see above
        return Ok(ns as u64);
    }
    let Ok(days) = per.getattr("days") else {
        return Err(PyTypeError::new_err(format!(
            "per must be str, seconds or timedelta, not {}",
            per.get_type().name()?
        )));
    };
    let days: i128 = days.extract()?;
    let seconds: i128 = per.getattr("seconds")?.extract()?;
    let micros: i128 = per.getattr("microseconds")?.extract()?;
    let ns = ((days * 86_400 + seconds) * 1_000_000 + micros) * 1000;
    if ns < 1 {
        return Err(PyValueError::new_err(format!(
            "per must be at least 1 ns, got {per}"
        )));
    }
    u64::try_from(ns).map_err(|_| {
        crate::Error::TooLarge(format!("per must be below 2**63 ns, got {per}")).into()
    })
}

/// Rates given one by one, as `Rate` or as text for `Rate.parse`.
pub(super) fn rates<'py>(
    given: impl Iterator<Item = Bound<'py, PyAny>>,
) -> PyResult<Vec<crate::Rate>> {
    let mut rates = Vec::new();
    for item in given {
        if let Ok(rate) = item.cast::<Rate>() {
            rates.push(rate.get().0.clone());
        } else if let Ok(text) = item.cast::<PyString>() {
            rates.extend(crate::Rate::parse(text.to_str()?)?);
        } else {
            let kind = item.get_type();
            return Err(PyTypeError::new_err(format!(
                "a rate must be Rate or str, not {}",
                kind.name()?
            )));
        }
    }
    Ok(rates)
}
