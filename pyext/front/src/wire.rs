//! The connection of a client, with the limits that hyper has not: on the time that a client takes to read its
//! answers, and on what it still sends when its connection ends.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::idle::{Activity, Busy};

/// The least that a client has to read, bytes a second on average, once its answer does not fit into the socket.
const MIN_RATE: f64 = 4096.0;
/// How long a connection is read on after its end, for a client that still sends: closed at once, it would be reset,
/// and the answer might be lost with what the client has not read yet.
const MAX_LINGER: Duration = Duration::from_secs(2);
/// Most that is read then, bytes.
const MAX_LINGERING: usize = 256 * 1024;

/// Whether a request of the connection was answered before its body was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

// One thread reads and writes it.
impl Unread {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection `S` whose writes fail if the client reads too slowly.
///
/// Waiting for the client takes from a budget of time, and each byte that it reads gives back. So a client is
/// closed after `patience` without progress, and later the nearer its rate is to [`MIN_RATE`].
pub(crate) struct Wire<S> {
    stream: S,
    patience: Duration,
    /// What is left of it.
    budget: Duration,
    /// Since when the client keeps a write waiting.
    stalled: Option<Stalled>,
    activity: Arc<Activity>,
    unread: Unread,
    lingering: Option<(usize, Pin<Box<Sleep>>)>,
}

/// A write that waits for the client.
struct Stalled {
    since: Instant,
    timer: Pin<Box<Sleep>>,
    /// This write has a limit of its own.
    _busy: Busy,
}

impl<S> Wire<S> {
    pub(crate) fn new(
        stream: S,
        patience: Duration,
        unread: Unread,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            stream,
            patience,
            budget: patience,
            stalled: None,
            activity,
            unread,
            lingering: None,
        }
    }

    /// What becomes of a write with this outcome.
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        written: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Pending => {
                let stalled = self.stalled.get_or_insert_with(|| Stalled {
                    since: Instant::now(),
                    timer: Box::pin(sleep(self.budget)),
                    _busy: self.activity.begin(),
                });
                ready!(stalled.timer.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Ok(value)) => {
                if let Some(Stalled { since, .. }) = self.stalled.take() {
                    self.budget = self.budget.saturating_sub(since.elapsed());
                }
                if self.budget < self.patience {
                    // At most `usize::MAX / 4096` seconds.
                    let earned = Duration::from_secs_f64(written(&value) as f64 / MIN_RATE);
                    self.budget = self.patience.min(self.budget + earned);
                }
                Poll::Ready(Ok(value))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads and drops what the client still sends, until its end.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let (read, _) = self
                        .lingering
                        .get_or_insert_with(|| (0, Box::pin(sleep(MAX_LINGER))));
                    *read += buffer.filled().len();
                    if *read > MAX_LINGERING {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending if self.unread.is_set() || self.lingering.is_some() => {
                    let (_, timer) = self
                        .lingering
                        .get_or_insert_with(|| (0, Box::pin(sleep(MAX_LINGER))));
                    return timer.as_mut().poll(context);
                }
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, outcome, |written| *written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(context, outcome, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watched(context, outcome, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.watched(context, outcome, |()| 0))?;
        }
        self.poll_linger(context).map(Ok)
    }
}

impl<S> fmt::Debug for Wire<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Wire");
        shown.field("budget", &self.budget).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn activity() -> Arc<Activity> {
        Activity::new(crate::clock::Clock::new(0.0))
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn client_that_reads_nothing_is_given_up() {
        run(async {
            let (near, _far) = duplex(1024);
            let mut wire = Wire::new(near, PATIENCE, Unread::default(), activity());
            let began = Instant::now();

            let error = wire.write_all(&[0; 2048]).await.unwrap_err();

            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(began.elapsed() >= PATIENCE);
        });
    }

    /// Reads `step` bytes a second; whether 200,000 bytes can be written meanwhile.
    async fn is_served_at(step: usize) -> bool {
        let (near, mut far) = duplex(1024);
        let reads = async move {
            let mut space = vec![0; step];
            loop {
                sleep(Duration::from_secs(1)).await;
                if far.read_exact(&mut space).await.is_err() {
                    return;
                }
            }
        };
        tokio::spawn(reads);
        let mut wire = Wire::new(near, PATIENCE, Unread::default(), activity());
        wire.write_all(&vec![0; 200_000]).await.is_ok()
    }

    #[test]
    fn client_that_reads_too_slowly_is_given_up() {
        run(async {
            assert!(is_served_at(5000).await);
            assert!(!is_served_at(500).await);
        });
    }

    #[test]
    fn end_of_a_connection_waits_for_what_was_not_read() {
        run(async {
            let (near, mut far) = duplex(64);
            let unread = Unread::default();
            unread.set();
            let mut wire = Wire::new(near, PATIENCE, unread, activity());
            let sends = tokio::spawn(async move { far.write_all(&[0; 4096]).await });

            wire.shutdown().await.unwrap();

            assert!(sends.await.unwrap().is_ok());
        });
    }

    #[test]
    fn end_of_a_connection_does_not_wait_for_ever() {
        run(async {
            let (near, _far) = duplex(64);
            let unread = Unread::default();
            unread.set();
            let began = Instant::now();

            Wire::new(near, PATIENCE, unread, activity())
                .shutdown()
                .await
                .unwrap();

            assert!((MAX_LINGER..PATIENCE).contains(&began.elapsed()));
        });
    }

    #[test]
    fn end_of_a_connection_that_was_read_is_at_once() {
        run(async {
            let (near, _far) = duplex(64);
            let began = Instant::now();

            Wire::new(near, PATIENCE, Unread::default(), activity())
                .shutdown()
                .await
                .unwrap();

            assert!(began.elapsed().is_zero());
        });
    }
}
