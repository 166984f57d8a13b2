//! Slugs that the table does not hold: the control plane looks them up, many at once and each once.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The slugs that requests wait for.
#[derive(Debug)]
pub struct Misses {
    /// Whether the control plane takes them.
    is_open: AtomicBool,
    slugs: Mutex<Slugs>,
    /// A byte goes from one end to the other when the first slug waits to be taken: it wakes the event loop.
    bell: UnixStream,
    heard: UnixStream,
}

#[derive(Debug, Default)]
struct Slugs {
    waiting: HashMap<Box<[u8]>, Vec<oneshot::Sender<()>>, RandomState>,
    /// Those that the control plane has not taken yet.
    untaken: Vec<Box<[u8]>>,
}

impl Misses {
    /// No slug is waited for, and none is taken.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (bell, heard) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        Ok(Self {
            is_open: AtomicBool::new(false),
            slugs: Mutex::default(),
            bell,
            heard,
        })
    }

    /// The control plane takes slugs from now on, or no more. Returns the descriptor that is readable when some
    /// wait.
    pub fn open(&self, is_open: bool) -> RawFd {
        self.is_open.store(is_open, Ordering::Relaxed);
        self.heard.as_raw_fd()
    }

    /// Whether slugs are taken at all.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Whether `slug` is being looked up.
    pub fn is_pending(&self, slug: &[u8]) -> bool {
        self.slugs.lock().waiting.contains_key(slug)
    }

    /// Waits for the look-up of `slug`, and begins it if none is under way.
    pub fn join(&self, slug: &[u8]) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut slugs = self.slugs.lock();
        if let Some(waiting) = slugs.waiting.get_mut(slug) {
            waiting.push(sender);
            return receiver;
        }
        slugs.waiting.insert(slug.into(), vec![sender]);
        slugs.untaken.push(slug.into());
        let is_first = slugs.untaken.len() == 1;
        drop(slugs);
        if is_first {
            // A full pipe has woken the event loop already.
            let _ = (&self.bell).write(&[0]);
        }
        receiver
    }

    /// The slugs to look up, each once until [`Misses::resolved`].
    pub fn take(&self) -> Vec<Box<[u8]>> {
        // Before the slugs: one that comes later rings anew.
        let mut bytes = [0; 64];
        while matches!((&self.heard).read(&mut bytes), Ok(read) if read == bytes.len()) {}
        std::mem::take(&mut self.slugs.lock().untaken)
    }

    /// Whether a request still waits for `slug`. If none does, its look-up is forgotten: the control plane may give
    /// it up without a word, and the next request begins another one.
    pub fn is_awaited(&self, slug: &[u8]) -> bool {
        let mut slugs = self.slugs.lock();
        let Some(waiting) = slugs.waiting.get(slug) else {
            return false;
        };
        let is_awaited = waiting.iter().any(|sender| !sender.is_closed());
        if !is_awaited {
            slugs.waiting.remove(slug);
        }
        is_awaited
    }

    /// The look-up of `slug` has ended: the table has an entry, or the control plane must answer.
    pub fn resolved(&self, slug: &[u8]) {
        let waiting = self.slugs.lock().waiting.remove(slug);
        for sender in waiting.into_iter().flatten() {
            // A request that has ended meanwhile waits no more.
            let _ = sender.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(slugs: &[Box<[u8]>]) -> Vec<&str> {
        let texts = slugs.iter();
        texts
            .map(|slug| std::str::from_utf8(slug).unwrap())
            .collect()
    }

    #[test]
    fn slug_is_looked_up_once_for_all() {
        let misses = Misses::new().unwrap();
        let mut first = misses.join(b"aaa");
        let mut second = misses.join(b"aaa");
        let mut other = misses.join(b"bbb");

        assert_eq!(texts(&misses.take()), ["aaa", "bbb"]);
        let mut late = misses.join(b"aaa");
        assert_eq!(texts(&misses.take()), [] as [&str; 0]);
        assert!(misses.is_pending(b"aaa"));
        misses.resolved(b"aaa");

        for receiver in [&mut first, &mut second, &mut late] {
            assert_eq!(receiver.try_recv(), Ok(()));
        }
        assert!(other.try_recv().is_err());
        assert!(!misses.is_pending(b"aaa"));
    }

    #[test]
    fn look_up_of_clients_that_left_is_not_awaited() {
        let misses = Misses::new().unwrap();
        let (first, second) = (misses.join(b"aaa"), misses.join(b"aaa"));

        drop(first);
        assert!(misses.is_awaited(b"aaa"));
        drop(second);
        assert!(!misses.is_awaited(b"aaa"));
        assert!(!misses.is_awaited(b"bbb"));
        misses.take();

        let _next = misses.join(b"aaa");
        assert_eq!(texts(&misses.take()), ["aaa"], "it is looked up anew");
    }

    #[test]
    fn bell_rings_for_the_first_that_waits() {
        let misses = Misses::new().unwrap();
        let rings = || {
            let mut byte = [0; 8];
            (&misses.heard).read(&mut byte).unwrap_or(0)
        };

        let _waiting = [misses.join(b"aaa"), misses.join(b"bbb")];
        assert_eq!(rings(), 1);
        misses.take();
        let _later = misses.join(b"ccc");
        assert_eq!(rings(), 1);
    }
}
