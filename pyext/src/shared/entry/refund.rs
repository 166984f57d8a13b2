//! Units that callers give back.

use super::Entry;
use crate::gcra::Gcra;
use crate::meter::Meter;

impl Entry {
    /// Gives back units that were spent here, as far as Redis need not be asked for it: into the lease, or out
    /// of what is not yet debited. Returns the rest. `share` are the meters of [`Entry::spend_share`].
    pub(crate) fn refund(&mut self, now: u64, cost: u64, share: &[Gcra]) -> u64 {
        let mut rest = cost;
        if now < self.deadline {
            let room = self.ceiling.saturating_sub(self.tokens);
            let credit = rest.min(room).min(self.ledger.spent);
            self.tokens += credit;
            self.ledger.spent -= credit;
            rest -= credit;
        }
        // What a request in flight reports may be debited already.
        let (owed, paid) = self
            .in_flight
            .as_ref()
            .map_or((0, 0), |in_flight| (in_flight.owed, in_flight.paid));
        let credit = rest.min(self.owed.saturating_sub(owed));
        self.owed -= credit;
        rest -= credit;
        let credit = rest.min(self.paid.saturating_sub(paid));
        self.paid -= credit;
        if self.share.len() == share.len() {
            for (meter, tat) in share.iter().zip(&mut self.share) {
                meter.refund(tat, now, credit);
            }
        }
        rest -= credit;
        if rest < cost {
            self.denied_until = 0;
            self.recheck_at = 0;
        }
        rest
    }
}
