//! What a front is made of; the control plane says it once.

use std::path::PathBuf;
use std::time::Duration;

use crate::address::Network;
use crate::clock::Clock;
use crate::intent::Previews;
use crate::limits::Limit;
use crate::sampling::Sampling;
use crate::table;
use crate::tarpit::TarpitConfig;
use crate::template::Template;

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// The time for the head of a request, also of the first one on a connection, and the longest idle time.
    pub head: Duration,
    /// The time that a client may keep an answer waiting, see `wire`.
    pub write: Duration,
    /// The time for the control plane to begin an answer, and to go on with it.
    pub answer: Duration,
    /// Connections of a process at a time. Further ones wait in the queues of their sockets.
    pub connections: usize,
}

/// What is reported of single requests.
#[derive(Debug, Clone, Copy)]
pub struct WatchConfig {
    /// Which requests have a span, and from what time on a request is slow, seconds. None: there are no spans.
    pub traced: Option<(Sampling, f64)>,
    /// Requests have a line in the access log if the low 64 bits of their trace are below it. None: none has one.
    pub logged: Option<u128>,
    /// Records that wait for the control plane.
    pub capacity: usize,
}

/// What a front is made of.
#[derive(Debug)]
pub struct Config {
    /// The path that public links may have before the slug: empty, or `/like/this`.
    pub base_path: String,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted: Vec<Network>,
    /// Whether connections begin with the PROXY protocol. Those of `trusted` proxies alone are served then.
    pub proxy_protocol: bool,
    /// Limits redirects by client.
    pub redirect_limit: Limit,
    /// Limits slugs that are not found by client.
    pub not_found_limit: Limit,
    /// The answers of the front, one for each status: redirects without their target, 404, 410, 429, 500, 503.
    pub templates: Vec<Template>,
    /// The answer to a request that the control plane may have acted on.
    pub unsure: Template,
    /// The answer to a request whose body has an end that its head did not announce.
    pub cut_off: Template,
    /// The answer to a redirect that the control plane is late for.
    pub late: Template,
    /// The answer to the prefetch of a link with a limit of its visits.
    pub not_prefetched: Template,
    /// What tells programs that only look at links.
    pub previews: Previews,
    /// The deadline of a redirect, seconds.
    pub limit_s: f64,
    /// Bounds of the buckets that answers are counted in, seconds.
    pub bounds: Vec<f64>,
    /// Slugs in lower case that are left to the control plane: its pages, and all below them. One that ends in a
    /// slash stands for those below it alone.
    pub reserved: Vec<String>,
    /// When negative answers are delayed.
    pub tarpit: TarpitConfig,
    /// The private socket of the control plane.
    pub upstream: PathBuf,
    /// The longest body that the control plane reads, bytes.
    pub max_body: u64,
    /// Paths whose bodies the control plane reads however long they are, and of unknown length.
    pub uploads: Vec<String>,
    /// What connections may take.
    pub caps: Caps,
    /// The clock of the control plane.
    pub clock: Clock,
    /// What is reported of single requests; None: nothing.
    pub watch: Option<WatchConfig>,
    /// Whether what visits look like is counted.
    pub describes_visits: bool,
    /// How much the table holds.
    pub table: table::Bounds,
}
