//! Items to and from the SDK's attribute values.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use crate::lease::{Attribute, Item};

pub(super) type SdkItem = HashMap<String, AttributeValue>;

pub(super) fn from_sdk_item(item: SdkItem) -> Item {
    item.into_iter().map(|(name, value)| (name, from_sdk(value))).collect()
}

pub(super) fn to_sdk_item(item: Item) -> SdkItem {
    item.into_iter().map(|(name, value)| (name, to_sdk(value))).collect()
}

fn from_sdk(value: AttributeValue) -> Attribute {
    match value {
        AttributeValue::S(text) => Attribute::S(text),
        AttributeValue::N(number) => Attribute::N(number),
        AttributeValue::B(bytes) => Attribute::B(Bytes::from(bytes.into_inner())),
        AttributeValue::Bool(value) => Attribute::Bool(value),
        AttributeValue::Ss(texts) => Attribute::Ss(texts.into_iter().collect()),
        AttributeValue::Ns(numbers) => Attribute::Ns(numbers.into_iter().collect()),
        AttributeValue::Bs(blobs) => {
            Attribute::Bs(blobs.into_iter().map(|bytes| Bytes::from(bytes.into_inner())).collect())
        }
        AttributeValue::L(values) => Attribute::L(values.into_iter().map(from_sdk).collect()),
        AttributeValue::M(map) => Attribute::M(from_sdk_item(map)),
        // `Null`, and types that DynamoDB may get one day: no attribute of a lease has either.
        _ => Attribute::Null,
    }
}

pub(super) fn to_sdk(value: Attribute) -> AttributeValue {
    match value {
        Attribute::S(text) => AttributeValue::S(text),
        Attribute::N(number) => AttributeValue::N(number),
        Attribute::B(bytes) => AttributeValue::B(Blob::new(bytes)),
        Attribute::Bool(value) => AttributeValue::Bool(value),
        Attribute::Null => AttributeValue::Null(true),
        Attribute::Ss(texts) => AttributeValue::Ss(texts.into_iter().collect()),
        Attribute::Ns(numbers) => AttributeValue::Ns(numbers.into_iter().collect()),
        Attribute::Bs(blobs) => AttributeValue::Bs(blobs.into_iter().map(Blob::new).collect()),
        Attribute::L(values) => AttributeValue::L(values.into_iter().map(to_sdk).collect()),
        Attribute::M(map) => AttributeValue::M(to_sdk_item(map)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::arbitrary;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_survive_the_way_to_the_sdk_and_back(item in arbitrary::item()) {
            prop_assert_eq!(from_sdk_item(to_sdk_item(item.clone())), item);
        }
    }
}
