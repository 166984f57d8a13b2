//! The sync thread's rounds against a Redis that is not running.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::completion::{Outcome, ReplyTo};
use super::config::{Cold, Mode, OnError, Outstanding, SyncConfig};
use super::limits::SharedLimits;
use super::sync_thread::{MIN_BACKOFF, SyncLoop};
use crate::clock::{Clock, ManualClock};
use crate::config::Config;
use crate::engine::Engine;
use crate::key::Key;
use crate::rate::Rate;

fn limits(lease_ttl_ns: u64) -> SharedLimits {
    let sync = SyncConfig {
        url: "redis://127.0.0.1:1".into(),
        prefix: b"rl:".into(),
        mode: Mode::Strict,
        max_outstanding: Outstanding::Part(0.25),
        lease_ttl_ns,
        max_lease: None,
        cold: Cold::Sync,
        on_error: OnError::Deny,
        timeout_ns: 50_000_000,
        starts_empty: false,
        is_required: false,
    };
    let config = Config {
        clock: Clock::manual(ManualClock::new(0)),
        ..Config::default()
    };
    let rate = Rate::new(10, 1_000_000_000, None, "r").expect("a rate");
    SharedLimits::new(&[rate], &config, &sync).expect("a configuration")
}

#[test]
fn close_does_not_wait_while_redis_is_down() {
    let limits = limits(500_000_000);
    let mut sync = SyncLoop::new(&limits.state, &limits.endpoint);
    sync.mark_down();
    limits.close();
    sync.run_once();
    assert!(sync.is_over);
    assert_eq!(sync.backoff, MIN_BACKOFF, "it has slept");
    assert!(limits.state.is_down.load(Ordering::Relaxed));
}

#[test]
fn close_deadline_decides_waiting_calls() {
    let limits = limits(500_000_000);
    let outcome = limits.hit(1, Key::Int(1), 0, 1, ReplyTo::Thread);
    limits.close();
    let mut sync = SyncLoop::new(&limits.state, &limits.endpoint);
    sync.close_deadline = Some(Instant::now());
    sync.run_once();
    assert!(sync.is_over);
    assert_eq!(limits.state.remote_calls.load(Ordering::Relaxed), 0);
    let Outcome::Pending(pending) = outcome else {
        panic!("decided without Redis");
    };
    let decision = pending.cell.take(Duration::ZERO);
    assert!(!decision.expect("a decision").allowed);
}

#[test]
fn leasing_resumes_after_earlier_leases_have_expired() {
    for (lease_ttl_ns, recovery_ns) in [
        (500_000_000, 1_000_000_000),
        (60_000_000_000, 60_000_000_000),
    ] {
        let limits = limits(lease_ttl_ns);
        let mut sync = SyncLoop::new(&limits.state, &limits.endpoint);
        sync.mark_down();
        sync.mark_up();
        let until = limits.state.recovery_until.load(Ordering::Relaxed);
        assert_eq!(until, recovery_ns);
    }
}
