//! Keys and costs from Python objects.

use std::borrow::Cow;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString};

use crate::Key;

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
        // Lone surrogates, as in file names that were not UTF-8. Still a key.
        let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
        return Ok(f(Key::Text(bytes.cast::<PyBytes>()?.as_bytes())));
    }
    let kind = key.get_type();
    Err(PyTypeError::new_err(format!(
        "key must be str, bytes or int, not {}",
        kind.name()?
    )))
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
        return PyValueError::new_err(format!("cost must be at least 0, got {value}"));
    }
    PyOverflowError::new_err(format!("cost must be below 2**63, got {value}"))
}

/// A prefix length. The engine checks the range of what fits a byte.
#[derive(Clone, Copy)]
pub(super) struct Prefix(u8);

impl<'py> FromPyObject<'_, 'py> for Prefix {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<u8>() {
            Ok(bits) => Ok(Self(bits)),
            Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Err(
                PyValueError::new_err(format!("v6_prefix must be 1 to 128 bits, got {}", &*value)),
            ),
            Err(error) => Err(error),
        }
    }
}

/// Gives the address itself back for IPv4, so that the common case makes no object.
#[pyfunction]
#[pyo3(signature = (address, *, v6_prefix = Prefix(64)), text_signature = "(address, *, v6_prefix=64)")]
pub(super) fn client_key(
    address: Bound<'_, PyString>,
    v6_prefix: Prefix,
) -> PyResult<Bound<'_, PyString>> {
    let key = match crate::client_key(address.to_str()?, v6_prefix.0)? {
        Cow::Borrowed(_) => None,
        Cow::Owned(key) => Some(PyString::new(address.py(), &key)),
    };
    Ok(key.unwrap_or(address))
}
