use proptest::prelude::*;

use super::*;
use crate::lease::{Number, Requirement};

fn key(id: u8) -> ItemKey {
    ItemKey::new("table").with("id", id.to_string())
}

/// What effects make of the items of a table, one after the other, as DynamoDB would.
fn apply(items: &mut HashMap<ItemKey, Item>, effect: &Effect) -> bool {
    let key = effect.key().expect("known");
    match &effect.action {
        Action::Put { item, .. } => drop(items.insert(key, item.clone())),
        Action::Delete { .. } => drop(items.remove(&key)),
        Action::Check { .. } => {}
        Action::Update { changes, .. } => {
            let item = items.entry(key.clone()).or_insert_with(|| key.attributes().clone());
            return changes.iter().all(|change| change.apply_to(item));
        }
    }
    true
}

fn effect() -> impl Strategy<Value = Effect> {
    let name = prop_oneof![Just("a"), Just("b")];
    let change = (name, 0..4_u8, -9..9_i32);
    (0..3_u8, 0..6_u8, proptest::collection::vec(change, 0..3)).prop_map(|(id, kind, changes)| match kind {
        0 => Effect::delete(key(id)),
        1 => Effect::put_at(key(id), Item::from([("a".to_owned(), Number::from(i32::from(id)).into())])),
        _ => changes.into_iter().fold(Effect::update(key(id)), |effect, (name, kind, number)| match kind {
            0 => effect.set(name, Number::from(number)),
            1 => effect.remove(name),
            _ => effect.add(name, number),
        }),
    })
}

proptest! {
    #[test]
    fn combined_effects_do_what_each_would_do_in_turn(
        before in proptest::collection::vec(effect(), 0..4),
        effects in proptest::collection::vec(effect(), 0..12),
    ) {
        let mut items = HashMap::new();
        for effect in &before {
            let _ = apply(&mut items, effect);
        }
        let mut in_turn = items.clone();
        let mut folded = Effects::default();
        for effect in effects {
            if folded.push(effect.clone()).is_ok() {
                prop_assert!(apply(&mut in_turn, &effect));
            }
        }
        prop_assert!(folded.len() <= 3, "one for each item");
        for effect in &folded.effects {
            prop_assert!(apply(&mut items, effect));
        }
        prop_assert_eq!(items, in_turn);
    }

    #[test]
    fn what_is_taken_back_leaves_nothing(
        kept in proptest::collection::vec(effect(), 0..6),
        taken_back in proptest::collection::vec(effect(), 0..6),
    ) {
        let mut effects = Effects::default();
        for effect in kept {
            let _ = effects.push(effect);
        }
        let before = (effects.effects.clone(), effects.by_key.clone(), effects.bytes);
        effects.mark();
        for effect in taken_back {
            let _ = effects.push(effect);
        }
        effects.roll_back();
        prop_assert_eq!((effects.effects, effects.by_key, effects.bytes), before);
    }
}

#[test]
fn a_transaction_has_its_limits() {
    let mut effects = Effects::default();
    for id in 0..99 {
        assert_eq!(effects.push(Effect::update(key(id)).add("n", 1)), Ok(()));
    }
    assert_eq!(effects.push(Effect::update(key(99)).add("n", 1)), Err(Full::Effects));
    assert_eq!(effects.push(Effect::update(key(5)).add("n", 1)), Ok(()), "an item that is there");
    let mut effects = Effects::default();
    let large = |id| Effect::update(key(id)).set("text", "x".repeat(390_000));
    assert_eq!((0..11).filter(|id| effects.push(large(*id)).is_ok()).count(), 10);
    assert_eq!(effects.push(large(11)), Err(Full::Bytes));
}

#[test]
fn what_cannot_be_combined_is_refused() {
    let mut effects = Effects::default();
    assert_eq!(effects.push(Effect::update(key(1)).add("n", 1)), Ok(()));
    let conditional = Effect::update(key(1)).set("n", "text").only_if(Requirement::Exists("n".into()));
    assert_eq!(effects.push(conditional), Err(Full::SameItem));
    assert_eq!(effects.push(Effect::update(key(2)).set("n", "text")), Ok(()));
    assert_eq!(effects.push(Effect::update(key(2)).add("n", 1)), Err(Full::SameItem));
}

#[test]
fn requirements_of_the_first_effect_stay() {
    let mut effects = Effects::default();
    let unless_there = Requirement::Absent("id".into());
    effects.push(Effect::put_at(key(1), Item::new()).only_if(unless_there.clone())).unwrap();
    effects.push(Effect::update(key(1)).add("n", 2)).unwrap();
    let expected = Effect::put_at(key(1), Item::from([("n".to_owned(), Number::from(2).into())]));
    assert_eq!(effects.effects, [expected.only_if(unless_there)]);
}
