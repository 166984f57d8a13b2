//! What requests wait for: slugs that the table does not hold, and visits that are not leased. The control plane
//! answers many questions at once, and each once for all that wait.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::table::Entry;
use crate::template::Template;

/// How a look-up ended.
#[derive(Debug, Clone)]
pub enum Found {
    /// This is sent, whether the table holds it or not.
    Entry(Arc<Entry>),
    /// The control plane refuses.
    Refused(Arc<Template>),
}

/// How the question for a lease ended.
#[derive(Debug, Clone)]
pub enum Leased {
    /// The leases have changed: look again.
    Again,
    /// The link has no limit any more, at this version or later.
    Unlimited(u64),
    /// The control plane refuses.
    Refused(Arc<Template>),
}

/// How long the first slug waits for others while slugs gather, and how many of them wait for no more. A batch costs
/// as much as several of its slugs, and each guess of a scan takes its client a tenth of a second anyway.
const GATHERS_FOR: Duration = Duration::from_millis(3);
const GATHERS: usize = 64;

/// A request that waits for the look-up of a slug.
#[derive(Debug)]
pub struct Pending {
    /// How the look-up ended.
    pub ended: oneshot::Receiver<Found>,
    /// Of the first of those that gather.
    gathering: Option<Gathering>,
}

/// Slugs gather, and the bell does not ring for them before this is dropped.
#[derive(Debug)]
struct Gathering(Arc<Misses>);

impl Drop for Gathering {
    fn drop(&mut self) {
        let misses = &self.0;
        misses.ring_if(misses.look_ups.untaken() >= misses.ring_from.load(Ordering::SeqCst));
    }
}

impl Pending {
    /// Waits until the look-up has ended, or until `end`; the first of those that gather rings the bell meanwhile.
    pub async fn ended_by(self, end: Instant) -> Option<Result<Found, RecvError>> {
        let Self {
            mut ended,
            gathering,
        } = self;
        if let Some(gathering) = gathering {
            let gathered = end.min(Instant::now() + GATHERS_FOR);
            if let Ok(found) = timeout_at(gathered, &mut ended).await {
                return Some(found);
            }
            drop(gathering);
        }
        timeout_at(end, ended).await.ok()
    }
}

/// The questions that wait for the control plane.
#[derive(Debug)]
pub struct Misses {
    /// Whether the control plane takes them.
    is_open: AtomicBool,
    /// Slugs to look up.
    pub look_ups: Questions<Found>,
    /// Slugs whose visits are to be leased.
    pub leases: Questions<Leased>,
    /// Slugs that the table holds, to be looked up anew; none waits for them.
    renewals: Mutex<Vec<Box<[u8]>>>,
    /// How many slugs have to wait before the bell rings for them.
    ring_from: AtomicUsize,
    /// A byte goes from one end to the other when the first question waits to be taken: it wakes the event loop.
    bell: UnixStream,
    heard: UnixStream,
}

impl Misses {
    /// Nothing is asked yet, and nothing is taken.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (bell, heard) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        Ok(Self {
            is_open: AtomicBool::new(false),
            look_ups: Questions::default(),
            leases: Questions::default(),
            renewals: Mutex::default(),
            ring_from: AtomicUsize::new(1),
            bell,
            heard,
        })
    }

    /// The control plane takes questions from now on, or no more. Returns the descriptor that is readable when some
    /// wait.
    pub fn open(&self, is_open: bool) -> RawFd {
        self.is_open.store(is_open, Ordering::Relaxed);
        self.heard.as_raw_fd()
    }

    /// Whether questions are taken at all.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Waits for the look-up of `slug`, and begins it if none is under way: with others that follow, if they gather.
    pub fn look_up(self: &Arc<Self>, slug: &[u8], gathers: bool) -> Pending {
        let (ended, untaken) = self.look_ups.join(slug, 0);
        let is_first = gathers && untaken == Some(1);
        // Ordered by the lock of the questions: `ring_from` looks at them after its change.
        let ring_from = self.ring_from.load(Ordering::SeqCst);
        let least = if gathers { GATHERS } else { 1 };
        self.ring_if(untaken == Some(ring_from.max(least)));
        Pending {
            ended,
            gathering: is_first.then(|| Gathering(Arc::clone(self))),
        }
    }

    /// Waits for a lease of `slug`, made for `version` or later, unless one for an earlier version is under way.
    pub fn lease(&self, slug: &[u8], version: u64) -> oneshot::Receiver<Leased> {
        let (receiver, untaken) = self.leases.join(slug, version);
        self.ring_if(untaken == Some(1));
        receiver
    }

    /// Rings the bell for look-ups only when as many wait, once until the next call: the control plane has no room
    /// for fewer.
    pub fn ring_from(&self, count: usize) {
        self.ring_from.store(count, Ordering::SeqCst);
        self.ring_if(self.look_ups.untaken() >= count);
    }

    /// Has `slug` looked up anew, soon.
    pub fn renew(&self, slug: &[u8]) {
        let mut renewals = self.renewals.lock();
        renewals.push(slug.into());
        let is_first = renewals.len() == 1;
        drop(renewals);
        self.ring_if(is_first);
    }

    /// Hears the bell: what is asked later rings anew.
    pub fn hear(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.heard).read(&mut bytes), Ok(read) if read == bytes.len()) {}
    }

    /// Whether [`Misses::take_renewals`] has any.
    pub fn has_renewals(&self) -> bool {
        !self.renewals.lock().is_empty()
    }

    /// The slugs to look up anew, since the last call.
    pub fn take_renewals(&self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut *self.renewals.lock())
    }

    /// How often the bell has rung since the last call.
    #[cfg(test)]
    pub(crate) fn rings(&self) -> usize {
        let mut bytes = [0; 64];
        (&self.heard).read(&mut bytes).unwrap_or(0)
    }

    fn ring_if(&self, is_first: bool) {
        if is_first {
            // A full pipe has woken the event loop already.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

/// Questions of one kind by slug, and the requests that wait for the answers.
#[derive(Debug)]
pub struct Questions<A>(Mutex<Asked<A>>);

#[derive(Debug)]
struct Asked<A> {
    waiting: HashMap<Box<[u8]>, Question<A>, RandomState>,
    /// Those that the control plane has not taken yet. A question that was answered before stays here, so a slug may
    /// be here twice.
    untaken: Vec<Box<[u8]>>,
}

#[derive(Debug)]
struct Question<A> {
    senders: Vec<oneshot::Sender<A>>,
    /// For which version; None: the control plane has taken it.
    untaken: Option<u64>,
}

impl<A> Default for Questions<A> {
    fn default() -> Self {
        Self(Mutex::new(Asked {
            waiting: HashMap::default(),
            untaken: Vec::new(),
        }))
    }
}

impl<A: Clone> Questions<A> {
    /// Waits for the answer about `slug`. If it is a new question: how many the control plane has to take now.
    fn join(&self, slug: &[u8], version: u64) -> (oneshot::Receiver<A>, Option<usize>) {
        let (sender, receiver) = oneshot::channel();
        let mut asked = self.0.lock();
        if let Some(question) = asked.waiting.get_mut(slug) {
            question.senders.push(sender);
            question.untaken = question.untaken.map(|before| before.max(version));
            return (receiver, None);
        }
        let question = Question {
            senders: vec![sender],
            untaken: Some(version),
        };
        asked.waiting.insert(slug.into(), question);
        asked.untaken.push(slug.into());
        (receiver, Some(asked.untaken.len()))
    }

    fn untaken(&self) -> usize {
        self.0.lock().untaken.len()
    }

    /// Whether a request waits for `slug`, or did when it was last looked.
    pub fn is_pending(&self, slug: &[u8]) -> bool {
        self.0.lock().waiting.contains_key(slug)
    }

    /// The questions that wait, and for which version: each once until it is answered.
    pub fn take(&self) -> Vec<(Box<[u8]>, u64)> {
        let mut asked = self.0.lock();
        let Asked { waiting, untaken } = &mut *asked;
        let untaken = std::mem::take(untaken).into_iter();
        untaken
            .filter_map(|slug| {
                let version = waiting.get_mut(&slug)?.untaken.take()?;
                Some((slug, version))
            })
            .collect()
    }

    /// How many requests wait for each of `slugs`. What none waits for is forgotten: the control plane may give it
    /// up without a word, and the next request asks anew.
    pub fn awaited<'s>(&self, slugs: impl IntoIterator<Item = &'s [u8]>) -> Vec<usize> {
        let mut asked = self.0.lock();
        let count = |slug: &[u8]| {
            let senders = asked.waiting.get(slug)?.senders.iter();
            let open = senders.filter(|sender| !sender.is_closed()).count();
            if open == 0 {
                asked.waiting.remove(slug);
            }
            Some(open)
        };
        slugs
            .into_iter()
            .map(count)
            .map(Option::unwrap_or_default)
            .collect()
    }

    /// Answers all that wait for these slugs.
    pub fn answer<'s>(&self, answers: impl IntoIterator<Item = (&'s [u8], A)>) {
        let mut asked = self.0.lock();
        if asked.waiting.is_empty() {
            return;
        }
        let answered: Vec<_> = answers
            .into_iter()
            .filter_map(|(slug, answer)| Some((asked.waiting.remove(slug)?.senders, answer)))
            .collect();
        drop(asked);
        for (senders, answer) in answered {
            send(senders, std::slice::from_ref(&answer));
        }
    }

    /// Gives those that wait for one of these slugs the same answers, in turn. Returns how many have got one.
    pub fn answer_in_turn<'s>(
        &self,
        slugs: impl IntoIterator<Item = &'s [u8]>,
        answers: &[A],
    ) -> usize {
        let mut asked = self.0.lock();
        let questions = slugs
            .into_iter()
            .filter_map(|slug| asked.waiting.remove(slug));
        let senders: Vec<_> = questions.flat_map(|question| question.senders).collect();
        drop(asked);
        send(senders, answers)
    }
}

/// Returns how many have got an answer: a request that has ended meanwhile waits no more.
fn send<A: Clone>(senders: Vec<oneshot::Sender<A>>, answers: &[A]) -> usize {
    let pairs = senders.into_iter().zip(answers.iter().cycle());
    pairs
        .filter_map(|(sender, answer)| sender.send(answer.clone()).ok())
        .count()
}

#[cfg(test)]
mod tests;
