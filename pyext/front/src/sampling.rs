//! Which requests are reported: decided before anything of them is kept, by the ids of their traces.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hyper::HeaderMap;

/// Which requests are recorded: those of a share of all trace ids, or those that the caller records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Traces whose low 64 bits are below it are recorded: all processes decide alike.
    pub bound: u128,
    /// Whether the caller decides for its own requests.
    pub follows_parent: bool,
}

impl Sampling {
    /// Whether a request of `trace` is recorded.
    pub fn takes(self, trace: u128, parent: Option<Parent>) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.is_sampled,
            _ => is_below(trace, self.bound),
        }
    }
}

/// Whether `trace` is of the share that `bound` stands for.
pub fn is_below(trace: u128, bound: u128) -> bool {
    trace & u128::from(u64::MAX) < bound
}

/// The span that a caller names, and whether the caller records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace: u128,
    /// Its id.
    pub span: u64,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

impl Parent {
    /// The parent that `headers` name: none if there are several, or W3C Trace Context has it ignored.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all("traceparent").into_iter();
        let (line, None) = (lines.next()?, lines.next()) else {
            return None;
        };
        Self::read(line.to_str().ok()?)
    }

    fn read(value: &str) -> Option<Self> {
        let mut parts = value.splitn(5, '-');
        let mut part = |length| parts.next().filter(|part| is_hex(part, length));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // A later version may append fields; version 255 is forbidden, and so are ids of zeros.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id > 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id > 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self {
            trace,
            span,
            is_sampled: flags & 1 == 1,
        })
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// All lines of a header, joined. Empty if they are longer than `limit`, or more than visible ASCII.
pub fn passed_on(headers: &HeaderMap, name: &str, limit: usize) -> String {
    let mut joined = String::new();
    for (index, line) in headers.get_all(name).into_iter().enumerate() {
        // Tabs are no visible characters.
        let Some(text) = line.to_str().ok().filter(|text| !text.contains('\t')) else {
            return String::new();
        };
        if index > 0 {
            joined.push(',');
        }
        joined.push_str(text);
        if joined.len() > limit {
            return String::new();
        }
    }
    joined
}

thread_local! {
    static STATE: Cell<[u64; 4]> = Cell::new(seed());
}

/// The id of a new trace.
pub fn new_trace() -> u128 {
    ((u128::from(next()) << 64) | u128::from(next())).max(1)
}

/// The id of a new span.
pub fn new_span() -> u64 {
    next().max(1)
}

/// The next number of the thread: xoshiro256++, which takes a nanosecond. Ids have to differ, not to be secret.
fn next() -> u64 {
    STATE.with(|state| {
        let [a, b, c, d] = state.get();
        let (c_and_a, d_and_b) = (c ^ a, d ^ b);
        let rotated = d_and_b.rotate_left(45);
        state.set([a ^ d_and_b, b ^ c_and_a, c_and_a ^ (b << 17), rotated]);
        a.wrapping_add(d).rotate_left(23).wrapping_add(a)
    })
}

/// Of the operating system: the keys of a hash map are.
fn seed() -> [u64; 4] {
    let keys = RandomState::new();
    std::array::from_fn(|index| keys.hash_one(index))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hyper::header::HeaderValue;

    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    #[test]
    fn parent_is_read_as_trace_context_has_it() {
        let of = |version: &str, rest: &str| {
            format!("{version}-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{rest}")
        };
        let zeros = "0".repeat(32);
        let table = [
            (of("00", "01"), Some(true)),
            (of("00", "00"), Some(false)),
            (of("00", "03"), Some(true)),
            (of("cc", "01-later"), Some(true)),
            (of("00", "01-later"), None),
            (of("00", "01-"), None),
            (of("ff", "01"), None),
            (of("00", "0"), None),
            (of("00", "1G"), None),
            (of("00", "0A"), None),
            (format!("00-{zeros}-00f067aa0ba902b7-01"), None),
            (format!("00-{TRACE:032x}-{}-01", "0".repeat(16)), None),
            (String::new(), None),
        ];
        for (value, is_sampled) in table {
            let expected = is_sampled.map(|is_sampled| Parent {
                trace: TRACE,
                span: 0x00f0_67aa_0ba9_02b7,
                is_sampled,
            });
            assert_eq!(Parent::read(&value), expected, "{value:?}");
        }
    }

    #[test]
    fn several_parents_are_none() {
        let value =
            HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let mut headers = HeaderMap::new();
        headers.append("traceparent", value.clone());
        assert!(Parent::of(&headers).is_some());
        headers.append("traceparent", value);
        assert!(Parent::of(&headers).is_none());
    }

    #[test]
    fn share_is_one_of_traces() {
        let quarter = Sampling {
            bound: 1 << 62,
            follows_parent: true,
        };
        let all = Sampling {
            bound: 1 << 64,
            ..quarter
        };
        let parent = |is_sampled| {
            Some(Parent {
                trace: 1,
                span: 1,
                is_sampled,
            })
        };
        assert!(quarter.takes((7 << 64) + (1 << 62) - 1, None));
        assert!(!quarter.takes((7 << 64) + (1 << 62), None));
        assert!(all.takes(u128::MAX, None));
        assert!(!all.takes(1, parent(false)));
        assert!(quarter.takes(u128::MAX, parent(true)));
        let own = Sampling {
            follows_parent: false,
            ..quarter
        };
        assert!(!own.takes(u128::MAX, parent(true)));
    }

    #[test]
    fn ids_differ_and_spread() {
        let ids: Vec<u128> = (0..10_000).map(|_| new_trace()).collect();
        let low = ids.iter().filter(|id| is_below(**id, 1 << 63)).count();

        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!((4_500..5_500).contains(&low), "{low}");
    }

    #[test]
    fn header_is_passed_on_if_it_is_short_and_visible() {
        let mut headers = HeaderMap::new();
        assert_eq!(passed_on(&headers, "tracestate", 10), "");
        headers.append("tracestate", HeaderValue::from_static("a=1"));
        headers.append("tracestate", HeaderValue::from_static("b=2"));
        assert_eq!(passed_on(&headers, "tracestate", 7), "a=1,b=2");
        assert_eq!(passed_on(&headers, "tracestate", 6), "");
        headers.append("tracestate", HeaderValue::from_bytes(b"\xe9").unwrap());
        assert_eq!(passed_on(&headers, "tracestate", 99), "");
    }
}
