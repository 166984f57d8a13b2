//! Arguments, and errors that name them.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::error::MOST_SHOWN;

/// The value of an argument. The error names it, what it must be, and what was given.
pub(super) fn argument<'a, 'py, T: FromPyObject<'a, 'py>>(
    what: &str,
    expected: &str,
    value: &'a Bound<'py, PyAny>,
) -> PyResult<T> {
    value.extract::<T>().map_err(|error| {
        let error: PyErr = error.into();
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return wrong_value(what, expected, value);
        }
        match value.cast::<PyString>() {
            Ok(text) if text.to_str().is_err() => not_unicode(what, expected, value),
            _ => wrong_type(what, expected, value),
        }
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

pub(super) fn wrong_value(what: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let value = shown(value);
    PyValueError::new_err(format!("{what} must be {expected}, got {value}"))
}

/// Lone surrogates, as in names of files that are not UTF-8.
fn not_unicode(what: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    // Its own text could not be written to a log or a terminal.
    match value.repr() {
        Ok(repr) => PyValueError::new_err(format!(
            "{what} must be {expected} in valid Unicode, got {}",
            repr.to_string_lossy()
                .chars()
                .take(MOST_SHOWN)
                .collect::<String>()
        )),
        Err(error) => error,
    }
}

/// A value as a message shows it: numbers and texts may have any length.
pub(super) fn shown(value: &Bound<'_, PyAny>) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
