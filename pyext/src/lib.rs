//! A rate limiter: exact, bounded in memory, and fast; in one process, or shared through Redis.
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
//! * [`rate`]: the limits. [`clock`]: the time. [`decision`]: the result of a call.
//! * [`gcra`], [`log`], [`window`]: the algorithms, each a *meter* that reads and writes the state of
//!   one key under one rate, without keys and clocks.
//! * `panel`: all meters of a limiter together.
//! * `book`: the slots of a key that callers wait for.
//! * `table`, `shard` and `store`: the states. A call takes one lock and queries every meter; only if all
//!   admit it do they write. A refusal therefore changes nothing.
//! * [`shared`]: limits that several processes share through Redis.
//! * [`limiter`]: the facade, over an `engine`: `store` or [`shared`]. `python`: the facade for Python, and
//!   the only module that depends on it.
//!
//! # Keys are stored as hashes
//!
//! A limiter stores a 64-bit hash of the key under a random seed, not the key. Two of `n` keys share a
//! hash with a probability below n² / 2⁶⁵: for a million keys one in 36 million. They are then limited
//! together, which admits less, never more.

pub mod address;
mod book;
pub mod clock;
pub mod config;
pub mod decision;
mod engine;
pub mod error;
pub mod gcra;
pub mod key;
pub mod limiter;
pub mod log;
mod meter;
mod panel;
#[cfg(feature = "python")]
mod python;
pub mod rate;
mod shard;
pub mod shared;
pub mod stats;
mod store;
#[cfg(test)]
mod stress;
mod table;
pub mod window;

pub use address::client_key;
pub use clock::{Clock, ManualClock, TimeSource};
pub use config::{Algorithm, Config, OnFull};
pub use decision::{Decision, HeaderStyle, Source};
pub use error::Error;
pub use key::{CompoundKey, Key, PreparedKey};
pub use limiter::{Limiter, Reservation};
pub use rate::Rate;
pub use shared::{
    Cold, CompletionQueue, Health, HealthListener, Ledger, Mode, OnError, Outcome, Outstanding,
    Pending, Request, SyncConfig,
};
pub use stats::Stats;
