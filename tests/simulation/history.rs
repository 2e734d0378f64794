//! What happened in one run, as plain data: the input of all invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_consumer::lease::Lease;
use kinesis_consumer::{
    Checkpoint, CoordinationMode, ExtendedSequenceNumber, HashKeyRange, LeaseKey, ShardId,
};
use tokio::time::Instant;

use crate::scenario::{Start, WALL};

/// One run of a worker: a worker that is restarted under its name is a new incarnation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Incarnation {
    pub(crate) worker: String,
    pub(crate) number: u32,
}

/// A request that changed the lease table.
#[derive(Debug, Clone)]
pub(crate) struct By {
    pub(crate) incarnation: Incarnation,
    pub(crate) operation: &'static str,
    pub(crate) sent: Duration,
}

/// The leader's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) owner: String,
    pub(crate) version: String,
    pub(crate) duration: Duration,
}

/// One processor, from `initialize` to its last callback.
pub(crate) type ProcessorId = u32;

#[derive(Debug, Clone)]
pub(crate) enum EventKind {
    /// Operations on the stream, and phases of the run.
    Put {
        shard: ShardId,
        user_records: usize,
        poisoned: bool,
    },
    ShardsChanged {
        open: Vec<ShardId>,
    },
    FanOutLost {
        length: Duration,
    },
    SubscriptionStolen {
        shard: ShardId,
        stolen: bool,
    },
    RetentionSet {
        retention: Duration,
    },
    FaultsStopped,
    FaultsBegan,
    Settled,
    /// A worker left a healthy fleet, and others took its leases; `None` if not in time.
    HandedOver {
        after: Option<Duration>,
        limit: Duration,
    },

    /// A worker died in a healthy fleet, and others took its leases; `None` if not in time.
    TakenOver {
        after: Option<Duration>,
        limit: Duration,
        was_leader: bool,
    },
    /// A healthy fleet that was ready for a leader has one now; `None` if not in time.
    Migrated {
        after: Option<Duration>,
    },
    RolledBack,

    /// Workers.
    Started {
        incarnation: Incarnation,
        rate: f64,
        mode: CoordinationMode,
    },
    StartFailed {
        incarnation: Incarnation,
        reason: String,
    },
    Killed {
        incarnation: Incarnation,
    },
    StopRequested {
        incarnation: Incarnation,
    },
    Stopped {
        incarnation: Incarnation,
    },
    Suspended {
        incarnation: Incarnation,
        length: Duration,
    },

    /// Changes of the lease table.
    Row {
        key: LeaseKey,
        before: Option<Box<Lease>>,
        after: Option<Box<Lease>>,
        by: Option<By>,
    },
    LockRow {
        before: Option<Lock>,
        after: Option<Lock>,
        by: Option<By>,
    },
    /// A worker reported its metrics, or (`None`) withdrew them.
    MetricsReported {
        worker: String,
        updated: Option<String>,
        by: Option<By>,
    },
    /// The state of the migration from 2.x.
    Version {
        version: String,
        by: Option<By>,
    },
    /// A worker read the whole table.
    Scanned {
        incarnation: Incarnation,
    },
    /// A worker learned, from the response to a write on a lease it held, that another worker owns it.
    Refused {
        incarnation: Incarnation,
        key: LeaseKey,
    },

    /// Callbacks of processors.
    Initialized {
        processor: ProcessorId,
        incarnation: Incarnation,
        shard: ShardId,
        from: Checkpoint,
    },
    /// A call of `process_records` with these positions.
    Delivered {
        processor: ProcessorId,
        positions: Vec<ExtendedSequenceNumber>,
    },
    Returned {
        processor: ProcessorId,
        panicked: bool,
    },
    LeaseLost {
        processor: ProcessorId,
    },
    ShardEnded {
        processor: ProcessorId,
    },
    ShutdownRequested {
        processor: ProcessorId,
    },
    /// A checkpoint that must be refused was requested.
    InvalidCheckpoint {
        processor: ProcessorId,
        requested: String,
        accepted: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) kind: EventKind,
}

/// A user record in the stream.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) position: ExtendedSequenceNumber,
    pub(crate) at: Duration,
}

/// A shard of the stream, with every user record ever written to it.
#[derive(Debug, Clone)]
pub(crate) struct ShardRecord {
    pub(crate) parents: BTreeSet<ShardId>,
    pub(crate) range: HashKeyRange,
    pub(crate) written: Vec<Written>,
    pub(crate) is_open: bool,
}

/// A processor, as found in the events.
#[derive(Debug, Clone)]
pub(crate) struct Processor {
    pub(crate) incarnation: Incarnation,
    pub(crate) shard: ShardId,
    pub(crate) from: Checkpoint,
}

/// The settings of a leader.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeaderRules {
    /// Whether leases are never taken from a worker that renews them.
    pub(crate) asks_first: bool,
    /// How long a processor may take to return in a handoff.
    pub(crate) handoff_timeout: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Where the fleet starts.
    pub(crate) start: Start,
    /// The timestamp at which the fleet starts, if it starts at one.
    pub(crate) timestamp: Option<Duration>,
    pub(crate) events: Vec<Event>,
    pub(crate) shards: BTreeMap<ShardId, ShardRecord>,
    /// The shortest retention the stream ever had, and from when on.
    pub(crate) retention: Option<(Duration, Duration)>,
    pub(crate) failover: Duration,
    /// The settings of a leader of this fleet.
    pub(crate) leader_rules: LeaderRules,
    pub(crate) memory_max: u64,
    /// The maximum number of payload bytes that each worker held at once.
    pub(crate) memory_peaks: BTreeMap<Incarnation, u64>,
    /// When the fleet had recovered, or what was wrong if it never did.
    pub(crate) healed: Option<Result<Duration, String>>,
}

/// An invariant was violated.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) at: Duration,
    pub(crate) message: String,
}

impl History {
    pub(crate) fn processors(&self) -> BTreeMap<ProcessorId, Processor> {
        let mut found = BTreeMap::new();
        for event in &self.events {
            if let EventKind::Initialized { processor, incarnation, shard, from } = &event.kind {
                let (incarnation, shard, from) = (incarnation.clone(), shard.clone(), from.clone());
                found.insert(*processor, Processor { incarnation, shard, from });
            }
        }
        found
    }

    /// The clock rates of workers.
    pub(crate) fn rates(&self) -> BTreeMap<&Incarnation, f64> {
        self.events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Started { incarnation, rate, .. } => Some((incarnation, *rate)),
                _ => None,
            })
            .collect()
    }

    /// From when on a processor must get the records written, unless it starts at a checkpoint.
    pub(crate) fn wanted_from(&self, processor: &Processor) -> Duration {
        match processor.from {
            Checkpoint::Latest | Checkpoint::AtTimestamp => self.required_from(),
            _ => Duration::ZERO,
        }
    }

    /// From when on records must be processed. `LATEST` is one instant for the whole application: the
    /// one with which its first lease was created, and with which the worker that created it was
    /// started.
    pub(crate) fn required_from(&self) -> Duration {
        match self.start {
            Start::Oldest => Duration::ZERO,
            Start::Timestamp => self.timestamp.unwrap_or_default(),
            Start::Latest => {
                let millis = self.events.iter().filter_map(Event::row).find_map(|row| row.latest_since);
                let since_epoch = millis.map_or(Duration::MAX, Duration::from_millis);
                since_epoch.saturating_sub(WALL)
            }
        }
    }

    /// Whether the stream may have dropped at `now` a record written at `written`.
    pub(crate) fn may_be_expired(&self, written: Duration, now: Duration) -> bool {
        self.retention.is_some_and(|(retention, since)| now >= since && written + retention <= now)
    }

    /// Prints all events.
    pub(crate) fn print(&self) {
        for event in &self.events {
            println!("{event}");
        }
    }

    /// A hash of all events.
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for event in &self.events {
            for byte in event.to_string().bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }
}

/// Records a history while it happens.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    started: Instant,
    history: Arc<Mutex<History>>,
}

impl Event {
    /// The row as it was written, if the event is a write of a row.
    fn row(&self) -> Option<&Lease> {
        match &self.kind {
            EventKind::Row { after, .. } => after.as_deref(),
            _ => None,
        }
    }
}

impl Log {
    pub(crate) fn new(failover: Duration, leader_rules: LeaderRules, memory_max: u64) -> Self {
        let history = History { failover, leader_rules, memory_max, ..History::default() };
        Self { started: Instant::now(), history: Arc::new(Mutex::new(history)) }
    }

    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn record(&self, kind: EventKind) {
        let event = Event { at: self.now(), kind };
        self.change(|history| history.events.push(event));
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut History) -> T) -> T {
        change(&mut self.history.lock().expect("not poisoned"))
    }

    pub(crate) fn take(&self) -> History {
        self.change(|history| history.clone())
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.worker, self.number)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} ", self.at.as_secs_f64())?;
        match &self.kind {
            EventKind::Row { key, before, after, by } => {
                write!(f, "row {key}: ")?;
                match (before, after) {
                    (None, Some(row)) => write!(f, "created {}", brief(row))?,
                    (Some(row), None) => write!(f, "deleted {}", brief(row))?,
                    (Some(before), Some(after)) => write!(f, "{} -> {}", brief(before), brief(after))?,
                    (None, None) => write!(f, "nothing")?,
                }
                match by {
                    Some(By { incarnation, operation, sent }) => {
                        write!(f, " ({operation} by {incarnation}, sent at {:.3})", sent.as_secs_f64())
                    }
                    None => Ok(()),
                }
            }
            EventKind::Delivered { processor, positions } => {
                write!(f, "p{processor} gets {} records", positions.len())?;
                match (positions.first(), positions.last()) {
                    (Some(first), Some(last)) => write!(f, " {first} to {last}"),
                    _ => Ok(()),
                }
            }
            EventKind::Initialized { processor, incarnation, shard, from } => {
                write!(f, "p{processor} made by {incarnation} for {shard} from {from}")
            }
            EventKind::Refused { incarnation, key } => {
                write!(f, "{incarnation} learns that another worker owns {key}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

fn brief(lease: &Lease) -> String {
    let owner = lease.owner.as_ref().map_or("-", |owner| owner.as_str());
    let from = lease.checkpoint_owner.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    format!("[{owner}{from} {} {}]", lease.counter, lease.checkpoint)
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.invariant, self.at.as_secs_f64(), self.message)
    }
}
