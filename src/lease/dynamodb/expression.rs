use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::attribute::to_sdk;
use crate::lease::{Attribute, Condition, Update};

/// DynamoDB's expressions for conditions and updates. Every attribute goes by an alias, because many
/// ordinary words are reserved.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    pub(super) condition: Option<String>,
    pub(super) update: Option<String>,
    names: Vec<String>,
    values: Vec<Attribute>,
}

impl Expressions {
    pub(super) fn new(conditions: &[Condition], updates: &[Update]) -> Self {
        let mut expressions = Self::default();
        expressions.condition = expressions.conditions(conditions);
        expressions.update = expressions.updates(updates);
        expressions
    }

    /// The aliases and what they stand for; `None` without any, as the API wants it.
    pub(super) fn attribute_names(&self) -> Option<HashMap<String, String>> {
        let aliases = self.names.iter().enumerate();
        let map: HashMap<_, _> = aliases.map(|(index, name)| (format!("#n{index}"), name.clone())).collect();
        (!map.is_empty()).then_some(map)
    }

    /// The values the expressions refer to; `None` without any.
    pub(super) fn attribute_values(self) -> Option<HashMap<String, AttributeValue>> {
        let values = self.values.into_iter().enumerate();
        let map: HashMap<_, _> = values.map(|(index, value)| (format!(":v{index}"), to_sdk(value))).collect();
        (!map.is_empty()).then_some(map)
    }

    fn conditions(&mut self, conditions: &[Condition]) -> Option<String> {
        let terms: Vec<_> = conditions
            .iter()
            .map(|condition| match condition {
                Condition::Equals(name, value) => format!("{} = {}", self.name(name), self.value(value)),
                Condition::EqualsOrAbsent(name, value) => {
                    let name = self.name(name);
                    format!("({name} = {} OR attribute_not_exists({name}))", self.value(value))
                }
                Condition::Exists(name) => format!("attribute_exists({})", self.name(name)),
                Condition::Absent(name) => format!("attribute_not_exists({})", self.name(name)),
            })
            .collect();
        (!terms.is_empty()).then(|| terms.join(" AND "))
    }

    fn updates(&mut self, updates: &[Update]) -> Option<String> {
        let [mut set, mut remove, mut add] = [(); 3].map(|()| Vec::new());
        for update in updates {
            match update {
                Update::Set(name, value) => set.push(format!("{} = {}", self.name(name), self.value(value))),
                Update::Remove(name) => remove.push(self.name(name)),
                Update::Add(name, amount) => {
                    let amount = self.value(&Attribute::N(amount.to_string()));
                    add.push(format!("{} {amount}", self.name(name)));
                }
            }
        }
        clauses([("SET", set), ("REMOVE", remove), ("ADD", add)])
    }

    pub(super) fn name(&mut self, name: &str) -> String {
        let index = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        format!("#n{index}")
    }

    pub(super) fn value(&mut self, value: &Attribute) -> String {
        self.values.push(value.clone());
        format!(":v{}", self.values.len() - 1)
    }
}

/// The update expression of these clauses; `None` if all are empty.
pub(super) fn clauses(clauses: [(&str, Vec<String>); 3]) -> Option<String> {
    let clauses = clauses.into_iter().filter(|(_, terms)| !terms.is_empty());
    let texts: Vec<_> = clauses.map(|(clause, terms)| format!("{clause} {}", terms.join(", "))).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Lease, LeaseWrite};
    use crate::types::Checkpoint;

    #[test]
    fn a_write_becomes_expressions_with_aliases_only() {
        let mut lease = Lease::new("shardId-0", Checkpoint::Latest);
        lease.owner = Some("a".into());
        let write = LeaseWrite::assign(&lease, &"b".into());
        let expressions = Expressions::new(&write.conditions, &write.updates);
        assert_eq!(
            expressions.condition.as_deref(),
            Some("#n0 = :v0 AND #n1 = :v1 AND attribute_not_exists(#n2)")
        );
        assert_eq!(expressions.update.as_deref(), Some("SET #n1 = :v2 REMOVE #n2 ADD #n3 :v3, #n4 :v4"));
        let names = expressions.attribute_names().unwrap();
        assert_eq!((names.len(), names["#n1"].as_str()), (5, "leaseOwner"));
        let values = expressions.attribute_values().unwrap();
        assert_eq!((values.len(), &values[":v2"]), (5, &AttributeValue::S("b".to_owned())));
    }

    #[test]
    fn nothing_to_say_is_none() {
        let expressions = Expressions::new(&[], &[]);
        assert_eq!((&expressions.condition, &expressions.update), (&None, &None));
        assert!(expressions.attribute_names().is_none() && expressions.attribute_values().is_none());
    }
}
