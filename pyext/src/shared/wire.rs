//! Requests and replies as the script reads and writes them.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::shared::terms::{Terms, pack_array, pack_uint};

/// Runs in Redis: decides, debits and keeps the leases of one key.
pub const SCRIPT: &str = include_str!("exchange.lua");

/// The name by which `EVALSHA` calls the script: its SHA-1, in hexadecimal digits.
pub(super) fn script_digest() -> &'static str {
    static DIGEST: LazyLock<String> = LazyLock::new(|| {
        let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, SCRIPT.as_bytes());
        sha1.as_ref().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // a String takes everything
            hex
        })
    });
    &DIGEST
}

const NS_PER_US: u64 = 1000;
/// Most units in one number of a request.
const MOST: u64 = 1 << 33;

/// A request about one key, ready to be sent.
#[derive(Debug)]
pub struct Request {
    pub(crate) fingerprint: u64,
    pub(crate) number: u64,
    /// `KEYS[1]` of the script.
    pub key: Vec<u8>,
    /// `ARGV[1]` of the script.
    pub body: Vec<u8>,
    /// For a command that the request shares with others.
    pub(crate) short: Option<ShortBody>,
}

/// What a request has of its own if it takes units of one token bucket of which nothing is on lease. All else is the
/// same in all requests of a node under these terms.
#[derive(Debug)]
pub(crate) struct ShortBody {
    pub(crate) terms: Arc<Terms>,
    /// An argument of the script, see there.
    pub(crate) body: Vec<u8>,
}

/// The newest central state that this node has seen: generation, sequence, two numbers per rate, and the time
/// in Redis at which it saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SeenState(pub(crate) Vec<u64>);

/// What a call asks of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To take units.
    Take(u64),
    /// To give units back.
    GiveBack(u64),
    /// Whether units could be taken.
    Look(u64),
}

impl Ask {
    pub(crate) fn units(self) -> u64 {
        match self {
            Self::Take(units) | Self::GiveBack(units) | Self::Look(units) => units,
        }
    }

    /// Whether Redis debits units for it.
    pub(crate) fn takes(self) -> bool {
        matches!(self, Self::Take(units) if units > 0)
    }

    /// A number of units to take, or an array with the kind of another question.
    fn encode(self, out: &mut Vec<u8>) {
        // Larger counts would exceed the script's exact numbers; no rate admits that many.
        let units = self.units().min(MOST);
        let kind = match self {
            Self::Take(_) => return pack_uint(out, units),
            Self::GiveBack(_) => 1,
            Self::Look(_) => 2,
        };
        pack_array(out, 2);
        pack_uint(out, kind);
        pack_uint(out, units);
    }
}

/// The fields of a request's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// Increases with every request of a node.
    pub(crate) number: u64,
    pub(crate) is_reset: bool,
    /// Tokens wanted on lease.
    pub(crate) want: u64,
    /// Tokens held now.
    pub(crate) held: u64,
    /// Tokens given back.
    pub(crate) back: u64,
    /// Units admitted without a debit, see `Entry`.
    pub(crate) paid: u64,
    pub(crate) owed: u64,
    /// The calls to decide, in order.
    pub(crate) asks: Vec<Ask>,
    pub(crate) seen: SeenState,
}

/// The fields of a request that are the same for all keys of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// Random, below 2⁵³.
    pub(crate) node: u64,
    pub(crate) lease_ttl_ns: u64,
    pub(crate) starts_empty: bool,
    /// Tells the keys of limiters apart whose prefixes end at different places of the same key.
    pub(crate) prefix_len: usize,
    /// The time for the script to use, ns; Redis's own if None.
    pub(crate) now_ns: Option<u64>,
}

impl RequestBody {
    /// `ARGV[1]` of the script.
    pub(crate) fn encode(&self, sender: Sender, terms: &Terms) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + terms.encoded.len());
        pack_array(&mut out, 15);
        // 0 stands for Redis's own clock.
        let now_us = sender.now_ns.map_or(0, |ns| (ns / NS_PER_US).max(1));
        for number in [
            now_us,
            sender.node,
            self.number,
            sender.lease_ttl_ns.div_ceil(NS_PER_US),
            terms.most_outstanding,
        ] {
            pack_uint(&mut out, number);
        }
        pack_array(&mut out, 2 + terms.identities.len());
        pack_uint(&mut out, u64::from(sender.starts_empty));
        pack_uint(&mut out, sender.prefix_len as u64);
        for identity in &terms.identities {
            pack_uint(&mut out, *identity);
        }
        for number in [
            u64::from(self.is_reset),
            self.want,
            self.held,
            self.back,
            self.paid.min(MOST),
            self.owed.min(MOST),
        ] {
            pack_uint(&mut out, number);
        }
        pack_array(&mut out, self.asks.len());
        for ask in &self.asks {
            ask.encode(&mut out);
        }
        pack_array(&mut out, self.seen.0.len());
        for number in &self.seen.0 {
            pack_uint(&mut out, *number);
        }
        out.extend_from_slice(&terms.encoded);
        out
    }

    /// None unless the request is about one token bucket alone: one call that takes units, no leases, no debts.
    pub(crate) fn encode_short(&self, terms: &Arc<Terms>) -> Option<ShortBody> {
        let [Ask::Take(units @ 1..=MOST)] = self.asks[..] else {
            return None;
        };
        let others = [self.want, self.held, self.back, self.paid, self.owed];
        if self.is_reset || others != [0; 5] || !terms.is_one_bucket {
            return None;
        }
        // Generation, sequence and time of the state seen.
        let seen = &self.seen.0[..self.seen.0.len().min(3)];
        let mut body = Vec::with_capacity(40);
        pack_array(&mut body, 1 + seen.len());
        for number in [units].iter().chain(seen) {
            pack_uint(&mut body, *number);
        }
        let terms = terms.clone();
        Some(ShortBody { terms, body })
    }
}

/// The script's decision about one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemoteVerdict {
    Allowed,
    /// Refused; the cost fits after this many ns.
    RetryAfter(u64),
    /// Refused; the cost exceeds the capacity.
    Never,
    /// The units are given back.
    GivenBack,
    /// Nothing is given back: the state is not the one that this node has seen.
    Outdated,
}

/// The script's reply about one key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) grant: u64,
    /// Units left in Redis after this.
    pub(crate) left: u64,
    /// Time until one unit is left, ns.
    pub(crate) next_ns: u64,
    /// Time until the key is as good as new, ns.
    pub(crate) reset_ns: u64,
    /// Index of the rate that is the tightest.
    pub(crate) tightest: usize,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    /// Units debited out of those owed.
    pub(crate) debited: u64,
    pub(crate) verdicts: Vec<RemoteVerdict>,
    pub(crate) rates_seen: Vec<u64>,
    /// The key was one of other rates, which are no longer in use.
    pub(crate) is_taken_over: bool,
}

impl Reply {
    /// None if a later request of this node came first, or the script never writes such a reply.
    pub(crate) fn decode(numbers: &[i64]) -> Option<Self> {
        let [
            1,
            grant,
            left,
            next_us,
            reset_us,
            tightest,
            generation,
            sequence,
            debited,
            calls,
            rest @ ..,
        ] = numbers
        else {
            return None;
        };
        let count = |number: &i64| u64::try_from(*number).ok();
        let (verdicts, rest) = rest.split_at_checked(usize::try_from(*calls).ok()?)?;
        // The last number is the time; with a sign it says that the key was taken over.
        let is_taken_over = rest.last().is_some_and(|time| *time < 0);
        let verdict = |number: &i64| match *number {
            -1 => Some(RemoteVerdict::Allowed),
            -2 => Some(RemoteVerdict::Never),
            -3 => Some(RemoteVerdict::GivenBack),
            -4 => Some(RemoteVerdict::Outdated),
            us => Some(RemoteVerdict::RetryAfter(
                u64::try_from(us).ok()?.saturating_mul(NS_PER_US),
            )),
        };
        Some(Self {
            grant: count(grant)?,
            left: count(left)?,
            next_ns: count(next_us)?.saturating_mul(NS_PER_US),
            reset_ns: count(reset_us)?.saturating_mul(NS_PER_US),
            tightest: usize::try_from(*tightest).ok()?,
            generation: count(generation)?,
            sequence: count(sequence)?,
            debited: count(debited)?,
            verdicts: verdicts.iter().map(verdict).collect::<Option<_>>()?,
            rates_seen: rest.iter().map(|number| number.unsigned_abs()).collect(),
            is_taken_over,
        })
    }
}
