use std::time::Duration;

use crate::config::{check_duration, with_settings};
use crate::error::Error;

/// How the calls of a processor end and begin again (KCL's `LifecycleConfig`).
///
/// ```
/// use std::time::Duration;
/// use kinesis_consumer::LifecycleConfig;
///
/// let lifecycle = LifecycleConfig::default().with_shutdown_timeout(Duration::from_secs(20));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LifecycleConfig {
    /// The pause before a callback that failed is called again (`taskBackoffTimeMillis`; 1 ms to 1 h,
    /// default 500 ms). It doubles with every further failure, up to 30 s.
    pub task_backoff_time: Duration,
    /// How long [`shutdown`](crate::ConsumerHandle::shutdown) waits for processors to return before
    /// it leaves them behind, their leases to expire (1 ms to 24 h, default 60 s). KCL waits without limit.
    pub shutdown_timeout: Duration,
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        Self { task_backoff_time: Duration::from_millis(500), shutdown_timeout: Duration::from_secs(60) }
    }
}

with_settings!(LifecycleConfig {
    with_task_backoff_time = task_backoff_time: Duration,
    with_shutdown_timeout = shutdown_timeout: Duration,
});

impl LifecycleConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        const MILLISECOND: Duration = Duration::from_millis(1);
        const HOUR: Duration = Duration::from_secs(3600);
        check_duration("task_backoff_time", self.task_backoff_time, MILLISECOND..=HOUR)?;
        check_duration("shutdown_timeout", self.shutdown_timeout, MILLISECOND..=HOUR * 24)
    }
}

/// When a processor is called (KCL's `ProcessorConfig`).
///
/// ```
/// use kinesis_consumer::ProcessorConfig;
///
/// let processor = ProcessorConfig::default().with_call_process_records_even_for_empty_record_list(true);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorConfig {
    /// Whether processors are also called with empty batches, to learn how far behind an idle shard
    /// is (`callProcessRecordsEvenForEmptyRecordList`; default false).
    pub call_process_records_even_for_empty_record_list: bool,
}

with_settings!(ProcessorConfig {
    with_call_process_records_even_for_empty_record_list = call_process_records_even_for_empty_record_list: bool,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        let default = LifecycleConfig::default;
        assert!(default().validate().is_ok());
        for (config, message) in [
            (
                default().with_task_backoff_time(Duration::ZERO),
                "task_backoff_time is 0 ms; it must be between 1 and 3600000 ms",
            ),
            (default().with_shutdown_timeout(Duration::MAX), "; it must be between 1 and 86400000 ms"),
        ] {
            let error = config.validate().expect_err("out of range").to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
