/// Where reading starts in a shard nobody has processed yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StartStrategy {
    /// With the records that arrive from the application's first start on. That is one instant for the
    /// whole application: it is stored with the leases (attribute `latestSince`), so a worker that goes on
    /// after a crash or a steal, before the first checkpoint of a shard, starts there too and skips nothing.
    /// An application that has leases of a stream is not new to it: shards that it cannot trace to them are
    /// read from the oldest record.
    ///
    /// Clocks: the instant is by the clock of the worker that creates the lease, so that clock should agree
    /// with the service's to within a second or so. Java KCL has no such instant: a Java worker that goes on
    /// at `LATEST` starts when it opens the shard, and of a lease that Java created, the instant is the start of
    /// the first worker of this crate that acquires it.
    #[default]
    Latest,
    /// With the oldest record the stream still has.
    Oldest,
    /// With the records that arrived at or after this time, in milliseconds since the Unix epoch.
    Timestamp(u64),
}
