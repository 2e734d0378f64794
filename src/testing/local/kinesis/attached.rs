//! Tags and resource policies of streams and stream consumers.

use super::super::wire::Wire;
use super::{name_in_arn, stream_name};
use crate::testing::SimulatedKinesis;
use crate::testing::stream::{ErrorCode, Resource, ServiceError};

/// The longest resource policy, in bytes.
const POLICY_BYTES_MAX: usize = 20 * 1024;

pub(super) fn add_tags(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let (resource, tags) = (resource(input)?, tags(input)?);
    kinesis.change(|service, now| {
        service.attached(now, &resource)?.tags.extend(tags);
        Ok(())
    })?;
    Ok(Wire::Null)
}

pub(super) fn remove_tags(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let (resource, keys) = (resource(input)?, input.texts("TagKeys")?);
    kinesis.change(|service, now| service.untag(now, &resource, &keys))?;
    Ok(Wire::Null)
}

/// ListTagsForResource.
pub(super) fn list_tags(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let resource = resource(input)?;
    kinesis.look(|service, now| {
        let tags = service.attached(now, &resource)?.tags.iter().map(tag);
        Ok(Wire::map([("Tags", Wire::list(tags))]))
    })
}

/// ListTagsForStream, which is paged.
pub(super) fn list_stream_tags(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let resource = Resource::Stream(stream_name(input)?);
    let after = input.text("ExclusiveStartTagKey")?.unwrap_or_default();
    let limit = input.number::<usize>("Limit")?.unwrap_or(50);
    kinesis.look(|service, now| {
        let tags = &service.attached(now, &resource)?.tags;
        let mut page: Vec<_> =
            tags.iter().filter(|(key, _)| key.as_str() > after).take(limit + 1).map(tag).collect();
        let has_more = page.len() > limit;
        page.truncate(limit);
        Ok(Wire::map([("Tags", Wire::List(page)), ("HasMoreTags", has_more.into())]))
    })
}

pub(super) fn put_policy(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let (resource, policy) = (resource(input)?, input.required_text("Policy")?);
    let is_document = serde_json::from_str::<serde_json::Value>(policy).is_ok_and(|json| json.is_object());
    if !is_document || policy.len() > POLICY_BYTES_MAX {
        return Err(ErrorCode::InvalidArgument
            .error(format!("Policy must be a JSON object of at most {POLICY_BYTES_MAX} bytes.")));
    }
    kinesis.change(|service, now| {
        service.attached(now, &resource)?.policy = Some(policy.to_owned());
        Ok(())
    })?;
    Ok(Wire::Null)
}

pub(super) fn get_policy(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let resource = resource(input)?;
    kinesis.look(|service, now| {
        let policy = service.attached(now, &resource)?.policy.clone();
        Ok(Wire::map([("Policy", policy.ok_or_else(|| no_policy(&resource))?.into())]))
    })
}

pub(super) fn delete_policy(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let resource = resource(input)?;
    kinesis.change(|service, now| {
        let policy = service.attached(now, &resource)?.policy.take();
        policy.map(|_| ()).ok_or_else(|| no_policy(&resource))
    })?;
    Ok(Wire::Null)
}

fn no_policy(resource: &Resource) -> ServiceError {
    let (Resource::Stream(name) | Resource::Consumer(name)) = resource;
    ErrorCode::ResourceNotFound.error(format!("No resource policy found for {name}."))
}

/// The stream or consumer that a request is about.
fn resource(input: &Wire) -> Result<Resource, ServiceError> {
    match input.text("ResourceARN")? {
        Some(arn) if arn.contains("/consumer/") => Ok(Resource::Consumer(arn.to_owned())),
        Some(arn) => Ok(Resource::Stream(name_in_arn(arn)?)),
        None => Ok(Resource::Stream(stream_name(input)?)),
    }
}

/// The tags in a request.
pub(super) fn tags(input: &Wire) -> Result<Vec<(String, String)>, ServiceError> {
    let Some(tags) = input.get("Tags") else { return Ok(Vec::new()) };
    let Wire::Map(members) = tags else {
        return Err(ErrorCode::Serialization.error("Tags must be a map."));
    };
    let tag = |key: &str| Ok((key.to_owned(), tags.required_text(key)?.to_owned()));
    members.iter().map(|(key, _)| tag(key)).collect()
}

fn tag((key, value): (&String, &String)) -> Wire {
    Wire::map([("Key", key.as_str().into()), ("Value", value.as_str().into())])
}
