//! Turns arguments of Python into what the crate takes.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyCapsule, PyList};

use crate::address::Network;
use crate::domains::Domain;
use crate::intent::{Intent, Previews};
use crate::limits::{Limit, Limiter, LimiterApi};
use crate::misses::Found;
use crate::plane::Plane;
use crate::table::{Entry, Extras, Forwarding, Times};
use crate::template::Template;

/// A limiter's functions, by client and by IPv6 network.
pub(super) type Capsules<'py> = (Bound<'py, PyCapsule>, Option<Bound<'py, PyCapsule>>);
/// Headers and body.
pub(super) type Page = (Vec<(String, String)>, PyBackedBytes);
/// Status, headers, body, and the page in their place.
pub(super) type Parts = (u16, Vec<(String, String)>, PyBackedBytes, Option<Page>);
/// Slug, status, target, what it does with queries, version of a metered link, times, and what few links have; see
/// the stub.
pub(super) type Row = (
    PyBackedStr,
    u16,
    Option<PyBackedStr>,
    u8,
    u64,
    (f64, f64, f64, f64),
    Option<(
        Option<PyBackedStr>,
        Option<PyBackedStr>,
        Option<PyBackedStr>,
    )>,
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
pub(super) fn answer(plane: &Plane, entries: &[Arc<Entry>]) {
    let answers = entries.iter().map(|entry| {
        let slug: &[u8] = (**entry).as_ref();
        (slug, Found::Entry(Arc::clone(entry)))
    });
    plane.misses.look_ups.answer(answers);
}

pub(super) fn entries(rows: &Bound<'_, PyList>) -> PyResult<Vec<Arc<Entry>>> {
    rows.iter()
        .map(|row| {
            let (slug, number, location, forwarding, metered_version, times, extras) =
                row.extract::<Row>()?;
            let (renew_from, fresh_until, stale_until, expires_at) = times;
            let times = Times {
                renew_from,
                fresh_until,
                stale_until,
                expires_at,
            };
            let entry = Entry::new(
                slug.as_bytes(),
                status(number)?,
                header(location.as_deref())?,
                self::forwarding(forwarding)?,
                metered_version,
                times,
            );
            Ok(Arc::new(match extras {
                None => entry,
                Some((robots, expired, quota)) => entry.with_extras(Extras {
                    robots: header(robots.as_deref())?,
                    expired: header(expired.as_deref())?,
                    quota: quota.map(|key| key.as_bytes().into()),
                }),
            }))
        })
        .collect()
}

fn forwarding(number: u8) -> PyResult<Forwarding> {
    match number {
        0 => Ok(Forwarding::Off),
        1 => Ok(Forwarding::Added),
        2 => Ok(Forwarding::Overriding),
        _ => Err(PyValueError::new_err(format!(
            "forwarding is 0 to 2, not {number}"
        ))),
    }
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
