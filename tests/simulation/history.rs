//! What happened in one run, as plain data: everything the invariants are checked on.

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

/// One life of one worker: a worker that is restarted under its name lives again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) worker: String,
    pub(crate) number: u32,
}

/// A request that changed the lease table.
#[derive(Debug, Clone)]
pub(crate) struct By {
    pub(crate) life: Life,
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

/// One processor, from `initialize` to the last thing it hears.
pub(crate) type ProcessorId = u32;

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The operator's side.
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
    /// A worker left a healthy fleet, and its leases were taken by others; `None` if not in time.
    HandedOver {
        after: Option<Duration>,
        limit: Duration,
    },

    /// A worker died in a healthy fleet, and its leases were taken up by others; `None` if not in time.
    TakenOver {
        after: Option<Duration>,
        limit: Duration,
        was_leader: bool,
    },
    /// A healthy fleet that was made ready is run by a leader now; `None` if not in time.
    Migrated {
        after: Option<Duration>,
    },
    RolledBack,

    /// A worker's life.
    Born {
        life: Life,
        rate: f64,
        mode: CoordinationMode,
    },
    StartFailed {
        life: Life,
        reason: String,
    },
    Killed {
        life: Life,
    },
    Leaving {
        life: Life,
    },
    Left {
        life: Life,
    },
    Paused {
        life: Life,
        length: Duration,
    },

    /// The lease table, at the moment it changes.
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
    /// A worker has told how busy it is, or (`None`) has taken that back.
    Stats {
        worker: String,
        updated: Option<String>,
        by: Option<By>,
    },
    /// How far the fleet has come from 2.x.
    Version {
        version: String,
        by: Option<By>,
    },
    /// A worker has read the whole table.
    Scanned {
        life: Life,
    },
    /// A worker was told, in answer to a write on a lease it held, that another owns it.
    Refused {
        life: Life,
        key: LeaseKey,
    },

    /// What processors hear.
    Initialized {
        processor: ProcessorId,
        life: Life,
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
    /// A checkpoint that must be refused was asked for.
    WrongCheckpoint {
        processor: ProcessorId,
        asked: String,
        accepted: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) what: What,
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

/// What a processor is, as found in the events.
#[derive(Debug, Clone)]
pub(crate) struct Processor {
    pub(crate) life: Life,
    pub(crate) shard: ShardId,
    pub(crate) from: Checkpoint,
}

/// What a leader goes by.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Leading {
    /// Whether leases are never taken from a worker that renews them.
    pub(crate) asks_first: bool,
    /// How long a processor may take to let go.
    pub(crate) handoff_timeout: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Where the fleet starts.
    pub(crate) start: Start,
    /// The time the fleet starts at, if that is how it starts.
    pub(crate) timestamp: Option<Duration>,
    pub(crate) events: Vec<Event>,
    pub(crate) shards: BTreeMap<ShardId, ShardRecord>,
    /// The shortest retention the stream ever had, and from when on.
    pub(crate) retention: Option<(Duration, Duration)>,
    pub(crate) failover: Duration,
    /// What a leader of the fleet goes by.
    pub(crate) leading: Leading,
    pub(crate) memory_max: u64,
    /// The most payload bytes any worker had in hand at once.
    pub(crate) memory_peaks: BTreeMap<Life, u64>,
    /// When all was well again; what was not, if it never was.
    pub(crate) healed: Option<Result<Duration, String>>,
}

/// Something that must never happen has happened.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) at: Duration,
    pub(crate) what: String,
}

impl History {
    pub(crate) fn processors(&self) -> BTreeMap<ProcessorId, Processor> {
        let mut found = BTreeMap::new();
        for event in &self.events {
            if let What::Initialized { processor, life, shard, from } = &event.what {
                let (life, shard, from) = (life.clone(), shard.clone(), from.clone());
                found.insert(*processor, Processor { life, shard, from });
            }
        }
        found
    }

    /// How fast the clocks of workers run.
    pub(crate) fn rates(&self) -> BTreeMap<&Life, f64> {
        self.events
            .iter()
            .filter_map(|event| match &event.what {
                What::Born { life, rate, .. } => Some((life, *rate)),
                _ => None,
            })
            .collect()
    }

    /// From when on a processor must get what is written, unless it starts behind a checkpoint.
    pub(crate) fn wanted_from(&self, processor: &Processor) -> Duration {
        match processor.from {
            Checkpoint::Latest | Checkpoint::AtTimestamp => self.required_from(),
            _ => Duration::ZERO,
        }
    }

    /// From when on what is written must be processed by somebody. `LATEST` is one instant for the whole
    /// application: the one that its first lease was created with, and with which the worker was started that
    /// created it.
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

    /// Whether the stream may have forgotten at `now` what was written at `written`.
    pub(crate) fn may_be_expired(&self, written: Duration, now: Duration) -> bool {
        self.retention.is_some_and(|(retention, since)| now >= since && written + retention <= now)
    }

    /// The events that tell of `text`, for reading.
    pub(crate) fn print(&self) {
        for event in &self.events {
            println!("{event}");
        }
    }

    /// A number that differs if anything does.
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

/// Writes a history while it happens.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    started: Instant,
    history: Arc<Mutex<History>>,
}

impl Event {
    /// The row as it was written, if that is what happened.
    fn row(&self) -> Option<&Lease> {
        match &self.what {
            What::Row { after, .. } => after.as_deref(),
            _ => None,
        }
    }
}

impl Log {
    pub(crate) fn new(failover: Duration, leading: Leading, memory_max: u64) -> Self {
        let history = History { failover, leading, memory_max, ..History::default() };
        Self { started: Instant::now(), history: Arc::new(Mutex::new(history)) }
    }

    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn tell(&self, what: What) {
        let event = Event { at: self.now(), what };
        self.change(|history| history.events.push(event));
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut History) -> T) -> T {
        change(&mut self.history.lock().expect("not poisoned"))
    }

    pub(crate) fn take(&self) -> History {
        self.change(|history| history.clone())
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.worker, self.number)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} ", self.at.as_secs_f64())?;
        match &self.what {
            What::Row { key, before, after, by } => {
                write!(f, "row {key}: ")?;
                match (before, after) {
                    (None, Some(row)) => write!(f, "created {}", brief(row))?,
                    (Some(row), None) => write!(f, "deleted {}", brief(row))?,
                    (Some(before), Some(after)) => write!(f, "{} -> {}", brief(before), brief(after))?,
                    (None, None) => write!(f, "nothing")?,
                }
                match by {
                    Some(By { life, operation, sent }) => {
                        write!(f, " ({operation} by {life}, sent at {:.3})", sent.as_secs_f64())
                    }
                    None => Ok(()),
                }
            }
            What::Delivered { processor, positions } => {
                write!(f, "p{processor} gets {} records", positions.len())?;
                match (positions.first(), positions.last()) {
                    (Some(first), Some(last)) => write!(f, " {first} to {last}"),
                    _ => Ok(()),
                }
            }
            What::Initialized { processor, life, shard, from } => {
                write!(f, "p{processor} made by {life} for {shard} from {from}")
            }
            What::Refused { life, key } => write!(f, "{life} is told that {key} is another's"),
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
        write!(f, "{} at {:.3} s: {}", self.invariant, self.at.as_secs_f64(), self.what)
    }
}
