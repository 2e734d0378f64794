use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// A row of the lease table: attribute names and values, whoever wrote them.
pub type Item = BTreeMap<String, Attribute>;

/// A DynamoDB attribute value, free of any SDK type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Attribute {
    /// A text.
    S(String),
    /// A number in decimal.
    N(String),
    /// Bytes.
    B(Bytes),
    /// A boolean.
    Bool(bool),
    /// Nothing.
    Null,
    /// A set of texts.
    Ss(BTreeSet<String>),
    /// A set of numbers in decimal.
    Ns(BTreeSet<String>),
    /// A set of byte strings.
    Bs(BTreeSet<Bytes>),
    /// A list.
    L(Vec<Self>),
    /// A map.
    M(BTreeMap<String, Self>),
}
