//! Transactions: a write to a lease and effects on other tables, all or nothing.

use std::sync::Arc;

use kinesis_consumer::lease::{
    Attribute, Effect, Item, ItemKey, Lease, LeaseTransaction, LeaseWrite, Requirement, TransactOutcome,
};
use kinesis_consumer::{Checkpoint, Number};

use crate::rows::OWNED;
use crate::table::{Table, item};

const TOTALS: &str = "totals";

fn at(number: u64) -> Checkpoint {
    Checkpoint::parse(&number.to_string(), 0).unwrap()
}

fn key(id: &str) -> ItemKey {
    ItemKey::new(TOTALS).with("id", id)
}

async fn owned(table: &Table) -> Lease {
    table.create_user_table(TOTALS, "id").await;
    table.put(&item(OWNED)).await;
    Lease::from_item(&item(OWNED)).unwrap().unwrap()
}

fn transaction(lease: &Lease, up_to: u64, token: &str, effects: Vec<Effect>) -> LeaseTransaction {
    let write = LeaseWrite::commit(lease, &lease.checkpoint, &at(up_to));
    LeaseTransaction::new(write, Arc::from(effects), token)
}

fn attributes(item: &Item, id: &str) -> Item {
    let mut item = item.clone();
    assert_eq!(item.remove("id"), Some(Attribute::from(id)));
    item
}

/// What becomes of an item of the effects.
async fn present(table: &Table, id: &str) -> Option<Item> {
    table.user_item(TOTALS, "id", id).await
}

fn n(value: i32) -> Attribute {
    Number::from(value).into()
}

pub(crate) async fn all_of_it_happens(table: &Table) {
    let lease = owned(table).await;
    let item = Item::from([("name".to_owned(), Attribute::from("gone soon"))]);
    let first = vec![
        Effect::update(key("a")).add("n", "0.1".parse::<Number>().unwrap()).set("s", "text"),
        Effect::put_at(key("b"), item).only_if(Requirement::Absent("id".into())),
        Effect::check(key("c")).only_if(Requirement::Absent("id".into())),
    ];
    let first = transaction(&lease, lease_number(&lease) + 1, "one", first);
    assert_eq!(table.store.transact(&first).await.unwrap(), TransactOutcome::Applied);
    let now = table.store.lease(&lease.key).await.unwrap().unwrap();
    assert_eq!((now.counter, &now.checkpoint), (lease.counter + 1, &at(lease_number(&lease) + 1)));
    let second = vec![
        Effect::update(key("a")).add("n", "0.2".parse::<Number>().unwrap()).remove("s"),
        Effect::delete(key("b")).only_if(Requirement::Equals("name".into(), "gone soon".into())),
    ];
    let second = transaction(&now, lease_number(&now) + 1, "two", second);
    assert_eq!(table.store.transact(&second).await.unwrap(), TransactOutcome::Applied);
    let sum = attributes(&present(table, "a").await.unwrap(), "a");
    assert_eq!(sum, Item::from([("n".to_owned(), "0.3".parse::<Number>().unwrap().into())]));
    assert_eq!((present(table, "b").await, present(table, "c").await), (None, None));
}

fn lease_number(lease: &Lease) -> u64 {
    lease.checkpoint.text().parse().unwrap_or(0)
}

pub(crate) async fn the_same_token_happens_once(table: &Table) {
    let lease = owned(table).await;
    let add = vec![Effect::update(key("a")).add("n", 1)];
    let transaction = transaction(&lease, lease_number(&lease) + 1, "again", add);
    for _ in 0..3 {
        assert_eq!(table.store.transact(&transaction).await.unwrap(), TransactOutcome::Applied);
    }
    assert_eq!(present(table, "a").await.unwrap()["n"], n(1));
    assert_eq!(table.store.lease(&lease.key).await.unwrap().unwrap().counter, lease.counter + 1);
}

pub(crate) async fn nothing_happens_if_the_lease_has_changed(table: &Table) {
    let lease = owned(table).await;
    let add = || vec![Effect::update(key("a")).add("n", 1)];
    let mut stale = lease.clone();
    stale.counter -= 1;
    let mut elsewhere = lease.clone();
    elsewhere.checkpoint = at(7);
    for (number, seen) in [stale, elsewhere].into_iter().enumerate() {
        let transaction = transaction(&seen, lease_number(&lease) + 1, &format!("stale {number}"), add());
        let refused = TransactOutcome::LeaseRefused(Some(Box::new(lease.clone())));
        assert_eq!(table.store.transact(&transaction).await.unwrap(), refused);
    }
    let mut gone = lease.clone();
    gone.key = "no such row".into();
    let transaction = transaction(&gone, lease_number(&lease) + 1, "gone", add());
    assert_eq!(table.store.transact(&transaction).await.unwrap(), TransactOutcome::LeaseRefused(None));
    assert_eq!(present(table, "a").await, None);
    assert_eq!(table.store.lease(&lease.key).await.unwrap().unwrap(), lease);
}

pub(crate) async fn nothing_happens_if_a_requirement_is_not_met(table: &Table) {
    let lease = owned(table).await;
    let effects = vec![
        Effect::update(key("a")).add("n", 1),
        Effect::update(key("b")).set("s", "x").only_if(Requirement::Exists("id".into())),
    ];
    let transaction_ = transaction(&lease, lease_number(&lease) + 1, "refused", effects);
    let refused = TransactOutcome::EffectRefused { effect: 1, item: None };
    assert_eq!(table.store.transact(&transaction_).await.unwrap(), refused);
    assert_eq!((present(table, "a").await, present(table, "b").await), (None, None));
    assert_eq!(table.store.lease(&lease.key).await.unwrap().unwrap(), lease);
    // The item that is there comes along.
    let put = vec![Effect::put_at(key("a"), Item::from([("n".to_owned(), n(5))]))];
    let put = transaction(&lease, lease_number(&lease) + 1, "put", put);
    assert_eq!(table.store.transact(&put).await.unwrap(), TransactOutcome::Applied);
    let now = table.store.lease(&lease.key).await.unwrap().unwrap();
    let other = Effect::update(key("a")).add("n", 1).only_if(Requirement::Equals("n".into(), n(4)));
    let other = transaction(&now, lease_number(&now) + 1, "other", vec![other]);
    match table.store.transact(&other).await.unwrap() {
        TransactOutcome::EffectRefused { effect: 0, item: Some(item) } => assert_eq!(item["n"], n(5)),
        outcome => panic!("{outcome:?}"),
    }
}

pub(crate) async fn what_can_never_happen_is_an_error(table: &Table) {
    let lease = owned(table).await;
    for (token, effects) in [
        ("twice", vec![Effect::update(key("a")).add("n", 1), Effect::delete(key("a"))]),
        ("no table", vec![Effect::delete(ItemKey::new("nowhere").with("id", "a"))]),
        ("no key", vec![Effect::update(ItemKey::new(TOTALS).with("other", "a")).add("n", 1)]),
    ] {
        let transaction = transaction(&lease, lease_number(&lease) + 1, token, effects);
        assert!(table.store.transact(&transaction).await.is_err(), "{token}");
    }
    assert_eq!(table.store.lease(&lease.key).await.unwrap().unwrap(), lease);
}
