//! The way to the control plane: HTTP/1 over its private Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::Builder;
use hyper::ext::on_informational;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::body::{AnswerBody, Download};
use crate::pool::{Lease, Pool};
use crate::private::{Link, Private};
use crate::upload::Upload;
use crate::wire::Unread;

/// How often a connection is tried while the queue of the socket is full, and the pause between.
const CONNECTS: u32 = 50;
const CONNECT_PAUSE: Duration = Duration::from_millis(10);
/// Headers of the front's own start with this. A client's are dropped.
const PRIVATE: &str = "x-hopgate-";
/// What the control plane has to know of a request that is reported; see `watch`.
const NOTED: HeaderName = HeaderName::from_static("x-hopgate-noted");
/// The peer of the connection, "203.0.113.7:54321". The control plane believes it, from this socket alone.
const PEER: HeaderName = HeaderName::from_static("x-hopgate-peer");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The way of one thread.
#[derive(Debug)]
pub struct Upstream {
    socket: PathBuf,
    max_body: u64,
    uploads: Vec<String>,
    limit: Duration,
    pool: Arc<Pool>,
}

/// A request that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The control plane has not seen it.
    NotSent,
    /// The client has not sent all of its body: the control plane acts on whole requests only.
    CutOff,
    /// The control plane may have acted on it: its connection has ended, or the time is up.
    Sent,
}

impl Upstream {
    /// A pool without connections.
    ///
    /// Bodies of more than `max_body` bytes are not sent, but to the paths in `uploads`: the control plane
    /// refuses them unread. An answer has to begin within `limit`, and to go on within it after each part; while the
    /// client sends one of those bodies, the control plane limits its time.
    pub fn new(socket: &Path, max_body: u64, uploads: Vec<String>, limit: Duration) -> Self {
        Self {
            socket: socket.to_owned(),
            max_body,
            uploads,
            limit,
            pool: Arc::default(),
        }
    }

    /// The answer of the control plane to `request` from `peer`, of which it has to know what is `noted`.
    ///
    /// A request is sent again over another connection only if nothing of it was sent. `unread` is set if the answer
    /// is there before the body.
    ///
    /// # Errors
    /// [`Unanswered`] if no connection can be made, or it ends before the answer, or the time is up.
    pub(crate) async fn forward(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: HeaderValue,
        noted: Option<HeaderValue>,
        unread: Unread,
    ) -> Result<Response<AnswerBody>, Unanswered> {
        let mut deadline = Instant::now() + self.limit;
        let (mut parts, body) = request.into_parts();
        let is_upload = is_upload(&self.uploads, parts.uri.path());
        let is_read = parts.method.is_safe();
        let is_refused =
            is_refused_by_its_head(&mut parts.headers, self.max_body) && !is_read && !is_upload;
        let is_expected =
            !is_refused && parts.version == Version::HTTP_11 && is_expected(&parts.headers);
        let is_chunked = !is_refused && parts.headers.contains_key(TRANSFER_ENCODING);
        to_private(&mut parts.headers, peer, is_expected);
        if let Some(noted) = noted {
            parts.headers.insert(NOTED, noted);
        }
        if is_chunked {
            // Without it, hyper sends no body of a GET.
            let chunked = HeaderValue::from_static("chunked");
            parts.headers.insert(TRANSFER_ENCODING, chunked);
        }
        let version = parts.version;
        let has_body = !body.is_end_stream();
        // The control plane answers such a request without reading its body, and closes the connection: what is
        // still to be sent then would fail, and the answer with it.
        let (upload, progress) = if is_refused {
            drop(body);
            Upload::withheld()
        } else {
            Upload::new(body, is_expected)
        };
        let mut request = Request::from_parts(parts, upload);
        if is_expected {
            let asked = Arc::clone(&progress);
            on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    asked.ask();
                }
            });
        }
        loop {
            let (mut link, is_new) = match self.pool.take() {
                Some(link) => (link, false),
                None => match timeout_at(deadline, self.connect()).await {
                    Ok(Ok(link)) => (link, true),
                    Ok(Err(_)) | Err(_) => return Err(Unanswered::NotSent),
                },
            };
            if link.sender.ready().await.is_err() {
                if is_new {
                    return Err(Unanswered::NotSent);
                }
                continue;
            }
            let mut answering = std::pin::pin!(link.sender.try_send_request(request));
            let answer = loop {
                match timeout_at(deadline, answering.as_mut()).await {
                    Ok(answer) => break answer,
                    Err(_) if progress.is_cut_off() => return Err(Unanswered::CutOff),
                    // The control plane limits the time of a long body itself.
                    Err(_) if is_upload && progress.end_of(self.limit) > deadline => {
                        deadline = progress.end_of(self.limit);
                    }
                    Err(_) => return Err(Unanswered::Sent),
                }
            };
            match answer {
                Ok(response) => {
                    let is_sent = progress.is_sent();
                    // Lines are answered while others still come.
                    let is_wanted = is_upload && response.status().is_success();
                    let is_given_up = !is_sent && !is_wanted;
                    if is_given_up {
                        progress.give_up();
                    }
                    if !is_sent {
                        unread.set();
                    }
                    // It closes a connection whose request it has not read, perhaps without a word. What it has acted
                    // on, it has read.
                    let may_be_unread = has_body && (is_read || !response.status().is_success());
                    let lease = Lease {
                        pool: Arc::clone(&self.pool),
                        is_last: !is_sent || may_be_unread || names_close(response.headers()),
                        link,
                        progress,
                    };
                    let closes = is_given_up && version == Version::HTTP_11;
                    let upload = (is_wanted && !is_sent).then(|| Arc::clone(&lease.progress));
                    let download = |body| Download::new(body, lease, self.limit, upload);
                    return Ok(to_public(response, closes, download));
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

    async fn connect(&self) -> io::Result<Link> {
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
        let (private, deaf) = Private::new(stream);
        let handshake = Builder::new().handshake(TokioIo::new(private));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        // What fails, fails the request on it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Link::new(sender, task.abort_handle(), deaf))
    }
}

/// Whether *path* is one of *uploads*, or below one that ends in a slash.
fn is_upload(uploads: &[String], path: &str) -> bool {
    uploads
        .iter()
        .any(|one| path == one || (one.ends_with('/') && path.starts_with(one.as_str())))
}

/// Whether the client waits to be asked for the body.
fn is_expected(headers: &HeaderMap) -> bool {
    let expected = headers.get(EXPECT);
    expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether the control plane refuses the body that the head announces: without a length, or too long.
pub(crate) fn is_refused_by_its_head(headers: &mut HeaderMap, max_body: u64) -> bool {
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
pub(crate) fn to_private(headers: &mut HeaderMap, peer: HeaderValue, is_expected: bool) {
    remove_of_connection(headers);
    // The control plane ignores all other expectations.
    headers.remove(EXPECT);
    if is_expected {
        headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
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

fn to_public(
    response: Response<Incoming>,
    closes: bool,
    download: impl FnOnce(Incoming) -> Download,
) -> Response<AnswerBody> {
    let (mut parts, body) = response.into_parts();
    remove_of_connection(&mut parts.headers);
    if closes {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, AnswerBody::Streamed(Box::new(download(body))))
}

/// Removes what is of one connection. Fields that `Connection` names besides stay: to a client the front and the control
/// plane are one server, and it must not be able to take away what a proxy before them has added.
fn remove_of_connection(headers: &mut HeaderMap) {
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
    let lines = headers.get_all(CONNECTION).into_iter();
    let mut elements = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    elements.any(|element| element.trim().eq_ignore_ascii_case("close"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_paths_or_all_below_one() {
        let uploads = [String::from("/api/bulk"), String::from("/v4/")];

        let taken = ["/api/bulk", "/v4/shorten", "/v4/a/b"];
        let others = ["/api/bulk/x", "/v4", "/v40/x", "/api/"];
        assert!(taken.iter().all(|path| is_upload(&uploads, path)));
        assert!(!others.iter().any(|path| is_upload(&uploads, path)));
    }

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

        to_private(
            &mut sent,
            HeaderValue::from_static("203.0.113.7:54321"),
            false,
        );

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
            ("x-own", "1"),
            ("accept", "*/*"),
        ]);
        assert_eq!(sent, expected);
    }
}
