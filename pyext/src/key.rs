//! Keys, and the hash under which a limiter stores them.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::RandomState;

/// The subject of a limit. Keys of different kinds are different keys: `"1"`, `b"1"` and `1` are three.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    /// The UTF-8 bytes of a text.
    Text(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A number.
    Int(i64),
    /// A number that does not fit 64 bits, as its shortest two's complement, little endian.
    BigInt(&'a [u8]),
    /// What [`CompoundKey`] has written.
    Compound(&'a [u8]),
}

/// The encoding of a key that is none of these alone, part by part: the kind of the part, the number of its
/// bytes in decimal, a colon, and the bytes. A list of parts is `(`, their number, a colon, and the parts. No
/// encoding is the start of another one, so different keys have different encodings; they are the same in
/// every process.
///
/// ```
/// use hopgate_limiter::{CompoundKey, Key};
///
/// let mut key = CompoundKey::default();
/// key.open(2);
/// key.push(Key::from("a"));
/// key.push(Key::from(7));
/// assert_eq!(key.as_bytes(), b"(2:t1:ai1:7");
/// ```
#[derive(Debug, Clone, Default)]
pub struct CompoundKey(Vec<u8>);

impl CompoundKey {
    /// Starts a list: the next `count` parts, each of which may be a list.
    pub fn open(&mut self, count: usize) {
        self.0.extend_from_slice(format!("({count}:").as_bytes());
    }

    /// Adds a key as a part.
    pub fn push(&mut self, part: Key<'_>) {
        match part {
            Key::Text(bytes) => self.push_other(b't', bytes),
            Key::Bytes(bytes) => self.push_other(b'b', bytes),
            Key::Int(number) => self.push_other(b'i', number.to_string().as_bytes()),
            Key::BigInt(bytes) => self.push_other(b'I', bytes),
            Key::Compound(bytes) => self.0.extend_from_slice(bytes),
        }
    }

    /// Adds a part of another kind, a letter that is neither of a [`Key`] nor a parenthesis.
    pub fn push_other(&mut self, kind: u8, bytes: &[u8]) {
        self.0.push(kind);
        self.0
            .extend_from_slice(format!("{}:", bytes.len()).as_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// The bytes for [`Key::Compound`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<i64> for Key<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl Key<'_> {
    /// The 64-bit hash under which a limiter with this seed stores the key; never 0, which marks an empty
    /// slot of its table.
    #[inline]
    pub(crate) fn fingerprint(self, seed: &RandomState) -> u64 {
        let mut hasher = seed.build_hasher();
        // The kind comes last: a write of known small size after one of unknown size is nearly free.
        match self {
            Self::Text(bytes) => {
                hasher.write(bytes);
                hasher.write_u8(0);
            }
            Self::Bytes(bytes) => {
                hasher.write(bytes);
                hasher.write_u8(1);
            }
            Self::Int(number) => {
                hasher.write_i64(number);
                hasher.write_u8(2);
            }
            Self::BigInt(bytes) => {
                hasher.write(bytes);
                hasher.write_u8(3);
            }
            Self::Compound(bytes) => {
                hasher.write(bytes);
                hasher.write_u8(4);
            }
        }
        hasher.finish().max(1)
    }
}

/// A [`Key`] as one limiter stores it. Has no meaning for another limiter.
#[derive(Debug, Clone, Copy)]
pub struct PreparedKey(pub(crate) u64);
