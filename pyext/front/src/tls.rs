//! TLS of the public connections, by certificates that can be replaced at any time.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, version};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes of a process under way at a time. Further ones wait, within the time of their connections.
const MAX_HANDSHAKES: usize = 1024;

/// What connections are secured with. Empty: they are not.
pub struct Tls {
    current: RwLock<Option<Arc<ServerConfig>>>,
    handshakes: Semaphore,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            current: RwLock::default(),
            handshakes: Semaphore::new(MAX_HANDSHAKES),
        }
    }
}

impl Tls {
    /// Secures all later connections by this chain of certificates, its own one first, and its key. Those that are
    /// open go on as they are.
    ///
    /// # Errors
    /// A sentence, if they cannot be read or do not belong together. What was set before stays.
    pub fn set(&self, chain: &[u8], key: &[u8]) -> Result<(), String> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("the certificates are no PEM: {error}"))?;
        if chain.is_empty() {
            return Err("there is no certificate".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|error| format!("there is no private key: {error}"))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&version::TLS13, &version::TLS12]);
        let mut config = builder
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| format!("the certificate and its key cannot be used: {error}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        *self.current.write() = Some(Arc::new(config));
        Ok(())
    }

    /// What a connection that is accepted now is secured with.
    pub(crate) fn current(&self) -> Option<Arc<ServerConfig>> {
        self.current.read().clone()
    }

    /// The secured `stream`.
    pub(crate) async fn accept(
        &self,
        config: Arc<ServerConfig>,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        // Never closed.
        let _running = self.handshakes.acquire().await.map_err(io::Error::other)?;
        TlsAcceptor::from(config).accept(stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Tls");
        shown
            .field("is_set", &self.current.read().is_some())
            .finish_non_exhaustive()
    }
}
