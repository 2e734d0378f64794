//! The index from owners to their leases. Fleets that a leader runs (KCL 3.x) need it; workers of KCL
//! 2.x and of `Independent` mode do not, and must not pay for it.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata};
use aws_sdk_dynamodb::types::{
    CreateGlobalSecondaryIndexAction, GlobalSecondaryIndex, GlobalSecondaryIndexUpdate, IndexStatus, KeyType,
    Projection, ProjectionType, ProvisionedThroughput, TableDescription,
};

use super::DynamoDbLeaseStore;
use super::table::{capacity, key, text_attributes};
use crate::lease::{BillingMode, StoreError, StoreErrorKind, names};

/// Whether the index `LeaseOwnerToLeaseKeyIndex` can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerIndex {
    /// There is none.
    Missing,
    /// DynamoDB is filling it.
    Building,
    /// It is complete.
    Active,
}

impl DynamoDbLeaseStore {
    /// Whether `LeaseOwnerToLeaseKeyIndex` is there.
    pub(crate) async fn owner_index(&self) -> Result<OwnerIndex, StoreError> {
        let table = self.describe().await?.unwrap_or_else(|| TableDescription::builder().build());
        let indexes = table.global_secondary_indexes.unwrap_or_default();
        let index = indexes.into_iter().find(|index| index.index_name() == Some(names::OWNER_INDEX));
        Ok(match index.map(|index| index.index_status) {
            None => OwnerIndex::Missing,
            Some(Some(IndexStatus::Active)) => OwnerIndex::Active,
            Some(_) => OwnerIndex::Building,
        })
    }

    /// Starts to create `LeaseOwnerToLeaseKeyIndex`, unless it is there or somebody else has.
    pub(crate) async fn create_owner_index(&self) -> Result<(), StoreError> {
        let request = self.request("CreateOwnerIndex", "UpdateTable");
        let Some(table) = self.describe().await? else {
            return Err(request.error(StoreErrorKind::TableMissing));
        };
        if table.global_secondary_indexes().iter().any(|index| index.index_name() == Some(names::OWNER_INDEX))
        {
            return Ok(());
        }
        let built = owner_index(&table);
        let index = built.map_err(|error| request.error(StoreErrorKind::Malformed).with_source(error))?;
        let update = self.reads().update_table().table_name(&self.table);
        let update = update
            .set_attribute_definitions(text_attributes(&[names::LEASE_KEY, names::LEASE_OWNER]).ok())
            .global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().create(index).build());
        match self.answer(request, update.send()).await? {
            Ok(_) => Ok(()),
            Err(failure) if failure.code() == Some("ResourceInUseException") => Ok(()),
            Err(failure) => Err(request.failed(&failure)),
        }
    }
}

/// The index as KCL makes it, with the capacity of a provisioned `table`.
fn owner_index(table: &TableDescription) -> Result<CreateGlobalSecondaryIndexAction, BuildError> {
    let capacity = table
        .provisioned_throughput()
        .and_then(|capacity| capacity.read_capacity_units().zip(capacity.write_capacity_units()))
        .filter(|(reads, writes)| *reads > 0 && *writes > 0)
        .map(|(reads, writes)| {
            ProvisionedThroughput::builder().read_capacity_units(reads).write_capacity_units(writes).build()
        })
        .transpose()?;
    CreateGlobalSecondaryIndexAction::builder()
        .index_name(names::OWNER_INDEX)
        .key_schema(key(names::LEASE_OWNER, KeyType::Hash)?)
        .key_schema(key(names::LEASE_KEY, KeyType::Range)?)
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .set_provisioned_throughput(capacity)
        .build()
}

/// The index of a table that is created with it: ready as soon as the table is, where one that is added
/// later takes minutes.
pub(super) fn owner_index_with_table(billing: BillingMode) -> Result<GlobalSecondaryIndex, BuildError> {
    GlobalSecondaryIndex::builder()
        .index_name(names::OWNER_INDEX)
        .key_schema(key(names::LEASE_OWNER, KeyType::Hash)?)
        .key_schema(key(names::LEASE_KEY, KeyType::Range)?)
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .set_provisioned_throughput(capacity(billing)?)
        .build()
}
