//! A rate limiter: exact, bounded in memory, and quick; alone, or shared by processes through Redis.
//!
//! ```
//! use hopgate_limiter::{Clock, Config, Limiter, ManualClock, Rate};
//!
//! let clock = ManualClock::new(0);
//! let config = Config { clock: Clock::manual(clock.clone()), ..Config::default() };
//! let limiter = Limiter::new(&Rate::parse("10/s burst 20; 1000/h")?, config)?;
//!
//! assert!(limiter.allow("198.51.100.7".into(), 20));
//! let refused = limiter.hit("198.51.100.7".into(), 1);
//! assert_eq!(refused.retry_after_ns, Some(100_000_000));
//!
//! clock.advance(100_000_000);
//! assert!(limiter.allow("198.51.100.7".into(), 1));
//! # Ok::<(), hopgate_limiter::Error>(())
//! ```
//!
//! # How it works
//!
//! ```text
//!   key ──keyed hash──▶ fingerprint ──6 bits──▶ shard (mutex) ──▶ table slot ──▶ one state per rate
//!                                                                                    │ meter
//!   clock ──now──────────────────────────────────────────────────────────────────────┴──▶ decision
//! ```
//!
//! * [`rate`]: what is allowed. [`clock`]: when it is. [`decision`]: the answer.
//! * [`gcra`], [`log`], [`window`]: the algorithms, each a *meter* that reads and writes the state of
//!   one key under one rate. They know neither keys nor clocks.
//! * `panel`: all meters of a limiter, asked together.
//! * `table`, `shard` and `store`: where states live. A call takes one lock, asks every meter, and only
//!   if all agree lets them write. A refusal therefore changes nothing.
//! * [`shared`]: limits that several processes keep together, through Redis.
//! * [`limiter`]: ties them together. `python`: the same for Python, and the only place that knows it.
//!
//! # What is remembered of a key
//!
//! A 64-bit hash under a random seed, not the key. Two of `n` remembered keys share a budget with a
//! probability below n² / 2⁶⁵: for a million keys one in 36 million. They would be limited together,
//! which admits less, never more.

pub mod address;
pub mod clock;
pub mod decision;
pub mod error;
pub mod gcra;
pub mod limiter;
pub mod log;
mod meter;
mod panel;
#[cfg(feature = "python")]
mod python;
pub mod rate;
mod shard;
pub mod shared;
mod store;
#[cfg(test)]
mod stress;
mod table;
pub mod window;

pub use address::client_key;
pub use clock::{Clock, ManualClock};
pub use decision::{Decision, HeaderStyle, Source};
pub use error::Error;
pub use limiter::{
    Algorithm, Answer, Config, Key, Limiter, OnFull, PreparedKey, Reservation, Stats,
};
pub use rate::Rate;
pub use shared::{Cold, Ledger, Mailbox, Mode, OnError, Outstanding, Parcel, Pending, SyncConfig};
