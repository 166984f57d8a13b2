//! `Stats`.

use pyo3::prelude::*;

use super::Reduced;

#[doc = manual!("Stats")]
#[pyclass(
    frozen,
    get_all,
    eq,
    hash,
    weakref,
    skip_from_py_object,
    module = "hopgate_limiter"
)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Stats {
    #[doc = manual!("Stats.allowed")]
    allowed: u64,
    #[doc = manual!("Stats.denied")]
    denied: u64,
    #[doc = manual!("Stats.keys")]
    keys: u64,
    #[doc = manual!("Stats.evicted_idle")]
    evicted_idle: u64,
    #[doc = manual!("Stats.evicted_live")]
    evicted_live: u64,
    #[doc = manual!("Stats.overflowed")]
    overflowed: u64,
    #[doc = manual!("Stats.lease_hits")]
    lease_hits: u64,
    #[doc = manual!("Stats.remote_calls")]
    remote_calls: u64,
    #[doc = manual!("Stats.redis_errors")]
    redis_errors: u64,
    #[doc = manual!("Stats.held")]
    held: u64,
    #[doc = manual!("Stats.max_overshoot")]
    max_overshoot: u64,
    #[doc = manual!("Stats.last_error")]
    last_error: Option<String>,
}

impl From<crate::Stats> for Stats {
    fn from(stats: crate::Stats) -> Self {
        Self {
            allowed: stats.allowed,
            denied: stats.denied,
            keys: stats.keys,
            evicted_idle: stats.evicted_idle,
            evicted_live: stats.evicted_live,
            overflowed: stats.overflowed,
            lease_hits: stats.lease_hits,
            remote_calls: stats.remote_calls,
            redis_errors: stats.redis_errors,
            held: stats.held,
            max_overshoot: stats.max_overshoot,
            last_error: stats.last_error,
        }
    }
}

#[pymethods]
impl Stats {
    /// For `copy` and `pickle`.
    #[staticmethod]
    #[allow(clippy::too_many_arguments)] // the fields
    fn _restore(
        allowed: u64,
        denied: u64,
        keys: u64,
        evicted_idle: u64,
        evicted_live: u64,
        overflowed: u64,
        lease_hits: u64,
        remote_calls: u64,
        redis_errors: u64,
        held: u64,
        max_overshoot: u64,
        last_error: Option<String>,
    ) -> Self {
        Self {
            allowed,
            denied,
            keys,
            evicted_idle,
            evicted_live,
            overflowed,
            lease_hits,
            remote_calls,
            redis_errors,
            held,
            max_overshoot,
            last_error,
        }
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        let fields = (
            self.allowed,
            self.denied,
            self.keys,
            self.evicted_idle,
            self.evicted_live,
            self.overflowed,
            self.lease_hits,
            self.remote_calls,
            self.redis_errors,
            self.held,
            self.max_overshoot,
            self.last_error.as_deref(),
        );
        Ok((
            py.get_type::<Self>().getattr("_restore")?,
            fields.into_pyobject(py)?,
        ))
    }

    fn __repr__(&self) -> String {
        format!(
            "Stats(allowed={}, denied={}, keys={}, evicted_idle={}, evicted_live={}, overflowed={}, lease_hits={}, remote_calls={}, redis_errors={}, held={}, max_overshoot={}, last_error={})",
            self.allowed,
            self.denied,
            self.keys,
            self.evicted_idle,
            self.evicted_live,
            self.overflowed,
            self.lease_hits,
            self.remote_calls,
            self.redis_errors,
            self.held,
            self.max_overshoot,
            self.last_error
                .as_ref()
                .map_or_else(|| "None".to_owned(), |error| format!("{error:?}")),
        )
    }
}
