//! The Python API of the crate: converts arguments and decisions, and decides nothing itself.

// The documentation is that of the Python API, which is not Markdown.
#![allow(clippy::doc_markdown)]

use pyo3::exceptions::{PyConnectionError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// What the stub says about a class or a method, see `build.rs`.
macro_rules! manual {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".txt"))
    };
}

mod argument;
mod baseline;
mod capsule;
mod clock;
mod decision;
mod hook;
mod key;
mod limiter;
mod rate;
mod stats;
mod sync;
mod waiting;

/// The only place where errors become exceptions.
impl From<crate::Error> for PyErr {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Invalid(message) => PyValueError::new_err(message),
            crate::Error::TooLarge(message) => PyOverflowError::new_err(message),
            crate::Error::Unreachable(message) => PyConnectionError::new_err(message),
        }
    }
}

#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::baseline::Baseline;
    #[pymodule_export]
    use super::clock::ManualClock;
    #[pymodule_export]
    use super::decision::Decision;
    #[pymodule_export]
    use super::key::client_key;
    #[pymodule_export]
    use super::limiter::{Limiter, Reservation};
    #[pymodule_export]
    use super::rate::Rate;
    #[pymodule_export]
    use super::stats::Stats;
    #[pymodule_export]
    use super::sync::{CompletionQueue, RedisSync, Request};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        // A benchmark can refuse to measure a debug build.
        module.add("build_profile", profile)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// What `__reduce__` returns: a function, and arguments that make the object anew.
type Reduced<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>);

/// A duration in seconds.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The meaning of a word out of a fixed set.
fn word<T: Copy>(what: &str, given: &str, words: &[(&str, T)]) -> PyResult<T> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given) {
        return Ok(*meaning);
    }
    let known: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
    let message = format!("{what} must be one of {}, got '{given}'", known.join(", "));
    Err(PyValueError::new_err(message))
}
