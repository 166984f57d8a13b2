//! The cheapest method of a native class, as a baseline for benchmarks.

use pyo3::prelude::*;

/// Takes a text and returns True: the cost of `Limiter.allow` without a decision.
#[pyclass(frozen, name = "_Baseline", module = "hopgate_limiter._native")]
pub(super) struct Baseline;

#[pymethods]
impl Baseline {
    #[new]
    fn new() -> Self {
        Self
    }

    #[pyo3(signature = (key, /))]
    #[allow(clippy::unused_self, clippy::needless_pass_by_value)]
    fn allow(&self, key: &str) -> bool {
        // Keeps the compiler from removing the unused text.
        std::hint::black_box(key);
        true
    }
}
