//! The KPL's message as `prost` types: used to encode aggregates, and in tests as the independent parser
//! against which the hand-written one is checked.

/// The message between the magic bytes and the digest.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    pub(super) partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub(super) records: Vec<UserRecord>,
}

/// One user record.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UserRecord {
    #[prost(uint64, required, tag = "1")]
    pub(super) partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(super) explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    pub(super) data: bytes::Bytes,
}
