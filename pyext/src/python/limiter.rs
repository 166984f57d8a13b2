//! `Limiter` and `Stats`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::clock::ManualClock;
use super::decision::Decision;
use super::key::{Cost, with_key};
use super::rate::Rate;
use super::reservation::{Reservation, max_wait_ns, waiting};
use super::sync::{Mailbox, Parcel, RedisSync};
use super::word;
use crate::{Algorithm, Answer, Clock, Config, OnFull};

#[pyclass(frozen, module = "hopgate_limiter")]
pub(super) struct Limiter(pub(super) crate::Limiter);

#[pymethods]
impl Limiter {
    #[new]
    #[pyo3(signature = (*rates, algorithm = "gcra", max_keys = 1_000_000, on_full = "evict_idle", precision = 16, shadow = false, clock = None, sync = None))]
    #[allow(clippy::too_many_arguments)] // all of them named
    fn new(
        rates: &Bound<'_, PyTuple>,
        algorithm: &str,
        max_keys: i64,
        on_full: &str,
        precision: i64,
        shadow: bool,
        clock: Option<&Bound<'_, ManualClock>>,
        sync: Option<&Bound<'_, RedisSync>>,
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
            sync: sync.map(|sync| sync.get().take()).transpose()?,
        };
        Ok(Self(crate::Limiter::new(
            &super::rate::rates(rates.iter())?,
            config,
        )?))
    }

    #[pyo3(signature = (key, cost = Cost(1), /), text_signature = "($self, key, cost=1, /)")]
    fn allow(&self, py: Python<'_>, key: &Bound<'_, PyAny>, cost: Cost) -> PyResult<bool> {
        match with_key(key, |key| self.0.try_allow(key, cost.0))? {
            Answer::Now(allowed) => Ok(allowed),
            Answer::Later(pending) => Ok(py.detach(|| self.0.wait(&pending)).allowed),
        }
    }

    #[pyo3(signature = (key, cost = Cost(1), *, rates = None), text_signature = "($self, key, cost=1, *, rates=None)")]
    fn hit(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Decision> {
        let Some(given) = rates else {
            return match with_key(key, |key| self.0.try_hit(key, cost.0))? {
                Answer::Now(decision) => Ok(Decision(decision)),
                Answer::Later(pending) => Ok(Decision(py.detach(|| self.0.wait(&pending)))),
            };
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

    #[pyo3(signature = (key, cost = Cost(1)), text_signature = "($self, key, cost=1)")]
    fn hit_async<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        cost: Cost,
    ) -> PyResult<Bound<'py, PyAny>> {
        waiting(slf.py(), "hit_async")?.call1((slf, key, cost.0))
    }

    /// For `hit_async`: the decision, or None if it will be in the mailbox under `ticket`.
    fn _submit(
        &self,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        mailbox: &Bound<'_, Mailbox>,
        ticket: u64,
    ) -> PyResult<Option<Decision>> {
        let mailbox = &mailbox.get().letters;
        let decision = with_key(key, |key| self.0.submit(key, cost.0, mailbox, ticket))?;
        Ok(decision.map(Decision))
    }

    /// How long `hit_async` waits for the mailbox, s.
    #[getter]
    fn _patience(&self) -> f64 {
        self.0.patience().as_secs_f64()
    }

    /// The decision for somebody who has waited that long.
    fn _decide_alone(&self, key: &Bound<'_, PyAny>, cost: Cost) -> PyResult<Decision> {
        with_key(key, |key| Decision(self.0.decide_alone(key, cost.0)))
    }

    fn hit_many(&self, items: &Bound<'_, PyAny>) -> PyResult<Vec<Decision>> {
        if self.0.is_shared() {
            return self.hit_many_shared(items);
        }
        // Everything is read before anything is taken: a bad item leaves no half of the work behind.
        let mut prepared = Vec::new();
        for item in items.try_iter()? {
            let (key, cost): (Bound<'_, PyAny>, Cost) = item?.extract()?;
            prepared.push((with_key(&key, |key| self.0.prepare(key))?, cost.0));
        }
        Ok(self
            .0
            .hit_many(prepared)?
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
        if slf.get().0.is_shared() {
            max_wait_ns("timeout", timeout)?;
            let decision =
                waiting(slf.py(), "acquire_shared")?.call1((slf, key, cost.0, timeout))?;
            return Ok(Decision(decision.cast::<Decision>()?.get().0.clone()));
        }
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
        if slf.get().0.is_shared() {
            max_wait_ns("timeout", timeout)?;
            return waiting(slf.py(), "acquire_shared_async")?.call1((slf, key, cost.0, timeout));
        }
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
            lease_hits: stats.lease_hits,
            remote_calls: stats.remote_calls,
            redis_errors: stats.redis_errors,
            held: stats.held,
            max_overshoot: stats.max_overshoot,
        }
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    /// For tests with a manual clock, which carry requests by hand.
    #[pyo3(signature = (limit = 256))]
    fn _collect(&self, limit: usize) -> Vec<Parcel> {
        self.0.collect(limit).into_iter().map(Parcel).collect()
    }

    /// The reply to a request carried by hand; None if nobody knows what became of it.
    #[allow(clippy::needless_pass_by_value)] // what Python hands over
    fn _deliver(&self, parcel: &Bound<'_, Parcel>, reply: Option<Vec<i64>>) {
        self.0.deliver(&parcel.get().0, reply.as_deref());
    }

    /// Leased tokens: granted, spent, returned, expired.
    fn _ledger(&self) -> (u64, u64, u64, u64) {
        let ledger = self.0.ledger();
        (
            ledger.granted,
            ledger.spent,
            ledger.returned,
            ledger.expired,
        )
    }

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
    /// Everything is asked before anything is waited for, so all of it goes to Redis at once.
    fn hit_many_shared(&self, items: &Bound<'_, PyAny>) -> PyResult<Vec<Decision>> {
        let mut asked = Vec::new();
        for item in items.try_iter()? {
            let (key, cost): (Bound<'_, PyAny>, Cost) = item?.extract()?;
            with_key(&key, |_| ())?;
            asked.push((key, cost.0));
        }
        let answers = asked
            .into_iter()
            .map(|(key, cost)| with_key(&key, |key| self.0.try_hit(key, cost)))
            .collect::<PyResult<Vec<_>>>()?;
        let decide = |answer| match answer {
            Answer::Now(decision) => Decision(decision),
            Answer::Later(pending) => Decision(self.0.wait(&pending)),
        };
        Ok(items
            .py()
            .detach(|| answers.into_iter().map(decide).collect()))
    }

    fn take_slot(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        max_wait_ns: u64,
    ) -> PyResult<(Decision, Option<Reservation>)> {
        let (decision, slot) = with_key(key, |key| slf.get().0.reserve(key, cost.0, max_wait_ns))??;
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
    lease_hits: u64,
    remote_calls: u64,
    redis_errors: u64,
    held: u64,
    max_overshoot: u64,
}

#[pymethods]
impl Stats {
    fn __repr__(&self) -> String {
        format!(
            "Stats(allowed={}, denied={}, keys={}, evicted_idle={}, evicted_live={}, overflowed={}, lease_hits={}, remote_calls={}, redis_errors={}, held={}, max_overshoot={})",
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
            self.max_overshoot
        )
    }
}
