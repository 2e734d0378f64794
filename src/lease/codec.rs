use std::collections::BTreeSet;

use bytes::Bytes;

use super::decimal::Decimal;
use super::{
    Attribute, BehindLatest, Item, Lease, Paused, PendingCheckpoint, Throughput, UnreadableRow, names,
};
use crate::types::{Checkpoint, HashKeyRange, LeaseKey, SequenceNumber, ShardId};

impl Lease {
    /// Reads a row of the lease table, which any KCL may have written; `None` if the row is of another kind (an
    /// `entityType` other than `LEASE`, such as the leader's lock).
    ///
    /// `leaseKey`, `leaseCounter` and `checkpoint` are essential (KCL cannot work with a row that
    /// lacks one either). Any other attribute may be missing: numbers then count as 0.
    ///
    /// # Errors
    ///
    /// If an essential attribute is missing, or one has a type or a value KCL never gives it.
    pub fn from_item(item: &Item) -> Result<Option<Self>, UnreadableRow> {
        if item.get(names::ENTITY_TYPE).is_some_and(|kind| kind.text() != Some(names::ENTITY_TYPE_LEASE)) {
            return Ok(None);
        }
        let key = item.get(names::LEASE_KEY).and_then(Attribute::text).map(LeaseKey::from);
        Row(item).lease().map(Some).map_err(|reason| UnreadableRow { key, reason })
    }

    /// The whole row, as KCL 3.5 creates it. Attributes without a value are left out.
    #[must_use]
    pub fn to_item(&self) -> Item {
        let mut item = Item::new();
        let mut put = |name: &str, value: Option<Attribute>| {
            if let Some(value) = value {
                item.insert(name.to_owned(), value);
            }
        };
        put(names::ENTITY_TYPE, text(names::ENTITY_TYPE_LEASE));
        put(names::LEASE_KEY, text(self.key.as_str()));
        put(names::LEASE_OWNER, self.owner.as_ref().and_then(|owner| text(owner.as_str())));
        put(names::LEASE_COUNTER, Some(Attribute::number(self.counter)));
        put(names::OWNER_SWITCHES, Some(Attribute::number(self.owner_switches)));
        put(names::CHECKPOINT, text(&self.checkpoint.text()));
        put(names::CHECKPOINT_SUB_SEQUENCE, Some(Attribute::number(self.checkpoint.sub_sequence_number())));
        if let Some(pending) = &self.pending_checkpoint {
            let sub_sequence = Attribute::number(pending.checkpoint.sub_sequence_number());
            put(names::PENDING_CHECKPOINT, text(&pending.checkpoint.text()));
            put(names::PENDING_CHECKPOINT_SUB_SEQUENCE, Some(sub_sequence));
            put(names::PENDING_CHECKPOINT_STATE, pending.state.clone().map(Attribute::B));
        }
        put(names::PARENT_SHARDS, shard_ids(&self.parents));
        put(names::CHILD_SHARDS, shard_ids(&self.children));
        if let Some(range) = self.hash_key_range {
            put(names::STARTING_HASH_KEY, text(&range.start().to_string()));
            put(names::ENDING_HASH_KEY, text(&range.end().to_string()));
        }
        put(names::THROUGHPUT, self.throughput.map(|throughput| Attribute::N(throughput.to_string())));
        put(names::CHECKPOINT_OWNER, self.checkpoint_owner.as_ref().and_then(|owner| text(owner.as_str())));
        put(names::STREAM_NAME, self.stream_name.as_deref().and_then(text));
        if self.stream_name.is_some() || self.shard_id.as_str() != self.key.as_str() {
            put(names::SHARD_ID, text(self.shard_id.as_str()));
        }
        let start = self.starting_sequence_number.as_ref();
        put(names::STARTING_SEQUENCE_NUMBER, start.and_then(|number| text(&number.to_string())));
        put(names::SOURCE_STREAM, self.source_stream.as_deref().and_then(text));
        put(names::LATEST_SINCE, self.latest_since.map(Attribute::number));
        if let Some(behind) = self.behind_latest {
            put(names::MILLIS_BEHIND_LATEST, Some(Attribute::number(behind.millis)));
            put(names::MILLIS_BEHIND_LATEST_AT, Some(Attribute::number(behind.counter)));
        }
        put(names::PAUSED, self.paused.as_ref().map(paused));
        put(names::SEEK_ID, self.seek_id.as_deref().and_then(text));
        put(names::SEEK_UNDER_WAY, self.seek_under_way.as_deref().and_then(text));
        item
    }
}

fn text(value: &str) -> Option<Attribute> {
    Some(Attribute::S(value.to_owned()))
}

pub(super) fn paused(paused: &Paused) -> Attribute {
    let part = |name: &str, value| (name.to_owned(), value);
    Attribute::M(
        [
            part("since", Attribute::number(paused.since)),
            part("by", Attribute::S(paused.by.clone())),
            part("why", Attribute::S(paused.reason.clone())),
        ]
        .into(),
    )
}

/// A set of shard ids; none for the empty set, which DynamoDB does not have.
pub(super) fn shard_ids(ids: &BTreeSet<ShardId>) -> Option<Attribute> {
    (!ids.is_empty()).then(|| Attribute::Ss(ids.iter().map(|id| id.as_str().to_owned()).collect()))
}

/// A row being read; errors say which attribute is wrong, and how.
struct Row<'a>(&'a Item);

impl Row<'_> {
    fn lease(&self) -> Result<Lease, String> {
        // DynamoDB has no empty keys.
        let key = self.text(names::LEASE_KEY)?.filter(|key| !key.is_empty());
        let key = LeaseKey::from(essential(names::LEASE_KEY, key)?);
        let sub_sequence = self.number(names::CHECKPOINT_SUB_SEQUENCE)?.unwrap_or(0);
        let checkpoint = essential(names::CHECKPOINT, self.text(names::CHECKPOINT)?)?;
        Ok(Lease {
            shard_id: self.text(names::SHARD_ID)?.unwrap_or(key.as_str()).into(),
            stream_name: self.text(names::STREAM_NAME)?.map(str::to_owned),
            owner: self.text(names::LEASE_OWNER)?.map(Into::into),
            counter: essential(names::LEASE_COUNTER, self.number(names::LEASE_COUNTER)?)?,
            owner_switches: self.number(names::OWNER_SWITCHES)?.unwrap_or(0),
            checkpoint: parse_checkpoint(names::CHECKPOINT, checkpoint, sub_sequence)?,
            pending_checkpoint: self.pending_checkpoint()?,
            parents: self.shard_ids(names::PARENT_SHARDS)?,
            children: self.shard_ids(names::CHILD_SHARDS)?,
            hash_key_range: self.hash_key_range()?,
            throughput: self.throughput()?,
            checkpoint_owner: self.text(names::CHECKPOINT_OWNER)?.map(Into::into),
            starting_sequence_number: self.starting_sequence_number()?,
            source_stream: self.text(names::SOURCE_STREAM)?.map(str::to_owned),
            latest_since: self.number(names::LATEST_SINCE)?,
            // No reason to leave a shard unread.
            behind_latest: self.behind_latest().unwrap_or_default(),
            paused: self.paused(),
            seek_id: self.text(names::SEEK_ID).ok().flatten().map(str::to_owned),
            seek_under_way: self.text(names::SEEK_UNDER_WAY).ok().flatten().map(str::to_owned),
            key,
        })
    }

    fn pending_checkpoint(&self) -> Result<Option<PendingCheckpoint>, String> {
        let sub_sequence = self.number(names::PENDING_CHECKPOINT_SUB_SEQUENCE)?.unwrap_or(0);
        let state = self.bytes(names::PENDING_CHECKPOINT_STATE)?;
        let Some(text) = self.text(names::PENDING_CHECKPOINT)? else { return Ok(None) };
        let checkpoint = parse_checkpoint(names::PENDING_CHECKPOINT, text, sub_sequence)?;
        Ok(Some(PendingCheckpoint { checkpoint, state }))
    }

    fn behind_latest(&self) -> Result<Option<BehindLatest>, String> {
        let millis = self.number(names::MILLIS_BEHIND_LATEST)?;
        let counter = self.number(names::MILLIS_BEHIND_LATEST_AT)?;
        Ok(millis.zip(counter).map(|(millis, counter)| BehindLatest { millis, counter }))
    }

    /// Whatever is there means that the shard is paused, even if nobody can read why.
    fn paused(&self) -> Option<Paused> {
        let parts = match self.0.get(names::PAUSED)? {
            Attribute::M(parts) => parts.clone(),
            _ => Item::new(),
        };
        let part = |name: &str| parts.get(name).and_then(Attribute::text).unwrap_or_default();
        Some(Paused::new(Row(&parts).number("since").ok().flatten().unwrap_or(0), part("by"), part("why")))
    }

    /// Both ends or none; KCL ignores one end without the other.
    fn hash_key_range(&self) -> Result<Option<HashKeyRange>, String> {
        match (self.text(names::STARTING_HASH_KEY)?, self.text(names::ENDING_HASH_KEY)?) {
            (Some(start), Some(end)) => HashKeyRange::parse(start, end)
                .map(Some)
                .map_err(|error| wrong(names::STARTING_HASH_KEY, &error.to_string())),
            _ => Ok(None),
        }
    }

    fn starting_sequence_number(&self) -> Result<Option<SequenceNumber>, String> {
        self.read(names::STARTING_SEQUENCE_NUMBER, "a sequence number (S)", |value| {
            value.text()?.parse().ok()
        })
    }

    fn throughput(&self) -> Result<Option<Throughput>, String> {
        self.read(names::THROUGHPUT, "a number from 0", |value| match value {
            Attribute::N(text) => Throughput::parse(text),
            _ => None,
        })
    }

    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        self.read(name, "a text (S)", Attribute::text)
    }

    /// A whole number as Java's `long` holds it, so that adding one never overflows here either.
    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        self.read(name, "a whole number (N) from 0 to 2^63 - 1", |value| match value {
            Attribute::N(text) => {
                Decimal::parse(text)?.to_u64().filter(|number| i64::try_from(*number).is_ok())
            }
            _ => None,
        })
    }

    fn bytes(&self, name: &str) -> Result<Option<Bytes>, String> {
        self.read(name, "bytes (B)", |value| match value {
            Attribute::B(bytes) => Some(bytes.clone()),
            _ => None,
        })
    }

    fn shard_ids(&self, name: &str) -> Result<BTreeSet<ShardId>, String> {
        let ids = self.read(name, "a set of texts (SS)", |value| match value {
            Attribute::Ss(texts) => Some(texts.iter().map(|id| id.as_str().into()).collect()),
            _ => None,
        })?;
        Ok(ids.unwrap_or_default())
    }

    fn read<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(&'a Attribute) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| wrong(name, &format!("expected {expected}")))
    }
}

fn parse_checkpoint(name: &str, text: &str, sub_sequence: u64) -> Result<Checkpoint, String> {
    Checkpoint::parse(text, sub_sequence).map_err(|error| wrong(name, &error.to_string()))
}

fn essential<T>(name: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| wrong(name, "missing"))
}

fn wrong(name: &str, what: &str) -> String {
    format!("attribute {name}: {what}")
}

#[cfg(test)]
mod tests {
    use super::super::arbitrary;
    use super::*;
    use proptest::prelude::*;

    fn minimal() -> Item {
        Item::from([
            (names::LEASE_KEY.to_owned(), Attribute::S("shardId-0".to_owned())),
            (names::LEASE_COUNTER.to_owned(), Attribute::number(7)),
            (names::CHECKPOINT.to_owned(), Attribute::S("LATEST".to_owned())),
        ])
    }

    fn with(name: &str, value: Attribute) -> Item {
        let mut item = minimal();
        item.insert(name.to_owned(), value);
        item
    }

    #[test]
    fn optional_attributes_may_all_be_missing() {
        let lease = Lease::from_item(&minimal()).unwrap().unwrap();
        let mut expected = Lease::new("shardId-0", Checkpoint::Latest);
        expected.counter = 7;
        assert_eq!(lease, expected);
    }

    #[test]
    fn an_essential_attribute_may_not() {
        for name in [names::LEASE_COUNTER, names::CHECKPOINT] {
            let mut item = minimal();
            item.remove(name);
            let unreadable = Lease::from_item(&item).unwrap_err();
            assert_eq!(unreadable.to_string(), format!("lease row shardId-0: attribute {name}: missing"));
        }
        assert_eq!(Lease::from_item(&Item::new()).unwrap_err().key, None);
        let nameless = with(names::LEASE_KEY, Attribute::S(String::new()));
        assert!(Lease::from_item(&nameless).is_err());
    }

    #[test]
    fn an_empty_owner_is_kept() {
        let item = with(names::LEASE_OWNER, Attribute::S(String::new()));
        let lease = Lease::from_item(&item).unwrap().unwrap();
        assert_eq!(Lease::from_item(&lease.to_item()).unwrap(), Some(lease));
    }

    #[test]
    fn a_wrong_type_or_value_is_named() {
        let cases = [
            (names::LEASE_COUNTER, Attribute::S("7".to_owned())),
            (names::LEASE_COUNTER, Attribute::N("9223372036854775808".to_owned())),
            (names::LEASE_COUNTER, Attribute::N("1.5".to_owned())),
            (names::OWNER_SWITCHES, Attribute::N("-1".to_owned())),
            (names::CHECKPOINT, Attribute::S("latest".to_owned())),
            (names::LEASE_OWNER, Attribute::Null),
            (names::PARENT_SHARDS, Attribute::S("shardId-0".to_owned())),
            (names::PENDING_CHECKPOINT, Attribute::N("1".to_owned())),
            (names::PENDING_CHECKPOINT_STATE, Attribute::N("1".to_owned())),
            (names::THROUGHPUT, Attribute::N("-0.1".to_owned())),
        ];
        for (name, value) in cases {
            let unreadable = Lease::from_item(&with(name, value)).unwrap_err();
            assert!(unreadable.reason.starts_with(&format!("attribute {name}: ")), "{unreadable}");
        }
    }

    #[test]
    fn rows_of_other_kinds_are_not_leases_whatever_they_hold() {
        for kind in [Attribute::S("LEADER".to_owned()), Attribute::Null] {
            let item = Item::from([(names::ENTITY_TYPE.to_owned(), kind)]);
            assert_eq!(Lease::from_item(&item), Ok(None));
        }
        assert!(
            Lease::from_item(&with(names::ENTITY_TYPE, Attribute::S("LEASE".to_owned()))).unwrap().is_some()
        );
    }

    #[test]
    fn half_a_hash_range_is_none_and_one_key_is_a_range() {
        let mut item = with(names::STARTING_HASH_KEY, Attribute::S("5".to_owned()));
        assert_eq!(Lease::from_item(&item).unwrap().unwrap().hash_key_range, None);
        item.insert(names::ENDING_HASH_KEY.to_owned(), Attribute::S("5".to_owned()));
        assert_eq!(Lease::from_item(&item).unwrap().unwrap().hash_key_range, HashKeyRange::new(5, 5));
        item.insert(names::ENDING_HASH_KEY.to_owned(), Attribute::S("4".to_owned()));
        assert!(Lease::from_item(&item).is_err());
    }

    proptest! {
        #[test]
        fn a_lease_round_trips(lease in arbitrary::lease()) {
            let item = lease.to_item();
            prop_assert!(!item.values().any(|value| matches!(value, Attribute::S(text) if text.is_empty())));
            prop_assert_eq!(Lease::from_item(&item), Ok(Some(lease)));
        }

        #[test]
        fn no_row_panics(item in arbitrary::item()) {
            let _ = Lease::from_item(&item).map_err(|unreadable| unreadable.to_string());
        }
    }
}
