//! `Rate`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyTuple};

use super::Reduced;
use super::argument::{argument, argument_or, shown, wrong_type, wrong_value};

#[doc = manual!("Rate")]
#[pyclass(
    frozen,
    eq,
    ord,
    hash,
    str,
    weakref,
    skip_from_py_object,
    module = "hopgate_limiter"
)]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rate(pub(super) crate::Rate);

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[pymethods]
impl Rate {
    #[new]
    #[pyo3(signature = (limit, per, *, burst = None, name = None), text_signature = "(limit, per, *, burst=None, name='default')")]
    fn new(
        limit: &Bound<'_, PyAny>,
        per: &Bound<'_, PyAny>,
        burst: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let limit = count("limit", limit, 1)?;
        let burst = burst.map(|burst| count("burst", burst, 1)).transpose()?;
        let named = argument_or("name", "str", name, "default")?;
        let rate = crate::Rate::new(limit, period_ns(per)?, burst, named)?;
        Ok(Self(if name.is_some() { rate } else { rate.unnamed() }))
    }

    #[staticmethod]
    #[doc = manual!("Rate.parse")]
    fn parse<'py>(spec: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        let text = argument("spec", "str", spec)?;
        PyTuple::new(spec.py(), crate::Rate::parse(text)?.into_iter().map(Self))
    }

    #[getter]
    #[doc = manual!("Rate.limit")]
    fn limit(&self) -> u64 {
        self.0.limit()
    }

    #[getter]
    #[doc = manual!("Rate.period_ns")]
    fn period_ns(&self) -> u64 {
        self.0.period_ns()
    }

    #[getter]
    #[doc = manual!("Rate.burst")]
    fn burst(&self) -> u64 {
        self.0.burst()
    }

    #[getter]
    #[doc = manual!("Rate.name")]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// For `copy` and `pickle`.
    #[staticmethod]
    fn _restore(limit: u64, period_ns: u64, burst: u64, name: &str) -> PyResult<Self> {
        Ok(Self(crate::Rate::new(limit, period_ns, Some(burst), name)?))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        let rate = &self.0;
        let fields = (rate.limit(), rate.period_ns(), rate.burst(), rate.name());
        Ok((
            py.get_type::<Self>().getattr("_restore")?,
            fields.into_pyobject(py)?,
        ))
    }

    /// An expression that makes an equal rate: names have no quotes and backslashes, except `'`.
    fn __repr__(&self) -> String {
        format!(
            "Rate({}, '{}', burst={}, name=\"{}\")",
            self.0.limit(),
            crate::rate::period_text(self.0.period_ns()),
            self.0.burst(),
            self.0.name()
        )
    }
}

/// A count of at least `least`. Python's integers have no bounds, so this checks them.
pub(super) fn count(what: &str, value: &Bound<'_, PyAny>, least: u64) -> PyResult<u64> {
    if !value.hasattr("__index__")? {
        return Err(wrong_type(what, "int", value));
    }
    if value.lt(least)? {
        return Err(wrong_value(what, &format!("at least {least}"), value));
    }
    match value.extract::<u64>() {
        Ok(count) if count < 1 << 63 => Ok(count),
        _ => Err(too_large(what, "2**63", value)),
    }
}

fn too_large(what: &str, bound: &str, value: &Bound<'_, PyAny>) -> PyErr {
    crate::Error::TooLarge(format!(
        "{what} must be below {bound}, got {}",
        shown(value)
    ))
    .into()
}

/// A period given as text ("10s"), seconds, or a `timedelta`.
fn period_ns(per: &Bound<'_, PyAny>) -> PyResult<u64> {
    if per.is_instance_of::<PyString>() {
        let text: &str = argument("per", "a period", per)?;
        return Ok(crate::rate::parse_period(text)?);
    }
    if per.is_instance_of::<PyInt>() && per.extract::<f64>().is_err() {
        return Err(too_large("per", "2**63 ns", per));
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
        return Err(wrong_type("per", "str, seconds or timedelta", per));
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

/// Rates from arguments that are each a `Rate` or text for `Rate.parse`.
pub(super) fn rates<'py>(
    given: impl Iterator<Item = Bound<'py, PyAny>>,
) -> PyResult<Vec<crate::Rate>> {
    let mut rates = Vec::new();
    for item in given {
        if let Ok(rate) = item.cast::<Rate>() {
            rates.push(rate.get().0.clone());
        } else {
            let text = argument("a rate", "Rate or str", &item)?;
            rates.extend(crate::Rate::parse(text)?);
        }
    }
    Ok(crate::rate::with_distinct_names(rates))
}

/// The rates of one call: a `Rate`, text, or several of them.
pub(super) fn rates_of_call(given: &Bound<'_, PyAny>) -> PyResult<Vec<crate::Rate>> {
    if given.is_instance_of::<PyString>() || given.is_instance_of::<Rate>() {
        return rates(std::iter::once(given.clone()));
    }
    let Ok(items) = given.try_iter() else {
        return Err(wrong_type("rates", "str, Rate or several of them", given));
    };
    let items: Vec<_> = items.collect::<PyResult<_>>()?;
    rates(items.into_iter())
}
