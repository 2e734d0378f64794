use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_dynamodb::{Client, Config};
use kinesis_consumer::internals;
use kinesis_consumer::lease::{
    Attribute, Item, Lease, LeaseStore, LeaseWrite, MemoryLeaseStore, WriteOutcome,
};
use serde_json::Value;

/// A lease table under test: through the port, and from behind, as another implementation writes it.
pub(crate) struct Table {
    pub(crate) store: Arc<dyn LeaseStore>,
    behind: Behind,
}

enum Behind {
    Memory(MemoryLeaseStore),
    DynamoDb(Client, String),
}

impl Table {
    pub(crate) fn in_memory() -> Self {
        let store = MemoryLeaseStore::default();
        Self { store: Arc::new(store.clone()), behind: Behind::Memory(store) }
    }

    pub(crate) async fn in_dynamodb(name: &str) -> Self {
        let (client, name) = (dynamodb().await, format!("{name}-{}", std::process::id()));
        let store = internals::dynamodb_lease_store(&client, &name, None, Some(3), Duration::from_secs(20));
        store.ensure_table(&Default::default()).await.unwrap();
        Self { store, behind: Behind::DynamoDb(client, name) }
    }

    /// Puts a row as it is.
    pub(crate) async fn put(&self, item: &Item) {
        match &self.behind {
            Behind::Memory(store) => assert!(store.insert_item(item.clone())),
            Behind::DynamoDb(client, name) => {
                let put = client.put_item().table_name(name).set_item(Some(to_sdk(item)));
                put.send().await.unwrap();
            }
        }
    }

    /// Makes a table for effects, whose key is the text `key`.
    pub(crate) async fn create_user_table(&self, name: &str, key: &str) {
        match &self.behind {
            Behind::Memory(store) => store.create_user_table(name, &[key]),
            Behind::DynamoDb(client, _) => {
                let attribute = AttributeDefinition::builder().attribute_name(key);
                let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash);
                let create = client
                    .create_table()
                    .table_name(name)
                    .attribute_definitions(attribute.attribute_type(ScalarAttributeType::S).build().unwrap())
                    .key_schema(schema.build().unwrap())
                    .billing_mode(BillingMode::PayPerRequest);
                create.send().await.unwrap();
            }
        }
    }

    /// An item of such a table.
    pub(crate) async fn user_item(&self, table: &str, key: &str, value: &str) -> Option<Item> {
        match &self.behind {
            Behind::Memory(store) => {
                let items = store.user_items(table);
                items.into_iter().find(|item| item.get(key) == Some(&Attribute::from(value)))
            }
            Behind::DynamoDb(client, _) => {
                let get = client.get_item().table_name(table).consistent_read(true);
                let answer = get.key(key, AttributeValue::S(value.to_owned())).send().await.unwrap();
                answer.item.map(from_sdk)
            }
        }
    }

    /// The row as it is.
    pub(crate) async fn item(&self, key: &str) -> Option<Item> {
        match &self.behind {
            Behind::Memory(store) => store.items().get(key).cloned(),
            Behind::DynamoDb(client, name) => {
                let get = client.get_item().table_name(name).consistent_read(true);
                let answer = get.key("leaseKey", AttributeValue::S(key.to_owned())).send().await.unwrap();
                answer.item.map(from_sdk)
            }
        }
    }

    /// Makes the index of owners readable.
    pub(crate) async fn index_owners(&self) {
        wait_for("the index", || async { self.store.ensure_owner_index().await.unwrap() }).await;
    }

    pub(crate) async fn apply(&self, write: &LeaseWrite) -> WriteOutcome {
        self.store.apply(write).await.unwrap()
    }

    /// Carries out a write that must succeed, and checks that what it reports is what is stored.
    pub(crate) async fn applied(&self, write: &LeaseWrite) -> Lease {
        match self.apply(write).await {
            WriteOutcome::Applied(lease) => {
                assert_eq!(self.store.lease(&write.key).await.unwrap().as_ref(), Some(&*lease), "{write}");
                *lease
            }
            refused => panic!("{write}: {refused:?}"),
        }
    }

    /// Carries out a write that must be refused, and checks that it reports the row and leaves it.
    pub(crate) async fn refused(&self, write: &LeaseWrite) -> Option<Lease> {
        let before = self.item(write.key.as_str()).await;
        match self.apply(write).await {
            WriteOutcome::Refused(current) => {
                assert_eq!(self.item(write.key.as_str()).await, before, "{write}");
                let lease = before.and_then(|item| Lease::from_item(&item).unwrap());
                assert_eq!(current.as_deref(), lease.as_ref(), "{write}");
                lease
            }
            applied => panic!("{write}: {applied:?}"),
        }
    }
}

/// A client of a DynamoDB of this test's own, or of the one the environment names.
pub(crate) async fn dynamodb() -> Client {
    if let Ok(url) = std::env::var("KINESIS_CONSUMER_DYNAMODB_URL") {
        return client(&url);
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(dynoxide::server::serve_on(listener, dynoxide::Database::memory().unwrap()));
    client(&url)
}

pub(crate) fn client(url: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(url);
    Client::from_conf(config.build())
}

/// Polls until `condition` holds, for ten seconds at most.
pub(crate) async fn wait_for<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} took too long");
}

/// An item in DynamoDB's JSON.
pub(crate) fn item(json: &str) -> Item {
    fn attribute(value: &Value) -> Attribute {
        let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = || value.as_array().unwrap();
        match kind.as_str() {
            "S" => Attribute::S(text(value)),
            "N" => Attribute::N(text(value)),
            "BOOL" => Attribute::Bool(value.as_bool().unwrap()),
            "NULL" => Attribute::Null,
            "SS" => Attribute::Ss(list().iter().map(text).collect()),
            "L" => Attribute::L(list().iter().map(attribute).collect()),
            "M" => Attribute::M(attributes(value)),
            other => panic!("type {other}"),
        }
    }
    fn attributes(value: &Value) -> BTreeMap<String, Attribute> {
        let members = value.as_object().unwrap().iter();
        members.map(|(name, value)| (name.clone(), attribute(value))).collect()
    }
    attributes(&serde_json::from_str(json).unwrap())
}

fn to_sdk(item: &Item) -> HashMap<String, AttributeValue> {
    fn value(attribute: &Attribute) -> AttributeValue {
        match attribute {
            Attribute::S(text) => AttributeValue::S(text.clone()),
            Attribute::N(number) => AttributeValue::N(number.clone()),
            Attribute::Bool(value) => AttributeValue::Bool(*value),
            Attribute::Null => AttributeValue::Null(true),
            Attribute::Ss(texts) => AttributeValue::Ss(texts.iter().cloned().collect()),
            Attribute::L(values) => AttributeValue::L(values.iter().map(value).collect()),
            Attribute::M(map) => AttributeValue::M(to_sdk(map)),
            other => panic!("{other:?}"),
        }
    }
    item.iter().map(|(name, attribute)| (name.clone(), value(attribute))).collect()
}

fn from_sdk(item: HashMap<String, AttributeValue>) -> Item {
    fn attribute(value: AttributeValue) -> Attribute {
        match value {
            AttributeValue::S(text) => Attribute::S(text),
            AttributeValue::N(number) => Attribute::N(number),
            AttributeValue::B(bytes) => Attribute::B(bytes.into_inner().into()),
            AttributeValue::Bool(value) => Attribute::Bool(value),
            AttributeValue::Null(_) => Attribute::Null,
            AttributeValue::Ss(texts) => Attribute::Ss(texts.into_iter().collect()),
            AttributeValue::L(values) => Attribute::L(values.into_iter().map(attribute).collect()),
            AttributeValue::M(map) => Attribute::M(from_sdk(map)),
            other => panic!("{other:?}"),
        }
    }
    item.into_iter().map(|(name, value)| (name, attribute(value))).collect()
}
