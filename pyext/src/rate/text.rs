//! Rates and periods as text.

use super::Rate;
use crate::error::{Error, excerpt};

/// What stands between two rates.
const SEPARATORS: [char; 3] = [',', ';', '|'];
/// Digits after the point beyond these are refused.
const MAX_DECIMALS: usize = 9;
const UNITS: &str = "ns, us, ms, s, min, h, d, week, month of 30 days, year of 365 days";

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;
const MIN: u64 = 60 * S;
const HOUR: u64 = 60 * MIN;
const DAY: u64 = 24 * HOUR;

fn unit_ns(word: &str) -> Option<u64> {
    Some(match word {
        "ns" | "nanosecond" | "nanoseconds" => 1,
        "us" | "microsecond" | "microseconds" => US,
        "ms" | "millisecond" | "milliseconds" => MS,
        "s" | "sec" | "secs" | "second" | "seconds" => S,
        "m" | "min" | "mins" | "minute" | "minutes" => MIN,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        "w" | "wk" | "wks" | "week" | "weeks" => 7 * DAY,
        "month" | "months" => 30 * DAY,
        "y" | "yr" | "yrs" | "year" | "years" => 365 * DAY,
        _ => return None,
    })
}

/// See [`Rate::parse`].
pub(super) fn parse(spec: &str) -> Result<Vec<Rate>, Error> {
    spec.split(SEPARATORS).map(parse_clause).collect()
}

/// One rate: `LIMIT/PERIOD [burst N]` or `LIMIT per PERIOD [burst N]`.
pub(super) fn parse_clause(clause: &str) -> Result<Rate, Error> {
    let unreadable = || {
        Error::invalid(format!(
            "cannot read the rate {}: expected such as '10/s', '10 per 5 minutes', '0.5/s' or '10/s burst 20', \
             and ',', ';' or '|' between rates",
            excerpt(clause.trim())
        ))
    };
    let lowered = clause.to_lowercase();
    let (limit_text, rest) = split_number(&lowered);
    let limit = Decimal::read(limit_text).ok_or_else(unreadable)?;
    let rest = rest
        .strip_prefix('/')
        .or_else(|| rest.strip_prefix("per"))
        .ok_or_else(unreadable)?;
    let (period_text, burst) = match rest.split_once("burst") {
        None => (rest, None),
        Some((period, burst)) => {
            let (digits, end) = split_number(burst);
            let burst = Decimal::read(digits).filter(|burst| burst.is_whole() && end.is_empty());
            (period, Some(burst.ok_or_else(unreadable)?.digits))
        }
    };
    if period_text.trim().is_empty() {
        return Err(unreadable());
    }
    let period_ns = parse_period(period_text)?;
    let (limit, period_ns) = limit.per(period_ns).ok_or_else(|| {
        Error::too_large(format!(
            "the rate must fit 2**63, got {}",
            excerpt(clause.trim())
        ))
    })?;
    let period_words: String = period_text.split_whitespace().collect();
    let mut name = format!("{limit_text}/{period_words}");
    if name.len() > super::MAX_NAME_LEN {
        name = format!("{limit}/{}", self::period_text(period_ns));
    }
    Ok(Rate::new(limit, period_ns, burst, &name)?.unnamed())
}

/// Length in nanoseconds of a period such as `s`, `10s`, `1.5 h`, `500 ms` or `5 minutes`.
///
/// # Errors
/// [`Error::Invalid`] for an unknown unit and for less than a nanosecond, [`Error::TooLarge`] for 2⁶³ ns or
/// more.
pub fn parse_period(text: &str) -> Result<u64, Error> {
    let text = text.trim();
    let unreadable = || {
        Error::invalid(format!(
            "cannot read the period {}: expected a unit ({UNITS}) with or without a number before it, \
             such as 's' or '5 minutes'",
            excerpt(text)
        ))
    };
    let lowered = text.to_lowercase();
    let (count_text, unit) = split_number(&lowered);
    let unit_ns = unit_ns(unit.trim_end()).ok_or_else(unreadable)?;
    let count = match count_text {
        "" => Decimal::ONE,
        digits => Decimal::read(digits).ok_or_else(unreadable)?,
    };
    let too_large = || {
        Error::too_large(format!(
            "the period must be below 2**63 ns, got {}",
            excerpt(text)
        ))
    };
    let scaled = u128::from(count.digits) * u128::from(unit_ns);
    if !scaled.is_multiple_of(u128::from(count.scale)) {
        return Err(Error::invalid(format!(
            "the period must be a whole number of nanoseconds, got {}",
            excerpt(text)
        )));
    }
    u64::try_from(scaled / u128::from(count.scale))
        .ok()
        .filter(|ns| *ns <= super::MAX_COUNT)
        .ok_or_else(too_large)
}

/// The shortest text that [`parse_period`] reads as this many nanoseconds.
pub fn period_text(period_ns: u64) -> String {
    let units = [
        (DAY, "d"),
        (HOUR, "h"),
        (MIN, "min"),
        (S, "s"),
        (MS, "ms"),
        (US, "us"),
    ];
    let whole = units.iter().find(|(ns, _)| period_ns.is_multiple_of(*ns));
    let (ns, unit) = *whole.unwrap_or(&(1, "ns"));
    match period_ns / ns {
        1 => unit.to_owned(),
        count => format!("{count}{unit}"),
    }
}

/// The number at the start of a text, and what follows it; without the spaces around the number.
fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    (number, rest.trim())
}

/// A number as it is written: `digits` divided by `scale`, a power of ten.
#[derive(Clone, Copy)]
struct Decimal {
    digits: u64,
    scale: u64,
}

impl Decimal {
    const ONE: Self = Self {
        digits: 1,
        scale: 1,
    };

    /// Saturates, so that [`Rate::new`] refuses what is too large.
    fn read(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let kept = decimals.trim_end_matches('0');
        if !is_number(whole) || !is_number(decimals) || kept.len() > MAX_DECIMALS {
            return None;
        }
        let scale = u64::pow(10, u32::try_from(kept.len()).ok()?);
        let digits = format!("{whole}{kept}").parse().unwrap_or(u64::MAX);
        Some(Self { digits, scale })
    }

    fn is_whole(self) -> bool {
        self.scale == 1
    }

    /// The whole numbers that say the same as this many per period: half a unit a second is one in two
    /// seconds. None if they do not fit.
    fn per(self, period_ns: u64) -> Option<(u64, u64)> {
        let common = greatest_common_divisor(self.digits, self.scale);
        Some((
            self.digits / common,
            period_ns.checked_mul(self.scale / common)?,
        ))
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_read() {
        let table = [
            ("10/s", 10, S, 10, "10/s"),
            ("10/s burst 20", 10, S, 20, "10/s"),
            (" 600 / min ", 600, MIN, 600, "600/min"),
            ("5/500ms BURST 7", 5, 500 * MS, 7, "5/500ms"),
            ("1/2 days", 1, 2 * DAY, 1, "1/2days"),
            ("10 per minute", 10, MIN, 10, "10/minute"),
            ("10 PER 5\tMinutes burst 3", 10, 5 * MIN, 3, "10/5minutes"),
            ("10per5minutes", 10, 5 * MIN, 10, "10/5minutes"),
            ("10/5 minutes", 10, 5 * MIN, 10, "10/5minutes"),
            ("3/week", 3, 7 * DAY, 3, "3/week"),
            ("3 per 2 months", 3, 60 * DAY, 3, "3/2months"),
            ("3/year", 3, 365 * DAY, 3, "3/year"),
            ("0.5/s", 1, 2 * S, 1, "0.5/s"),
            ("2.50 per s burst 9", 5, 2 * S, 9, "2.50/s"),
            ("10/1.5s", 10, 1500 * MS, 10, "10/1.5s"),
            ("0.1/0.5h", 1, 5 * HOUR, 1, "0.1/0.5h"),
        ];
        for (text, limit, period_ns, burst, name) in table {
            let expected = Rate::new(limit, period_ns, Some(burst), name).unwrap();
            assert_eq!(text.parse::<Rate>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn rates_are_separated() {
        for text in ["10/s; 1000/h", "10/s,1000/h", "10/s | 1000/h"] {
            let limits: Vec<u64> = Rate::parse(text).unwrap().iter().map(Rate::limit).collect();
            assert_eq!(limits, [10, 1000], "{text}");
        }
    }

    #[test]
    fn unreadable_clauses_are_refused() {
        for text in [
            "",
            "10",
            "10/",
            "10 per",
            "/s",
            "x/s",
            "-1/s",
            "10//s",
            "10 / per s",
            "10/fortnight",
            "10/s burst",
            "10/s burst x",
            "10/s burst 1.5",
            "10/s burst 5 5",
            "10/s 5",
            "10/s;",
            "10/s,,1/h",
            "1,000/s",
            "0/s",
            "0.0/s",
            "10/0s",
            "10/s burst 0",
            "1./s",
            ".5/s",
            "1.2.3/s",
            "1/1.5ns",
            "0.00000000001/s",
            "1e3/s",
            "١٠/s",
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
            "0.000000001/300years",
        ] {
            assert!(
                matches!(Rate::parse(text), Err(Error::TooLarge(_))),
                "{text:?}"
            );
        }
    }
}
