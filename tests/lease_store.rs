//! One suite over every lease store: what holds in memory holds in DynamoDB.
//!
//! DynamoDB is an embedded one, or the endpoint that `KINESIS_CONSUMER_DYNAMODB_URL` names.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

#[path = "lease_store/dynamodb.rs"]
mod dynamodb;
#[path = "lease_store/entities.rs"]
mod entities;
#[path = "lease_store/faults.rs"]
mod faults;
#[path = "lease_store/rows.rs"]
mod rows;
#[path = "lease_store/table.rs"]
mod table;
#[path = "lease_store/transactions.rs"]
mod transactions;
#[path = "lease_store/writes.rs"]
mod writes;

/// Runs each test of the suite over each store.
macro_rules! on_every_store {
    ($($module:ident::$test:ident),+ $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                crate::$module::$test(&crate::table::Table::in_memory()).await;
            })+
        }

        mod in_dynamodb {
            $(#[tokio::test]
            async fn $test() {
                crate::$module::$test(&crate::table::Table::in_dynamodb(stringify!($test)).await).await;
            })+
        }
    };
}

on_every_store! {
    rows::a_row_is_created_once,
    rows::rows_of_every_kcl_version_are_read_and_written_back_unchanged,
    rows::rows_of_other_kinds_are_no_leases,
    rows::unreadable_rows_are_reported_and_left_alone,
    rows::a_scan_finds_every_row_of_a_large_table,
    rows::only_ended_leases_are_deleted,
    rows::leases_are_found_by_owner,
    entities::the_lock_is_put_once_and_kept_by_heartbeats,
    entities::the_lock_is_deleted_only_by_who_holds_it,
    transactions::all_of_it_happens,
    transactions::the_same_token_happens_once,
    transactions::nothing_happens_if_the_lease_has_changed,
    transactions::nothing_happens_if_a_requirement_is_not_met,
    transactions::what_can_never_happen_is_an_error,
    writes::renew,
    writes::renew_during_a_handoff,
    writes::take,
    writes::release,
    writes::checkpoint,
    writes::checkpoint_end,
    writes::prepare,
    writes::details,
    writes::assign,
    writes::handoff,
    writes::a_missing_row_is_never_created,
    writes::unknown_attributes_survive_every_write,
    writes::numbers_are_compared_by_value,
    writes::one_of_many_takers_wins,
}
