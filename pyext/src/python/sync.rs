//! `RedisSync`, and the queue that carries its decisions to asyncio.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyString, PyTuple};

use super::argument::{argument, argument_or, wrong_type, wrong_value};
use super::decision::Decision;
use super::rate::count;
use super::{Reduced, word};
use crate::{Cold, Mode, OnError, Outstanding, SyncConfig};

#[doc = manual!("RedisSync")]
#[pyclass(frozen, weakref, module = "hopgate_limiter")]
pub(super) struct RedisSync {
    config: SyncConfig,
    is_taken: AtomicBool,
}

fn nanoseconds(what: &str, seconds: f64) -> PyResult<u64> {
    if !(0.0..1e6).contains(&seconds) {
        return Err(PyValueError::new_err(format!(
            "{what} must be 0.001 to 60 s, got {seconds} s"
        )));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range
    Ok((seconds * 1e9).round() as u64)
}

fn outstanding(value: &Bound<'_, PyAny>) -> PyResult<Outstanding> {
    if let Ok(tokens) = value.extract::<u64>() {
        return Ok(Outstanding::Tokens(tokens));
    }
    if value.is_instance_of::<PyInt>() {
        let expected = "at least 0 and below 2**64, or a part of the burst";
        return Err(wrong_value("max_outstanding", expected, value));
    }
    let part = argument("max_outstanding", "int or float", value)?;
    Ok(Outstanding::Part(part))
}

#[pymethods]
impl RedisSync {
    #[new]
    #[pyo3(signature = (url, *, prefix = None, mode = None, max_outstanding = None, lease_ttl = None, max_lease = None, cold = None, optimistic = None, on_error = None, timeout = None, fresh = None, require = None), text_signature = "(url, *, prefix='rl:', mode='strict', max_outstanding=0.25, lease_ttl=0.5, max_lease=None, cold='sync', optimistic=None, on_error='share', timeout=0.25, fresh='full', require=False)")]
    #[allow(clippy::too_many_arguments)] // all of them named
    fn new(
        url: &Bound<'_, PyAny>,
        prefix: Option<&Bound<'_, PyAny>>,
        mode: Option<&Bound<'_, PyAny>>,
        max_outstanding: Option<&Bound<'_, PyAny>>,
        lease_ttl: Option<&Bound<'_, PyAny>>,
        max_lease: Option<&Bound<'_, PyAny>>,
        cold: Option<&Bound<'_, PyAny>>,
        optimistic: Option<&Bound<'_, PyAny>>,
        on_error: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
        fresh: Option<&Bound<'_, PyAny>>,
        require: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let url: &str = argument("url", "str", url)?;
        let prefix: &str = argument_or("prefix", "str", prefix, "rl:")?;
        let mode: &str = argument_or("mode", "str", mode, "strict")?;
        let cold: &str = argument_or("cold", "str", cold, "sync")?;
        let on_error: &str = argument_or("on_error", "str", on_error, "share")?;
        let fresh: &str = argument_or("fresh", "str", fresh, "full")?;
        let lease_ttl = argument_or("lease_ttl", "a number of seconds", lease_ttl, 0.5)?;
        let timeout = argument_or("timeout", "a number of seconds", timeout, 0.25)?;
        let max_lease = max_lease
            .map(|tokens| count("max_lease", tokens, 1))
            .transpose()?;
        let optimistic = optimistic
            .map(|units| count("optimistic", units, 1))
            .transpose()?;
        let require = argument_or("require", "bool", require, false)?;
        let modes = Mode::ALL.map(|word| (word.as_str(), word));
        let colds = [("sync", false), ("optimistic", true)];
        let errors = OnError::ALL.map(|word| (word.as_str(), word));
        let is_optimistic = word("cold", cold, &colds)?;
        if optimistic.is_some() && !is_optimistic {
            return Err(PyValueError::new_err(
                "optimistic is how many units cold='optimistic' admits; cold is 'sync'",
            ));
        }
        let config = SyncConfig {
            url: url.to_owned(),
            prefix: prefix.as_bytes().to_vec(),
            mode: word("mode", mode, &modes)?,
            max_outstanding: max_outstanding.map_or(Ok(Outstanding::Part(0.25)), outstanding)?,
            lease_ttl_ns: nanoseconds("lease_ttl", lease_ttl)?,
            max_lease,
            cold: if is_optimistic {
                Cold::Optimistic(optimistic.unwrap_or(1))
            } else {
                Cold::Sync
            },
            on_error: word("on_error", on_error, &errors)?,
            timeout_ns: nanoseconds("timeout", timeout)?,
            starts_empty: word("fresh", fresh, &[("full", false), ("empty", true)])?,
            is_required: require,
        };
        config.check()?;
        Ok(Self {
            config,
            is_taken: AtomicBool::new(false),
        })
    }

    #[doc = manual!("RedisSync.overshoot_bound")]
    fn overshoot_bound(&self, rate: &Bound<'_, PyAny>, nodes: &Bound<'_, PyAny>) -> PyResult<u64> {
        let rate = rate
            .cast::<super::rate::Rate>()
            .map_err(|_| wrong_type("rate", "Rate", rate))?;
        let nodes = count("nodes", nodes, 0)?;
        Ok(self.config.overshoot_bound(rate.get().0.burst(), nodes)?)
    }

    /// For `copy` and `pickle`: the same settings, for another limiter.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        let config = &self.config;
        let settings = PyDict::new(py);
        settings.set_item("prefix", String::from_utf8_lossy(&config.prefix))?;
        settings.set_item("mode", config.mode.as_str())?;
        match config.max_outstanding {
            Outstanding::Part(part) => settings.set_item("max_outstanding", part)?,
            Outstanding::Tokens(tokens) => settings.set_item("max_outstanding", tokens)?,
        }
        settings.set_item("lease_ttl", super::seconds(config.lease_ttl_ns))?;
        settings.set_item("max_lease", config.max_lease)?;
        match config.cold {
            Cold::Sync => settings.set_item("cold", "sync")?,
            Cold::Optimistic(units) => {
                settings.set_item("cold", "optimistic")?;
                settings.set_item("optimistic", units)?;
            }
        }
        settings.set_item("on_error", config.on_error.as_str())?;
        settings.set_item("timeout", super::seconds(config.timeout_ns))?;
        settings.set_item("fresh", if config.starts_empty { "empty" } else { "full" })?;
        settings.set_item("require", config.is_required)?;
        let partial = py.import("functools")?.getattr("partial")?;
        let make = partial.call((py.get_type::<Self>(), &config.url), Some(&settings))?;
        Ok((make, PyTuple::empty(py)))
    }

    fn __repr__(&self) -> String {
        // The URL may hold a password.
        format!(
            "<RedisSync prefix={:?}>",
            String::from_utf8_lossy(&self.config.prefix)
        )
    }
}

impl RedisSync {
    pub(super) fn prefix(&self) -> String {
        String::from_utf8_lossy(&self.config.prefix).into_owned()
    }

    /// The settings, once: two limiters with the same ones would share their keys.
    pub(super) fn take(&self) -> PyResult<SyncConfig> {
        if self.is_taken.swap(true, Ordering::SeqCst) {
            return Err(PyValueError::new_err(
                "a RedisSync belongs to one limiter; make another, with another prefix",
            ));
        }
        Ok(self.config.clone())
    }
}

#[pyclass(frozen, name = "_Request", module = "hopgate_limiter._native")]
pub(super) struct Request(pub(super) crate::Request);

#[pymethods]
impl Request {
    /// `KEYS[1]` of the script.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.key)
    }

    /// `ARGV[1]` of the script.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.body)
    }

    /// The script's argument for a request that shares its command with others, if it can.
    #[getter]
    fn short<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let short = self.0.short.as_ref();
        short.map(|short| PyBytes::new(py, &short.body))
    }

    #[staticmethod]
    fn script(py: Python<'_>) -> Bound<'_, PyString> {
        PyString::new(py, crate::shared::SCRIPT)
    }
}

#[pyclass(frozen, name = "_CompletionQueue", module = "hopgate_limiter._native")]
pub(super) struct CompletionQueue {
    pub(super) queue: Arc<crate::CompletionQueue>,
    /// -1 once closed.
    fd: Arc<AtomicI32>,
}

#[pymethods]
impl CompletionQueue {
    /// Writes one byte to `fd` whenever it is no longer empty; -1 for none.
    #[new]
    fn new(fd: i32) -> Self {
        let fd = Arc::new(AtomicI32::new(fd));
        let target = fd.clone();
        let wake = move || {
            let fd = target.load(Ordering::SeqCst);
            #[cfg(unix)]
            if fd >= 0 {
                // SAFETY: one byte of static memory is read. If the pipe is full, its reader is awake
                // already.
                unsafe { libc::write(fd, c"!".as_ptr().cast(), 1) };
            }
        };
        let queue = Arc::new(crate::CompletionQueue::new(wake));
        Self { queue, fd }
    }

    /// Writes nothing from now on, so that the descriptor may be closed.
    fn close(&self) {
        self.fd.store(-1, Ordering::SeqCst);
        // `wake` runs under the lock that this takes: after it, no write is under way.
        self.queue.take_all();
    }

    /// Removes and returns all decisions, oldest first.
    fn take_all(&self) -> Vec<(u64, Decision)> {
        let wrap = |(call_id, decision)| (call_id, Decision(decision));
        self.queue.take_all().into_iter().map(wrap).collect()
    }
}
