//! The Python face of the crate. Nothing here decides anything: it converts arguments and answers.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;

mod baseline;
mod clock;
mod decision;
mod key;
mod limiter;
mod rate;
mod reservation;
mod sync;

/// The only translation of errors.
impl From<crate::Error> for PyErr {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Invalid(message) => PyValueError::new_err(message),
            crate::Error::TooLarge(message) => PyOverflowError::new_err(message),
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
    use super::limiter::{Limiter, Stats};
    #[pymodule_export]
    use super::rate::Rate;
    #[pymodule_export]
    use super::reservation::Reservation;
    #[pymodule_export]
    use super::sync::{Mailbox, Parcel, RedisSync};

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

/// A duration as Python counts it.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// One of several words.
fn word<T: Copy>(what: &str, given: &str, words: &[(&str, T)]) -> PyResult<T> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given) {
        return Ok(*meaning);
    }
    let known: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
    let message = format!("{what} must be one of {}, got '{given}'", known.join(", "));
    Err(PyValueError::new_err(message))
}
