//! The way to the control plane: HTTP/1 over its private Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::body::{AnswerBody, Download};
use crate::pool::{Lease, Pool};
use crate::upload::Upload;

/// How often a connection is tried while the queue of the socket is full, and the pause between.
const CONNECTS: u32 = 50;
const CONNECT_PAUSE: Duration = Duration::from_millis(10);
/// Headers of the front's own start with this. A client's are dropped.
const PRIVATE: &str = "x-hopgate-";
/// The peer of the connection, "203.0.113.7:54321". The control plane believes it, from this socket alone.
const PEER: HeaderName = HeaderName::from_static("x-hopgate-peer");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The way of one thread.
#[derive(Debug)]
pub struct Upstream {
    socket: PathBuf,
    max_body: u64,
    pool: Arc<Pool>,
}

/// A request that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The control plane has not seen it.
    NotSent,
    /// The client has not sent all of its body: the control plane acts on whole requests only.
    CutOff,
    /// The control plane may have acted on it.
    Sent,
}

impl Upstream {
    /// A pool without connections.
    ///
    /// Bodies of more than `max_body` bytes are not sent: the control plane refuses them unread.
    pub fn new(socket: &Path, max_body: u64) -> Self {
        Self {
            socket: socket.to_owned(),
            max_body,
            pool: Arc::default(),
        }
    }

    /// The answer of the control plane to `request` from `peer`.
    ///
    /// A request is sent again over another connection only if nothing of it was sent.
    ///
    /// # Errors
    /// [`Unanswered`] if no connection can be made, or it ends before the answer.
    pub async fn forward(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: HeaderValue,
    ) -> Result<Response<AnswerBody>, Unanswered> {
        let (mut parts, body) = request.into_parts();
        let is_refused = is_refused_by_its_head(&mut parts.headers, self.max_body);
        to_private(&mut parts.headers, peer);
        let version = parts.version;
        // The control plane answers such a request without reading its body, and closes the connection: what is
        // still to be sent then would fail, and the answer with it.
        let (upload, progress) = if is_refused {
            drop(body);
            Upload::withheld()
        } else {
            Upload::new(body)
        };
        let mut request = Request::from_parts(parts, upload);
        loop {
            let (mut sender, is_new) = match self.pool.take() {
                Some(sender) => (sender, false),
                None => (self.connect().await.map_err(|_| Unanswered::NotSent)?, true),
            };
            if sender.ready().await.is_err() {
                if is_new {
                    return Err(Unanswered::NotSent);
                }
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease {
                        pool: Arc::clone(&self.pool),
                        sender,
                        progress,
                        is_last: names_close(response.headers()),
                    };
                    return Ok(to_public(response, version, lease));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    Some(_) => return Err(Unanswered::NotSent),
                    None if progress.is_cut_off() => return Err(Unanswered::CutOff),
                    None => return Err(Unanswered::Sent),
                },
            }
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Upload>> {
        let mut tries = CONNECTS;
        let stream = loop {
            tries -= 1;
            match UnixStream::connect(&self.socket).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries > 0 => {
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                outcome => break outcome?,
            }
        };
        let handshake = Builder::new().handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        // It ends with its sender, or when the control plane closes it. What fails, fails the request on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Whether the control plane refuses the body that the head announces: without a length, or too long.
fn is_refused_by_its_head(headers: &mut HeaderMap, max_body: u64) -> bool {
    if headers.contains_key(TRANSFER_ENCODING) {
        // It may be forged to end the body elsewhere (RFC 9112, 6.3).
        headers.remove(CONTENT_LENGTH);
        return true;
    }
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > max_body)
}

/// Removes what concerns one connection only (RFC 9110, 7.6.1), and what only the front may say.
fn to_private(headers: &mut HeaderMap, peer: HeaderValue) {
    remove_of_connection(headers);
    // The front sends 100 itself, when it reads the body.
    headers.remove(EXPECT);
    let private: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(PRIVATE))
        .cloned()
        .collect();
    for name in private {
        headers.remove(name);
    }
    headers.insert(PEER, peer);
}

fn to_public(response: Response<Incoming>, version: Version, lease: Lease) -> Response<AnswerBody> {
    let (mut parts, body) = response.into_parts();
    // The control plane closes a connection whose request it has not read to the end. For HTTP/1.0 it always does.
    let closes = version == Version::HTTP_11 && lease.is_last;
    remove_of_connection(&mut parts.headers);
    if closes {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, AnswerBody::Streamed(Download::new(body, lease)))
}

fn remove_of_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = elements(headers)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

fn names_close(headers: &HeaderMap) -> bool {
    elements(headers).any(|element| element.eq_ignore_ascii_case("close"))
}

/// The elements of the Connection header, but for those that name what a request cannot do without.
fn elements(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).into_iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|element| {
            !element.eq_ignore_ascii_case("host") && !element.eq_ignore_ascii_case("content-length")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn only_the_front_names_the_peer() {
        let mut sent = headers(&[
            ("x-hopgate-peer", "192.0.2.66:1"),
            ("x-hopgate-other", "1"),
            ("x-forwarded-for", "198.51.100.1"),
        ]);

        to_private(&mut sent, HeaderValue::from_static("203.0.113.7:54321"));

        let expected = headers(&[
            ("x-forwarded-for", "198.51.100.1"),
            ("x-hopgate-peer", "203.0.113.7:54321"),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn body_that_is_refused_is_not_sent() {
        let table = [
            (vec![("content-length", "10")], false),
            (vec![("content-length", "11")], true),
            (vec![("transfer-encoding", "chunked")], true),
            (
                vec![("transfer-encoding", "chunked"), ("content-length", "3")],
                true,
            ),
            (vec![], false),
        ];
        for (lines, is_refused) in table {
            let mut sent = headers(&lines);

            assert_eq!(
                is_refused_by_its_head(&mut sent, 10),
                is_refused,
                "{lines:?}"
            );
            let is_ambiguous =
                sent.contains_key(TRANSFER_ENCODING) && sent.contains_key(CONTENT_LENGTH);
            assert!(!is_ambiguous);
        }
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut sent = headers(&[
            ("host", "hop.example"),
            ("connection", "close, X-Own,, host, content-length"),
            ("content-length", "3"),
            ("x-own", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);

        assert!(names_close(&sent));
        remove_of_connection(&mut sent);

        let expected = headers(&[
            ("host", "hop.example"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        assert_eq!(sent, expected);
    }
}
