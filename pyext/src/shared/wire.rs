//! Requests and replies as the script reads and writes them.

use crate::shared::entry::Seen;
use crate::shared::terms::{Terms, pack_array, pack_uint};

/// Runs in Redis: decides, debits and keeps the ledger of one key.
pub const SCRIPT: &str = include_str!("exchange.lua");

const NS_PER_US: u64 = 1000;

/// What a node asks about one key.
#[derive(Debug)]
pub(crate) struct Request {
    /// Rises with every request of a node.
    pub(crate) number: u64,
    pub(crate) is_reset: bool,
    /// Tokens wanted on lease.
    pub(crate) want: u64,
    /// Tokens held now.
    pub(crate) held: u64,
    /// Tokens given back.
    pub(crate) back: u64,
    /// Units admitted without asking, see `Entry`.
    pub(crate) paid: u64,
    pub(crate) owed: u64,
    /// Costs to be decided, one after the other.
    pub(crate) needs: Vec<u64>,
    pub(crate) seen: Seen,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// Random, below 2⁵³.
    pub(crate) node: u64,
    pub(crate) lease_ttl_ns: u64,
    pub(crate) starts_empty: bool,
    /// The time Redis is to reckon with, ns; its own if None.
    pub(crate) now_ns: Option<u64>,
}

impl Request {
    /// `ARGV[1]` of the script.
    pub(crate) fn encode(&self, sender: Sender, terms: &Terms) -> Vec<u8> {
        // Large counts would leave the script's numbers; no rate admits that many.
        const MOST: u64 = 1 << 33;
        let mut out = Vec::with_capacity(96 + terms.encoded.len());
        pack_array(&mut out, 15);
        // 0 stands for "look at your own clock".
        let now_us = sender.now_ns.map_or(0, |ns| (ns / NS_PER_US).max(1));
        for number in [
            now_us,
            sender.node,
            self.number,
            sender.lease_ttl_ns.div_ceil(NS_PER_US),
            terms.most_outstanding,
            u64::from(sender.starts_empty),
            u64::from(self.is_reset),
            self.want,
            self.held,
            self.back,
            self.paid.min(MOST),
            self.owed.min(MOST),
        ] {
            pack_uint(&mut out, number);
        }
        pack_array(&mut out, self.needs.len());
        for cost in &self.needs {
            pack_uint(&mut out, (*cost).min(MOST));
        }
        pack_array(&mut out, self.seen.0.len());
        for number in &self.seen.0 {
            pack_uint(&mut out, *number);
        }
        out.extend_from_slice(&terms.encoded);
        out
    }
}

/// What became of one need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Allowed,
    /// Refused; it would fit after so many ns.
    RetryAfter(u64),
    Never,
}

/// What the script says of one key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) grant: u64,
    /// Units left in Redis after this.
    pub(crate) left: u64,
    /// Until one unit is left, ns.
    pub(crate) next_ns: u64,
    /// Until the key is as good as new, ns.
    pub(crate) reset_ns: u64,
    pub(crate) tightest: usize,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    /// Units debited of those owed.
    pub(crate) debited: u64,
    pub(crate) answers: Vec<Answer>,
    pub(crate) rates_seen: Vec<u64>,
}

impl Reply {
    /// None if the request was overtaken by a later one, or the reply is not what the script writes.
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
            needs,
            rest @ ..,
        ] = numbers
        else {
            return None;
        };
        let count = |number: &i64| u64::try_from(*number).ok();
        let (answers, rates_seen) = rest.split_at_checked(usize::try_from(*needs).ok()?)?;
        let answer = |number: &i64| match *number {
            -1 => Some(Answer::Allowed),
            -2 => Some(Answer::Never),
            us => Some(Answer::RetryAfter(
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
            answers: answers.iter().map(answer).collect::<Option<_>>()?,
            rates_seen: rates_seen.iter().map(count).collect::<Option<_>>()?,
        })
    }
}
