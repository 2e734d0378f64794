use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Action, Effect, Item, ItemKey};

/// How many transactions are remembered by their tokens.
const TOKENS_MAX: usize = 4096;

/// Tables of users in memory, for the effects of transactions.
#[derive(Debug, Default)]
pub(super) struct UserTables {
    tables: BTreeMap<String, Table>,
    /// Tokens of transactions that happened, the oldest first.
    tokens: VecDeque<String>,
}

#[derive(Debug)]
struct Table {
    key: Vec<String>,
    items: BTreeMap<Item, Item>,
}

/// The effect whose requirement is not met, and the item it is about.
pub(super) type Refused = (usize, Option<Item>);

impl UserTables {
    pub(super) fn create(&mut self, name: &str, key: &[&str]) {
        self.tables.entry(name.to_owned()).or_insert_with(|| Table {
            key: key.iter().map(|name| (*name).to_owned()).collect(),
            items: BTreeMap::new(),
        });
    }

    pub(super) fn items(&self, table: &str) -> Vec<Item> {
        self.tables.get(table).map(|table| table.items.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn has_happened(&self, token: &str) -> bool {
        self.tokens.iter().any(|known| known == token)
    }

    pub(super) fn remember(&mut self, token: &str) {
        if self.tokens.len() == TOKENS_MAX {
            self.tokens.pop_front();
        }
        self.tokens.push_back(token.to_owned());
    }

    /// Carries out all effects, or none if one is refused or, with an error, cannot be carried out.
    pub(super) fn transact(&mut self, effects: &[Effect]) -> Result<Result<(), Refused>, String> {
        let mut seen = BTreeSet::new();
        let mut after = Vec::with_capacity(effects.len());
        for (index, effect) in effects.iter().enumerate() {
            let table = self.tables.get(effect.table());
            let table = table.ok_or_else(|| format!("there is no table {}", effect.table()))?;
            let key = table.key_of(effect)?;
            if !seen.insert((effect.table(), key.clone())) {
                return Err("a transaction cannot include two operations on one item".to_owned());
            }
            let current = table.items.get(&key);
            let empty = Item::new();
            if !effect.requirements.iter().all(|needed| needed.holds(current.unwrap_or(&empty))) {
                return Ok(Err((index, current.cloned())));
            }
            after.push((effect.table(), key.clone(), item_after(effect, key, current)?));
        }
        for (name, key, item) in after {
            let Some(table) = self.tables.get_mut(name) else { continue };
            match item {
                Some(item) => table.items.insert(key, item),
                None => table.items.remove(&key),
            };
        }
        Ok(Ok(()))
    }
}

impl Table {
    fn key_of(&self, effect: &Effect) -> Result<Item, String> {
        let known = effect.key();
        let attributes = match (&effect.action, &known) {
            (Action::Put { item, .. }, _) => item,
            (_, Some(key)) => {
                if key.attributes().len() != self.key.len() {
                    return Err(wrong_key(effect));
                }
                key.attributes()
            }
            (_, None) => return Err(wrong_key(effect)),
        };
        let part = |name: &String| Some((name.clone(), attributes.get(name)?.clone()));
        self.key.iter().map(|name| part(name).ok_or_else(|| wrong_key(effect))).collect()
    }
}

fn wrong_key(effect: &Effect) -> String {
    match effect.key().as_ref().map(ItemKey::to_string) {
        Some(key) => format!("{key} does not have the key of the table"),
        None => format!("an item of table {} lacks its key", effect.table()),
    }
}

fn item_after(effect: &Effect, key: Item, current: Option<&Item>) -> Result<Option<Item>, String> {
    Ok(match &effect.action {
        Action::Put { item, .. } => Some(item.clone()),
        Action::Delete { .. } => None,
        Action::Check { .. } => current.cloned(),
        Action::Update { changes, .. } => {
            let mut item = current.cloned().unwrap_or(key);
            for change in changes {
                if !change.apply_to(&mut item) {
                    return Err(format!("attribute {} cannot be added to", change.attribute()));
                }
            }
            Some(item)
        }
    })
}
