//! Monitoring and encryption of streams: stored and returned, without any other effect.

use super::super::wire::{Wire, missing};
use super::records::encryption_name;
use super::stream_name;
use crate::testing::SimulatedKinesis;
use crate::testing::stream::{ErrorCode, ServiceError, StreamState, shard_metrics, stream_arn};

/// A KMS key can be given by an id, an ARN or an alias.
const KEY_ID_MAX: usize = 2048;

pub(super) fn enable_monitoring(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    change_monitoring(kinesis, input, true)
}

pub(super) fn disable_monitoring(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    change_monitoring(kinesis, input, false)
}

fn change_monitoring(
    kinesis: &SimulatedKinesis,
    input: &Wire,
    is_enabled: bool,
) -> Result<Wire, ServiceError> {
    let (name, named) = (stream_name(input)?, shard_metrics(&input.texts("ShardLevelMetrics")?)?);
    let (before, after) = kinesis.change(|service, now| {
        service.reconfigure(now, &name, |stream| {
            let monitoring = &mut stream.settings.monitoring;
            let before = monitoring.clone();
            if is_enabled {
                monitoring.extend(named);
            } else {
                monitoring.retain(|metric| !named.contains(metric));
            }
            (before, monitoring.clone())
        })
    })?;
    Ok(Wire::map([
        ("StreamName", name.as_str().into()),
        ("CurrentShardLevelMetrics", Wire::list(before.into_iter().map(Wire::from))),
        ("DesiredShardLevelMetrics", Wire::list(after.into_iter().map(Wire::from))),
        ("StreamARN", stream_arn(&name).into()),
    ]))
}

pub(super) fn start_encryption(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let key = key(input)?.to_owned();
    set_key(kinesis, input, Some(key))
}

pub(super) fn stop_encryption(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    key(input)?;
    set_key(kinesis, input, None)
}

fn set_key(kinesis: &SimulatedKinesis, input: &Wire, key: Option<String>) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    kinesis.change(|service, now| service.reconfigure(now, &stream, |stream| stream.settings.key = key))?;
    Ok(Wire::Null)
}

/// The key in a request; the only type of encryption is with a key.
fn key(input: &Wire) -> Result<&str, ServiceError> {
    match input.required_text("EncryptionType")? {
        "KMS" => {}
        "NONE" => return Err(ErrorCode::InvalidArgument.error("EncryptionType must be KMS, not NONE.")),
        other => return Err(ErrorCode::Validation.error(format!("{other} is not an EncryptionType."))),
    }
    let key = input.text("KeyId")?.ok_or_else(|| missing("keyId"))?;
    if !(1..=KEY_ID_MAX).contains(&key.chars().count()) {
        return Err(ErrorCode::Validation.error(format!("KeyId must have 1 to {KEY_ID_MAX} characters.")));
    }
    Ok(key)
}

/// These settings in both kinds of description.
pub(super) fn describe(stream: &StreamState) -> [(&'static str, Wire); 3] {
    let metrics = Wire::list(stream.settings.monitoring.iter().copied().map(Wire::from));
    let key = stream.settings.key.as_deref();
    [
        ("EnhancedMonitoring", Wire::list([Wire::map([("ShardLevelMetrics", metrics)])])),
        ("EncryptionType", encryption_name(stream.encryption_type()).into()),
        ("KeyId", key.into()),
    ]
}
