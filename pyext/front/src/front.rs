//! The threads of the front: accept connections, serve them, drain.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use parking_lot::{Condvar, Mutex};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::accepted::{Connection, Connections, First, Open};
use crate::address::Network;
use crate::config::{Caps, Config};
use crate::idle::{Activity, OpenConnections};
use crate::plane::Plane;
use crate::tls::Tls;
use crate::upstream::Upstream;

/// Bytes that the kernel holds of an answer beyond those on the way to the client. With less, a write goes on while
/// the client reads; with megabytes, as usual, a client that reads at a fair rate would seem to stand still.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 64 * 1024;
/// The pause after the process has run out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How far the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Serving,
    /// No new connections; present ones end with the request under way.
    Draining,
    /// Whatever is open is closed.
    Ended,
}

/// The threads that serve.
#[derive(Debug, Default)]
struct Running {
    threads: Mutex<usize>,
    /// One has ended.
    ended: Condvar,
}

/// One such thread. Counted until it is dropped, even by a panic.
#[derive(Debug)]
struct Thread(Arc<Running>);

impl Thread {
    fn new(running: &Arc<Running>) -> Self {
        *running.threads.lock() += 1;
        Self(Arc::clone(running))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        *self.0.threads.lock() -= 1;
        self.0.ended.notify_all();
    }
}

/// A data plane. Serves from [`Front::start`] until [`Front::end`].
#[derive(Debug)]
pub struct Front {
    plane: Arc<Plane>,
    caps: Caps,
    proxies: Option<Arc<[Network]>>,
    tls: Arc<Tls>,
    connections: Arc<Connections>,
    stage: watch::Sender<Stage>,
    running: Arc<Running>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Front {
    /// A front that does not serve yet: without threads, so the process may still fork.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(config: Config) -> io::Result<Self> {
        Ok(Self {
            caps: config.caps,
            proxies: config.proxy_protocol.then(|| config.trusted.clone().into()),
            tls: Arc::default(),
            plane: Arc::new(Plane::new(config)?),
            connections: Arc::default(),
            stage: watch::Sender::new(Stage::Serving),
            running: Arc::default(),
            threads: Mutex::default(),
        })
    }

    /// What all threads share.
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// What secures its connections.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Serves each of these listening sockets by a thread.
    ///
    /// # Errors
    /// If a thread or its event queue cannot be made; then [`Front::end`] ends those that were.
    pub fn start(&self, listeners: Vec<OwnedFd>) -> io::Result<()> {
        for (number, listener) in listeners.into_iter().enumerate() {
            let listener = TcpListener::from(listener);
            listener.set_nonblocking(true)?;
            // Its connections inherit it.
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&listener).set_tcp_notsent_lowat(MAX_UNSENT)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let listener = {
                let _inside = runtime.enter();
                tokio::net::TcpListener::from_std(listener)?
            };
            let serving = Serving {
                plane: Arc::clone(&self.plane),
                caps: self.caps,
                proxies: self.proxies.clone(),
                tls: Arc::clone(&self.tls),
                upstream: Arc::new(Upstream::new(
                    &self.plane.upstream,
                    self.plane.max_body,
                    self.plane.uploads.clone(),
                    self.caps.answer,
                )),
                connections: Arc::clone(&self.connections),
                all: Arc::default(),
                graceful: GracefulShutdown::new(),
            };
            let stage = self.stage.subscribe();
            let counted = Thread::new(&self.running);
            let run = move || {
                run(&runtime, serving, listener, stage);
                drop(counted);
            };
            let thread = std::thread::Builder::new().name(format!("front-{number}"));
            self.threads.lock().push(thread.spawn(run)?);
        }
        Ok(())
    }

    /// Accepts no more connections; those that are open end with the request under way. Waits until the last has
    /// ended, at most for `limit`: whether it has.
    pub fn drain(&self, limit: Duration) -> bool {
        self.advance(Stage::Draining);
        let mut threads = self.running.threads.lock();
        let some_serve = |threads: &mut usize| *threads > 0;
        let waited = self
            .running
            .ended
            .wait_while_for(&mut threads, some_serve, limit);
        !waited.timed_out()
    }

    /// Closes whatever is open, and waits for the threads.
    pub fn end(&self) {
        self.advance(Stage::Ended);
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has ended as well; the panic is in the log.
            drop(thread.join());
        }
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections.open()
    }

    fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let is_later = *stage < to;
            if is_later {
                *stage = to;
            }
            is_later
        });
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.end();
    }
}

/// What one thread needs.
#[derive(Debug)]
struct Serving {
    plane: Arc<Plane>,
    caps: Caps,
    /// Those that may connect, and name the client first; None: all may, and do not.
    proxies: Option<Arc<[Network]>>,
    tls: Arc<Tls>,
    upstream: Arc<Upstream>,
    connections: Arc<Connections>,
    all: Arc<OpenConnections>,
    graceful: GracefulShutdown,
}

fn run(
    runtime: &Runtime,
    serving: Serving,
    listener: tokio::net::TcpListener,
    mut stage: watch::Receiver<Stage>,
) {
    let (all, clock, limit) = (
        Arc::clone(&serving.all),
        serving.plane.clock,
        serving.caps.head,
    );
    // Until the runtime is dropped.
    runtime.spawn(async move { all.close_idle(clock, limit).await });
    runtime.block_on(async {
        // Fails only without a sender, and `Front` holds it until the thread has ended.
        let is_draining = stage.wait_for(|stage| *stage >= Stage::Draining);
        until(is_draining, serving.accept(&listener)).await;
        serving.accept_queued(listener);
        let is_ended = stage.wait_for(|stage| *stage == Stage::Ended);
        until(is_ended, serving.graceful.shutdown()).await;
    });
}

/// Does `work` until it or `end` is over.
///
/// The end is looked at first: tokio lets a future that is always ready go on only as far as a budget, and what comes
/// after it finds none left.
async fn until(end: impl Future, work: impl Future) {
    let (mut end, mut work) = (pin!(end), pin!(work));
    poll_fn(|context| {
        let is_over =
            end.as_mut().poll(context).is_ready() || work.as_mut().poll(context).is_ready();
        if is_over {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

impl Serving {
    /// Accepts connections, for ever.
    async fn accept(&self, listener: &tokio::net::TcpListener) {
        loop {
            self.connections.room(self.caps.connections).await;
            match listener.accept().await {
                Ok((stream, peer)) => self.serve(stream, peer),
                // The client has gone already.
                Err(error) if is_of_client(&error) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Accepts what waits in the queue: closing the socket would reset it.
    fn accept_queued(&self, listener: tokio::net::TcpListener) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        while let Ok((stream, peer)) = listener.accept() {
            let stream = stream.set_nonblocking(true).map(|()| stream);
            if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                self.serve(stream, peer);
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let open = Open::new(&self.connections, &self.all);
        let name = open.name;
        let activity = Activity::new(self.plane.clock);
        let connection = Connection {
            plane: Arc::clone(&self.plane),
            upstream: Arc::clone(&self.upstream),
            caps: self.caps,
            watcher: self.graceful.watcher(),
            open,
            activity: Arc::clone(&activity),
        };
        let secured = self.tls.current();
        let task = match &self.proxies {
            None if secured.is_none() => tokio::spawn(connection.serve(stream, peer)),
            Some(proxies) if !is_of(proxies, peer) => return,
            proxies => {
                let first = First {
                    is_named: proxies.is_some(),
                    tls: secured.map(|config| (Arc::clone(&self.tls), config)),
                };
                tokio::spawn(first.serve(connection, stream, peer))
            }
        };
        // This thread also runs the task, so it has not ended yet.
        self.all.watch(name, activity, task.abort_handle());
    }
}

fn is_of(networks: &[Network], peer: SocketAddr) -> bool {
    let address = peer.ip().to_canonical();
    networks.iter().any(|network| network.contains(address))
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_is_always_ready_ends_with_its_end() {
        let (over, mut stage) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut turns = 0;
        runtime.block_on(async {
            let work = async {
                while turns < 10_000 {
                    turns += 1;
                    over.send_replace(true);
                    tokio::task::consume_budget().await;
                }
            };
            until(stage.wait_for(|is_over| *is_over), work).await;
        });

        assert!(turns < 1000, "{turns} turns");
    }
}
