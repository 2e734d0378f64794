//! Sample order events for local mode.

use std::error::Error;

use kinesis_consumer::aggregation::{Added, Aggregator};
use kinesis_consumer::testing::{NewRecord, SimulatedKinesis};
use serde::{Deserialize, Serialize};

/// Orders of one customer in a row; each second such row goes into one KPL aggregate.
const ORDERS_IN_A_ROW: usize = 25;

/// What the sample producers write, one per user record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OrderEvent {
    pub(crate) order_id: u64,
    pub(crate) customer: String,
    pub(crate) event_type: String,
    pub(crate) amount_cents: u64,
}

impl OrderEvent {
    /// The `order_id`-th sample event.
    pub(crate) fn sample(order_id: u64) -> Self {
        let event_type = match order_id % 10 {
            0..=6 => "user_action",
            7 | 8 => "system_event",
            _ => "error_event",
        };
        Self {
            order_id,
            customer: format!("customer-{}", order_id / ORDERS_IN_A_ROW as u64 % 997),
            event_type: event_type.to_owned(),
            amount_cents: 100 + order_id * 37 % 10_000,
        }
    }
}

/// Writes `count` order events, about half of them inside KPL aggregates.
///
/// An aggregate holds the orders of one customer: user records belong to the shard that their own
/// partition key hashes to, and a consumer leaves out those that lie in another shard's range.
pub(crate) fn feed(kinesis: &SimulatedKinesis, stream: &str, count: u64) -> Result<(), Box<dyn Error>> {
    for (row, first) in (0..count).step_by(ORDERS_IN_A_ROW).enumerate() {
        let events = (first..count.min(first + ORDERS_IN_A_ROW as u64)).map(OrderEvent::sample);
        let is_aggregated = row % 2 == 1;
        let mut aggregator = Aggregator::new();
        for event in events {
            let json = serde_json::to_vec(&event)?;
            if is_aggregated {
                if aggregator.add(&event.customer, None, &json) != Added::Yes {
                    return Err("25 small events do not fit an aggregate".into());
                }
            } else {
                kinesis.put(stream, event.customer, json)?;
            }
        }
        if let Some(aggregate) = aggregator.finish() {
            kinesis.put_record(stream, NewRecord::new(aggregate.partition_key, aggregate.data))?;
        }
    }
    Ok(())
}
