use std::time::Duration;

use super::{Shard, ShardFilter, ShardPageRequest, StreamApi, StreamError, StreamErrorKind};
use crate::runtime::{Backoff, Clock};
use crate::types::StreamId;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_millis(1500);
/// Retries of one page; callers try again later.
const RETRIES: usize = 8;
/// A page has up to 1,000 shards, so no stream comes near this limit.
const PAGES_MAX: usize = 1000;

/// Lists the shards of a stream, page by page, with retries.
///
/// # Errors
///
/// The error of the last attempt; `Malformed` if the pages do not end.
pub(crate) async fn list_shards(
    api: &dyn StreamApi,
    clock: &Clock,
    stream: &StreamId,
    filter: Option<ShardFilter>,
    seed: u64,
) -> Result<Vec<Shard>, StreamError> {
    let first = ShardPageRequest::First(filter);
    let mut request = first.clone();
    let mut shards = Vec::new();
    for page in 0..PAGES_MAX {
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX, RETRIES, seed.wrapping_add(page as u64));
        let page = loop {
            match api.list_shards(stream, &request).await {
                Ok(page) => break page,
                Err(error) if error.is_retryable() => match pauses.next() {
                    Some(pause) => clock.sleep(pause).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        };
        shards.extend(page.shards);
        match page.next_token {
            Some(token) => request = ShardPageRequest::Next(token),
            None => return Ok(shards),
        }
    }
    Err(StreamError::new(StreamErrorKind::Malformed, "ListShards", stream.name()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use async_trait::async_trait;

    use super::*;
    use crate::kinesis::{IteratorPosition, RecordsPage, ShardIterator, ShardPage, StreamDescription};
    use crate::types::{HashKeyRange, ShardId};

    /// Returns `answers`, last first, and records the requests.
    #[derive(Debug, Default)]
    struct Script {
        answers: Mutex<Vec<Result<ShardPage, StreamErrorKind>>>,
        requests: Mutex<Vec<ShardPageRequest>>,
    }

    #[async_trait]
    impl StreamApi for Script {
        async fn describe_stream(&self, _: &StreamId) -> Result<StreamDescription, StreamError> {
            Ok(StreamDescription::new("arn", 0, SystemTime::UNIX_EPOCH))
        }

        async fn list_shards(
            &self,
            _: &StreamId,
            request: &ShardPageRequest,
        ) -> Result<ShardPage, StreamError> {
            self.requests.lock().unwrap().push(request.clone());
            let answer = self.answers.lock().unwrap().pop().expect("an answer");
            answer.map_err(|kind| StreamError::new(kind, "ListShards", "orders"))
        }

        async fn shard_iterator(
            &self,
            _: &StreamId,
            _: &ShardId,
            _: &IteratorPosition,
        ) -> Result<ShardIterator, StreamError> {
            panic!("not requests for")
        }

        async fn records(&self, _: &StreamId, _: &ShardIterator, _: u32) -> Result<RecordsPage, StreamError> {
            panic!("not requests for")
        }
    }

    fn page(id: &str, token: Option<&str>) -> Result<ShardPage, StreamErrorKind> {
        let shard = Shard::new(id, HashKeyRange::FULL, 1_u128.into());
        Ok(ShardPage::new(vec![shard], token.map(str::to_owned)))
    }

    async fn list(
        answers: Vec<Result<ShardPage, StreamErrorKind>>,
    ) -> (Result<Vec<Shard>, StreamError>, Script) {
        let script = Script { answers: Mutex::new(answers.into_iter().rev().collect()), ..Script::default() };
        let stream = "orders".parse().expect("a name");
        let filter = Some(ShardFilter::AtLatest);
        let listed = list_shards(&script, &Clock::system(), &stream, filter, 1).await;
        (listed, script)
    }

    #[tokio::test(start_paused = true)]
    async fn following_pages_are_requested_by_token_alone() {
        let (listed, script) = list(vec![page("a", Some("t")), page("b", None)]).await;
        assert_eq!(listed.expect("listed").len(), 2);
        let requests = script.requests.into_inner().unwrap();
        let first = ShardPageRequest::First(Some(ShardFilter::AtLatest));
        assert_eq!(requests, [first, ShardPageRequest::Next("t".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_retried() {
        use StreamErrorKind::{InUse, Throttled, Unavailable};
        let (listed, _) = list(vec![Err(Throttled), Err(InUse), Err(Unavailable), page("a", None)]).await;
        assert_eq!(listed.expect("listed").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_bounded_and_permanent_failures_are_returned_at_once() {
        let (listed, script) = list((0..100).map(|_| Err(StreamErrorKind::Throttled)).collect()).await;
        assert_eq!(listed.expect_err("throttled").kind(), StreamErrorKind::Throttled);
        assert_eq!(script.requests.into_inner().unwrap().len(), RETRIES + 1);
        let (listed, script) = list(vec![Err(StreamErrorKind::NotFound)]).await;
        assert_eq!(listed.expect_err("not found").kind(), StreamErrorKind::NotFound);
        assert_eq!(script.requests.into_inner().unwrap().len(), 1);
    }
}
