//! Pooled connections to the control plane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::private::Link;
use crate::upload::Progress;

/// The control plane closes connections that are idle for 5 s, without a word. One that is used after less cannot
/// have been closed.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// More connections than this stay open at peaks only.
const MAX_POOLED: usize = 256;

/// The idle connections of one thread, the latest last.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

impl Pool {
    /// The connection that was used last, if it can be open still.
    pub fn take(&self) -> Option<Link> {
        let mut idle = self.0.lock();
        while let Some(Idle { link, since }) = idle.pop() {
            if since.elapsed() >= MAX_IDLE {
                // All others have been idle for longer.
                idle.clear();
                return None;
            }
            if !link.is_closed() {
                return Some(link);
            }
        }
        None
    }
}

/// A connection in use.
#[derive(Debug)]
pub struct Lease {
    /// Where it goes back to.
    pub pool: Arc<Pool>,
    /// The connection.
    pub link: Link,
    /// How far the body of its request is.
    pub progress: Arc<Progress>,
    /// Whether the control plane closes it after this answer.
    pub is_last: bool,
}

impl Lease {
    /// Puts the connection back into the pool, if another request may be sent on it.
    pub fn give_back(self) {
        if self.is_last || !self.progress.is_sent() || self.link.is_closed() {
            return;
        }
        let mut idle = self.pool.0.lock();
        if idle.len() < MAX_POOLED {
            idle.push(Idle {
                link: self.link,
                since: Instant::now(),
            });
        }
    }
}
