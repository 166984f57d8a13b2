//! The Python API of the crate: converts arguments and results, and decides nothing itself.
//!
//! The methods of a class stand in one block: `PyO3` takes several only by a further dependency that collects them.

mod convert;
mod reports;

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyCapsule, PyList, PyTuple};

use self::convert::{
    Capsules, DomainParts, Parts, answer, domain, fields, limit, network, of_system, of_words,
    offers, renewed, template, templates, text,
};
use self::reports::{OriginParts, RecordParts, Watched, parts, watch_config};
use crate::clock::Clock;
use crate::config::{Caps, Config};
use crate::misses::{Found, Leased};
use crate::plane::Plane;
use crate::quota::Spent;
use crate::table::{Bounds, Entry, Offer};
use crate::tarpit::TarpitConfig;
use crate::tls::Tls;

/// What visits look like: slug, referrer, language, client, flags, campaign and user agent; and how many there were.
type VisitParts = (
    (String, String, String, String, String, String, String),
    u64,
);

#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::convert::{intent_of, with_query};
    #[pymodule_export]
    use super::{Front, Held, check_tls};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        // A benchmark can refuse to measure a debug build.
        module.add("build_profile", profile)
    }
}

#[pyfunction]
fn check_tls(chain: &[u8], key: &[u8]) -> PyResult<()> {
    let set = Tls::default().set(chain, key);
    set.map_err(PyValueError::new_err)
}

/// The data plane of one process; see the stub.
#[pyclass(frozen, module = "hopgate_front")]
struct Front {
    inner: crate::Front,
    /// Keep the limiters alive. Dropped after `inner`, whose threads use them.
    _limiters: Vec<Py<PyCapsule>>,
}

#[pymethods]
impl Front {
    #[new]
    #[pyo3(signature = (*, upstream, templates, unsure, cut_off, late, not_prefetched, previews, redirect_limit, not_found_limit, trusted, proxy_protocol, base_path, reserved, bounds, tarpit, max_body, uploads, caps, limit_s, monotonic, bounds_of_table, watch=None, describes_visits=false))]
    #[allow(clippy::too_many_arguments)] // all of them named
    fn new(
        upstream: PathBuf,
        templates: Vec<Parts>,
        unsure: Parts,
        cut_off: Parts,
        late: Parts,
        not_prefetched: Parts,
        previews: (Vec<String>, Vec<String>),
        redirect_limit: Capsules<'_>,
        not_found_limit: Capsules<'_>,
        trusted: Vec<String>,
        proxy_protocol: bool,
        base_path: String,
        reserved: Vec<String>,
        bounds: Vec<f64>,
        tarpit: (f64, f64, f64, usize),
        max_body: u64,
        uploads: Vec<String>,
        caps: (f64, f64, f64, usize),
        limit_s: f64,
        monotonic: &Bound<'_, PyAny>,
        bounds_of_table: (usize, usize, usize, usize),
        watch: Option<Watched>,
        describes_visits: bool,
    ) -> PyResult<Self> {
        let mut limiters = Vec::new();
        let (free_per_s, burst, delay_s, max_held) = tarpit;
        let (head_s, write_s, answer_s, connections) = caps;
        let (entries, absent, long, min_versions) = bounds_of_table;
        let config = Config {
            base_path,
            reserved,
            trusted: trusted.into_iter().map(network).collect::<PyResult<_>>()?,
            proxy_protocol,
            redirect_limit: limit(redirect_limit, &mut limiters)?,
            not_found_limit: limit(not_found_limit, &mut limiters)?,
            templates: templates
                .into_iter()
                .map(template)
                .collect::<PyResult<_>>()?,
            unsure: template(unsure)?,
            cut_off: template(cut_off)?,
            late: template(late)?,
            not_prefetched: template(not_prefetched)?,
            previews: of_words(previews),
            limit_s,
            bounds,
            tarpit: TarpitConfig {
                free_per_s,
                burst,
                delay: Duration::from_secs_f64(delay_s),
                max_held,
            },
            upstream,
            max_body,
            uploads,
            caps: Caps {
                head: Duration::from_secs_f64(head_s),
                write: Duration::from_secs_f64(write_s),
                answer: Duration::from_secs_f64(answer_s),
                connections,
            },
            watch: watch.map(watch_config),
            describes_visits,
            table: Bounds {
                entries,
                absent,
                long,
                min_versions,
            },
            clock: Clock::like(|| monotonic.call0()?.extract())?,
        };
        Ok(Self {
            inner: crate::Front::new(config).map_err(of_system)?,
            _limiters: limiters,
        })
    }

    fn start(&self, listeners: Vec<RawFd>) -> PyResult<()> {
        let owned = listeners.into_iter().map(|descriptor| {
            // Safety: the caller hands its descriptors over, see the stub.
            unsafe { OwnedFd::from_raw_fd(descriptor) }
        });
        let owned = owned.collect();
        self.inner.start(owned).map_err(of_system)
    }

    fn secure(&self, chain: &[u8], key: &[u8]) -> PyResult<()> {
        let set = self.inner.tls().set(chain, key);
        set.map_err(PyValueError::new_err)
    }

    fn set_domains(&self, domains: Vec<DomainParts>) -> PyResult<()> {
        let domains = domains.into_iter().map(domain).collect::<PyResult<_>>()?;
        self.plane().reader.domains.set(domains);
        Ok(())
    }

    fn offer_many(&self, rows: &Bound<'_, PyList>, now: f64, until: f64) -> PyResult<Vec<bool>> {
        let (plane, offers) = (self.plane(), offers(rows, now, until)?);
        let accepted = plane.table.offer(&offers, now, until);
        let both = offers.iter().zip(&accepted);
        let kept = both.filter_map(|(offer, is_accepted)| match offer {
            Offer::Entry(entry) if *is_accepted => Some(entry),
            Offer::Entry(_) | Offer::Unsendable { .. } => None,
        });
        answer(plane, kept);
        Ok(accepted)
    }

    #[pyo3(signature = (rows, now, *, are_read))]
    fn renew_many(&self, rows: &Bound<'_, PyList>, now: f64, are_read: bool) -> PyResult<()> {
        let plane = self.plane();
        let renewed = renewed(rows, now, &plane.table)?;
        let are_held = plane.table.renew(&renewed, are_read);
        let both = renewed.iter().zip(are_held);
        // What is not fresh answers no request that waits for what is.
        let fresh = both.filter(|(entry, is_held)| *is_held && now < entry.times().fresh_until);
        answer(plane, fresh.map(|(entry, _)| entry));
        Ok(())
    }

    fn send_once(&self, rows: &Bound<'_, PyList>, now: f64) -> PyResult<()> {
        let offers = offers(rows, now, f64::NEG_INFINITY)?;
        let entries = offers.iter().filter_map(|offer| match offer {
            Offer::Entry(entry) => Some(entry),
            Offer::Unsendable { .. } => None,
        });
        answer(self.plane(), entries);
        Ok(())
    }

    fn accepts(&self, slug: &str, version: u64, epoch: i64, now: f64) -> bool {
        let table = &self.plane().table;
        table.accepts(slug.as_bytes(), version, epoch, now)
    }

    #[allow(clippy::needless_pass_by_value)] // the form that arguments come in
    fn change_many(&self, changes: Vec<(PyBackedStr, u64)>, until: f64) -> Vec<bool> {
        self.plane().table.change(&changes, until)
    }

    fn entry<'py>(
        &self,
        py: Python<'py>,
        slug: &str,
    ) -> PyResult<Option<(Bound<'py, PyTuple>, f64, f64)>> {
        let held = self.plane().table.held(slug.as_bytes());
        let parts = held.map(|entry| {
            let times = entry.times();
            Ok((fields(py, &entry)?, times.fresh_until, times.stale_until))
        });
        parts.transpose()
    }

    #[allow(clippy::needless_pass_by_value)] // as above
    fn without_fresh(&self, slugs: Vec<PyBackedStr>, now: f64) -> Vec<PyBackedStr> {
        let table = &self.plane().table;
        let missing = slugs.into_iter();
        missing
            .filter(|slug| table.get(slug.as_bytes(), now).is_none())
            .collect()
    }

    fn held(&self) -> Held {
        Held(self.plane().table.all())
    }

    fn without_target(&self) -> Vec<String> {
        let all = self.plane().table.all().into_iter();
        let without = all.filter(|entry| !entry.has_target());
        without.map(|entry| text((*entry).as_ref())).collect()
    }

    fn remove(&self, slug: &str) {
        self.plane().table.remove(slug.as_bytes());
    }

    fn clear(&self) {
        self.plane().table.clear();
    }

    fn begin_epoch(&self, epoch: i64) {
        self.plane().table.begin_epoch(epoch);
    }

    fn __len__(&self) -> usize {
        self.plane().table.len()
    }

    fn take_clicks(&self) -> Vec<(String, u64)> {
        let taken = self.plane().table.take_clicks().into_iter();
        let named = taken.map(|(entry, clicks)| {
            let slug: &[u8] = (*entry).as_ref();
            (String::from_utf8_lossy(slug).into_owned(), clicks)
        });
        named.collect()
    }

    fn take_visits(&self) -> (Vec<VisitParts>, u64) {
        let Some(seen) = &self.plane().seen else {
            return (Vec::new(), 0);
        };
        let taken = seen.take().into_iter();
        let visits = taken.map(|(kind, count)| {
            let parts = (
                text(&kind.slug),
                text(&kind.referrer),
                text(&kind.language),
                text(&kind.client),
                text(&kind.flags),
                text(&kind.campaign),
                text(&kind.agent),
            );
            (parts, count)
        });
        (visits.collect(), seen.take_dropped())
    }

    fn take_answers(&self) -> Vec<(&'static str, u16, Vec<u64>, f64)> {
        let taken = self.plane().recorder.take().into_iter();
        let named = taken.map(|one| {
            let method = if one.is_head { "HEAD" } else { "GET" };
            (method, one.status, one.buckets, one.sum_s)
        });
        named.collect()
    }

    fn take_errors(&self) -> Vec<(u16, u64)> {
        self.plane().recorder.take_errors()
    }

    fn take_looked_up(&self) -> Vec<(u16, u64)> {
        self.plane().recorder.take_looked_up()
    }

    fn take_missed(&self) -> u64 {
        self.plane().recorder.take_missed()
    }

    fn take_late(&self) -> (u64, u64) {
        self.plane().recorder.take_late()
    }

    #[pyo3(signature = (*, is_open))]
    fn look_up(&self, is_open: bool) -> RawFd {
        self.plane().misses.open(is_open)
    }

    fn take_misses(&self) -> (Vec<String>, Vec<(String, u64)>, bool) {
        let misses = &self.plane().misses;
        misses.hear();
        let slugs = misses.look_ups.take().into_iter();
        let leases = misses.leases.take().into_iter();
        (
            slugs.map(|(slug, _)| text(&slug)).collect(),
            leases
                .map(|(slug, version)| (text(&slug), version))
                .collect(),
            misses.has_renewals(),
        )
    }

    fn ring_from(&self, count: usize) {
        self.plane().misses.ring_from(count);
    }

    fn take_renewals(&self) -> Vec<String> {
        let slugs = self.plane().misses.take_renewals().into_iter();
        slugs.map(|slug| text(&slug)).collect()
    }

    #[allow(clippy::needless_pass_by_value)] // as above
    fn awaited(&self, slugs: Vec<PyBackedStr>) -> Vec<usize> {
        let slugs = slugs.iter().map(|slug| slug.as_bytes());
        self.plane().misses.look_ups.awaited(slugs)
    }

    #[allow(clippy::needless_pass_by_value)] // as above
    fn send_held(&self, slugs: Vec<PyBackedStr>) -> Vec<String> {
        let plane = self.plane();
        let (mut held, mut rest) = (Vec::new(), Vec::new());
        for slug in &slugs {
            match plane.table.held(slug.as_bytes()) {
                Some(entry) => held.push(entry),
                None => rest.push(slug.to_string()),
            }
        }
        answer(plane, &held);
        rest
    }

    #[allow(clippy::needless_pass_by_value)] // as above
    fn refuse(&self, slugs: Vec<PyBackedStr>, answers: Vec<Parts>) -> PyResult<usize> {
        let answers = templates(answers)?.into_iter().map(Found::Refused);
        let answers: Vec<_> = answers.collect();
        let slugs = slugs.iter().map(|slug| slug.as_bytes());
        Ok(self.plane().misses.look_ups.answer_in_turn(slugs, &answers))
    }

    fn take_visit(&self, slug: &str, version: u64, spend: bool, now: f64) -> i64 {
        match self
            .plane()
            .leases
            .take(slug.as_bytes(), version, spend, now)
        {
            Spent::Yes => -1,
            Spent::Exhausted => 0,
            Spent::NeedsLease(version) => i64::try_from(version).unwrap_or(i64::MAX),
        }
    }

    fn add_visits(
        &self,
        slug: &str,
        version: u64,
        visits: u64,
        now: f64,
        exhausted_until: f64,
    ) -> bool {
        let leases = &self.plane().leases;
        leases.add(slug.as_bytes(), version, visits, now, exhausted_until)
    }

    fn drop_older_visits(&self, slug: &str, version: u64) -> Option<u64> {
        self.plane().leases.drop_older(slug.as_bytes(), version)
    }

    fn idle_visits(&self, used_before: f64, now: f64) -> Vec<String> {
        let idle = self.plane().leases.idle(used_before, now).into_iter();
        idle.map(|slug| text(&slug)).collect()
    }

    fn drop_idle_visits(&self, slug: &str, used_before: f64, now: f64) -> Option<u64> {
        let leases = &self.plane().leases;
        leases.drop_idle(slug.as_bytes(), used_before, now)
    }

    fn leased(&self, slug: &str, version: u64, has_limit: bool) {
        let outcome = if has_limit {
            Leased::Again
        } else {
            Leased::Unlimited(version)
        };
        let slug = [(slug.as_bytes(), outcome)];
        self.plane().misses.leases.answer(slug);
    }

    fn refuse_lease(&self, slug: &str, answer: Parts) -> PyResult<usize> {
        let refused = [Leased::Refused(Arc::new(template(answer)?))];
        let leases = &self.plane().misses.leases;
        Ok(leases.answer_in_turn([slug.as_bytes()], &refused))
    }

    fn origins(&self, slugs: &Bound<'_, PyList>) -> PyResult<HashMap<String, OriginParts>> {
        let Some(watch) = self
            .inner
            .plane()
            .watch
            .as_ref()
            .filter(|watch| !watch.origins.is_empty())
        else {
            return Ok(HashMap::new());
        };
        let slugs = slugs.extract::<Vec<String>>()?;
        let keys: Vec<Box<[u8]>> = slugs.iter().map(|slug| slug.as_bytes().into()).collect();
        let found = watch.origins.of(&keys).into_iter();
        let found = slugs.into_iter().zip(found).filter_map(|(slug, origin)| {
            let origin = origin?;
            let parts = (
                origin.trace,
                origin.span,
                origin.began,
                origin.tracestate,
                origin.baggage,
            );
            Some((slug, parts))
        });
        Ok(found.collect())
    }

    fn take_records(&self, limit: usize) -> Vec<RecordParts> {
        let Some(watch) = &self.inner.plane().watch else {
            return Vec::new();
        };
        let taken = watch.records.take(limit).into_iter();
        taken.map(parts).collect()
    }

    #[getter]
    fn records_dropped(&self) -> (u64, u64) {
        let watch = self.inner.plane().watch.as_ref();
        watch.map_or((0, 0), |watch| watch.records.dropped())
    }

    #[getter]
    fn connections(&self) -> usize {
        self.inner.connections()
    }

    #[getter]
    fn unanswered(&self) -> u64 {
        self.plane().recorder.unanswered()
    }

    fn drain(&self, py: Python<'_>, limit: f64) -> bool {
        let limit = Duration::try_from_secs_f64(limit).unwrap_or_default();
        py.detach(|| self.inner.drain(limit))
    }

    fn end(&self, py: Python<'_>) {
        py.detach(|| self.inner.end());
    }
}

/// The entries of a table at one time; see the stub.
#[pyclass(frozen, module = "hopgate_front")]
struct Held(Vec<Arc<Entry>>);

#[pymethods]
impl Held {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn part<'py>(
        &self,
        py: Python<'py>,
        start: usize,
        end: usize,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let end = end.min(self.0.len());
        let part = self.0.get(start..end).unwrap_or_default();
        part.iter().map(|entry| fields(py, entry)).collect()
    }
}

impl Front {
    fn plane(&self) -> &Plane {
        self.inner.plane()
    }
}
