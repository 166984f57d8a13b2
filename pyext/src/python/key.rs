//! Keys and costs from Python objects.

use std::borrow::Cow;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple, PyType};

use super::argument::{argument, shown, wrong_value};
use crate::{CompoundKey, Key};

/// Tuples in tuples, at most.
const MAX_DEPTH: usize = 16;

/// The key of a call; the empty text if it has none.
#[derive(Clone, Copy)]
pub(super) struct GivenKey<'a, 'py>(Option<Borrowed<'a, 'py, PyAny>>);

impl GivenKey<'_, '_> {
    /// The key of a limiter that is used without keys.
    pub(super) const NONE: Self = Self(None);
}

impl<'a, 'py> FromPyObject<'a, 'py> for GivenKey<'a, 'py> {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Some(value)))
    }
}

impl<'a, 'py> From<&'a Bound<'py, PyAny>> for GivenKey<'a, 'py> {
    fn from(key: &'a Bound<'py, PyAny>) -> Self {
        Self(Some(key.as_borrowed()))
    }
}

impl<'py> GivenKey<'_, 'py> {
    /// Calls `f` with the key, see [`with_key`].
    #[inline]
    pub(super) fn with<R>(self, f: impl FnOnce(Key<'_>) -> R) -> PyResult<R> {
        match self.0 {
            Some(key) => with_key(&key, f),
            None => Ok(f(Key::from(""))),
        }
    }

    /// The key as an object.
    pub(super) fn object(self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self.0 {
            Some(key) => key.to_owned(),
            None => PyString::new(py, "").into_any(),
        }
    }
}

/// Calls `f` with the key. Allocates only for numbers beyond 64 bits and for texts that are not UTF-8.
#[inline]
pub(super) fn with_key<R>(key: &Bound<'_, PyAny>, f: impl FnOnce(Key<'_>) -> R) -> PyResult<R> {
    if let Ok(text) = key.cast::<PyString>()
        && let Ok(text) = text.to_str()
    {
        return Ok(f(Key::from(text)));
    }
    with_rare_key(key, f)
}

#[cold]
fn with_rare_key<R>(key: &Bound<'_, PyAny>, f: impl FnOnce(Key<'_>) -> R) -> PyResult<R> {
    if let Ok(bytes) = key.cast::<PyBytes>() {
        return Ok(f(Key::Bytes(bytes.as_bytes())));
    }
    if let Ok(number) = key.cast::<PyInt>() {
        if let Ok(number) = number.extract::<i64>() {
            return Ok(f(Key::Int(number)));
        }
        let bits: usize = number.call_method0("bit_length")?.extract()?;
        let signed = [("signed", true)];
        let args = (bits / 8 + 1, "little");
        let bytes = number.call_method(
            "to_bytes",
            args,
            Some(&pyo3::types::IntoPyDict::into_py_dict(signed, key.py())?),
        )?;
        return Ok(f(Key::BigInt(bytes.cast::<PyBytes>()?.as_bytes())));
    }
    if let Ok(text) = key.cast::<PyString>() {
        // Lone surrogates, as in file names that were not UTF-8: a valid key.
        let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
        return Ok(f(Key::Text(bytes.cast::<PyBytes>()?.as_bytes())));
    }
    let mut compound = CompoundKey::default();
    encode(key, &mut compound, 0)?;
    Ok(f(Key::Compound(compound.as_bytes())))
}

/// Adds a key that is not str, bytes or int, or a part of it.
fn encode(key: &Bound<'_, PyAny>, compound: &mut CompoundKey, depth: usize) -> PyResult<()> {
    let py = key.py();
    if let Ok(parts) = key.cast::<PyTuple>() {
        if depth == MAX_DEPTH {
            return Err(PyValueError::new_err(format!(
                "key must be tuples at most {MAX_DEPTH} deep"
            )));
        }
        compound.open(parts.len());
        for part in parts {
            encode(&part, compound, depth + 1)?;
        }
        return Ok(());
    }
    if depth > 0
        && (key.is_instance_of::<PyString>()
            || key.is_instance_of::<PyBytes>()
            || key.is_instance_of::<PyInt>())
    {
        return with_key(key, |part| compound.push(part));
    }
    if key.is_instance(uuid(py)?)? {
        let bytes = key.getattr("bytes")?;
        compound.push_other(b'u', bytes.cast::<PyBytes>()?.as_bytes());
        return Ok(());
    }
    if is_address(key)? {
        // With the zone of IPv6, and the network of an interface.
        compound.push_other(b'a', key.str()?.to_str()?.as_bytes());
        return Ok(());
    }
    let what = if depth == 0 { "key" } else { "a part of key" };
    Err(PyTypeError::new_err(format!(
        "{what} must be str, bytes, int, tuple, UUID or an IP address, not {}",
        key.get_type().name()?
    )))
}

fn uuid(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    TYPE.import(py, "uuid", "UUID")
}

fn is_address(key: &Bound<'_, PyAny>) -> PyResult<bool> {
    static V4: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static V6: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = key.py();
    Ok(key.is_instance(V4.import(py, "ipaddress", "IPv4Address")?)?
        || key.is_instance(V6.import(py, "ipaddress", "IPv6Address")?)?)
}

/// A cost: 0 to 2⁶³ − 1 units.
#[derive(Clone, Copy)]
pub(super) struct Cost(pub(super) u64);

impl<'py> FromPyObject<'_, 'py> for Cost {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(cost) = value.extract::<i64>()
            && let Ok(cost) = u64::try_from(cost)
        {
            return Ok(Self(cost));
        }
        Err(refuse_cost(&value))
    }
}

#[cold]
fn refuse_cost(value: &Bound<'_, PyAny>) -> PyErr {
    if !value.is_instance_of::<PyInt>() {
        let kind = value.get_type();
        let name = kind
            .name()
            .map_or_else(|_| String::from("?"), |name| name.to_string());
        return PyTypeError::new_err(format!("cost must be int, not {name}"));
    }
    if value.lt(0).unwrap_or(false) {
        return wrong_value("cost", "at least 0", value);
    }
    PyOverflowError::new_err(format!("cost must be below 2**63, got {}", shown(value)))
}

/// A prefix length. The engine checks the range of a number that fits a byte.
#[derive(Clone, Copy)]
pub(super) struct Prefix(u8);

impl<'py> FromPyObject<'_, 'py> for Prefix {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<u8>() {
            Ok(bits) => Ok(Self(bits)),
            Err(_) => argument("v6_prefix", "1 to 128 bits", &value).map(Self),
        }
    }
}

// Returns the address itself for IPv4, so that the common case makes no object.
#[doc = manual!("client_key")]
#[pyfunction]
#[pyo3(signature = (address, *, v6_prefix = Prefix(64)), text_signature = "(address, *, v6_prefix=64)")]
pub(super) fn client_key<'py>(
    address: Option<Bound<'py, PyAny>>,
    v6_prefix: Prefix,
    py: Python<'py>,
) -> PyResult<Bound<'py, PyString>> {
    let address = match address {
        None => PyString::new(py, crate::address::UNIX_PEER),
        Some(address) => address.cast_into::<PyString>().map_err(|error| {
            let given = error.into_inner();
            let kind = given.get_type();
            let name = kind
                .name()
                .map_or_else(|_| "?".into(), |name| name.to_string());
            PyTypeError::new_err(format!("address must be str or None, not {name}"))
        })?,
    };
    let text: &str = argument("address", "an IPv4 or IPv6 address", &address)?;
    let key = match crate::client_key(text, v6_prefix.0)? {
        Cow::Borrowed(_) => None,
        Cow::Owned(key) => Some(PyString::new(py, &key)),
    };
    Ok(key.unwrap_or(address))
}
