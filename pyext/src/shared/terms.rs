//! The part of a request that is the same for all keys: the rates in the script's units, and how many
//! tokens may be on lease.

use std::sync::Arc;

use crate::config::Algorithm;
use crate::error::Error;
use crate::gcra::Gcra;
use crate::panel::meters;
use crate::rate::Rate;
use crate::shared::config::{Mode, SyncConfig};
use crate::window::SlidingWindow;

/// log₂ of the parts of a microsecond in which a token bucket's refill time is counted.
const FRACTION_BITS: u32 = 20;
/// Counts beyond this could leave the 53 bits of Lua's numbers when multiplied by a fraction.
const MAX_COUNT: u64 = 1 << 32;
/// Longest time that the script computes with, µs (35 years).
const MAX_US: u64 = 1 << 50;
/// Shortest time between two requests for a refused key, so that Redis is not polled for every token.
const MAX_POLL_NS: u64 = 5_000_000;
const NS_PER_US: u64 = 1000;
/// Most rates that a limiter remembers to have replaced.
const MAX_REPLACED: usize = 8;

/// The settings of shared limits that do not depend on the key, in the script's units.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) rates: Arc<[Rate]>,
    /// The rates in the form that the script reads, in MessagePack.
    pub(crate) encoded: Box<[u8]>,
    /// Most units one call can be granted: the smallest capacity.
    pub(crate) capacity: u64,
    /// Most tokens all nodes together may hold for a key.
    pub(crate) most_outstanding: u64,
    /// Most tokens that this node requests at once.
    pub(crate) max_lease: u64,
    /// Shortest time between two requests for a refused key.
    pub(crate) poll_ns: u64,
    /// One rate, and it is a token bucket.
    pub(crate) is_one_bucket: bool,
    /// Tells limiters with other rates apart: the present rates, then those that they have replaced.
    pub(crate) identities: Vec<u64>,
}

impl Terms {
    /// # Errors
    /// [`Error::Invalid`] if the algorithm cannot be shared, or all of the burst may be on lease;
    /// [`Error::TooLarge`] if a rate does not fit the script's numbers.
    pub(crate) fn new(
        rates: &[Rate],
        algorithm: Algorithm,
        precision: u32,
        config: &SyncConfig,
    ) -> Result<Self, Error> {
        let pack: fn(&mut Vec<u8>, &Rate, u64, u32) = match algorithm {
            Algorithm::Gcra => {
                meters::<Gcra>(rates, precision)?;
                |out, rate, capacity, _| pack_bucket(out, rate, capacity)
            }
            Algorithm::SlidingWindow => {
                meters::<SlidingWindow>(rates, precision)?;
                pack_window
            }
            Algorithm::SlidingLog => {
                return Err(Error::invalid(
                    "a sliding_log is not shared through Redis; use sliding_window",
                ));
            }
        };
        let smallest_burst = rates.iter().map(Rate::burst).min().unwrap_or(1);
        let most_outstanding = config.most_outstanding(smallest_burst)?;
        let reserve = match config.mode {
            Mode::Strict => most_outstanding,
            Mode::Leased | Mode::EveryHit => 0,
        };
        let mut encoded = Vec::new();
        pack_array(&mut encoded, rates.len());
        let mut poll_ns = MAX_POLL_NS;
        for rate in rates {
            let capacity = rate.burst() - reserve;
            check_fits(rate)?;
            pack(&mut encoded, rate, capacity, precision);
            // Often enough that the bucket never overflows between two requests.
            poll_ns = poll_ns.min(rate.refill_ns() / rate.burst() * capacity / 4);
        }
        let max_lease = config.max_lease.unwrap_or(u64::MAX).min(most_outstanding);
        Ok(Self {
            rates: rates.into(),
            encoded: encoded.into(),
            capacity: smallest_burst - reserve,
            most_outstanding,
            max_lease,
            poll_ns,
            is_one_bucket: rates.len() == 1 && algorithm == Algorithm::Gcra,
            identities: vec![identity(rates, algorithm)],
        })
    }

    /// The terms of a call with rates of its own, under a limiter with these terms.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `rates` are not as many, or change the period of a window; and as [`Terms::new`].
    pub(crate) fn of_call(
        &self,
        rates: &[Rate],
        algorithm: Algorithm,
        precision: u32,
        config: &SyncConfig,
    ) -> Result<Self, Error> {
        let mut own = Self::new(rates, algorithm, precision, config)?;
        if rates.len() != self.rates.len() {
            return Err(Error::invalid(format!(
                "rates must be as many as the limiter has, {}, got {}",
                self.rates.len(),
                rates.len()
            )));
        }
        let keeps_period =
            |(rate, of_limiter): (&Rate, &Rate)| rate.period_ns() == of_limiter.period_ns();
        if algorithm != Algorithm::Gcra && !rates.iter().zip(&*self.rates).all(keeps_period) {
            return Err(Error::invalid(
                "rates given to one call of a sliding window must keep the limiter's periods",
            ));
        }
        // The key is this limiter's, whatever its rates.
        own.identities.clone_from(&self.identities);
        Ok(own)
    }

    /// Continues `before`, as the same limiter under other rates.
    pub(crate) fn replace(&mut self, before: &Self) {
        let present = self.identities[0];
        let earlier = before.identities.iter().filter(|id| **id != present);
        self.identities.extend(earlier.take(MAX_REPLACED));
    }
}

/// A number that limiters with the same rates and algorithm have in common, below 2³²: FNV-1a.
fn identity(rates: &[Rate], algorithm: Algorithm) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut write = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    write(algorithm.as_str().as_bytes());
    for rate in rates {
        for number in [rate.limit(), rate.period_ns(), rate.burst()] {
            write(&number.to_le_bytes());
        }
    }
    (hash >> 32).max(1)
}

fn check_fits(rate: &Rate) -> Result<(), Error> {
    let longest_us = rate.refill_ns().max(rate.period_ns()) / NS_PER_US;
    if rate.burst() > MAX_COUNT || rate.limit() > MAX_COUNT || longest_us > MAX_US {
        return Err(Error::too_large(format!(
            "a shared rate holds at most 2**32 units and 35 years, got {} per {} ns burst {}",
            rate.limit(),
            rate.period_ns(),
            rate.burst()
        )));
    }
    Ok(())
}

/// `{1, capacity, us, fraction, capacity us, capacity fraction, debt us}`.
fn pack_bucket(out: &mut Vec<u8>, rate: &Rate, capacity: u64) {
    let parts = (u128::from(rate.period_ns()) << FRACTION_BITS)
        .div_ceil(u128::from(rate.limit()) * u128::from(NS_PER_US));
    let split = |parts: u128| {
        let us = u64::try_from(parts >> FRACTION_BITS).expect("below MAX_US");
        let fraction = u64::try_from(parts % (1 << FRACTION_BITS)).expect("20 bits");
        (us, fraction)
    };
    let (us, fraction) = split(parts);
    let (capacity_us, capacity_fraction) = split(parts * u128::from(capacity));
    let (burst_us, _) = split(parts * u128::from(rate.burst()));
    pack_array(out, 7);
    for number in [
        1,
        capacity,
        us,
        fraction,
        capacity_us,
        capacity_fraction,
        burst_us + 1,
    ] {
        pack_uint(out, number);
    }
}

/// `{2, capacity, window, width}`.
fn pack_window(out: &mut Vec<u8>, rate: &Rate, capacity: u64, precision: u32) {
    let window_us = rate.period_ns().div_ceil(NS_PER_US);
    pack_array(out, 4);
    for number in [
        2,
        capacity,
        window_us,
        window_us.div_ceil(u64::from(precision)),
    ] {
        pack_uint(out, number);
    }
}

/// Starts a MessagePack array.
pub(crate) fn pack_array(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("fewer than 2³² items");
    rmp::encode::write_array_len(out, len).expect("a Vec takes everything");
}

pub(crate) fn pack_uint(out: &mut Vec<u8>, number: u64) {
    rmp::encode::write_uint(out, number).expect("a Vec takes everything");
}
