//! The settings of shared limits.

use crate::error::Error;

/// The guarantee over all nodes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Tokens are leased, and as many are held back from the burst as may be on lease: the limit is never
    /// exceeded.
    #[default]
    Strict,
    /// Tokens are leased out of the whole burst: exceeded by at most the tokens that may be on lease.
    Leased,
    /// Redis decides every call.
    EveryHit,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Strict, Self::Leased, Self::EveryHit];

    /// The word used in the Python API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Leased => "leased",
            Self::EveryHit => "every_hit",
        }
    }
}

/// How a call without tokens on lease is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cold {
    /// It waits for Redis, no longer than three timeouts.
    #[default]
    Sync,
    /// It never waits. Each node admits up to this many units of a key and debits them afterwards.
    Optimistic(u64),
}

/// How calls are decided while Redis is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// By this node, from its share of the rate.
    #[default]
    Share,
    /// Everything is refused.
    Deny,
    /// Everything is admitted.
    Allow,
}

impl OnError {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Share, Self::Deny, Self::Allow];

    /// The word used in the Python API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// Most tokens that may be on lease.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outstanding {
    /// A part of the smallest burst, 0 to 1, rounded down.
    Part(f64),
    /// This many.
    Tokens(u64),
}

/// The settings of limits shared through Redis.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncConfig {
    /// `redis://`, `rediss://` (TLS), `redis+unix://`; `redis+cluster://` and `rediss+cluster://`,
    /// `redis+sentinel://` and `rediss+sentinel://`; parameters as in redis-py.
    pub url: String,
    /// The prefix of all keys in Redis. Each limiter needs its own.
    pub prefix: Vec<u8>,
    /// The guarantee over all nodes together.
    pub mode: Mode,
    /// Most tokens of a key that may be on lease, over all nodes.
    pub max_outstanding: Outstanding,
    /// Lifetime of a lease, ns.
    pub lease_ttl_ns: u64,
    /// Most tokens that one node requests at once.
    pub max_lease: Option<u64>,
    /// How a call without tokens on lease is decided.
    pub cold: Cold,
    /// How calls are decided while Redis is down.
    pub on_error: OnError,
    /// Timeout of a reply, ns.
    pub timeout_ns: u64,
    /// A key without state in Redis starts without tokens.
    pub starts_empty: bool,
    /// A limiter is not made unless Redis serves it.
    pub is_required: bool,
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
        match self.mode {
            Mode::EveryHit => return Ok(0),
            Mode::Strict | Mode::Leased => {}
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

    /// By how many units `nodes` nodes together can exceed `burst + rate · t` while Redis is up and loses
    /// no write.
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
