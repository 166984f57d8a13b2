//! What a front is made of; the control plane says it once.

use std::path::PathBuf;

use crate::address::Network;
use crate::limits::Limit;
use crate::tarpit::TarpitConfig;
use crate::template::Template;

/// What a front is made of.
#[derive(Debug)]
pub struct Config {
    /// The path that public links may have before the slug: empty, or `/like/this`.
    pub base_path: String,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted: Vec<Network>,
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
    /// Bounds of the buckets that answers are counted in, seconds.
    pub bounds: Vec<f64>,
    /// Slugs in lower case that no link has: pages of the control plane.
    pub reserved: Vec<String>,
    /// When negative answers are delayed.
    pub tarpit: TarpitConfig,
    /// The private socket of the control plane.
    pub upstream: PathBuf,
    /// The longest body that the control plane reads, bytes.
    pub max_body: u64,
    /// What the clock of the control plane shows now, seconds that never go back.
    pub monotonic: f64,
}
