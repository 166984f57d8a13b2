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
