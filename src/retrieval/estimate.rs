use super::budget::RECORD_OVERHEAD;

/// The maximum payload that GetRecords returns.
const PAYLOAD_MAX: u64 = 10 << 20;

const BEHIND_MIN: u64 = 1 << 20;
const TIP_MIN: u64 = 64 << 10;

/// How much memory to reserve before a page is read. If every read reserved the largest possible page, a
/// dozen shards would block all others. Pages of one shard are similar in size, so twice the last one is
/// nearly always enough. If it is not, the page is read again with a larger reservation.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageEstimate {
    bytes: u64,
    bytes_max: u64,
}

impl PageEstimate {
    /// The estimate for a shard of which no page was read, with `limit` records per request.
    pub(super) fn new(limit: u32) -> Self {
        Self { bytes: BEHIND_MIN, bytes_max: PAYLOAD_MAX + u64::from(limit) * RECORD_OVERHEAD }
    }

    /// The bytes to reserve for the next page.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that a page costing `cost` was read, whether it was kept or not.
    pub(super) fn page_read(&mut self, cost: u64, is_behind: bool) {
        let min = if is_behind { BEHIND_MIN } else { TIP_MIN };
        self.bytes = (cost * 2).clamp(min, self.bytes_max.max(cost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_follow_the_pages() {
        let mut estimate = PageEstimate::new(1000);
        assert_eq!(estimate.bytes(), 1 << 20, "nothing known");
        estimate.page_read(0, false);
        assert_eq!(estimate.bytes(), 64 << 10, "idle");
        estimate.page_read(100 << 10, false);
        assert_eq!(estimate.bytes(), 200 << 10);
        estimate.page_read(0, true);
        assert_eq!(estimate.bytes(), 1 << 20, "behind");
        estimate.page_read(9 << 20, true);
        assert_eq!(estimate.bytes(), (10 << 20) + 1000 * RECORD_OVERHEAD, "the largest page there is");
        estimate.page_read(20 << 20, true);
        assert_eq!(estimate.bytes(), 20 << 20, "and yet a larger one was seen");
    }
}
