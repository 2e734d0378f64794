//! Transactions: a write to a lease together with effects on users' tables.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    Update,
};

use super::attribute::{from_sdk_item, to_sdk_item};
use super::expression::{Expressions, clauses};
use super::{DynamoDbLeaseStore, key_value};
use crate::lease::{
    Action, Change, Effect, ItemKey, LeaseTransaction, LeaseWrite, Requirement, StoreError, StoreErrorKind,
    TransactOutcome, WriteOutcome, names,
};

const REFUSED: &str = "ConditionalCheckFailed";

/// Ends one of the four builders of items, which have nothing in common but the names of their methods.
macro_rules! conditional {
    ($builder:expr, $condition:expr, $expressions:expr) => {
        $builder
            .set_condition_expression($condition)
            .set_expression_attribute_names($expressions.attribute_names())
            .set_expression_attribute_values($expressions.attribute_values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
    };
}

/// What the reasons say for which a transaction was cancelled; the first that applies, as more may hold at once.
#[derive(Debug, PartialEq, Eq)]
enum Cancelled {
    /// The lease is not as it was: the first reason, with the row.
    LeaseRefused,
    /// Nothing was wrong with what was asked; another request was under way.
    Conflict,
    Throttled,
    /// The requirement of this effect is not met.
    EffectRefused(usize),
    /// It can never happen: an item too large, or attributes of the wrong type.
    Malformed(String),
}

impl DynamoDbLeaseStore {
    pub(super) async fn transact_items(
        &self,
        transaction: &LeaseTransaction,
    ) -> Result<TransactOutcome, StoreError> {
        let LeaseTransaction { write, effects, token } = transaction;
        let request = self.row_request(write.operation, "TransactWriteItems", &write.key);
        let items = std::iter::once(self.lease_update(write)).chain(effects.iter().map(item));
        let items: Result<Vec<_>, _> = items.collect();
        let items = items.map_err(|error| request.error(StoreErrorKind::Malformed).with_source(error))?;
        let send =
            self.writes().transact_write_items().client_request_token(token).set_transact_items(Some(items));
        let failure = match self.answer(request, send.send()).await? {
            Ok(_) => return Ok(TransactOutcome::Applied),
            Err(failure) => failure,
        };
        match &failure {
            SdkError::ServiceError(answer) => match answer.err() {
                TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                    let reasons = cancelled.cancellation_reasons();
                    match sort(reasons) {
                        Cancelled::LeaseRefused => {
                            let row = match row_of(reasons.first()) {
                                Some(row) => Some(row),
                                // Endpoints that do not send the row along are asked for it.
                                None => self.item(write.operation, &write.key).await?,
                            };
                            let WriteOutcome::Refused(row) = WriteOutcome::refused_by(row.as_ref()) else {
                                return Err(request.error(StoreErrorKind::Malformed));
                            };
                            Ok(TransactOutcome::LeaseRefused(row))
                        }
                        Cancelled::EffectRefused(effect) => {
                            let item = row_of(reasons.get(effect + 1));
                            Ok(TransactOutcome::EffectRefused { effect, item })
                        }
                        Cancelled::Conflict => Err(request
                            .error(StoreErrorKind::Conflict)
                            .with_detail("the transaction was cancelled (TransactionConflict)")),
                        Cancelled::Throttled => Err(request
                            .error(StoreErrorKind::Throttled)
                            .with_detail("the transaction was cancelled because a table is throttled")),
                        Cancelled::Malformed(reason) => {
                            Err(request.error(StoreErrorKind::Malformed).with_detail(reason))
                        }
                    }
                }
                // An attempt with this token may still succeed.
                error if error.code() == Some("TransactionInProgressException") => Err(request
                    .error(StoreErrorKind::Unavailable)
                    .with_detail("an earlier attempt of the transaction is still under way")),
                _ => Err(request.failed(&failure)),
            },
            _ => Err(request.failed(&failure)),
        }
    }

    fn lease_update(&self, write: &LeaseWrite) -> Result<TransactWriteItem, BuildError> {
        let expressions = Expressions::new(&write.conditions, &write.updates);
        let update = Update::builder()
            .table_name(&self.table)
            .key(names::LEASE_KEY, key_value(&write.key))
            .set_update_expression(expressions.update.clone());
        let update = conditional!(update, expressions.condition.clone(), expressions)?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

fn row_of(reason: Option<&CancellationReason>) -> Option<crate::lease::Item> {
    let item: HashMap<_, _> = reason?.item.clone()?;
    (!item.is_empty()).then(|| from_sdk_item(item))
}

/// The reasons come in the order of the request: the lease, then the effects.
fn sort(reasons: &[CancellationReason]) -> Cancelled {
    let codes: Vec<&str> = reasons.iter().map(|reason| reason.code().unwrap_or("None")).collect();
    let any = |wanted: &[&str]| codes.iter().any(|code| wanted.contains(code));
    if codes.first() == Some(&REFUSED) {
        return Cancelled::LeaseRefused;
    }
    if any(&["TransactionConflict"]) {
        return Cancelled::Conflict;
    }
    if any(&["ProvisionedThroughputExceeded", "ThrottlingError"]) {
        return Cancelled::Throttled;
    }
    if let Some(index) = codes.iter().position(|code| *code == REFUSED) {
        return Cancelled::EffectRefused(index - 1);
    }
    let wrong =
        reasons.iter().enumerate().find(|(_, reason)| reason.code().is_some_and(|code| code != "None"));
    Cancelled::Malformed(match wrong {
        Some((0, reason)) => format!("the lease: {}", reason.code().unwrap_or_default()),
        // Its message may quote values.
        Some((index, reason)) => format!("effect {}: {}", index - 1, reason.code().unwrap_or_default()),
        None => "the transaction was cancelled without a reason".to_owned(),
    })
}

fn item(effect: &Effect) -> Result<TransactWriteItem, BuildError> {
    let mut expressions = Expressions::default();
    let condition = requirements(&mut expressions, &effect.requirements);
    let builder = TransactWriteItem::builder();
    let sdk_key = |key: &ItemKey| Some(to_sdk_item(key.attributes().clone()));
    Ok(match &effect.action {
        Action::Put { table, item, .. } => {
            let put = Put::builder().table_name(table).set_item(Some(to_sdk_item(item.clone())));
            builder.put(conditional!(put, condition, expressions)?)
        }
        Action::Update { key, changes } => {
            let update = Update::builder().table_name(key.table()).set_key(sdk_key(key));
            let update = update.set_update_expression(self::changes(&mut expressions, changes));
            builder.update(conditional!(update, condition, expressions)?)
        }
        Action::Delete { key } => {
            let delete = Delete::builder().table_name(key.table()).set_key(sdk_key(key));
            builder.delete(conditional!(delete, condition, expressions)?)
        }
        Action::Check { key } => {
            let check = ConditionCheck::builder().table_name(key.table()).set_key(sdk_key(key));
            builder.condition_check(conditional!(check, condition, expressions)?)
        }
    }
    .build())
}

fn requirements(expressions: &mut Expressions, requirements: &[Requirement]) -> Option<String> {
    let terms: Vec<_> = requirements
        .iter()
        .map(|requirement| match requirement {
            Requirement::Equals(name, value) => {
                format!("{} = {}", expressions.name(name), expressions.value(value))
            }
            Requirement::Exists(name) => format!("attribute_exists({})", expressions.name(name)),
            Requirement::Absent(name) => format!("attribute_not_exists({})", expressions.name(name)),
        })
        .collect();
    (!terms.is_empty()).then(|| terms.join(" AND "))
}

fn changes(expressions: &mut Expressions, changes: &[Change]) -> Option<String> {
    let [mut set, mut remove, mut add] = [(); 3].map(|()| Vec::new());
    for change in changes {
        let name = expressions.name(change.attribute());
        match change {
            Change::Set(_, value) => set.push(format!("{name} = {}", expressions.value(value))),
            Change::Remove(_) => remove.push(name),
            Change::Add(_, amount) => {
                add.push(format!("{name} {}", expressions.value(&amount.clone().into())));
            }
        }
    }
    clauses([("SET", set), ("REMOVE", remove), ("ADD", add)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sorted_by_what_to_do_next() {
        let reasons = |codes: &str| -> Vec<CancellationReason> {
            codes.split(' ').map(|code| CancellationReason::builder().code(code).build()).collect()
        };
        for (codes, cancelled) in [
            ("ConditionalCheckFailed None", Cancelled::LeaseRefused),
            ("ConditionalCheckFailed TransactionConflict ConditionalCheckFailed", Cancelled::LeaseRefused),
            ("None TransactionConflict ConditionalCheckFailed", Cancelled::Conflict),
            ("None ThrottlingError", Cancelled::Throttled),
            ("None None ConditionalCheckFailed", Cancelled::EffectRefused(1)),
            (
                "None ItemCollectionSizeLimitExceeded",
                Cancelled::Malformed("effect 0: ItemCollectionSizeLimitExceeded".to_owned()),
            ),
        ] {
            assert_eq!(sort(&reasons(codes)), cancelled, "{codes}");
        }
    }
}
