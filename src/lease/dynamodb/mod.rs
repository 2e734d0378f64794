//! The lease table in DynamoDB: the only part of leases that knows the SDK.

mod attribute;
mod expression;
mod failure;
mod legacy;
mod owner_index;
mod table;
mod transact;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::Config;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures_util::future::try_join_all;
use parking_lot::Mutex;

use self::attribute::{SdkItem, from_sdk_item, to_sdk_item};
use self::expression::Expressions;
use self::failure::Request;
use self::legacy::{Known, Place, conditions_to_place, from_place, to_place};
use self::owner_index::OwnerIndex;
use super::{
    Attribute, Condition, Created, EntityKind, EntityOutcome, Item, Lease, LeaseScan, LeaseStore,
    LeaseTransaction, LeaseWrite, StoreError, StoreErrorKind, TableSpec, TransactOutcome, WriteOutcome,
    names,
};
use crate::connections::{Connections, PoolNumber, is_timeout};
use crate::runtime::Clock;
use crate::types::{LeaseKey, Moment, WorkerId};

/// KCL's `dynamoDbRequestTimeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a number of scan segments derived from the table's size is good for.
const SEGMENTS_VALID: Duration = Duration::from_secs(2 * 60 * 60);
/// Scan segments while the table's size is unknown.
const SEGMENTS_FALLBACK: u32 = 10;
/// The most segments DynamoDB allows, and the most chosen from the table's size.
const SEGMENTS_MAX: u32 = 1_000_000;
const SEGMENTS_AUTO_MAX: u64 = 32;
/// One segment per 0.2 GiB.
const BYTES_PER_SEGMENT: u64 = (1 << 30) / 5;

/// The lease table in DynamoDB.
pub(crate) struct DynamoDbLeaseStore {
    connections: Connections<Clients>,
    table: String,
    /// Its ARN and its id, once it was seen to be ready.
    identity: OnceLock<String>,
    /// By whose name tables of KCL 3.0 to 3.4 are looked for; `None`: they are not.
    application: Option<String>,
    legacy: tokio::sync::Mutex<Option<Known>>,
    request_timeout: Duration,
    /// Configured scan segments; `None` derives them from the table's size.
    segments: Option<u32>,
    segments_cached: Mutex<Option<(Moment, u32)>>,
    clock: Clock,
}

/// The clients of one pool of connections.
#[derive(Debug, Clone)]
struct Clients {
    /// For reads and for the table itself: retries as the user's configuration has it.
    reads: Client,
    /// For writes of rows: never retries. An attempt the SDK repeats after the first one landed
    /// unnoticed would be refused, and look like a race lost to another worker.
    writes: Client,
}

impl Clients {
    fn new(config: &Config, pool: PoolNumber) -> Self {
        let config = config.to_builder().timeout_config(pool.timeouts(config.timeout_config()));
        let single_attempt = config.clone().retry_config(RetryConfig::disabled());
        Self { reads: Client::from_conf(config.build()), writes: Client::from_conf(single_attempt.build()) }
    }
}

impl DynamoDbLeaseStore {
    /// A store on `table`, which need not exist yet.
    pub(crate) fn new(client: &Client, table: impl Into<String>, clock: Clock) -> Self {
        let config = client.config().clone();
        Self {
            connections: Connections::new(clock.clone(), move |pool| Clients::new(&config, pool)),
            table: table.into(),
            identity: OnceLock::new(),
            application: None,
            legacy: tokio::sync::Mutex::default(),
            request_timeout: REQUEST_TIMEOUT,
            segments: None,
            segments_cached: Mutex::new(None),
            clock,
        }
    }

    /// Gives each request at most `timeout`, the SDK's retries of a read included (60 s).
    pub(crate) fn with_request_timeout(self, timeout: Duration) -> Self {
        Self { request_timeout: timeout, ..self }
    }

    /// Looks for tables that KCL 3.0 to 3.4 made for `application`, and keeps rows that are no leases in
    /// them as long as the fleet does.
    pub(crate) fn with_legacy_tables_of(self, application: &str) -> Self {
        Self { application: Some(application.to_owned()), ..self }
    }

    /// Scans in `segments` parts at once; `None` derives their number from the table's size.
    pub(crate) fn with_scan_segments(self, segments: Option<u32>) -> Self {
        Self { segments: segments.map(|segments| segments.clamp(1, SEGMENTS_MAX)), ..self }
    }

    fn request<'a>(&'a self, operation: &'static str, api: &'static str) -> Request<'a> {
        Request { operation, api, table: &self.table, row: None }
    }

    fn row_request<'a>(
        &'a self,
        operation: &'static str,
        api: &'static str,
        key: &'a LeaseKey,
    ) -> Request<'a> {
        Request { row: Some(key.as_str()), ..self.request(operation, api) }
    }

    /// Waits for an answer within the request timeout; the service's refusals are left to the caller.
    async fn answer<T, E>(
        &self,
        request: Request<'_>,
        response: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<Result<T, SdkError<E, HttpResponse>>, StoreError> {
        let in_flight = self.connections.watch(self.request_timeout);
        match self.clock.timeout(self.request_timeout, response).await {
            Ok(Err(failure)) if is_timeout(&failure) => {
                in_flight.timed_out();
                Ok(Err(failure))
            }
            Ok(answer) => {
                in_flight.answered();
                Ok(answer)
            }
            Err(_) => {
                in_flight.timed_out();
                Err(request.timed_out(self.request_timeout))
            }
        }
    }

    fn reads(&self) -> Client {
        self.connections.clients().reads
    }

    fn writes(&self) -> Client {
        self.connections.clients().writes
    }

    /// Waits for an answer within the request timeout; any failure is an error.
    async fn send<T, E>(
        &self,
        request: Request<'_>,
        response: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, StoreError>
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        self.answer(request, response).await?.map_err(|failure| request.failed(&failure))
    }

    async fn item(&self, operation: &'static str, key: &LeaseKey) -> Result<Option<Item>, StoreError> {
        self.item_at(operation, &self.own_place(), key).await
    }

    fn own_place(&self) -> Place {
        Place { table: self.table.clone(), key: names::LEASE_KEY }
    }

    /// Carries out one conditional write; the row as it is now, whether the conditions held or not.
    async fn write_at(
        &self,
        place: &Place,
        write: &LeaseWrite,
    ) -> Result<Result<Item, Option<Item>>, StoreError> {
        let expressions = Expressions::new(&write.conditions, &write.updates);
        let update = self.writes().update_item().table_name(&place.table);
        let update = update
            .key(place.key, key_value(&write.key))
            .set_condition_expression(expressions.condition.clone())
            .set_update_expression(expressions.update.clone())
            .set_expression_attribute_names(expressions.attribute_names())
            .set_expression_attribute_values(expressions.attribute_values())
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let request = self.row_request(write.operation, "UpdateItem", &write.key);
        match self.answer(request, update.send()).await? {
            Ok(answer) => Ok(Ok(from_sdk_item(answer.attributes.unwrap_or_default()))),
            // Endpoints that do not send the row along are asked for it; so is DynamoDB if there is none.
            Err(SdkError::ServiceError(answer)) if is_refusal(answer.err().code()) => {
                Ok(Err(match refusing_row(answer.into_err()) {
                    Some(row) => Some(from_sdk_item(row)),
                    None => self.item_at(write.operation, place, &write.key).await?,
                }))
            }
            Err(failure) => Err(request.failed(&failure)),
        }
    }

    async fn delete_at(
        &self,
        operation: &'static str,
        place: &Place,
        key: &LeaseKey,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        let expressions = Expressions::new(conditions, &[]);
        let delete = self.writes().delete_item().table_name(&place.table);
        let delete = delete
            .key(place.key, key_value(key))
            .set_condition_expression(expressions.condition.clone())
            .set_expression_attribute_names(expressions.attribute_names())
            .set_expression_attribute_values(expressions.attribute_values());
        let request = self.row_request(operation, "DeleteItem", key);
        match self.answer(request, delete.send()).await? {
            Ok(_) => Ok(()),
            Err(failure) if is_refused(&failure) => Ok(()),
            Err(failure) => Err(request.failed(&failure)),
        }
    }

    async fn scan_segment(&self, segment: u32, segments: u32) -> Result<LeaseScan, StoreError> {
        let mut found = LeaseScan::default();
        let mut start = None;
        loop {
            let page = self.reads().scan().table_name(&self.table).set_exclusive_start_key(start);
            let page = page.segment(segment.cast_signed()).total_segments(segments.cast_signed());
            let answer = self.send(self.request("ListLeases", "Scan"), page.send()).await?;
            let items: Vec<_> = answer.items.unwrap_or_default().into_iter().map(from_sdk_item).collect();
            found.extend(LeaseScan::from_items(&items));
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(found);
            }
        }
    }

    /// How many parts to scan in (KCL's `LeaseTableScanSegmentResolver`).
    async fn scan_segments(&self) -> Result<u32, StoreError> {
        if let Some(configured) = self.segments {
            return Ok(configured);
        }
        let now = self.clock.now();
        let cached = *self.segments_cached.lock();
        if let Some((_, segments)) = cached.filter(|(at, _)| now.since(*at) < SEGMENTS_VALID) {
            return Ok(segments);
        }
        let size = self.describe().await?.and_then(|table| table.table_size_bytes);
        let segments = segments_for(size.and_then(|bytes| u64::try_from(bytes).ok()));
        *self.segments_cached.lock() = Some((now, segments));
        Ok(segments)
    }
}

#[async_trait]
impl LeaseStore for DynamoDbLeaseStore {
    async fn ensure_table(&self, spec: &TableSpec) -> Result<(), StoreError> {
        self.ensure(spec).await
    }

    fn identity(&self) -> Option<String> {
        self.identity.get().cloned()
    }

    async fn scan(&self) -> Result<LeaseScan, StoreError> {
        let segments = self.scan_segments().await?;
        let parts = (0..segments).map(|segment| self.scan_segment(segment, segments));
        let mut scan = LeaseScan::default();
        for part in try_join_all(parts).await? {
            scan.extend(part);
        }
        scan.entities.extend(self.legacy_metrics().await?);
        scan.leases.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(scan)
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let Some(item) = self.item("GetLease", key).await? else { return Ok(None) };
        Lease::from_item(&item).map_err(|unreadable| {
            let request = self.row_request("GetLease", "GetItem", key);
            request.error(StoreErrorKind::Malformed).with_source(unreadable)
        })
    }

    async fn keys_owned_by(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        let mut keys = Vec::new();
        let mut start = None;
        loop {
            let owned = Condition::Equals(names::LEASE_OWNER, Attribute::S(worker.as_str().to_owned()));
            let expressions = Expressions::new(&[owned], &[]);
            let page = self.reads().query().table_name(&self.table).index_name(names::OWNER_INDEX);
            let page = page
                .set_key_condition_expression(expressions.condition.clone())
                .set_expression_attribute_names(expressions.attribute_names())
                .set_expression_attribute_values(expressions.attribute_values())
                .set_exclusive_start_key(start);
            let answer = self.send(self.request("ListLeaseKeysForWorker", "Query"), page.send()).await?;
            let items = answer.items.unwrap_or_default();
            keys.extend(items.iter().filter_map(|item| match item.get(names::LEASE_KEY) {
                Some(AttributeValue::S(key)) => Some(LeaseKey::from(key.as_str())),
                _ => None,
            }));
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(keys);
            }
        }
    }

    async fn create(&self, lease: &Lease) -> Result<Created, StoreError> {
        let expressions = Expressions::new(&[Condition::Absent(names::LEASE_KEY)], &[]);
        let put = self.writes().put_item().table_name(&self.table);
        let put = put
            .set_item(Some(to_sdk_item(lease.to_item())))
            .set_condition_expression(expressions.condition.clone())
            .set_expression_attribute_names(expressions.attribute_names());
        let request = self.row_request("CreateLease", "PutItem", &lease.key);
        match self.answer(request, put.send()).await? {
            Ok(_) => Ok(Created::Now),
            Err(failure) if is_refused(&failure) => Ok(Created::Already),
            Err(failure) => Err(request.failed(&failure)),
        }
    }

    async fn apply(&self, write: &LeaseWrite) -> Result<WriteOutcome, StoreError> {
        let row = match self.write_at(&self.own_place(), write).await? {
            Ok(row) => row,
            Err(row) => return Ok(WriteOutcome::refused_by(row.as_ref())),
        };
        let request = self.row_request(write.operation, "UpdateItem", &write.key);
        let malformed = request.error(StoreErrorKind::Malformed);
        match Lease::from_item(&row) {
            Ok(Some(lease)) => Ok(WriteOutcome::Applied(Box::new(lease))),
            Ok(None) => Err(malformed.with_detail("the row is no lease")),
            Err(unreadable) => Err(malformed.with_source(unreadable)),
        }
    }

    async fn transact(&self, transaction: &LeaseTransaction) -> Result<TransactOutcome, StoreError> {
        self.transact_items(transaction).await
    }

    async fn delete_ended(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.delete_at("DeleteLease", &self.own_place(), key, &[Condition::ended()]).await
    }

    async fn ensure_owner_index(&self) -> Result<bool, StoreError> {
        match self.owner_index().await? {
            OwnerIndex::Active => Ok(true),
            OwnerIndex::Building => Ok(false),
            OwnerIndex::Missing => self.create_owner_index().await.map(|()| false),
        }
    }

    async fn entity(&self, kind: EntityKind, key: &LeaseKey) -> Result<Option<Item>, StoreError> {
        for place in self.places_of(kind).await? {
            if let Some(row) = self.item_at("GetEntity", &place, key).await? {
                return Ok(Some(from_place(row, &place, kind)));
            }
        }
        Ok(None)
    }

    async fn apply_to_entity(
        &self,
        kind: EntityKind,
        write: &LeaseWrite,
    ) -> Result<EntityOutcome, StoreError> {
        let place = self.place_of(kind).await?;
        let outcome = self.write_at(&place, &to_place(write, &place)).await?;
        let here = |row| from_place(row, &place, kind);
        Ok(match outcome {
            Ok(row) => EntityOutcome::Applied(here(row)),
            Err(row) => EntityOutcome::Refused(row.map(here)),
        })
    }

    async fn delete_entity(
        &self,
        kind: EntityKind,
        key: &LeaseKey,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        let place = self.place_of(kind).await?;
        let mut conditions = conditions.to_vec();
        conditions_to_place(&mut conditions, &place);
        self.delete_at("DeleteEntity", &place, key, &conditions).await
    }
}

fn key_value(key: &LeaseKey) -> AttributeValue {
    AttributeValue::S(key.as_str().to_owned())
}

fn is_refused<E: ProvideErrorMetadata>(failure: &SdkError<E, HttpResponse>) -> bool {
    is_refusal(failure.as_service_error().and_then(ProvideErrorMetadata::code))
}

fn is_refusal(code: Option<&str>) -> bool {
    code == Some("ConditionalCheckFailedException")
}

fn refusing_row(error: UpdateItemError) -> Option<SdkItem> {
    match error {
        UpdateItemError::ConditionalCheckFailedException(refusal) => {
            refusal.item.filter(|item| !item.is_empty())
        }
        _ => None,
    }
}

fn segments_for(table_bytes: Option<u64>) -> u32 {
    let segments = table_bytes.map(|bytes| bytes.div_ceil(BYTES_PER_SEGMENT).clamp(1, SEGMENTS_AUTO_MAX));
    segments.and_then(|segments| u32::try_from(segments).ok()).unwrap_or(SEGMENTS_FALLBACK)
}

impl fmt::Debug for DynamoDbLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbLeaseStore").field("table", &self.table).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_grow_with_the_table() {
        const GIB: u64 = 1 << 30;
        let cases = [(None, 10), (Some(0), 1), (Some(GIB / 10), 1), (Some(GIB), 6), (Some(100 * GIB), 32)];
        for (bytes, segments) in cases {
            assert_eq!(segments_for(bytes), segments, "{bytes:?}");
        }
    }
}
