//! The decision about one call, and its form as HTTP headers.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::rate::Rate;

/// Structured fields carry integers of at most 15 digits (RFC 9651, 3.3.1).
const MAX_HEADER_INTEGER: u64 = 999_999_999_999_999;
const NS_PER_S: u64 = 1_000_000_000;

/// The origin of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// This process's own table.
    Local,
    /// Tokens that this process holds on lease.
    Lease,
    /// Redis.
    Redis,
    /// This process, repeating the last refusal of Redis.
    NegativeCache,
    /// This process, because Redis does not reply.
    Fallback,
    /// Shadow mode, instead of a refusal.
    Shadow,
}

impl Source {
    /// Every origin.
    pub const ALL: [Self; 6] = [
        Self::Local,
        Self::Lease,
        Self::Redis,
        Self::NegativeCache,
        Self::Fallback,
        Self::Shadow,
    ];

    /// The word used in the Python API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Lease => "lease",
            Self::Redis => "redis",
            Self::NegativeCache => "negative-cache",
            Self::Fallback => "fallback",
            Self::Shadow => "shadow",
        }
    }
}

/// The headers to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the variants are the documentation
pub enum HeaderStyle {
    Ietf,
    Legacy,
    Both,
}

/// The decision about one call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use = "an unread decision limits nothing"]
pub struct Decision {
    /// Whether the call may go ahead.
    pub allowed: bool,
    /// Units asked for.
    pub cost: u64,
    /// The largest cost that would be admitted right now, after this call.
    pub remaining: u64,
    /// Wait until the same call would be admitted, ns: 0 if it was, `None` if it never will be.
    pub retry_after_ns: Option<u64>,
    /// Time until the key is as good as new, ns.
    pub reset_after_ns: u64,
    /// The origin of the decision.
    pub source: Source,
    pub(crate) rates: Arc<[Rate]>,
    pub(crate) tightest: usize,
}

impl Decision {
    /// The rate that refused for longest or, if none did, the one with the least left.
    pub fn rate(&self) -> &Rate {
        &self.rates[self.tightest]
    }

    /// A decision from its parts, as `copy` and `pickle` of Python make it.
    #[cfg(feature = "python")]
    #[allow(clippy::too_many_arguments)] // the fields
    pub(crate) fn restored(
        allowed: bool,
        cost: u64,
        remaining: u64,
        retry_after_ns: Option<u64>,
        reset_after_ns: u64,
        source: Source,
        rates: Vec<Rate>,
        tightest: usize,
    ) -> Self {
        Self {
            allowed,
            cost,
            remaining,
            retry_after_ns,
            reset_after_ns,
            source,
            rates: rates.into(),
            tightest,
        }
    }

    /// The same decision in shadow mode: a refusal becomes an admission.
    pub(crate) fn overruled(mut self) -> Self {
        if !self.allowed {
            self.allowed = true;
            self.retry_after_ns = Some(0);
            self.source = Source::Shadow;
        }
        self
    }

    /// Headers for a response, as (name, value).
    ///
    /// `Ietf` is draft-ietf-httpapi-ratelimit-headers-11. A bucket is announced as its burst per time
    /// to fill up, since that holds in every such window. On a redirect (3xx) an exhausted
    /// quota is not announced, since clients may then delay following it.
    /// A refused call also gets `Retry-After` (RFC 9110, 10.2.3), at least 1, unless it can never succeed.
    /// `jitter_s` is added to the wait of a refused client, so that clients refused at once do not retry at
    /// once.
    pub fn headers(
        &self,
        style: HeaderStyle,
        redirect: bool,
        jitter_s: u64,
    ) -> Vec<(&'static str, String)> {
        let mut headers = Vec::with_capacity(6);
        let jitter_s = if self.allowed { 0 } else { jitter_s };
        let later = |s: u64| s.max(1).saturating_add(jitter_s);
        let wait_s = self.retry_after_ns.map(|ns| later(seconds_ceil(ns)));
        // Seconds until more is available. Retry-After must not point earlier than this.
        let t = if self.allowed {
            Some(seconds_ceil(self.reset_after_ns))
        } else {
            wait_s
        };
        let announce = !redirect || self.remaining > 0;
        if style != HeaderStyle::Legacy && announce {
            headers.push(("RateLimit-Policy", policies(&self.rates)));
            let remaining = self.remaining.min(MAX_HEADER_INTEGER);
            let name = self.rate().name();
            let limit = match t {
                Some(t) => format!("\"{name}\";r={remaining};t={t}"),
                None => format!("\"{name}\";r={remaining}"),
            };
            headers.push(("RateLimit", limit));
        }
        if style != HeaderStyle::Ietf && announce {
            headers.push(("X-RateLimit-Limit", self.rate().burst().to_string()));
            headers.push(("X-RateLimit-Remaining", self.remaining.to_string()));
            if let Some(t) = t {
                headers.push(("X-RateLimit-Reset", t.to_string()));
            }
        }
        if let (false, Some(wait_s)) = (self.allowed, wait_s) {
            headers.push(("Retry-After", wait_s.to_string()));
        }
        headers
    }
}

fn seconds_ceil(ns: u64) -> u64 {
    ns.div_ceil(NS_PER_S)
}

/// `"name";q=burst;w=seconds` of each; a window under a second cannot be written in whole seconds and is left
/// out. Written at every response: into one text.
fn policies(rates: &[Rate]) -> String {
    let mut text = String::with_capacity(64);
    for (number, rate) in rates.iter().enumerate() {
        let quota = rate.burst().min(MAX_HEADER_INTEGER);
        let before = if number > 0 { ", " } else { "" };
        // A String takes everything.
        let _ = write!(text, "{before}\"{}\";q={quota}", rate.name());
        if rate.refill_ns() >= NS_PER_S {
            let _ = write!(text, ";w={}", seconds_ceil(rate.refill_ns()));
        }
    }
    text
}
