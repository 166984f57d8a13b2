//! How a limiter is shared.

use crate::error::Error;

/// What is promised about all nodes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Tokens are leased, and as many are held back from the burst as may be out on lease: never over.
    #[default]
    Strict,
    /// Tokens are leased out of the whole burst: over by at most what may be out on lease.
    Leased,
    /// Redis decides every call.
    EveryHit,
}

/// What a call does that finds no token here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cold {
    /// It waits for Redis, no longer than the timeout.
    #[default]
    Sync,
    /// It never waits. Each node admits up to this many units of a key and debits them afterwards.
    Optimistic(u64),
}

/// Who decides while Redis does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// This node, at its share of the rate.
    #[default]
    Share,
    /// Everything is refused.
    Deny,
    /// Everything is admitted.
    Allow,
}

/// Most tokens that may be out on lease.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outstanding {
    /// A part of the smallest burst, 0 to 1, rounded down.
    Part(f64),
    /// So many.
    Tokens(u64),
}

/// How a limiter is shared through Redis.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncConfig {
    /// `redis://`, `rediss://` (TLS), `redis+unix://`; `redis+cluster://` and `rediss+cluster://`.
    pub url: String,
    /// What every key in Redis begins with. A limiter needs its own.
    pub prefix: Vec<u8>,
    /// What is promised about all nodes together.
    pub mode: Mode,
    /// Most tokens that may be out on lease for a key, over all nodes.
    pub max_outstanding: Outstanding,
    /// How long a lease lasts, ns.
    pub lease_ttl_ns: u64,
    /// Most tokens one node asks for at once.
    pub max_lease: Option<u64>,
    /// What a call does that finds no token here.
    pub cold: Cold,
    /// Who decides while Redis does not.
    pub on_error: OnError,
    /// How long Redis may take to answer, ns.
    pub timeout_ns: u64,
    /// A key that Redis knows nothing of starts without tokens.
    pub starts_empty: bool,
}

impl SyncConfig {
    /// # Errors
    /// [`Error::Invalid`] if a number is out of range.
    pub fn check(&self) -> Result<(), Error> {
        const MAX_S: u64 = 60;
        for (what, ns) in [
            ("lease_ttl", self.lease_ttl_ns),
            ("timeout", self.timeout_ns),
        ] {
            if !(1_000_000..=MAX_S * 1_000_000_000).contains(&ns) {
                return Err(Error::invalid(format!(
                    "{what} must be 0.001 to {MAX_S} s, got {} s",
                    ns as f64 / 1e9
                )));
            }
        }
        if let Outstanding::Part(part) = self.max_outstanding
            && !(0.0..1.0).contains(&part)
        {
            return Err(Error::invalid(format!(
                "max_outstanding must be a part of the burst below 1.0, got {part}"
            )));
        }
        if self.max_lease == Some(0) || self.cold == Cold::Optimistic(0) {
            return Err(Error::invalid(
                "max_lease and optimistic must be at least 1, got 0",
            ));
        }
        if self.mode == Mode::EveryHit && self.cold != Cold::Sync {
            return Err(Error::invalid(
                "every_hit waits for Redis, so cold must be sync",
            ));
        }
        Ok(())
    }

    /// Most tokens of a key that all nodes together may hold, given the smallest burst.
    ///
    /// # Errors
    /// [`Error::Invalid`] if nothing would be left of the burst.
    pub fn most_outstanding(&self, burst: u64) -> Result<u64, Error> {
        if self.mode == Mode::EveryHit {
            return Ok(0);
        }
        match self.max_outstanding {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // rounded down, in range
            Outstanding::Part(part) => Ok((burst as f64 * part) as u64),
            Outstanding::Tokens(tokens) if tokens < burst => Ok(tokens),
            Outstanding::Tokens(tokens) => Err(Error::invalid(format!(
                "max_outstanding must be below the smallest burst, {burst}, got {tokens}"
            ))),
        }
    }

    /// By how many units `nodes` nodes together can exceed `burst + rate · t` while Redis decides and
    /// keeps what it was told.
    ///
    /// # Errors
    /// As [`SyncConfig::most_outstanding`].
    pub fn overshoot_bound(&self, burst: u64, nodes: u64) -> Result<u64, Error> {
        let leased = match self.mode {
            Mode::Strict | Mode::EveryHit => 0,
            Mode::Leased => self.most_outstanding(burst)?,
        };
        let optimistic = match self.cold {
            Cold::Sync => 0,
            Cold::Optimistic(units) => units.saturating_mul(nodes),
        };
        Ok(leased.saturating_add(optimistic))
    }
}
