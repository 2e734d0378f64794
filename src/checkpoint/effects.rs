use std::collections::HashMap;
use std::sync::Arc;

use crate::lease::{Action, Attribute, Change, Effect, Item, ItemKey};
use crate::planted::{Bug, planted};

/// A transaction of DynamoDB has 100 items at most, one of which is the lease.
pub(super) const EFFECTS_MAX: usize = 99;
/// It has 4 MB at most; some of that is for the lease.
pub(super) const BYTES_MAX: usize = 4_000_000 - 16_384;

/// An effect that does not fit into a transaction: commit what is there, and begin the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// A transaction has 99 effects at most.
    #[error("the transaction has 99 effects already; commit it, and go on in the next one")]
    Effects,
    /// A transaction has 4 MB at most.
    #[error("the transaction would exceed 4 MB; commit it, and go on in the next one")]
    Bytes,
    /// A transaction writes each item once, and this effect cannot be combined with the one that is there already.
    #[error(
        "the transaction writes this item already, in a way that cannot be combined; commit it, and go on in the next one"
    )]
    SameItem,
}

/// The effects of a transaction: one for each item.
#[derive(Debug, Clone, Default)]
pub(super) struct Effects {
    effects: Vec<Effect>,
    by_key: HashMap<ItemKey, usize>,
    bytes: usize,
    /// What to put back to be where [`mark`](Self::mark) was called, the last change last; `None` where an effect was added.
    undo: Vec<(usize, Option<Effect>)>,
}

impl Effects {
    pub(super) fn len(&self) -> usize {
        self.effects.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    pub(super) fn to_shared(&self) -> Arc<[Effect]> {
        self.effects.clone().into()
    }

    /// Adds an effect, or combines it with the one on the same item. If it does not fit, nothing changes.
    pub(super) fn push(&mut self, effect: Effect) -> Result<(), Full> {
        let key = effect.key();
        let present = match &key {
            Some(key) => self.by_key.get(key).copied(),
            // The same item again is the same effect.
            None if self.effects.contains(&effect) => return Ok(()),
            None => None,
        };
        let Some(index) = present else {
            let bytes = self.bytes + effect.bytes();
            if self.effects.len() >= EFFECTS_MAX {
                return Err(Full::Effects);
            }
            if bytes > BYTES_MAX {
                return Err(Full::Bytes);
            }
            if let Some(key) = key {
                self.by_key.insert(key, self.effects.len());
            }
            self.undo.push((self.effects.len(), None));
            self.effects.push(effect);
            self.bytes = bytes;
            return Ok(());
        };
        let before = &self.effects[index];
        let combined = combine(before, effect).ok_or(Full::SameItem)?;
        let bytes = self.bytes - before.bytes() + combined.bytes();
        if bytes > BYTES_MAX {
            return Err(Full::Bytes);
        }
        self.bytes = bytes;
        let before = std::mem::replace(&mut self.effects[index], combined);
        self.undo.push((index, Some(before)));
        Ok(())
    }

    /// From here on changes can be taken back.
    pub(super) fn mark(&mut self) {
        self.undo.clear();
    }

    /// Takes back what was added since [`mark`](Self::mark).
    pub(super) fn roll_back(&mut self) {
        while let Some((index, before)) = self.undo.pop() {
            self.bytes -= self.effects[index].bytes();
            match before {
                Some(before) => {
                    self.bytes += before.bytes();
                    self.effects[index] = before;
                }
                None => {
                    if let Some(key) = self.effects.pop().and_then(|effect| effect.key()) {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
    }
}

/// One effect that does what `first` and then `second` would do to the same item; `None` if there is none.
fn combine(first: &Effect, second: Effect) -> Option<Effect> {
    if !second.requirements.is_empty() {
        // They are about the item as `first` leaves it, and could only be checked before.
        return (*first == second && matches!(first.action, Action::Check { .. })).then_some(second);
    }
    let action = match (&first.action, second.action) {
        (_, Action::Check { .. }) => first.action.clone(),
        (_, action @ (Action::Put { .. } | Action::Delete { .. })) => action,
        (Action::Check { .. }, action) => action,
        (Action::Update { key, changes: before }, Action::Update { changes, .. }) => {
            let mut before = before.clone();
            for change in changes {
                then(&mut before, change)?;
            }
            Action::Update { key: key.clone(), changes: before }
        }
        (Action::Put { table, item, key }, Action::Update { changes, .. }) => {
            let item = changed(item.clone(), &changes)?;
            Action::Put { table: table.clone(), item, key: key.clone() }
        }
        (Action::Delete { key }, Action::Update { changes, .. }) => Action::Put {
            table: key.table().to_owned(),
            item: changed(key.attributes().clone(), &changes)?,
            key: key.attributes().keys().cloned().collect(),
        },
    };
    Some(Effect { action, ..first.clone() })
}

fn changed(mut item: Item, changes: &[Change]) -> Option<Item> {
    changes.iter().all(|change| change.apply_to(&mut item)).then_some(item)
}

/// Adds a change to those of an update, each of another attribute.
fn then(changes: &mut Vec<Change>, next: Change) -> Option<()> {
    let Some(present) = changes.iter_mut().find(|change| change.attribute() == next.attribute()) else {
        changes.push(next);
        return Some(());
    };
    *present = match (&*present, next) {
        (_, next @ (Change::Set(..) | Change::Remove(_))) => next,
        (Change::Add(name, amount), Change::Add(_, more)) => {
            Change::Add(name.clone(), amount.checked_add(&more)?)
        }
        (Change::Set(name, Attribute::N(_)), next @ Change::Add(..)) if planted(Bug::FoldsSetsAsAdds) => {
            let _ = name;
            next
        }
        (Change::Set(name, Attribute::N(number)), Change::Add(_, more)) => Change::Set(
            name.clone(),
            number.parse().ok().and_then(|number: crate::lease::Number| number.checked_add(&more))?.into(),
        ),
        (Change::Set(..), Change::Add(..)) => return None,
        (Change::Remove(name), Change::Add(_, amount)) => Change::Set(name.clone(), amount.into()),
    };
    Some(())
}

#[cfg(test)]
#[path = "effects_test.rs"]
mod tests;
