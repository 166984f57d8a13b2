//! What is allowed: so many units per period, so many at once.

use std::str::FromStr;

use crate::error::Error;

/// Counts are kept below 2⁶³ so that they survive a trip through a signed integer.
const MAX_COUNT: u64 = i64::MAX as u64;
/// Above this the rounding of one token's refill time could exceed one part in a million (see [`crate::gcra`]).
const MAX_UNITS_PER_NS: u64 = 4096;
/// Longest name; it travels in a response header.
const MAX_NAME_LEN: usize = 64;

/// `limit` units per `period_ns`, at most `burst` of them at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rate {
    limit: u64,
    period_ns: u64,
    burst: u64,
    name: Box<str>,
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
                "a rate of {limit} per {period_ns} ns is above {MAX_UNITS_PER_NS} per ns"
            )));
        }
        if name.is_empty()
            || name.len() > MAX_NAME_LEN
            || !name
                .bytes()
                .all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
        {
            return Err(Error::invalid(format!(
                "name must be 1 to {MAX_NAME_LEN} printable ASCII characters without quotes or backslashes, got {name:?}"
            )));
        }
        let rate = Self {
            limit,
            period_ns,
            burst,
            name: name.into(),
        };
        if rate.refill_ns_wide() > u128::from(MAX_COUNT) {
            return Err(Error::too_large(format!(
                "refilling a burst of {burst} at {limit} per {period_ns} ns takes more than 2**63 ns"
            )));
        }
        Ok(rate)
    }

    /// Rates from text: clauses `LIMIT/PERIOD [burst N]` separated by `;`, for example
    /// `10/s burst 20; 1000/h`. A period is a unit (ns, us, ms, s, min, h, d or spelled out) with an
    /// optional whole number before it (`10/500ms`). Each rate is named after its clause (`10/s`).
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the clause that cannot be read, and everything [`Rate::new`] refuses.
    pub fn parse(spec: &str) -> Result<Vec<Self>, Error> {
        spec.split(';').map(Self::parse_clause).collect()
    }

    fn parse_clause(clause: &str) -> Result<Self, Error> {
        let unreadable = || {
            Error::invalid(format!(
                "cannot read the rate {:?}: expected 'LIMIT/PERIOD' or 'LIMIT/PERIOD burst N'",
                clause.trim()
            ))
        };
        let lowered = clause.trim().to_ascii_lowercase();
        let (quota, burst) = match lowered.split_once("burst") {
            None => (lowered.as_str(), None),
            Some((quota, burst)) => {
                let burst = whole_number(burst).ok_or_else(unreadable)?;
                (quota, Some(burst))
            }
        };
        let (limit_text, period_text) = quota.split_once('/').ok_or_else(unreadable)?;
        let limit = whole_number(limit_text).ok_or_else(unreadable)?;
        let period_ns = parse_period(period_text)?;
        let name: String = quota.split_whitespace().collect();
        Self::new(limit, period_ns, burst, &name)
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

impl FromStr for Rate {
    type Err = Error;

    /// Exactly one clause of [`Rate::parse`].
    fn from_str(clause: &str) -> Result<Self, Error> {
        Self::parse_clause(clause)
    }
}

/// Length in nanoseconds of a period such as `s`, `10s`, `500 ms` or `minute`.
///
/// # Errors
/// [`Error::Invalid`] for an unknown unit, [`Error::TooLarge`] for 2⁶³ ns or more.
pub fn parse_period(text: &str) -> Result<u64, Error> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let unit_ns: u64 = match unit.trim() {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60 * 1_000_000_000,
        "h" | "hour" | "hours" => 3_600 * 1_000_000_000,
        "d" | "day" | "days" => 86_400 * 1_000_000_000,
        _ => {
            return Err(Error::invalid(format!(
                "cannot read the period {text:?}: expected a unit (ns, us, ms, s, min, h, d), such as '10s'"
            )));
        }
    };
    let too_large = || Error::too_large(format!("the period {text:?} is 2**63 ns or more"));
    let count = match count {
        "" => 1,
        digits => digits.parse::<u64>().map_err(|_| too_large())?,
    };
    count.checked_mul(unit_ns).ok_or_else(too_large)
}

/// A run of ASCII digits, with spaces around it; saturates, so that "too large" is said by [`Rate::new`].
fn whole_number(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_read() {
        let table = [
            ("10/s", 10, 1_000_000_000, 10, "10/s"),
            ("10/s burst 20", 10, 1_000_000_000, 20, "10/s"),
            (" 600 / min ", 600, 60_000_000_000, 600, "600/min"),
            ("5/500ms BURST 7", 5, 500_000_000, 7, "5/500ms"),
            ("1/2 days", 1, 172_800_000_000_000, 1, "1/2days"),
        ];
        for (text, limit, period_ns, burst, name) in table {
            let expected = Rate::new(limit, period_ns, Some(burst), name).unwrap();
            assert_eq!(text.parse::<Rate>().unwrap(), expected, "{text}");
        }
        assert_eq!(Rate::parse("10/s burst 20; 1000/h").unwrap().len(), 2);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "10",
            "10/",
            "/s",
            "x/s",
            "-1/s",
            "10/fortnight",
            "10/s burst",
            "10/s burst x",
            "10/s;",
            "0/s",
            "10/0s",
            "10/s burst 0",
            "10/1.5s",
        ] {
            assert!(
                matches!(Rate::parse(text), Err(Error::Invalid(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn unrepresentable_rates_are_refused() {
        for text in [
            "9223372036854775808/d",
            "99999999999999999999999/d",
            "4096/ns",
            "1/d burst 9223372036854775807",
            "1/999999999999d",
        ] {
            assert!(
                matches!(Rate::parse(text), Err(Error::TooLarge(_))),
                "{text:?}"
            );
        }
    }
}
