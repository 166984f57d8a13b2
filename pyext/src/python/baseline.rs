//! The cheapest method a native class can have, for benchmarks to compare with.

use pyo3::prelude::*;

/// Takes a text and answers True, as `Limiter.allow` would if deciding were free.
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
        // Keeps the compiler from noticing that the text is not used.
        std::hint::black_box(key);
        true
    }
}
