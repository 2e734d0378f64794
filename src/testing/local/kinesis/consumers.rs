use super::super::wire::Wire;
use super::attached::tags;
use super::{name_in_arn, stream_name};
use crate::testing::SimulatedKinesis;
use crate::testing::stream::{ErrorCode, RegisteredConsumer, Resource, ServiceError, stream_arn};

pub(super) fn register(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let (stream, name) = (stream_name(input)?, input.required_text("ConsumerName")?);
    let tags = tags(input)?;
    kinesis.change(|service, now| {
        let consumer = service.register_consumer(now, &stream, name)?;
        service.attached(now, &Resource::Consumer(consumer.arn.clone()))?.tags.extend(tags);
        // The response says CREATING even if the consumer is active at once.
        Ok(Wire::map([("Consumer", description(&consumer, false, None))]))
    })
}

pub(super) fn deregister(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    kinesis.change(|service, now| {
        let arn = match input.text("ConsumerARN")? {
            Some(arn) => arn.to_owned(),
            None => {
                let (stream, name) = by_name(input)?;
                service.consumer(now, &stream, &name)?.0.arn
            }
        };
        service.deregister_consumer(now, &arn)
    })?;
    Ok(Wire::Null)
}

pub(super) fn describe(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    kinesis.look(|service, now| {
        let (stream, consumer, is_active) = match input.text("ConsumerARN")? {
            Some(arn) => service.consumer_by_arn(now, arn)?,
            None => {
                let (stream, name) = by_name(input)?;
                let (consumer, is_active) = service.consumer(now, &stream, &name)?;
                (stream, consumer, is_active)
            }
        };
        let description = description(&consumer, is_active, Some(stream_arn(&stream)));
        Ok(Wire::map([("ConsumerDescription", description)]))
    })
}

pub(super) fn list(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    let limit = input.number::<usize>("MaxResults")?.unwrap_or(100);
    let after = input.text("NextToken")?.unwrap_or_default();
    kinesis.look(|service, now| {
        let consumers = &service.stream(now, &stream)?.consumers;
        let mut page: Vec<_> =
            consumers.values().filter(|consumer| consumer.name.as_str() > after).take(limit + 1).collect();
        let has_more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| has_more).map(|consumer| consumer.name.as_str());
        let consumers = page.iter().map(|consumer| description(consumer, consumer.is_active(now), None));
        Ok(Wire::map([("Consumers", Wire::list(consumers)), ("NextToken", last.into())]))
    })
}

fn by_name(input: &Wire) -> Result<(String, String), ServiceError> {
    match (input.text("StreamARN")?, input.text("ConsumerName")?) {
        (Some(stream), Some(name)) => Ok((name_in_arn(stream)?, name.to_owned())),
        _ => {
            Err(ErrorCode::InvalidArgument
                .error("Either ConsumerARN or StreamARN and ConsumerName are needed."))
        }
    }
}

fn description(consumer: &RegisteredConsumer, is_active: bool, stream: Option<String>) -> Wire {
    Wire::map([
        ("ConsumerName", consumer.name.as_str().into()),
        ("ConsumerARN", consumer.arn.as_str().into()),
        ("ConsumerStatus", if is_active { "ACTIVE" } else { "CREATING" }.into()),
        ("ConsumerCreationTimestamp", consumer.created.into()),
        ("StreamARN", stream.into()),
    ])
}
