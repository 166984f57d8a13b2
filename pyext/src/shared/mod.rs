//! Limits that several processes share through Redis, decided in each process.
//!
//! ```text
//!   call ──▶ entry of the key: tokens on lease? ──yes──▶ spend one            (no I/O, no waiting)
//!                  │ no, or few left
//!                  ▼
//!               queue ──▶ sync thread ══ one pipeline ══▶ Redis: exchange.lua
//!                  ▲                                          │ debits *before* it grants
//!                  └────────────── reply: tokens, decisions ◀─┘
//! ```
//!
//! # Why the limit is never exceeded
//!
//! Redis debits tokens when it leases them, so every token that a call spends is already debited. Only a
//! lease can be spent later than Redis debited it; tokens on lease are capped, for all nodes together, at
//! `max_outstanding`. With O tokens on lease at the start of a span of length t, at most
//! O + capacity + rate · t units are admitted in it. In strict mode the capacity is `burst − O`, so this is
//! `burst + rate · t`, under any fault of the network.
//!
//! If the outcome of an exchange is unknown, the node assumes the case that admits less: tokens that may
//! have been granted are not used, tokens that may have been given back are gone, debits that may have been
//! made are made again. No request is sent twice, except one that Redis replies it did not decide.
//!
//! A request carries a number and the count of tokens that the node still holds. Redis keeps the node's
//! lease at exactly that plus the new grant, and ignores requests older than the last one. So late,
//! lost and repeated messages need no further handling.
//!
//! * [`config`]: the settings. `terms`: the same in the script's units.
//! * `entry`: one key on one node, a state machine. `wire`: its requests and replies.
//! * `entries`: the keys under one lock. `state`: all of them, and the queue of requests.
//! * `sync_thread`: the thread that talks to Redis; in mode `every_hit` a caller that would only wait for it runs its
//!   next round instead. `url`: the address, `endpoint`: how to connect to it, `sentinel`: which server is the
//!   primary, `connections`: one to each server, `slots`: the server of each key, `replies`: what a server says.
//!   `completion`: how a reply reaches the call that waits for it.
//! * `counts`: the counters. `health`: tells when Redis is lost and found.
//! * `limits`: the engine, which a limiter calls. `placed`: its calls of a key, by the rates that count for it.
//!   `asides`: its calls beside hits. `fallback`: decisions without Redis.
//! * `fork`: protects a child process from its parent's leases and locks.

mod asides;
pub(crate) mod completion;
pub(crate) mod config;
mod connections;
mod counts;
mod endpoint;
mod entries;
mod entry;
mod fallback;
mod fork;
pub(crate) mod health;
pub(crate) mod ledger;
pub(crate) mod limits;
mod placed;
mod replies;
mod sentinel;
mod slots;
mod state;
mod sync_thread;
mod terms;
#[cfg(test)]
mod tests;
mod url;
pub(crate) mod wire;

pub use completion::{CompletionQueue, Outcome, Pending};
pub use config::{Cold, Mode, OnError, Outstanding, SyncConfig};
pub use health::{Health, HealthListener};
pub use ledger::Ledger;
pub use wire::{Request, SCRIPT};
