//! A rate: units per period, and units at once.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::error::{Error, excerpt};

mod text;

pub use text::{parse_period, period_text};

/// Counts are kept below 2⁶³ so that they fit a signed integer.
const MAX_COUNT: u64 = i64::MAX as u64;
/// Above this the rounding of one token's refill time could exceed one part in a million (see [`crate::gcra`]).
const MAX_UNITS_PER_NS: u64 = 4096;
/// Longest name; it travels in a response header.
const MAX_NAME_LEN: usize = 64;

/// `limit` units per `period_ns`, at most `burst` of them at once.
#[derive(Debug, Clone)]
pub struct Rate {
    limit: u64,
    period_ns: u64,
    burst: u64,
    name: Box<str>,
    /// The name was chosen by the maker of the rate.
    is_named: bool,
}

impl Rate {
    /// A rate of `limit` units per `period_ns` nanoseconds. `burst` is the most that can be admitted
    /// at once, `limit` if not given.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a number is 0 or `name` is not 1–64 printable ASCII characters without
    /// `"` and `\`; [`Error::TooLarge`] if a number is 2⁶³ or more, the rate is above 4096 units per
    /// nanosecond, or refilling an empty burst would take 2⁶³ ns (292 years) or more.
    pub fn new(limit: u64, period_ns: u64, burst: Option<u64>, name: &str) -> Result<Self, Error> {
        let burst = burst.unwrap_or(limit);
        for (what, value) in [("limit", limit), ("period_ns", period_ns), ("burst", burst)] {
            if value == 0 {
                return Err(Error::invalid(format!("{what} must be at least 1, got 0")));
            }
            if value > MAX_COUNT {
                return Err(Error::too_large(format!(
                    "{what} must be below 2**63, got {value}"
                )));
            }
        }
        if limit / MAX_UNITS_PER_NS >= period_ns {
            return Err(Error::too_large(format!(
                "limit must be at most {MAX_UNITS_PER_NS} per ns, got {limit} per {period_ns} ns"
            )));
        }
        if name.is_empty()
            || name.len() > MAX_NAME_LEN
            || !name
                .bytes()
                .all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
        {
            return Err(Error::invalid(format!(
                "name must be 1 to {MAX_NAME_LEN} printable ASCII characters without quotes or backslashes, got {}",
                excerpt(name)
            )));
        }
        let rate = Self {
            limit,
            period_ns,
            burst,
            name: name.into(),
            is_named: true,
        };
        if rate.refill_ns_wide() > u128::from(MAX_COUNT) {
            return Err(Error::too_large(format!(
                "burst must be refilled in 2**63 ns, got {burst} at {limit} per {period_ns} ns"
            )));
        }
        Ok(rate)
    }

    /// Rates from text: clauses `LIMIT/PERIOD [burst N]` or `LIMIT per PERIOD [burst N]`, separated by `;`,
    /// `,` or `|`, for example `10/s burst 20; 1000 per 5 hours`, in any case and with any spaces. A period is
    /// a unit (ns, us, ms, s, min, h, d, week, month of 30 days, year of 365 days, or spelled out) with or
    /// without a number before it (`10/500ms`). A number may have a fraction; a limit with one is read as the
    /// whole numbers that say the same (`0.5/s` is `1/2s`). Each rate is named after its clause (`10/s`).
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the clause that cannot be read, and everything [`Rate::new`] refuses.
    pub fn parse(spec: &str) -> Result<Vec<Self>, Error> {
        text::parse(spec)
    }

    /// The same rate, whose name may be replaced where another rate has it, too.
    #[must_use]
    pub fn unnamed(mut self) -> Self {
        self.is_named = false;
        self
    }

    /// What makes two rates equal, and their order.
    fn identity(&self) -> (u64, u64, u64, &str) {
        (self.period_ns, self.limit, self.burst, &self.name)
    }

    /// Units per period.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Length of the period, ns.
    pub fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// Most units admitted at once.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Name shown in decisions and headers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Time in which an empty burst fills up again, ns, rounded up.
    pub fn refill_ns(&self) -> u64 {
        // Rate::new has checked that it fits.
        u64::try_from(self.refill_ns_wide()).unwrap_or(u64::MAX)
    }

    fn refill_ns_wide(&self) -> u128 {
        (u128::from(self.burst) * u128::from(self.period_ns)).div_ceil(u128::from(self.limit))
    }
}

impl PartialEq for Rate {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Rate {}

impl PartialOrd for Rate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By period, then limit, burst and name.
impl Ord for Rate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

/// As [`Rate::parse`] reads it, without the name: `10/s burst 20`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.limit, period_text(self.period_ns))?;
        if self.burst != self.limit {
            write!(f, " burst {}", self.burst)?;
        }
        Ok(())
    }
}

impl Hash for Rate {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.identity().hash(hasher);
    }
}

impl FromStr for Rate {
    type Err = Error;

    /// Exactly one clause of [`Rate::parse`].
    fn from_str(clause: &str) -> Result<Self, Error> {
        text::parse_clause(clause)
    }
}

/// Gives rates of one limiter different names: of those with equal names, the ones that were not named by
/// their maker are named after what they say. Rates that are still alike keep their names.
pub fn with_distinct_names(mut rates: Vec<Rate>) -> Vec<Rate> {
    let forms: [fn(&Rate) -> String; 2] = [
        |rate| format!("{}/{}", rate.limit, period_text(rate.period_ns)),
        |rate| {
            let period = period_text(rate.period_ns);
            format!("{}/{period} burst {}", rate.limit, rate.burst)
        },
    ];
    for form in forms {
        let names: Vec<Box<str>> = rates.iter().map(|rate| rate.name.clone()).collect();
        for rate in &mut rates {
            let uses = names.iter().filter(|name| **name == rate.name).count();
            if uses > 1 && !rate.is_named {
                rate.name = form(rate).into();
            }
        }
    }
    rates
}
