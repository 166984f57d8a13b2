//! `Limiter`. A class of Python has one block of methods, so all of them stand here; `calls` and `reservation` hold
//! what they share.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::argument::{argument_or, wrong_type};
use super::capsule;
use super::decision::Decision;
use super::hook::Hook;
use super::key::{Cost, GivenKey, with_key};
use super::rate::{Rate, count, rates_of_call};
use super::stats::Stats;
use super::sync::{CompletionQueue, RedisSync, Request};
use super::waiting::{health_log, longest_sleep, max_wait_ns, waiting, wake};
use super::word;
use crate::shared::completion::ReplyTo;
use crate::{Algorithm, Config, Key, OnFull, Outcome};

mod calls;
mod reservation;

pub(super) use reservation::Reservation;

#[doc = manual!("Limiter")]
#[pyclass(frozen, weakref, module = "hopgate_limiter")]
pub(super) struct Limiter {
    pub(super) core: crate::Limiter,
    hook: Hook,
}

#[pymethods]
impl Limiter {
    #[new]
    #[pyo3(signature = (*rates, algorithm = None, max_keys = None, max_bytes = None, on_full = None, precision = None, shadow = None, clock = None, sync = None, on_decision = None), text_signature = "(*rates, algorithm='gcra', max_keys=1_000_000, max_bytes=None, on_full='evict_idle', precision=16, shadow=False, clock=None, sync=None, on_decision=None)")]
    #[allow(clippy::too_many_arguments)] // all of them named
    fn new(
        rates: &Bound<'_, PyTuple>,
        algorithm: Option<&Bound<'_, PyAny>>,
        max_keys: Option<&Bound<'_, PyAny>>,
        max_bytes: Option<&Bound<'_, PyAny>>,
        on_full: Option<&Bound<'_, PyAny>>,
        precision: Option<&Bound<'_, PyAny>>,
        shadow: Option<&Bound<'_, PyAny>>,
        clock: Option<&Bound<'_, PyAny>>,
        sync: Option<&Bound<'_, PyAny>>,
        on_decision: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let algorithm: &str = argument_or("algorithm", "str", algorithm, "gcra")?;
        let on_full: &str = argument_or("on_full", "str", on_full, "evict_idle")?;
        let max_keys: i64 = argument_or("max_keys", "1 to 2**32", max_keys, 1_000_000)?;
        let precision: i64 = argument_or("precision", "1 to 1024 buckets", precision, 16)?;
        let expected = "RedisSync, as in RedisSync('redis://localhost')";
        let sync = sync
            .map(|sync| {
                let wrong = |_| wrong_type("sync", expected, sync);
                sync.cast::<RedisSync>().map_err(wrong)
            })
            .transpose()?;
        let hook = Hook::new(on_decision)?;
        let on_health = sync.map(|sync| health_log(sync.get().prefix()));
        let algorithms = Algorithm::ALL.map(|word| (word.as_str(), word));
        let policies = OnFull::ALL.map(|word| (word.as_str(), word));
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
            max_bytes: max_bytes
                .map(|bytes| count("max_bytes", bytes, 1))
                .transpose()?,
            shadow: argument_or("shadow", "bool", shadow, false)?,
            clock: super::clock::clock(clock)?,
            sync: sync.map(|sync| sync.get().take()).transpose()?,
            on_health,
        };
        let py = rates.py();
        let rates = super::rate::rates(rates.iter())?;
        let core = py.detach(|| crate::Limiter::new(&rates, config))?;
        Ok(Self { core, hook })
    }

    #[pyo3(signature = (key = GivenKey::NONE, cost = Cost(1), *, rates = None), text_signature = "($self, key='', cost=1, *, rates=None)")]
    #[doc = manual!("Limiter.allow")]
    fn allow(
        &self,
        py: Python<'_>,
        key: GivenKey<'_, '_>,
        cost: Cost,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        if rates.is_some() || self.hook.is_set() {
            return Ok(self.hit(py, key, cost, rates)?.get().0.allowed);
        }
        match key.with(|key| self.core.try_allow(key, cost.0))? {
            Outcome::Ready(allowed) => Ok(allowed),
            Outcome::Pending(pending) => Ok(py.detach(|| self.core.wait(&pending)).allowed),
        }
    }

    #[pyo3(signature = (key = GivenKey::NONE, cost = Cost(1), *, rates = None), text_signature = "($self, key='', cost=1, *, rates=None)")]
    #[doc = manual!("Limiter.hit")]
    fn hit<'py>(
        &self,
        py: Python<'py>,
        key: GivenKey<'_, 'py>,
        cost: Cost,
        rates: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Decision>> {
        if rates.is_some() {
            return self.decided_by_own_rates(py, key, cost, rates);
        }
        // As `decide`: through another result the decision would be copied once more.
        match key.with(|key| self.core.try_hit(key, cost.0))? {
            Outcome::Ready(decision) => self.decided(py, key, decision),
            Outcome::Pending(pending) => self.decided_by_redis(py, key, &pending),
        }
    }

    /// As `hit`, for callers that try again: they report the last decision alone.
    #[pyo3(signature = (key, cost, rates = None))]
    fn _try_hit<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        cost: Cost,
        rates: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Decision> {
        let decision = self.decide(py, GivenKey::from(key), cost, rates)?;
        Ok(Decision(decision))
    }

    #[pyo3(signature = (key = GivenKey::NONE, cost = Cost(1), *, rates = None), text_signature = "($self, key='', cost=1, *, rates=None)")]
    #[doc = manual!("Limiter.peek")]
    fn peek(
        &self,
        py: Python<'_>,
        key: GivenKey<'_, '_>,
        cost: Cost,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Decision> {
        let rates = rates.map(rates_of_call).transpose()?;
        let look = |key: Key<'_>| {
            let reply_to = ReplyTo::Thread;
            self.core.peek_by(key, cost.0, rates.as_deref(), reply_to)
        };
        match key.with(look)?? {
            Outcome::Ready(decision) => Ok(Decision(decision)),
            Outcome::Pending(pending) => Ok(Decision(py.detach(|| self.core.wait(&pending)))),
        }
    }

    #[getter]
    #[doc = manual!("Limiter.rates")]
    fn rates<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.core.rates().iter().cloned().map(Rate))
    }

    #[getter]
    fn _is_shared(&self) -> bool {
        self.core.is_shared()
    }

    #[getter]
    fn _longest_sleep(&self) -> Option<f64> {
        longest_sleep(&self.core)
    }

    #[getter]
    fn _now_ns(&self) -> u64 {
        self.core.now_ns()
    }

    /// For `hit_async`: the decision, or None if it comes through the queue under `call_id`. Not reported.
    #[pyo3(signature = (key, cost, queue, call_id, rates = None))]
    fn _submit(
        &self,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        queue: &Bound<'_, CompletionQueue>,
        call_id: u64,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Decision>> {
        let rates = rates.map(rates_of_call).transpose()?;
        let outcome = with_key(key, |key| {
            let reply_to = ReplyTo::Queue(&queue.get().queue, call_id);
            self.core.hit_by(key, cost.0, rates.as_deref(), reply_to)
        })??;
        Ok(outcome.ready().map(Decision))
    }

    /// For `peek_async`, likewise.
    #[pyo3(signature = (key, cost, queue, call_id, rates = None))]
    fn _submit_peek(
        &self,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        queue: &Bound<'_, CompletionQueue>,
        call_id: u64,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Decision>> {
        let rates = rates.map(rates_of_call).transpose()?;
        let outcome = with_key(key, |key| {
            let reply_to = ReplyTo::Queue(&queue.get().queue, call_id);
            self.core.peek_by(key, cost.0, rates.as_deref(), reply_to)
        })??;
        Ok(outcome.ready().map(Decision))
    }

    /// For `refund_async`: True, or None if the outcome comes through the queue.
    #[pyo3(signature = (key, cost, queue, call_id, rates = None))]
    fn _submit_refund(
        &self,
        key: &Bound<'_, PyAny>,
        cost: Cost,
        queue: &Bound<'_, CompletionQueue>,
        call_id: u64,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<bool>> {
        let rates = rates.map(rates_of_call).transpose()?;
        let outcome = with_key(key, |key| {
            let reply_to = ReplyTo::Queue(&queue.get().queue, call_id);
            self.core.refund_by(key, cost.0, rates.as_deref(), reply_to)
        })??;
        let woken = outcome.ready();
        woken
            .map(|woken| wake(queue.py(), woken).map(|()| true))
            .transpose()
    }

    /// Whether a call that has waited this long, s, waits on.
    fn _is_replying(&self, waited: f64) -> bool {
        self.core
            .is_replying(Duration::from_secs_f64(waited.max(0.0)))
    }

    /// What `peek` says without Redis.
    fn _peek_fallback(&self, key: &Bound<'_, PyAny>, cost: Cost) -> PyResult<Decision> {
        with_key(key, |key| Decision(self.core.peek_fallback(key, cost.0)))
    }

    /// Passes a decision of `_try_hit` or `_submit` to the hook.
    fn _report(&self, key: &Bound<'_, PyAny>, decision: &Bound<'_, Decision>) {
        self.hook.call(GivenKey::from(key), decision);
    }

    /// How long `hit_async` waits for a completion, s.
    #[getter]
    fn _reply_timeout(&self) -> f64 {
        self.core.reply_timeout().as_secs_f64()
    }

    /// The decision without Redis, after that time.
    fn _decide_fallback(&self, key: &Bound<'_, PyAny>, cost: Cost) -> PyResult<Decision> {
        with_key(key, |key| Decision(self.core.decide_fallback(key, cost.0)))
    }

    #[pyo3(signature = (items, *, rates = None))]
    #[doc = manual!("Limiter.hit_many")]
    fn hit_many<'py>(
        &self,
        items: &Bound<'py, PyAny>,
        rates: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, Decision>>> {
        let rates = rates.map(rates_of_call).transpose()?;
        // All items are read before any unit is taken, so that a bad item changes nothing.
        let mut calls = Vec::new();
        for item in calls::items(items)? {
            let (key, cost) = calls::item(&item?)?;
            let prepared = with_key(&key, |key| self.core.prepare(key))?;
            calls.push((key, prepared, cost.0));
        }
        let decisions = if self.core.is_shared() {
            self.hit_many_shared(items.py(), &calls, rates.as_deref())?
        } else {
            let prepared = calls.iter().map(|(_, prepared, cost)| (*prepared, *cost));
            self.core.hit_many_by(prepared, rates.as_deref())?
        };
        let decided = |((key, ..), decision): (&(Bound<'py, PyAny>, _, _), _)| {
            self.decided(items.py(), GivenKey::from(key), decision)
        };
        calls.iter().zip(decisions).map(decided).collect()
    }

    #[pyo3(signature = (key = GivenKey::NONE, cost = Cost(1), *, timeout = None, rates = None), text_signature = "($self, key='', cost=1, *, timeout=None, rates=None)")]
    #[doc = manual!("Limiter.acquire")]
    fn acquire<'py>(
        slf: &Bound<'py, Self>,
        key: GivenKey<'_, 'py>,
        cost: Cost,
        timeout: Option<&Bound<'py, PyAny>>,
        rates: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let max_wait_ns = max_wait_ns("timeout", timeout)?;
        if slf.get().core.is_shared() || rates.is_some() {
            let arguments = (slf, key.object(py), cost.0, timeout, rates);
            return waiting(py, "acquire_unqueued")?.call1(arguments);
        }
        let (decision, reservation) = Self::take_slot(slf, key, cost, max_wait_ns, true, None)?;
        if decision.get().0.retry_after_ns.is_none() {
            return Err(PyErr::from_value(
                waiting(py, "refused")?.call1((decision,))?,
            ));
        }
        if let Some(reservation) = reservation {
            if slf.get().core.delay_ns(&reservation.slot) > 0 {
                waiting(py, "wait")?.call1((reservation,))?;
            } else {
                reservation.serve(py)?;
            }
        }
        Ok(decision.into_any())
    }

    #[pyo3(signature = (key = GivenKey::NONE, cost = Cost(1), *, max_wait = None, rates = None), text_signature = "($self, key='', cost=1, *, max_wait=None, rates=None)")]
    #[doc = manual!("Limiter.reserve")]
    fn reserve(
        slf: &Bound<'_, Self>,
        key: GivenKey<'_, '_>,
        cost: Cost,
        max_wait: Option<&Bound<'_, PyAny>>,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Reservation> {
        let max_wait_ns = max_wait_ns("max_wait", max_wait)?;
        let rates = rates.map(rates_of_call).transpose()?;
        let rates = rates.as_deref();
        let (decision, reservation) = Self::take_slot(slf, key, cost, max_wait_ns, false, rates)?;
        if let Some(reservation) = reservation {
            return Ok(reservation);
        }
        Err(PyErr::from_value(
            waiting(slf.py(), "refused")?.call1((decision,))?,
        ))
    }

    /// For `acquire_async`: the decision, and the slot to wait for if there is one.
    fn _reserve<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        cost: Cost,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, Decision>, Option<Reservation>)> {
        let max_wait_ns = max_wait_ns("timeout", timeout)?;
        Self::take_slot(slf, GivenKey::from(key), cost, max_wait_ns, true, None)
    }

    #[pyo3(signature = (key = GivenKey::NONE, cost = Cost(1), *, rates = None), text_signature = "($self, key='', cost=1, *, rates=None)")]
    #[doc = manual!("Limiter.refund")]
    fn refund(
        &self,
        py: Python<'_>,
        key: GivenKey<'_, '_>,
        cost: Cost,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let rates = rates.map(rates_of_call).transpose()?;
        let give_back = |key: Key<'_>| {
            let reply_to = ReplyTo::Thread;
            self.core.refund_by(key, cost.0, rates.as_deref(), reply_to)
        };
        match key.with(give_back)?? {
            Outcome::Ready(woken) => wake(py, woken),
            Outcome::Pending(pending) => {
                py.detach(|| self.core.wait_for_refund(&pending))?;
                Ok(())
            }
        }
    }

    #[pyo3(signature = (key = GivenKey::NONE), text_signature = "($self, key='')")]
    #[doc = manual!("Limiter.reset")]
    fn reset(&self, py: Python<'_>, key: GivenKey<'_, '_>) -> PyResult<()> {
        wake(py, key.with(|key| self.core.reset(key))?)
    }

    #[pyo3(signature = (*rates))]
    #[doc = manual!("Limiter.configure")]
    fn configure(&self, rates: &Bound<'_, PyTuple>) -> PyResult<()> {
        let woken = self.core.configure(&super::rate::rates(rates.iter())?)?;
        wake(rates.py(), woken)
    }

    #[doc = manual!("Limiter.stats")]
    fn stats(&self) -> Stats {
        self.core.stats().into()
    }

    #[doc = manual!("Limiter.ping")]
    fn ping(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.core.ping())?)
    }

    #[doc = manual!("Limiter.close")]
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.core.close());
    }

    /// For extension modules that decide without the GIL: see `capsule`.
    #[getter]
    fn _c_api<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyCapsule>> {
        if slf.get().hook.is_set() {
            let message = "on_decision receives the decisions of Python's calls alone";
            return Err(PyValueError::new_err(message));
        }
        // Safety: the limiter is a part of the object, which neither moves nor changes.
        unsafe { capsule::export(&slf.get().core, slf.clone().into_any()) }
    }

    /// For tests with a manual clock, which send requests themselves.
    #[pyo3(signature = (limit = 256))]
    fn _collect(&self, limit: usize) -> Vec<Request> {
        self.core.collect(limit).into_iter().map(Request).collect()
    }

    /// The reply to such a request; None if its outcome is unknown.
    #[allow(clippy::needless_pass_by_value)] // the form in which Python passes it
    fn _complete(&self, request: &Bound<'_, Request>, reply: Option<Vec<i64>>) {
        self.core.complete(&request.get().0, reply.as_deref());
    }

    /// Leased tokens: granted, spent, returned, expired.
    fn _ledger(&self) -> (u64, u64, u64, u64) {
        let ledger = self.core.ledger();
        (
            ledger.granted,
            ledger.spent,
            ledger.returned,
            ledger.expired,
        )
    }

    fn __repr__(&self) -> String {
        let texts: Vec<String> = self.core.rates().iter().map(ToString::to_string).collect();
        format!("<Limiter {}>", texts.join("; "))
    }

    #[allow(clippy::needless_pass_by_value)] // the form that Python's garbage collector calls
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.hook.traverse(&visit)
    }
}
