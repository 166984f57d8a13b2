//! Keys whose calls bring rates of their own.

use std::sync::Arc;

use super::Entry;
use crate::shared::terms::Terms;

impl Entry {
    /// The terms of the key: its own, else those of the limiter.
    pub(crate) fn terms(&self, of_limiter: &Arc<Terms>) -> Arc<Terms> {
        self.own_terms.as_ref().unwrap_or(of_limiter).clone()
    }

    pub(crate) fn own_terms(&self) -> Option<&Arc<Terms>> {
        self.own_terms.as_ref()
    }

    /// Goes on under these terms; None are those of the limiter.
    pub(crate) fn use_terms(&mut self, own: Option<Arc<Terms>>) {
        if own.is_some() || self.own_terms.is_some() {
            self.configure();
            self.own_terms = own;
        }
    }
}
