use crate::lease::Lease;
use crate::lease::origin::{Mismatch, foreign_stream};
use crate::types::StreamId;

/// Why a consumer must not use a lease table: it would not go on where the leases stand.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "the lease table has {count} lease(s) of a consumer of a single stream, such as {lease}, and none of several \
         streams. Their keys differ, so each stream would be read anew by its start strategy, and what was not \
         processed yet be skipped or come again. To go on, read the stream with stream(..) alone; to read several, \
         let the old consumer finish, then give this one another application name or table_name, or delete the \
         old leases"
    )]
    SingleStream { lease: String, count: usize },
    #[error(
        "the lease table has {count} lease(s) of a consumer of several streams, such as {lease}, and none of a \
         single stream. Their keys differ, so the stream would be read anew by its start strategy, and what was not \
         processed yet be skipped or come again. To go on, give the streams with streams([..]); to read a single \
         one, let the old consumer finish, then give this one another application name or table_name, or delete \
         the old leases"
    )]
    SeveralStreams { lease: String, count: usize },
    #[error(
        "the lease table is in use for stream {other} (lease {lease}), and this consumer reads stream {stream}: leases \
         of a single stream do not name it. Give each stream's consumer an application name of its own, \
         or read both with streams([..])"
    )]
    AnotherStream { lease: String, other: String, stream: String },
}

/// Whether a consumer of `streams` may use a table with these leases.
pub(crate) fn admit(leases: &[Lease], streams: &[&StreamId], is_multi: bool) -> Result<(), Refusal> {
    let unfinished = || leases.iter().filter(|lease| !lease.checkpoint.is_shard_end());
    let (ours, others): (Vec<&Lease>, Vec<&Lease>) =
        unfinished().partition(|lease| lease.stream_name.is_some() == is_multi);
    if ours.is_empty()
        && let Some(lease) = others.first()
    {
        let (lease, count) = (lease.key.to_string(), others.len());
        return Err(match is_multi {
            true => Refusal::SingleStream { lease, count },
            false => Refusal::SeveralStreams { lease, count },
        });
    }
    if is_multi {
        return Ok(());
    }
    for stream in streams {
        for lease in &ours {
            if let Some(Mismatch::OtherStream { name }) = foreign_stream(lease, stream) {
                let (lease, stream) = (lease.key.to_string(), stream.name().to_owned());
                return Err(Refusal::AnotherStream { lease, other: name, stream });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Checkpoint;

    fn single(source: Option<&str>) -> Lease {
        let mut lease = Lease::new("shardId-0", Checkpoint::TrimHorizon);
        lease.source_stream = source.map(str::to_owned);
        lease
    }

    fn several() -> Lease {
        let mut lease = Lease::new("1:orders:5:shardId-0", Checkpoint::TrimHorizon);
        lease.stream_name = Some("1:orders:5".to_owned());
        lease
    }

    fn ended(lease: Lease) -> Lease {
        Lease { checkpoint: Checkpoint::ShardEnd, ..lease }
    }

    fn admitted(leases: &[Lease], is_multi: bool) -> Result<(), Refusal> {
        admit(leases, &[&"orders".parse().expect("a name")], is_multi)
    }

    #[test]
    fn a_consumer_goes_on_with_leases_of_its_own_mode() {
        for is_multi in [false, true] {
            assert_eq!(admitted(&[], is_multi), Ok(()));
            assert_eq!(admitted(&[single(None), several()], is_multi), Ok(()), "left over from a change");
        }
        assert_eq!(admitted(&[single(Some("orders"))], false), Ok(()));
        assert_eq!(admitted(&[several()], true), Ok(()));
        assert_eq!(admitted(&[ended(single(None))], true), Ok(()), "nothing is left of it to skip");
    }

    #[test]
    fn leases_of_the_other_mode_alone_are_refused_with_what_to_do() {
        let error = admitted(&[single(None), ended(single(None))], true).expect_err("the other mode");
        assert!(
            error.to_string().starts_with("the lease table has 1 lease(s) of a consumer of a single"),
            "{error}"
        );
        let error = admitted(&[several()], false).expect_err("the other mode");
        assert!(error.to_string().contains("streams([..])"), "{error}");
    }

    #[test]
    fn leases_of_another_single_stream_are_refused() {
        let error = admitted(&[single(None), single(Some("payments"))], false).expect_err("another stream");
        let text = error.to_string();
        assert!(text.contains("stream payments") && text.contains("application name"), "{text}");
    }
}
