use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::decimal::Decimal;

/// A row of the lease table: attribute names and values, as any KCL may have written them.
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

impl Attribute {
    /// A number.
    pub(super) fn number(value: u64) -> Self {
        Self::N(value.to_string())
    }

    /// About how many bytes it takes in DynamoDB, not less.
    pub(super) fn bytes(&self) -> usize {
        let texts = |texts: &BTreeSet<String>| texts.iter().map(|text| text.len() + 1).sum();
        match self {
            Self::S(text) | Self::N(text) => text.len() + 1,
            Self::B(bytes) => bytes.len() + 1,
            Self::Bool(_) | Self::Null => 1,
            Self::Ss(set) | Self::Ns(set) => texts(set),
            Self::Bs(set) => set.iter().map(|bytes| bytes.len() + 1).sum(),
            Self::L(values) => 3 + values.iter().map(|value| 1 + value.bytes()).sum::<usize>(),
            Self::M(map) => 3 + map.iter().map(|(name, value)| 1 + name.len() + value.bytes()).sum::<usize>(),
        }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::S(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub(crate) fn float(&self) -> Option<f64> {
        match self {
            Self::N(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }

    /// Whether a DynamoDB condition finds the two equal: same type, numbers by value.
    pub(super) fn equals(&self, other: &Self) -> bool {
        let numbers = |texts: &BTreeSet<String>| -> BTreeSet<_> {
            texts.iter().map(|text| Decimal::parse(text).ok_or_else(|| text.clone())).collect()
        };
        match (self, other) {
            (Self::N(a), Self::N(b)) => {
                a == b || Decimal::parse(a).is_some_and(|a| Some(a) == Decimal::parse(b))
            }
            (Self::Ns(a), Self::Ns(b)) => numbers(a) == numbers(b),
            (Self::L(a), Self::L(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Self::M(a), Self::M(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|((i, a), (k, b))| i == k && a.equals(b))
            }
            (a, b) => a == b,
        }
    }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::S(text.to_owned())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::S(text)
    }
}

impl From<bool> for Attribute {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
