use std::collections::BTreeMap;
use std::fmt;

use super::{Attribute, Item, Number};

/// The key of an item in one of the user's tables: the table, and the one or two attributes of its primary key.
///
/// ```
/// use kinesis_consumer::lease::ItemKey;
///
/// let day = ItemKey::new("Analytics").with("PK", "REVENUE#2026-11-27").with("SK", "TOTAL");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    table: String,
    attributes: Item,
}

impl ItemKey {
    /// A key in `table`: its name, or its ARN; in the account and region of the lease table.
    #[must_use]
    pub fn new(table: impl Into<String>) -> Self {
        Self { table: table.into(), attributes: BTreeMap::new() }
    }

    /// With an attribute of the primary key.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Attribute>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The attributes of the primary key.
    #[must_use]
    pub fn attributes(&self) -> &Item {
        &self.attributes
    }
}

/// Shows the table and the names of the key's attributes; their values may be record data.
impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.attributes.keys().map(String::as_str).collect();
        write!(f, "an item of table {} (key {})", self.table, names.join(", "))
    }
}

/// A write to one of the user's tables, which happens together with a checkpoint or not at all.
///
/// ```
/// use kinesis_consumer::lease::{Effect, ItemKey, Requirement};
///
/// let stock = ItemKey::new("Stock").with("sku", "A-1");
/// let take_one = Effect::update(stock).add("reserved", 1).only_if(Requirement::Exists("sku".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effect {
    /// What is written.
    pub action: Action,
    /// What must be true of the item before; if it is not, nothing of the transaction is written.
    pub requirements: Vec<Requirement>,
}

/// What an [`Effect`] writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Puts this item, in the place of one with the same key.
    Put {
        /// The table.
        table: String,
        /// The item, its key included.
        item: Item,
        /// The names of the attributes of its primary key, as far as they are known.
        key: Vec<String>,
    },
    /// Changes attributes of the item, and creates it if it is not there.
    Update {
        /// The item.
        key: ItemKey,
        /// At most one for each attribute.
        changes: Vec<Change>,
    },
    /// Deletes the item, if it is there.
    Delete {
        /// The item.
        key: ItemKey,
    },
    /// Only checks the requirements.
    Check {
        /// The item.
        key: ItemKey,
    },
}

/// A change of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Gives it this value.
    Set(String, Attribute),
    /// Adds to a number; a missing attribute counts as 0.
    Add(String, Number),
    /// Removes it.
    Remove(String),
}

/// Something that must be true of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requirement {
    /// The attribute has this value; numbers are compared by value.
    Equals(String, Attribute),
    /// The attribute is there.
    Exists(String),
    /// The attribute, or the whole item, is not there.
    Absent(String),
}

impl Effect {
    /// Puts `item`, which has the attributes of the primary key of `table`. Where several effects may be of the same
    /// item, [`put_at`](Self::put_at) says so, and they become one.
    #[must_use]
    pub fn put(table: impl Into<String>, item: Item) -> Self {
        Self::of(Action::Put { table: table.into(), item, key: Vec::new() })
    }

    /// Puts an item with this key and these further attributes.
    #[must_use]
    pub fn put_at(key: ItemKey, attributes: Item) -> Self {
        let names = key.attributes.keys().cloned().collect();
        let mut item = attributes;
        item.extend(key.attributes);
        Self::of(Action::Put { table: key.table, item, key: names })
    }

    /// Changes the item by what is called on it: [`set`](Self::set), [`add`](Self::add), [`remove`](Self::remove).
    #[must_use]
    pub fn update(key: ItemKey) -> Self {
        Self::of(Action::Update { key, changes: Vec::new() })
    }

    /// Deletes the item.
    #[must_use]
    pub fn delete(key: ItemKey) -> Self {
        Self::of(Action::Delete { key })
    }

    /// Only checks what [`only_if`](Self::only_if) says.
    #[must_use]
    pub fn check(key: ItemKey) -> Self {
        Self::of(Action::Check { key })
    }

    /// An update that gives an attribute this value. No effect on other kinds.
    #[must_use]
    pub fn set(self, name: impl Into<String>, value: impl Into<Attribute>) -> Self {
        self.change(Change::Set(name.into(), value.into()))
    }

    /// An update that adds to a number. No effect on other kinds.
    #[must_use]
    pub fn add(self, name: impl Into<String>, amount: impl Into<Number>) -> Self {
        self.change(Change::Add(name.into(), amount.into()))
    }

    /// An update that removes an attribute. No effect on other kinds.
    #[must_use]
    pub fn remove(self, name: impl Into<String>) -> Self {
        self.change(Change::Remove(name.into()))
    }

    /// With a requirement. If it is not met, nothing of the transaction is written.
    #[must_use]
    pub fn only_if(mut self, requirement: Requirement) -> Self {
        self.requirements.push(requirement);
        self
    }

    /// The table it is about.
    #[must_use]
    pub fn table(&self) -> &str {
        match &self.action {
            Action::Put { table, .. } => table,
            Action::Update { key, .. } | Action::Delete { key } | Action::Check { key } => &key.table,
        }
    }

    /// The item it is about, if its key is known.
    #[must_use]
    pub fn key(&self) -> Option<ItemKey> {
        match &self.action {
            Action::Put { key, .. } if key.is_empty() => None,
            Action::Put { table, item, key } => {
                let attributes = key.iter().filter_map(|name| Some((name.clone(), item.get(name)?.clone())));
                Some(ItemKey { table: table.clone(), attributes: attributes.collect() })
            }
            Action::Update { key, .. } | Action::Delete { key } | Action::Check { key } => Some(key.clone()),
        }
    }

    /// About how many bytes it takes of the 4 MB of a transaction.
    pub(crate) fn bytes(&self) -> usize {
        let item =
            |item: &Item| -> usize { item.iter().map(|(name, value)| name.len() + value.bytes()).sum() };
        let action = match &self.action {
            Action::Put { table, item: put, .. } => table.len() + item(put),
            Action::Update { key, changes } => {
                let changes = changes.iter().map(|change| match change {
                    Change::Set(name, value) => name.len() + value.bytes(),
                    Change::Add(name, amount) => name.len() + amount.to_string().len(),
                    Change::Remove(name) => name.len(),
                });
                key.table.len() + item(&key.attributes) + changes.sum::<usize>()
            }
            Action::Delete { key } | Action::Check { key } => key.table.len() + item(&key.attributes),
        };
        let requirements = self.requirements.iter().map(|requirement| match requirement {
            Requirement::Equals(name, value) => name.len() + value.bytes(),
            Requirement::Exists(name) | Requirement::Absent(name) => name.len(),
        });
        action + requirements.sum::<usize>()
    }

    fn of(action: Action) -> Self {
        Self { action, requirements: Vec::new() }
    }

    fn change(mut self, change: Change) -> Self {
        if let Action::Update { changes, .. } = &mut self.action {
            changes.retain(|present| present.attribute() != change.attribute());
            changes.push(change);
        }
        self
    }
}

impl Change {
    /// The attribute it changes.
    #[must_use]
    pub fn attribute(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Add(name, _) | Self::Remove(name) => name,
        }
    }

    /// Carries it out on an item; `false` if something is to be added to what is no number, or the sum is too large.
    #[must_use]
    pub(crate) fn apply_to(&self, item: &mut Item) -> bool {
        match self {
            Self::Set(name, value) => {
                item.insert(name.clone(), value.clone());
            }
            Self::Remove(name) => {
                item.remove(name);
            }
            Self::Add(name, amount) => {
                let sum = match item.get(name) {
                    None => amount.clone().within_limits(),
                    Some(Attribute::N(text)) => {
                        text.parse().ok().and_then(|number: Number| number.checked_add(amount))
                    }
                    Some(_) => None,
                };
                let Some(sum) = sum else { return false };
                item.insert(name.clone(), sum.into());
            }
        }
        true
    }
}

impl Requirement {
    /// Whether it is true of `item`; of no item at all, pass an empty one.
    #[must_use]
    pub fn holds(&self, item: &Item) -> bool {
        match self {
            Self::Equals(name, value) => item.get(name).is_some_and(|current| current.equals(value)),
            Self::Exists(name) => item.contains_key(name),
            Self::Absent(name) => !item.contains_key(name),
        }
    }
}
