//! The function that receives each decision.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::decision::Decision;
use super::key::GivenKey;

/// `on_decision` of a limiter, if it has one.
pub(super) struct Hook(Option<Py<PyAny>>);

impl Hook {
    pub(super) fn new(given: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        if let Some(hook) = given
            && !hook.is_callable()
        {
            let kind = hook.get_type();
            let message = format!("on_decision must be callable, not {}", kind.name()?);
            return Err(PyTypeError::new_err(message));
        }
        Ok(Self(given.map(|hook| hook.clone().unbind())))
    }

    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    #[inline]
    pub(super) fn call(&self, key: GivenKey<'_, '_>, decision: &Bound<'_, Decision>) {
        if let Some(hook) = &self.0 {
            call(hook, key, decision);
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

/// The units are taken already, so an exception of the hook is no reason to withhold the decision.
#[cold]
fn call(hook: &Py<PyAny>, key: GivenKey<'_, '_>, decision: &Bound<'_, Decision>) {
    let py = decision.py();
    let hook = hook.bind(py);
    if let Err(error) = hook.call1((key.object(py), decision)) {
        error.write_unraisable(py, Some(hook));
    }
}
