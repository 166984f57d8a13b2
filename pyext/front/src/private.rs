//! A connection to the control plane, as hyper's client uses it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::client::conn::http1::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

use crate::upload::Upload;

/// The connection, and the task that serves it. Closed when it is dropped, whatever is under way.
#[derive(Debug)]
pub struct Link {
    /// Where requests go.
    pub sender: SendRequest<Upload>,
    task: AbortHandle,
    deaf: Deaf,
}

impl Link {
    /// The connection that `task` serves.
    pub fn new(sender: SendRequest<Upload>, task: AbortHandle, deaf: Deaf) -> Self {
        Self { sender, task, deaf }
    }

    /// Whether no request can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.deaf.is_set() || self.sender.is_closed()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the control plane reads no more of a connection.
#[derive(Debug, Clone, Default)]
pub struct Deaf(Arc<AtomicBool>);

// One thread reads and writes it.
impl Deaf {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream whose answer can be read after the control plane has ended it.
///
/// The control plane may answer before it has read a request, and then closes: what is still to be sent fails, but
/// the answer waits in the socket. hyper would give up at the failure, so it is not told; if there is no answer, it
/// reads the end.
#[derive(Debug)]
pub struct Private {
    stream: UnixStream,
    deaf: Deaf,
}

impl Private {
    /// This stream, and whether it is ended.
    pub fn new(stream: UnixStream) -> (Self, Deaf) {
        let deaf = Deaf::default();
        let private = Self {
            stream,
            deaf: deaf.clone(),
        };
        (private, deaf)
    }
}

impl AsyncRead for Private {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            // It closed with something unread: the end, after all that it has sent.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Ready(Ok(()))
            }
            outcome => outcome,
        }
    }
}

impl AsyncWrite for Private {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let dropped = || slices.iter().map(|slice| slice.len()).sum();
        if self.deaf.is_set() {
            return Poll::Ready(Ok(dropped()));
        }
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.deaf.set();
                Poll::Ready(Ok(dropped()))
            }
            outcome => outcome,
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
