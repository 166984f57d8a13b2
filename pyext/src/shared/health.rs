//! Whether the limits are kept in Redis, for those who operate a service.

use std::fmt;
use std::sync::Arc;

/// A change that an operator wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health<'a> {
    /// From now on calls are decided without Redis; the reason.
    Down(&'a str),
    /// Redis replies, but not everything is as it should be: what, for one key.
    Partly(&'a str),
    /// Redis replies again.
    Up,
}

/// Called by the sync thread at each change; holds no lock of the limiter meanwhile.
#[derive(Clone)]
pub struct HealthListener(pub Arc<dyn Fn(Health<'_>) + Send + Sync>);

impl fmt::Debug for HealthListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HealthListener")
    }
}
