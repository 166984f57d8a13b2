//! `RedisSync`, and what carries its decisions to asyncio.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::decision::Decision;
use super::word;
use crate::{Cold, Mode, OnError, Outstanding, SyncConfig};

#[pyclass(frozen, module = "hopgate_limiter")]
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
    if let Ok(part) = value.extract::<f64>() {
        return Ok(Outstanding::Part(part));
    }
    Err(PyTypeError::new_err(format!(
        "max_outstanding must be int or float, not {}",
        value.get_type().name()?
    )))
}

#[pymethods]
impl RedisSync {
    #[new]
    #[pyo3(signature = (url, *, prefix = "rl:", mode = "strict", max_outstanding = None, lease_ttl = 0.5, max_lease = None, cold = "sync", optimistic = None, on_error = "share", timeout = 0.05, fresh = "full"), text_signature = "(url, *, prefix='rl:', mode='strict', max_outstanding=0.25, lease_ttl=0.5, max_lease=None, cold='sync', optimistic=None, on_error='share', timeout=0.05, fresh='full')")]
    #[allow(clippy::too_many_arguments)] // all of them named
    fn new(
        url: &str,
        prefix: &str,
        mode: &str,
        max_outstanding: Option<&Bound<'_, PyAny>>,
        lease_ttl: f64,
        max_lease: Option<u64>,
        cold: &str,
        optimistic: Option<u64>,
        on_error: &str,
        timeout: f64,
        fresh: &str,
    ) -> PyResult<Self> {
        let modes = [
            ("strict", Mode::Strict),
            ("leased", Mode::Leased),
            ("every_hit", Mode::EveryHit),
        ];
        let colds = [("sync", false), ("optimistic", true)];
        let errors = [
            ("share", OnError::Share),
            ("deny", OnError::Deny),
            ("allow", OnError::Allow),
        ];
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
        };
        config.check()?;
        Ok(Self {
            config,
            is_taken: AtomicBool::new(false),
        })
    }

    fn overshoot_bound(&self, rate: &Bound<'_, super::rate::Rate>, nodes: u64) -> PyResult<u64> {
        Ok(self.config.overshoot_bound(rate.get().0.burst(), nodes)?)
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
    /// The configuration, for the one limiter that may use it: two would share their keys.
    pub(super) fn take(&self) -> PyResult<SyncConfig> {
        if self.is_taken.swap(true, Ordering::SeqCst) {
            return Err(PyValueError::new_err(
                "a RedisSync belongs to one limiter; make another, with another prefix",
            ));
        }
        Ok(self.config.clone())
    }
}

#[pyclass(frozen, name = "_Parcel", module = "hopgate_limiter._native")]
pub(super) struct Parcel(pub(super) crate::Parcel);

#[pymethods]
impl Parcel {
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

    #[staticmethod]
    fn script(py: Python<'_>) -> Bound<'_, PyString> {
        PyString::new(py, crate::shared::SCRIPT)
    }
}

#[pyclass(frozen, name = "_Mailbox", module = "hopgate_limiter._native")]
pub(super) struct Mailbox {
    pub(super) letters: Arc<crate::Mailbox>,
    /// -1 once closed.
    fd: Arc<AtomicI32>,
}

#[pymethods]
impl Mailbox {
    /// Writes one byte to `fd` whenever it is no longer empty; -1 for none.
    #[new]
    fn new(fd: i32) -> Self {
        let fd = Arc::new(AtomicI32::new(fd));
        let target = fd.clone();
        let wake = move || {
            let fd = target.load(Ordering::SeqCst);
            #[cfg(unix)]
            if fd >= 0 {
                // SAFETY: one byte of static memory is read. If the descriptor is full, its reader is
                // awake already.
                unsafe { libc::write(fd, c"!".as_ptr().cast(), 1) };
            }
        };
        let letters = Arc::new(crate::Mailbox::new(wake));
        Self { letters, fd }
    }

    /// Writes nothing from now on, so that the descriptor may be closed.
    fn close(&self) {
        self.fd.store(-1, Ordering::SeqCst);
        // Whoever is writing does so under the lock that this takes.
        self.letters.take_all();
    }

    /// Everything that has come in, oldest first.
    fn take_all(&self) -> Vec<(u64, Decision)> {
        let letters = self.letters.take_all();
        let open = |(ticket, decision)| (ticket, Decision(decision));
        letters.into_iter().map(open).collect()
    }
}
