//! `Limiter` and `Stats`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::clock::ManualClock;
use super::decision::Decision;
use super::key::{Cost, with_key};
use super::rate::Rate;
use super::reservation::{Reservation, max_wait_ns, waiting};
use crate::{Algorithm, Clock, Config, OnFull};

#[pyclass(frozen, module = "hopgate_limiter")]
pub(super) struct Limiter(pub(super) crate::Limiter);

/// One of several words.
fn word<T: Copy>(what: &str, given: &str, words: &[(&str, T)]) -> PyResult<T> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given) {
        return Ok(*meaning);
    }
    let known: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
    let message = format!("{what} must be one of {}, got '{given}'", known.join(", "));
    Err(PyValueError::new_err(message))
}

#[pymethods]
impl Limiter {
    #[new]
    #[pyo3(signature = (*rates, algorithm = "gcra", max_keys = 1_000_000, on_full = "evict_idle", precision = 16, shadow = false, clock = None))]
    fn new(
        rates: &Bound<'_, PyTuple>,
        algorithm: &str,
        max_keys: i64,
        on_full: &str,
        precision: i64,
        shadow: bool,
        clock: Option<&Bound<'_, ManualClock>>,
    ) -> PyResult<Self> {
        let algorithms = [
            ("gcra", Algorithm::Gcra),
            ("sliding_log", Algorithm::SlidingLog),
            ("sliding_window", Algorithm::SlidingWindow),
        ];
        let policies = [
            ("deny", OnFull::Deny),
            ("shared_bucket", OnFull::SharedBucket),
            ("evict_idle", OnFull::EvictIdle),
        ];
        let config = Config {
            algorithm: word("algorithm", algorithm, &algorithms)?,
            max_keys: u64::try_from(max_keys).map_err(|_| {
                PyValueError::new_err(format!("max_keys must be 1 to 2**32, got {max_keys}"))
            })?,
            on_full: word("on_full", on_full, &policies)?,
            precision: u32::try_from(precision).map_err(|_| {
                PyValueError::new_err(format!(
                    "precision must be 1 to 1024 buckets, got {precision}"
                ))
            })?,
            shadow,
            clock: clock.map_or_else(Clock::monotonic, |clock| {
                Clock::manual(clock.get().0.clone())
            }),
        };
        Ok(Self(crate::Limiter::new(
            &super::rate::rates(rates.iter())?,
            config,
        )?))
    }

    #[pyo3(signature = (key, cost = Cost(1), /), text_signature = "($self, key, cost=1, /)")]
    fn allow(&self, key: &Bound<'_, PyAny>, cost: Cost) -> PyResult<bool> {
        with_key(key, |key| self.0.allow(key, cost.0))
    }

    #[pyo3(signature = (key, cost = Cost(1), *, rates = None), text_signature = "($self, key, cost=1, *, rates=None)")]
    fn hit(
        &self,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Decision> {
        let Some(given) = rates else {
            return with_key(key, |key| Decision(self.0.hit(key, cost.0)));
        };
        let rates = given
            .try_iter()?
            .map(|item| Ok(item?.cast_into::<Rate>()?.get().0.clone()))
            .collect::<PyResult<Vec<_>>>()?;
        let decision = with_key(key, |key| self.0.hit_with(key, cost.0, &rates))?;
        Ok(Decision(decision?))
    }

    #[pyo3(signature = (key, cost = Cost(1)), text_signature = "($self, key, cost=1)")]
    fn peek(&self, key: &Bound<'_, PyAny>, cost: Cost) -> PyResult<Decision> {
        with_key(key, |key| Decision(self.0.peek(key, cost.0)))
    }

    fn hit_many(&self, items: &Bound<'_, PyAny>) -> PyResult<Vec<Decision>> {
        // Everything is read before anything is taken: a bad item leaves no half of the work behind.
        let mut prepared = Vec::new();
        for item in items.try_iter()? {
            let (key, cost): (Bound<'_, PyAny>, Cost) = item?.extract()?;
            prepared.push((with_key(&key, |key| self.0.prepare(key))?, cost.0));
        }
        Ok(self
            .0
            .hit_many(prepared)
            .into_iter()
            .map(Decision)
            .collect())
    }

    #[pyo3(signature = (key, cost = Cost(1), *, timeout = None), text_signature = "($self, key, cost=1, *, timeout=None)")]
    fn acquire(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        timeout: Option<f64>,
    ) -> PyResult<Decision> {
        let (decision, reservation) = Self::_reserve(slf, key, cost, timeout)?;
        if let Some(reservation) = reservation
            && slf.get().0.delay_ns(&reservation.slot) > 0
        {
            waiting(slf.py(), "wait")?.call1((reservation,))?;
        }
        Ok(decision)
    }

    #[pyo3(signature = (key, cost = Cost(1), *, timeout = None), text_signature = "($self, key, cost=1, *, timeout=None)")]
    fn acquire_async<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        cost: Cost,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        waiting(slf.py(), "acquire_async")?.call1((slf, key, cost.0, timeout))
    }

    #[pyo3(signature = (key, cost = Cost(1), *, max_wait = f64::INFINITY), text_signature = "($self, key, cost=1, *, max_wait=inf)")]
    fn reserve(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        max_wait: f64,
    ) -> PyResult<Reservation> {
        let max_wait_ns = max_wait_ns("max_wait", Some(max_wait))?;
        let (decision, reservation) = Self::take_slot(slf, key, cost, max_wait_ns)?;
        if let Some(reservation) = reservation {
            return Ok(reservation);
        }
        let exceeded = waiting(slf.py(), "RateLimitExceeded")?;
        Err(PyErr::from_value(exceeded.call1((decision,))?))
    }

    /// For `acquire` and `acquire_async`: the decision, and the slot to wait for if there is one.
    fn _reserve(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        timeout: Option<f64>,
    ) -> PyResult<(Decision, Option<Reservation>)> {
        Self::take_slot(slf, key, cost, max_wait_ns("timeout", timeout)?)
    }

    #[pyo3(signature = (key, cost = Cost(1)), text_signature = "($self, key, cost=1)")]
    fn refund(&self, key: &Bound<'_, PyAny>, cost: Cost) -> PyResult<()> {
        with_key(key, |key| self.0.refund(key, cost.0))
    }

    fn reset(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        with_key(key, |key| self.0.reset(key))
    }

    #[pyo3(signature = (*rates))]
    fn configure(&self, rates: &Bound<'_, PyTuple>) -> PyResult<()> {
        Ok(self.0.configure(&super::rate::rates(rates.iter())?)?)
    }

    fn stats(&self) -> Stats {
        let stats = self.0.stats();
        Stats {
            allowed: stats.allowed,
            denied: stats.denied,
            keys: stats.keys,
            evicted_idle: stats.evicted_idle,
            evicted_live: stats.evicted_live,
            overflowed: stats.overflowed,
        }
    }

    #[allow(clippy::unused_self)] // there is nothing to stop yet, but callers should not need to know
    fn close(&self) {}

    fn __repr__(&self) -> String {
        let rates = self.0.rates();
        let texts: Vec<String> = rates
            .iter()
            .map(|r| format!("{} per {} ns burst {}", r.limit(), r.period_ns(), r.burst()))
            .collect();
        format!("<Limiter {}>", texts.join("; "))
    }
}

impl Limiter {
    fn take_slot(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        max_wait_ns: u64,
    ) -> PyResult<(Decision, Option<Reservation>)> {
        let (decision, slot) = with_key(key, |key| slf.get().0.reserve(key, cost.0, max_wait_ns))?;
        let reservation = slot.map(|slot| Reservation {
            limiter: slf.clone().unbind(),
            slot,
        });
        Ok((Decision(decision), reservation))
    }
}

#[pyclass(frozen, get_all, module = "hopgate_limiter")]
pub(super) struct Stats {
    allowed: u64,
    denied: u64,
    keys: u64,
    evicted_idle: u64,
    evicted_live: u64,
    overflowed: u64,
}

#[pymethods]
impl Stats {
    fn __repr__(&self) -> String {
        format!(
            "Stats(allowed={}, denied={}, keys={}, evicted_idle={}, evicted_live={}, overflowed={})",
            self.allowed,
            self.denied,
            self.keys,
            self.evicted_idle,
            self.evicted_live,
            self.overflowed
        )
    }
}
