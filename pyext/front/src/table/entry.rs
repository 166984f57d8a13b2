//! What the table holds for a slug.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyper::StatusCode;
use hyper::header::HeaderValue;

/// The share of an entry's life after which a visitor has it looked up anew, so that none waits for a link that is
/// visited often.
const RENEWED_AFTER: f64 = 0.8;

/// Until when an entry is what: seconds on the clock of the calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// From then on a request has it looked up anew.
    pub renew_from: f64,
    /// Until then it is sent without asking.
    pub fresh_until: f64,
    /// Until then it may be sent if nothing else answers.
    pub stale_until: f64,
}

impl Times {
    /// Those of an entry that is made at `now`.
    pub fn new(now: f64, fresh_until: f64, stale_until: f64) -> Self {
        Self {
            renew_from: now + RENEWED_AFTER * (fresh_until - now),
            fresh_until,
            stale_until,
        }
    }

    /// Fresh until then, never renewed, never stale.
    pub const fn fresh(until: f64) -> Self {
        Self {
            renew_from: f64::INFINITY,
            fresh_until: until,
            stale_until: f64::NEG_INFINITY,
        }
    }
}

/// What becomes of the query of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// It plays no part.
    Off,
    /// It is added to the target's.
    Added,
    /// It is added, and takes the place of the target's parameters of the same names.
    Overriding,
}

/// What a link says of itself by yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(pub u8);

impl Marks {
    /// It forwards queries.
    pub const FORWARDS: u8 = 1;
    /// Those take the place of parameters of the same names.
    pub const OVERRIDES: u8 = 2;
    /// It has a limit of its visits.
    pub const METERED: u8 = 4;
    /// Its targets are long, see `Bounds::long`.
    pub const LONG: u8 = 8;

    /// Whether it has this one.
    pub const fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }
}

/// What every link has, and is the same for all its answers.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// 0: there is no such link.
    pub version: u64,
    /// Of which history of the store it is.
    pub epoch: i64,
    /// The status of its redirects.
    pub redirect_code: u16,
    /// What it says by yes or no.
    pub marks: Marks,
}

/// What few links have.
#[derive(Debug, Default)]
pub struct Extras {
    /// The rules for crawlers, on each redirect of the link.
    pub robots: Option<HeaderValue>,
    /// Where its visitors go once it has no visit left.
    pub expired: Option<HeaderValue>,
    /// Of another slug of a link, the key whose visits it spends.
    pub quota: Option<Box<[u8]>>,
    /// When its redirects begin and end, unix seconds.
    pub valid: (Option<f64>, Option<f64>),
    /// Its texts, as far as they are no headers of the answer: target, page of the time after it, rules for crawlers.
    pub texts: [Option<Box<str>>; 3],
}

/// What the front answers for a slug, and all that the control plane knows about the link.
#[derive(Debug)]
pub struct Entry {
    slug: Box<[u8]>,
    // The fields of `Link`, which would be larger in one piece.
    version: u64,
    epoch: i64,
    redirect_code: u16,
    marks: Marks,
    /// A redirect, 404, 410 or 451.
    pub status: StatusCode,
    /// The target of a redirect; for another status, the page that its domain has in its place.
    pub location: Option<HeaderValue>,
    extras: Option<Box<Extras>>,
    times: Times,
    /// Redirects sent since they were last taken.
    pub(super) clicks: AtomicU64,
    /// Whether a request has had it looked up anew.
    is_renewed: AtomicBool,
}

impl Entry {
    /// An entry without clicks.
    pub fn new(
        slug: &[u8],
        link: Link,
        (status, location): (StatusCode, Option<HeaderValue>),
        extras: Option<Extras>,
        times: Times,
    ) -> Self {
        Self {
            slug: slug.into(),
            version: link.version,
            epoch: link.epoch,
            redirect_code: link.redirect_code,
            marks: link.marks,
            status,
            location,
            extras: extras.map(Box::new),
            times,
            clicks: AtomicU64::new(0),
            is_renewed: AtomicBool::new(false),
        }
    }

    /// The link that it is of.
    pub const fn link(&self) -> Link {
        Link {
            version: self.version,
            epoch: self.epoch,
            redirect_code: self.redirect_code,
            marks: self.marks,
        }
    }

    /// Until when it is what.
    pub const fn times(&self) -> Times {
        self.times
    }

    /// What the link has besides.
    pub fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// Whether the link has a target, though perhaps not for now.
    pub fn has_target(&self) -> bool {
        let [target, ..] = self
            .extras()
            .map_or(&[None, None, None], |extras| &extras.texts);
        self.status.is_redirection() || target.is_some()
    }

    /// What a query of the request does to the target.
    pub const fn forwarding(&self) -> Forwarding {
        match (
            self.marks.has(Marks::FORWARDS),
            self.marks.has(Marks::OVERRIDES),
        ) {
            (false, _) => Forwarding::Off,
            (true, false) => Forwarding::Added,
            (true, true) => Forwarding::Overriding,
        }
    }

    /// The version of a redirect that takes one of a limited number of visits; 0 if it takes none.
    pub fn metered_version(&self) -> u64 {
        if self.marks.has(Marks::METERED) && self.status.is_redirection() {
            self.version
        } else {
            0
        }
    }

    /// The rules for crawlers.
    pub fn robots(&self) -> Option<&HeaderValue> {
        self.extras.as_ref()?.robots.as_ref()
    }

    /// Where visitors go once no visit is left, if the link says so.
    pub fn expired(&self) -> Option<&HeaderValue> {
        self.extras.as_ref()?.expired.as_ref()
    }

    /// The key of the link whose visits it spends, if it has a limit of them.
    pub fn quota(&self) -> &[u8] {
        let extras = self.extras.as_ref();
        let other = extras.and_then(|extras| extras.quota.as_deref());
        other.unwrap_or(&self.slug)
    }

    /// Whether this request, at `now`, should have the entry looked up anew: the first one in the last part of its
    /// life.
    pub fn is_to_renew(&self, now: f64) -> bool {
        now >= self.times.renew_from
            && !self.is_renewed.load(Ordering::Relaxed)
            && !self.is_renewed.swap(true, Ordering::Relaxed)
    }

    /// Whether it may be sent at `now`.
    pub(super) fn is_fresh(&self, now: f64) -> bool {
        now < self.times.fresh_until
    }

    /// Whether it may be sent at `now`, `wall` in unix seconds, if the control plane does not answer in time. No time
    /// is left then to spend a visit in, and 404 needs proof.
    pub(super) fn is_stale(&self, now: f64, wall: f64) -> bool {
        let valid = self.extras.as_ref().map(|extras| extras.valid);
        let (_, expires_at) = valid.unwrap_or_default();
        self.status.is_redirection()
            && self.metered_version() == 0
            && now < self.times.stale_until
            && expires_at.is_none_or(|end| wall < end)
    }
}

/// The slug of an entry.
impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        &self.slug
    }
}

#[cfg(test)]
impl Entry {
    /// An entry of version 1, or of `metered_version` if that is not 0.
    pub(crate) fn answering(
        slug: &[u8],
        status: StatusCode,
        location: Option<HeaderValue>,
        forwarding: Forwarding,
        metered_version: u64,
        times: Times,
    ) -> Self {
        let forwarding = match forwarding {
            Forwarding::Off => 0,
            Forwarding::Added => Marks::FORWARDS,
            Forwarding::Overriding => Marks::FORWARDS | Marks::OVERRIDES,
        };
        let metered = if metered_version == 0 {
            0
        } else {
            Marks::METERED
        };
        let link = Link {
            version: metered_version.max(1),
            epoch: 0,
            redirect_code: 302,
            marks: Marks(forwarding | metered),
        };
        Self::new(slug, link, (status, location), None, times)
    }

    /// This entry, with `extras`.
    pub(crate) fn with_extras(self, extras: Extras) -> Self {
        Self {
            extras: Some(Box::new(extras)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: StatusCode, metered_version: u64, times: Times) -> Entry {
        let target = HeaderValue::from_static("https://example.com/");
        let off = Forwarding::Off;
        Entry::answering(b"aaa", status, Some(target), off, metered_version, times)
    }

    #[test]
    fn late_answer_is_a_stale_redirect() {
        let times = Times::new(0.0, 10.0, 300.0);
        let expires = Extras {
            valid: (None, Some(1_000.0)),
            ..Extras::default()
        };
        let link = entry(StatusCode::FOUND, 0, times).with_extras(expires);

        assert!(link.is_stale(299.0, 999.0));
        assert!(!link.is_stale(300.0, 999.0));
        assert!(!link.is_stale(299.0, 1_000.0), "expired");
        assert!(entry(StatusCode::FOUND, 0, times).is_stale(20.0, 0.0));
        assert!(!entry(StatusCode::FOUND, 3, times).is_stale(20.0, 0.0));
        assert!(!entry(StatusCode::GONE, 0, times).is_stale(20.0, 0.0));
    }

    #[test]
    fn entry_is_small() {
        // With the counts of an `Arc`, the largest that the allocator has 144 bytes for.
        assert!(size_of::<Entry>() <= 120, "{}", size_of::<Entry>());
    }

    #[test]
    fn entry_is_renewed_once() {
        let entry = entry(StatusCode::FOUND, 0, Times::new(5.0, 10.0, 300.0));

        let renews = [8.9, 9.0, 9.1, 9.9].map(|now| entry.is_to_renew(now));

        assert_eq!(renews, [false, true, false, false]);
    }
}
