//! What several methods of `Limiter` do.

use std::sync::atomic::AtomicU8;

use pyo3::prelude::*;
use pyo3::types::PyIterator;

use super::reservation::RESERVED;
use super::{Limiter, Reservation};
use crate::python::argument::wrong_type;
use crate::python::decision::Decision;
use crate::python::key::{Cost, GivenKey, with_key};
use crate::python::rate::rates_of_call;
use crate::shared::completion::ReplyTo;
use crate::{Key, Outcome, Pending, Rate};

impl Limiter {
    /// `hit` with rates of its own.
    #[cold]
    #[inline(never)]
    pub(super) fn decided_by_own_rates<'py>(
        &self,
        py: Python<'py>,
        key: GivenKey<'_, 'py>,
        cost: Cost,
        rates: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Decision>> {
        let decision = self.decide(py, key, cost, rates)?;
        self.decided(py, key, decision)
    }

    /// `hit` that waits for Redis.
    #[cold]
    #[inline(never)]
    pub(super) fn decided_by_redis<'py>(
        &self,
        py: Python<'py>,
        key: GivenKey<'_, 'py>,
        pending: &Pending,
    ) -> PyResult<Bound<'py, Decision>> {
        let decision = py.detach(|| self.core.wait(pending));
        self.decided(py, key, decision)
    }

    /// Takes `cost` units if they are there, by the rates of the call if it has some.
    pub(super) fn decide(
        &self,
        py: Python<'_>,
        key: GivenKey<'_, '_>,
        cost: Cost,
        rates: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<crate::Decision> {
        let rates = rates.map(rates_of_call).transpose()?;
        let hit = |key: Key<'_>| {
            let reply_to = ReplyTo::Thread;
            self.core.hit_by(key, cost.0, rates.as_deref(), reply_to)
        };
        let outcome = key.with(hit)??;
        Ok(match outcome {
            Outcome::Ready(decision) => decision,
            Outcome::Pending(pending) => py.detach(|| self.core.wait(&pending)),
        })
    }

    /// The decision as an object, after the hook has received it.
    #[inline(always)]
    #[allow(clippy::inline_always)] // the hot path: a call would copy the decision
    pub(super) fn decided<'py>(
        &self,
        py: Python<'py>,
        key: GivenKey<'_, 'py>,
        decision: crate::Decision,
    ) -> PyResult<Bound<'py, Decision>> {
        let decision = Bound::new(py, Decision(decision))?;
        self.hook.call(key, &decision);
        Ok(decision)
    }

    /// Submits all calls before it waits for the first, so that they share one pipeline.
    pub(super) fn hit_many_shared<T>(
        &self,
        py: Python<'_>,
        calls: &[(Bound<'_, PyAny>, T, u64)],
        rates: Option<&[Rate]>,
    ) -> PyResult<Vec<crate::Decision>> {
        let outcomes = calls
            .iter()
            .map(|(key, _, cost)| {
                let hit = |key: Key<'_>| self.core.hit_by(key, *cost, rates, ReplyTo::Thread);
                Ok(with_key(key, hit)??)
            })
            .collect::<PyResult<Vec<_>>>()?;
        let decide = |outcome| match outcome {
            Outcome::Ready(decision) => decision,
            Outcome::Pending(pending) => self.core.wait(&pending),
        };
        Ok(py.detach(|| outcomes.into_iter().map(decide).collect()))
    }

    pub(super) fn take_slot<'py>(
        slf: &Bound<'py, Self>,
        key: GivenKey<'_, 'py>,
        cost: Cost,
        max_wait_ns: u64,
        is_waiting: bool,
        rates: Option<&[Rate]>,
    ) -> PyResult<(Bound<'py, Decision>, Option<Reservation>)> {
        let limiter = &slf.get().core;
        let (decision, slot) =
            key.with(|key| limiter.take_slot(key, cost.0, max_wait_ns, is_waiting, rates))??;
        let reservation = slot.map(|slot| Reservation {
            limiter: slf.clone().unbind(),
            slot,
            state: AtomicU8::new(RESERVED),
        });
        let decision = slf.get().decided(slf.py(), key, decision)?;
        Ok((decision, reservation))
    }
}

/// The items of `hit_many`.
pub(super) fn items<'py>(items: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    items
        .try_iter()
        .map_err(|_| wrong_type("items", "pairs of a key and a cost", items))
}

/// One of them.
pub(super) fn item<'py>(item: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Cost)> {
    let Ok((key, cost)) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
        return Err(wrong_type("an item", "a pair of a key and a cost", item));
    };
    Ok((key, cost.extract()?))
}
