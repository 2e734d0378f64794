/// Where reading starts in a shard nobody has processed yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartStrategy {
    /// With the records that arrive from now on.
    #[default]
    Latest,
    /// With the oldest record the stream still has.
    Oldest,
    /// With the records that arrived at or after this time, in milliseconds since the Unix epoch.
    Timestamp(u64),
}
