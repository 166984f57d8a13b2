//! Arguments, and errors that name them.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// The value of an argument. The error names it, what it must be, and what was given.
pub(super) fn argument<'a, 'py, T: FromPyObject<'a, 'py>>(
    what: &str,
    expected: &str,
    value: &'a Bound<'py, PyAny>,
) -> PyResult<T> {
    value.extract::<T>().map_err(|error| {
        let error: PyErr = error.into();
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return PyValueError::new_err(format!("{what} must be {expected}, got {value}"));
        }
        wrong_type(what, expected, value)
    })
}

/// As [`argument`], with a value for one that is not given.
pub(super) fn argument_or<'a, 'py, T: FromPyObject<'a, 'py>>(
    what: &str,
    expected: &str,
    value: Option<&'a Bound<'py, PyAny>>,
    default: T,
) -> PyResult<T> {
    value.map_or(Ok(default), |value| argument(what, expected, value))
}

pub(super) fn wrong_type(what: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value.get_type();
    let kind = kind
        .name()
        .map_or_else(|_| String::from("?"), |name| name.to_string());
    PyTypeError::new_err(format!("{what} must be {expected}, not {kind}"))
}
