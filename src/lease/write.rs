use std::fmt;

use super::Attribute;
use crate::types::LeaseKey;

/// One conditional change of one row, as data: every store carries it out with the same meaning,
/// and tests and the exhaustive model can look at it.
///
/// All conditions must hold for any update to happen, and then all updates happen at once. Updates
/// leave attributes they do not name alone, so what other implementations wrote survives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LeaseWrite {
    /// What the write is for, as in KCL's metrics: `RenewLease`, `TakeLease`, `UpdateLease` …
    pub operation: &'static str,
    /// The row.
    pub key: LeaseKey,
    /// What must be true of the row.
    pub conditions: Vec<Condition>,
    /// What becomes of it.
    pub updates: Vec<Update>,
}

/// Something that must be true of a row for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// The attribute has exactly this value.
    Equals(&'static str, Attribute),
    /// The attribute is there, whatever its value.
    Exists(&'static str),
    /// The attribute, or the whole row, is not there.
    Absent(&'static str),
}

/// A change of one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Update {
    /// Gives the attribute this value.
    Set(&'static str, Attribute),
    /// Adds to a number; a missing attribute counts as 0.
    Add(&'static str, u64),
    /// Removes the attribute, if it is there.
    Remove(&'static str),
}

impl fmt::Display for LeaseWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.key)?;
        for (index, condition) in self.conditions.iter().enumerate() {
            f.write_str(if index == 0 { " if " } else { " and " })?;
            match condition {
                Condition::Equals(name, value) => write!(f, "{name} = {value:?}")?,
                Condition::Exists(name) => write!(f, "{name} exists")?,
                Condition::Absent(name) => write!(f, "{name} is absent")?,
            }
        }
        for (index, update) in self.updates.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { ", " })?;
            match update {
                Update::Set(name, value) => write!(f, "set {name} to {value:?}")?,
                Update::Add(name, amount) => write!(f, "add {amount} to {name}")?,
                Update::Remove(name) => write!(f, "remove {name}")?,
            }
        }
        Ok(())
    }
}
