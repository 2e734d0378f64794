use std::sync::Arc;

use super::{Effect, Item, Lease, LeaseWrite};

/// A conditional write to a lease, and effects on users' tables that happen together with it or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseTransaction {
    /// The write to the lease.
    pub write: LeaseWrite,
    /// At most 99, no two on the same item.
    pub effects: Arc<[Effect]>,
    /// Identifies it: sent again with the same token, write and effects, it happens once. DynamoDB remembers a token
    /// for ten minutes.
    pub token: String,
}

impl LeaseTransaction {
    /// The transaction of `write` and `effects` that `token` identifies (1 to 36 characters).
    #[must_use]
    pub fn new(write: LeaseWrite, effects: Arc<[Effect]>, token: impl Into<String>) -> Self {
        Self { write, effects, token: token.into() }
    }
}

/// What became of a [`LeaseTransaction`].
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum TransactOutcome {
    /// It happened, now or when it was sent before with the same token.
    Applied,
    /// Nothing happened: a condition on the lease did not hold. The row is this (`None`: gone, or unreadable).
    LeaseRefused(Option<Box<Lease>>),
    /// Nothing happened: the conditions on the lease held, but a requirement of this effect was not met.
    EffectRefused {
        /// Its index.
        effect: usize,
        /// The item as it is; `None` if there is none.
        item: Option<Item>,
    },
}
