//! A connection from its first byte to its last: the address of the client, TLS, its requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::Watcher;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::client::Visitor;
use crate::config::Caps;
use crate::connection::Answering;
use crate::idle::{Activity, OpenConnections};
use crate::plane::Plane;
use crate::proxy_protocol::{self, For};
use crate::tls::Tls;
use crate::upstream::Upstream;
use crate::wire::{Unread, Wire};

/// Most of a head. See also `plane`.
const MAX_BUFFER: usize = 32_768;
/// Most fields of a head. The control plane takes three more: the peer, what is noted, and the id of a request.
const MAX_FIELDS: usize = 97;
/// The connections of all threads.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicUsize,
    /// One was closed.
    closed: Notify,
}

impl Connections {
    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until fewer than `limit` are open.
    pub(crate) async fn room(&self, limit: usize) {
        if self.open() < limit {
            return;
        }
        while self.open() >= limit {
            self.closed.notified().await;
        }
        // The end of a connection wakes one thread, whose queue may be empty: the next one has room as well.
        self.closed.notify_one();
    }
}

/// One open connection. Counted and watched until it is dropped, even by a panic.
#[derive(Debug)]
pub(crate) struct Open {
    connections: Arc<Connections>,
    all: Arc<OpenConnections>,
    pub(crate) name: u64,
}

impl Open {
    pub(crate) fn new(connections: &Arc<Connections>, all: &Arc<OpenConnections>) -> Self {
        // The count bounds memory alone, so no other memory depends on its order.
        connections.open.fetch_add(1, Ordering::Relaxed);
        Self {
            connections: Arc::clone(connections),
            all: Arc::clone(all),
            name: all.name(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.forget(self.name);
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.closed.notify_one();
    }
}

/// What comes before the first request of a connection.
pub(crate) struct First {
    /// Whether the PROXY protocol names the client.
    pub(crate) is_named: bool,
    pub(crate) tls: Option<(Arc<Tls>, Arc<ServerConfig>)>,
}

impl First {
    /// Serves `stream` once that is done; closes it if it takes longer than the head of a request may.
    pub(crate) async fn serve(
        self,
        connection: Connection,
        mut stream: TcpStream,
        mut peer: SocketAddr,
    ) {
        let deadline = Instant::now() + connection.caps.head;
        if self.is_named {
            match timeout_at(deadline, proxy_protocol::read(&mut stream)).await {
                Ok(Ok(For::Client(client))) => peer = client,
                Ok(Ok(For::Proxy)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        let Some((tls, config)) = self.tls else {
            return connection.serve(stream, peer).await;
        };
        if let Ok(Ok(stream)) = timeout_at(deadline, tls.accept(config, stream)).await {
            connection.serve(stream, peer).await;
        }
    }
}

/// What one connection needs.
pub(crate) struct Connection {
    pub(crate) plane: Arc<Plane>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) caps: Caps,
    pub(crate) watcher: Watcher,
    pub(crate) open: Open,
    pub(crate) activity: Arc<Activity>,
}

impl Connection {
    /// Answers the requests of `stream`, which are those of the client at `peer`.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
        self,
        stream: S,
        peer: SocketAddr,
    ) {
        // What came before it has had its time.
        self.activity.answered(self.plane.now());
        let unread = Unread::default();
        let activity = Arc::clone(&self.activity);
        let wire = Wire::new(stream, self.caps.write, unread.clone(), activity);
        let answering = Answering {
            plane: self.plane,
            upstream: self.upstream,
            visitor: Visitor::new(peer),
            unread,
            activity: self.activity,
        };
        let connection = Builder::new()
            .max_buf_size(MAX_BUFFER)
            .max_headers(MAX_FIELDS)
            .half_close(true)
            // A redirect is one piece of memory: one buffer costs the kernel less than a list of them.
            .writev(false)
            .serve_connection(TokioIo::new(wire), answering);
        // A connection fails by what its client does: it has an answer, or has gone.
        drop(self.watcher.watch(connection).await);
        drop(self.open);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn one_end_makes_room_for_all_threads() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (connections, all) = (Arc::default(), Arc::default());
            let [one, _other] = [(), ()].map(|()| Open::new(&connections, &all));
            let waiting = [(), (), ()].map(|()| {
                let connections = Arc::clone(&connections);
                tokio::spawn(async move { connections.room(2).await })
            });
            tokio::task::yield_now().await;
            assert!(waiting.iter().all(|thread| !thread.is_finished()));

            drop(one);

            for thread in waiting {
                let waited = timeout(Duration::from_secs(1), thread).await;
                waited.expect("it is woken").unwrap();
            }
        });
    }
}
