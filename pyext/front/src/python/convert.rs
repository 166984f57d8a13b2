//! Turns arguments of Python into what the crate takes.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyCapsule, PyList, PyTuple};

use crate::address::Network;
use crate::domains::Domain;
use crate::intent::{Intent, Previews};
use crate::limits::{Limit, Limiter, LimiterApi};
use crate::misses::Found;
use crate::plane::Plane;
use crate::table::{Entry, Extras, Link, Marks, Offer, Table, Times};
use crate::template::Template;

/// A limiter's functions, by client and by IPv6 network.
pub(super) type Capsules<'py> = (Bound<'py, PyCapsule>, Option<Bound<'py, PyCapsule>>);
/// Headers and body.
pub(super) type Page = (Vec<(String, String)>, PyBackedBytes);
/// Status, headers, body, and the page in their place.
pub(super) type Parts = (u16, Vec<(String, String)>, PyBackedBytes, Option<Page>);
/// What few links have: rules for crawlers and the page for the time after it, as they are sent; the key whose visits
/// are spent; begin and end; and its texts, as far as they are not sent.
type Rare = (
    Option<PyBackedStr>,
    Option<PyBackedStr>,
    Option<PyBackedStr>,
    (Option<f64>, Option<f64>),
    [Option<String>; 3],
);
/// Slug, version, epoch, status (0: it cannot be sent), target or page, status of its redirects, marks, until when it
/// is fresh, and what few links have; see the stub.
pub(super) type Row = (
    PyBackedStr,
    u64,
    i64,
    u16,
    Option<PyBackedStr>,
    u16,
    u8,
    f64,
    Option<Rare>,
);

/// For tests: `location` with `query` added to its own.
#[pyfunction]
pub(super) fn with_query(location: &str, query: &str, is_overriding: bool) -> String {
    crate::query::with_query(location, query, is_overriding)
}

/// For tests: why a request with `headers` was made.
#[pyfunction]
pub(super) fn intent_of(
    headers: Vec<(String, String)>,
    previews: (Vec<String>, Vec<String>),
) -> PyResult<&'static str> {
    let invalid = |message: String| PyValueError::new_err(message);
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| invalid(e.to_string()))?;
        let value =
            HeaderValue::from_bytes(value.as_bytes()).map_err(|e| invalid(e.to_string()))?;
        map.append(name, value);
    }
    Ok(match of_words(previews).intent_of(&map) {
        Intent::Visit => "visit",
        Intent::Prefetch => "prefetch",
        Intent::Preview => "preview",
    })
}

pub(super) fn of_words((anywhere, at_start): (Vec<String>, Vec<String>)) -> Previews {
    Previews { anywhere, at_start }
}

/// Sends `entries` to the requests that wait for their slugs.
pub(super) fn answer<'e>(plane: &Plane, entries: impl IntoIterator<Item = &'e Arc<Entry>>) {
    let answers = entries.into_iter().map(|entry| {
        let slug: &[u8] = (**entry).as_ref();
        (slug, Found::Entry(Arc::clone(entry)))
    });
    plane.misses.look_ups.answer(answers);
}

/// What `rows` offer at `now`; they may be sent stale until `stale_until`.
pub(super) fn offers(rows: &Bound<'_, PyList>, now: f64, stale_until: f64) -> PyResult<Vec<Offer>> {
    rows.iter()
        .map(|row| {
            let row = row.extract::<Row>()?;
            let (slug, version, epoch, status, ..) = &row;
            if *status == 0 {
                return Ok(Offer::Unsendable {
                    slug: slug.as_bytes().into(),
                    version: *version,
                    epoch: *epoch,
                });
            }
            let entry = entry(row, now, |_| stale_until)?;
            Ok(Offer::Entry(Arc::new(entry)))
        })
        .collect()
}

/// The entries that `rows` are at `now`; they may be sent stale as long as those that the table has.
pub(super) fn renewed(
    rows: &Bound<'_, PyList>,
    now: f64,
    table: &Table,
) -> PyResult<Vec<Arc<Entry>>> {
    let stale_until = |slug: &[u8]| {
        let held = table.held(slug);
        held.map_or(f64::NEG_INFINITY, |entry| entry.times().stale_until)
    };
    rows.iter()
        .map(|row| Ok(Arc::new(entry(row.extract()?, now, stale_until)?)))
        .collect()
}

fn entry(row: Row, now: f64, stale_until: impl Fn(&[u8]) -> f64) -> PyResult<Entry> {
    let (slug, version, epoch, number, location, redirect_code, marks, fresh_until, rare) = row;
    let link = Link {
        version,
        epoch,
        redirect_code,
        marks: Marks(marks),
    };
    let answer = (status(number)?, header(location.as_deref())?);
    let extras = rare.map(|(robots, expired, quota, valid, texts)| {
        Ok::<_, PyErr>(Extras {
            robots: header(robots.as_deref())?,
            expired: header(expired.as_deref())?,
            quota: quota.map(|key| key.as_bytes().into()),
            valid,
            texts: texts.map(|text| text.map(String::into_boxed_str)),
        })
    });
    let slug = slug.as_bytes();
    let times = Times::new(now, fresh_until, stale_until(slug));
    Ok(Entry::new(slug, link, answer, extras.transpose()?, times))
}

/// The link that `entry` was made of: the fields of a `Resolution`, in their order.
pub(super) fn fields<'py>(py: Python<'py>, entry: &Entry) -> PyResult<Bound<'py, PyTuple>> {
    let none = Extras::default();
    let (link, extras) = (entry.link(), entry.extras().unwrap_or(&none));
    let sent = |header: Option<&HeaderValue>| header.map(|value| text(value.as_bytes()));
    let [target, over, robots] = &extras.texts;
    let known = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    let location = entry.location.as_ref();
    let location = location.filter(|_| entry.status.is_redirection());
    let (valid_from, expires_at) = extras.valid;
    let (has, version) = (|mark| link.marks.has(mark), link.version);
    let first = (
        text(entry.as_ref()),
        version,
        known(target).or_else(|| sent(location)),
        link.redirect_code,
        has(Marks::FORWARDS),
        valid_from,
        expires_at,
        has(Marks::METERED),
        link.epoch,
        has(Marks::OVERRIDES),
        known(over).or_else(|| sent(extras.expired.as_ref())),
        known(robots).or_else(|| sent(extras.robots.as_ref())),
    );
    let spends = extras.quota.as_deref().map(text);
    let all = first.into_pyobject(py)?.into_sequence();
    all.concat((spends,).into_pyobject(py)?.as_sequence())?
        .to_tuple()
}

/// Host, prefix of the keys, whether its slugs have case, the page of links without visits, and whether slugs may
/// have several segments.
pub(super) type DomainParts = (String, String, bool, Option<String>, bool);

pub(super) fn domain(
    (host, prefix, is_case_sensitive, expired, has_segments): DomainParts,
) -> PyResult<Domain> {
    Ok(Domain {
        host: host.into_bytes().into(),
        prefix: prefix.into_bytes().into(),
        is_case_sensitive,
        expired: header(expired.as_deref())?,
        has_segments,
    })
}

fn header(text: Option<&str>) -> PyResult<Option<HeaderValue>> {
    let value = text.map(HeaderValue::from_str).transpose();
    value.map_err(|error| PyValueError::new_err(error.to_string()))
}

pub(super) fn text(slug: &[u8]) -> String {
    String::from_utf8_lossy(slug).into_owned()
}

pub(super) fn templates(answers: Vec<Parts>) -> PyResult<Vec<Arc<Template>>> {
    answers
        .into_iter()
        .map(|answer| template(answer).map(Arc::new))
        .collect()
}

#[allow(clippy::needless_pass_by_value)] // the form that results pass it in
pub(super) fn of_system(error: std::io::Error) -> PyErr {
    PyOSError::new_err(error.to_string())
}

pub(super) fn network(text: String) -> PyResult<Network> {
    let whole = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let text = match text.parse::<IpAddr>() {
        Ok(address) => format!("{address}/{}", whole(address)),
        Err(_) => text,
    };
    Network::parse(&text).ok_or_else(|| PyValueError::new_err(format!("{text} is no network")))
}

pub(super) fn status(number: u16) -> PyResult<StatusCode> {
    StatusCode::from_u16(number).map_err(|error| PyValueError::new_err(error.to_string()))
}

pub(super) fn template((number, headers, body, page): Parts) -> PyResult<Template> {
    let template = Template::new(status(number)?, &headers, body.to_vec());
    let template = match page {
        None => template,
        Some((headers, body)) => {
            template.and_then(|template| template.with_page(&headers, body.to_vec()))
        }
    };
    template.ok_or_else(|| PyValueError::new_err(format!("the headers of {number} cannot be sent")))
}

pub(super) fn limit((own, wide): Capsules<'_>, kept: &mut Vec<Py<PyCapsule>>) -> PyResult<Limit> {
    let own = limiter(own, kept)?;
    let wide = wide.map(|wide| limiter(wide, kept)).transpose()?;
    Ok(Limit { own, wide })
}

pub(super) fn limiter(
    capsule: Bound<'_, PyCapsule>,
    kept: &mut Vec<Py<PyCapsule>>,
) -> PyResult<Limiter> {
    let api = capsule.pointer_checked(Some(c"hopgate_limiter.api"))?;
    // Safety: a capsule of this name holds these functions. They are valid while it lives, which `kept` sees to.
    let limiter = unsafe { Limiter::new(*api.cast::<LimiterApi>().as_ref()) };
    kept.push(capsule.unbind());
    let message = "hopgate_limiter and hopgate_front are of different versions: build both";
    limiter.ok_or_else(|| PyValueError::new_err(message))
}
