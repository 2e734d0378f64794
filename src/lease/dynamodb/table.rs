use std::time::Duration;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata};
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    ProvisionedThroughput, ScalarAttributeType, TableDescription, TableStatus, Tag,
};

use super::DynamoDbLeaseStore;
use super::owner_index::owner_index_with_table;
use crate::lease::{self, StoreError, StoreErrorKind, TableSpec, names};
use crate::types::Moment;

/// Waiting for the table to become ready starts with the first pause, which doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LAST_PAUSE: Duration = Duration::from_secs(2);

impl DynamoDbLeaseStore {
    /// Creates the table if it is not there, and waits until it is ready.
    pub(super) async fn ensure(&self, spec: &TableSpec) -> Result<(), StoreError> {
        let deadline = self.clock.now() + spec.wait_max;
        let mut pauses = Pauses::default();
        while !self.is_ready(spec).await? {
            self.pause(&mut pauses, deadline).await?;
        }
        if spec.point_in_time_recovery {
            while !self.enable_point_in_time_recovery().await? {
                self.pause(&mut pauses, deadline).await?;
            }
        }
        Ok(())
    }

    /// The table, if there is one.
    pub(super) async fn describe(&self) -> Result<Option<TableDescription>, StoreError> {
        let request = self.request("DescribeLeaseTable", "DescribeTable");
        let response = self.reads().describe_table().table_name(&self.table).send();
        match self.answer(request, response).await? {
            Ok(answer) => Ok(answer.table),
            Err(failure) if failure.code() == Some("ResourceNotFoundException") => Ok(None),
            Err(failure) => Err(request.failed(&failure)),
        }
    }

    /// Whether there is a table, and it is a lease table. Unlike [`ensure`](Self::ensure), it creates none.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        let request = self.request("DescribeLeaseTable", "DescribeTable");
        match self.describe().await? {
            None => Err(request.error(StoreErrorKind::TableMissing)),
            Some(table) if is_lease_table(&table) => Ok(()),
            Some(table) => Err(self.other_key(&table)),
        }
    }

    fn other_key(&self, table: &TableDescription) -> StoreError {
        let request = self.request("DescribeLeaseTable", "DescribeTable");
        request.error(StoreErrorKind::Unsuitable).with_detail(format!(
            "table {} is no lease table: its key is {}, not leaseKey (HASH, S); choose another table name",
            self.table,
            key_of(table)
        ))
    }

    /// Whether the table can be used. If there is none it is created.
    async fn is_ready(&self, spec: &TableSpec) -> Result<bool, StoreError> {
        let Some(table) = self.describe().await? else {
            self.create_table(spec).await?;
            return Ok(false);
        };
        let unusable = |detail: String| {
            let request = self.request("DescribeLeaseTable", "DescribeTable");
            Err(request.error(StoreErrorKind::Unsuitable).with_detail(detail))
        };
        if !is_lease_table(&table) {
            return Err(self.other_key(&table));
        }
        match table.table_status {
            Some(TableStatus::Active | TableStatus::Updating) => {
                let names = [table.table_arn, table.table_id].map(Option::unwrap_or_default);
                self.identity.get_or_init(|| names.join(" "));
                Ok(true)
            }
            // One that is being deleted is created anew when it is gone.
            Some(TableStatus::Creating | TableStatus::Deleting) | None => Ok(false),
            Some(status) => unusable(format!(
                "table {} is {status} and cannot be used; restore it or choose another table name",
                self.table
            )),
        }
    }

    async fn create_table(&self, spec: &TableSpec) -> Result<(), StoreError> {
        let request = self.request("CreateLeaseTable", "CreateTable");
        let create = self.reads().create_table().table_name(&self.table);
        let built = table_as_specified(create, spec);
        let create = built.map_err(|error| request.error(StoreErrorKind::Malformed).with_source(error))?;
        match self.answer(request, create.send()).await? {
            Ok(_) => Ok(()),
            // Another worker was faster.
            Err(failure) if failure.code() == Some("ResourceInUseException") => Ok(()),
            Err(failure) => Err(request.failed(&failure)),
        }
    }

    /// False if DynamoDB is not ready to do so yet.
    async fn enable_point_in_time_recovery(&self) -> Result<bool, StoreError> {
        let request = self.request("EnablePointInTimeRecovery", "UpdateContinuousBackups");
        let enabled =
            PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build();
        let enabled = enabled.map_err(|error| request.error(StoreErrorKind::Malformed).with_source(error))?;
        let update = self.reads().update_continuous_backups().table_name(&self.table);
        let response = update.point_in_time_recovery_specification(enabled).send();
        match self.answer(request, response).await? {
            Ok(_) => Ok(true),
            Err(failure) if failure.code() == Some("ContinuousBackupsUnavailableException") => Ok(false),
            Err(failure) => Err(request.failed(&failure)),
        }
    }

    async fn pause(&self, pauses: &mut Pauses, deadline: Moment) -> Result<(), StoreError> {
        if self.clock.now() >= deadline {
            let request = self.request("DescribeLeaseTable", "DescribeTable");
            return Err(request
                .error(StoreErrorKind::Unavailable)
                .with_detail("the table did not become ready in the time given"));
        }
        self.clock.sleep(pauses.next()).await;
        Ok(())
    }
}

struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LAST_PAUSE);
        pause
    }
}

fn table_as_specified(
    create: CreateTableFluentBuilder,
    spec: &TableSpec,
) -> Result<CreateTableFluentBuilder, BuildError> {
    let attributes: &[&str] =
        if spec.owner_index { &[names::LEASE_KEY, names::LEASE_OWNER] } else { &[names::LEASE_KEY] };
    let mut create = create
        .key_schema(key(names::LEASE_KEY, KeyType::Hash)?)
        .set_attribute_definitions(Some(text_attributes(attributes)?))
        .deletion_protection_enabled(spec.deletion_protection);
    if spec.owner_index {
        create = create.global_secondary_indexes(owner_index_with_table(spec.billing)?);
    }
    for (name, value) in &spec.tags {
        create = create.tags(Tag::builder().key(name).value(value).build()?);
    }
    Ok(match capacity(spec.billing)? {
        None => create.billing_mode(BillingMode::PayPerRequest),
        Some(capacity) => create.billing_mode(BillingMode::Provisioned).provisioned_throughput(capacity),
    })
}

/// The capacity units to pay for, if they are paid for as such.
pub(super) fn capacity(billing: lease::BillingMode) -> Result<Option<ProvisionedThroughput>, BuildError> {
    match billing {
        lease::BillingMode::OnDemand => Ok(None),
        lease::BillingMode::Provisioned { read, write } => {
            let capacity = ProvisionedThroughput::builder().read_capacity_units(read.into());
            capacity.write_capacity_units(write.into()).build().map(Some)
        }
    }
}

pub(super) fn key(name: &str, kind: KeyType) -> Result<KeySchemaElement, BuildError> {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build()
}

pub(super) fn text_attributes(names: &[&str]) -> Result<Vec<AttributeDefinition>, BuildError> {
    let definition = |name: &&str| {
        AttributeDefinition::builder().attribute_name(*name).attribute_type(ScalarAttributeType::S).build()
    };
    names.iter().map(definition).collect()
}

fn is_lease_table(table: &TableDescription) -> bool {
    let hash_key = matches!(
        table.key_schema(),
        [key] if key.attribute_name == names::LEASE_KEY && key.key_type == KeyType::Hash
    );
    hash_key
        && table.attribute_definitions().iter().any(|attribute| {
            attribute.attribute_name == names::LEASE_KEY && attribute.attribute_type == ScalarAttributeType::S
        })
}

fn key_of(table: &TableDescription) -> String {
    let keys = table.key_schema().iter().map(|key| {
        let mut definitions = table.attribute_definitions().iter();
        let kind = definitions.find(|attribute| attribute.attribute_name == key.attribute_name);
        let kind = kind.map_or("?", |attribute| attribute.attribute_type.as_str());
        format!("{} ({}, {kind})", key.attribute_name, key.key_type.as_str())
    });
    keys.collect::<Vec<_>>().join(" + ")
}
