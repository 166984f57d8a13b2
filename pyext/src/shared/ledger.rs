//! The accounts of leased tokens.

/// Where the granted tokens have gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Tokens received.
    pub granted: u64,
    /// Tokens spent by calls, less those refunded.
    pub spent: u64,
    /// Tokens given back to Redis.
    pub returned: u64,
    /// Tokens that expired unused.
    pub expired: u64,
}

impl Ledger {
    pub(crate) fn add(&mut self, other: &Self) {
        self.granted += other.granted;
        self.spent += other.spent;
        self.returned += other.returned;
        self.expired += other.expired;
    }
}
