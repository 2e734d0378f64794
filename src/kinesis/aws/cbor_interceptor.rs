use std::sync::Arc;

use aws_sdk_kinesis::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// The largest response accepted: 10 MiB of records, with as much overhead again if they are small.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// Replaces the request body that the SDK made by one in another format, and keeps the response from the
/// SDK. Signing, endpoint, credentials and connection stay the SDK's.
#[derive(Debug, Clone)]
pub(super) struct CborInterceptor {
    content_type: &'static str,
    request: Bytes,
    /// The content type of a response that is an event stream, if one is expected.
    event_stream: Option<&'static str>,
    response: Arc<Mutex<Option<RawResponse>>>,
}

/// A response in the format of the request, not read yet.
#[derive(Debug)]
pub(super) struct RawResponse {
    pub(super) status: u16,
    pub(super) is_event_stream: bool,
    body: SdkBody,
}

impl CborInterceptor {
    pub(super) fn new(content_type: &'static str, request: Vec<u8>) -> Self {
        Self { content_type, request: request.into(), event_stream: None, response: Arc::default() }
    }

    /// Keeps a response of this content type, too.
    pub(super) fn with_event_stream(self, content_type: &'static str) -> Self {
        Self { event_stream: Some(content_type), ..self }
    }

    /// The response, unless there was none, or it was in another format and the SDK has read it.
    pub(super) fn response(&self) -> Option<RawResponse> {
        self.response.lock().take()
    }
}

impl Intercept for CborInterceptor {
    fn name(&self) -> &'static str {
        "kinesis-consumer interceptor"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        request.headers_mut().try_insert("content-type", self.content_type)?;
        request.headers_mut().try_insert("content-length", self.request.len().to_string())?;
        *request.body_mut() = SdkBody::from(self.request.clone());
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let content_type = response.headers().get("content-type");
        let is_event_stream = content_type.is_some() && content_type == self.event_stream;
        if is_event_stream || content_type.is_some_and(|kind| kind.starts_with(self.content_type)) {
            let status = response.status().as_u16();
            let body = std::mem::replace(response.body_mut(), SdkBody::from("{}"));
            response.headers_mut().remove("content-length");
            let raw = RawResponse { status, is_event_stream, body };
            *self.response.lock() = Some(raw);
        }
        Ok(())
    }
}

impl RawResponse {
    /// The body, as it arrives.
    pub(super) fn into_stream(self) -> ByteStream {
        ByteStream::new(self.body)
    }

    /// Reads the body. A body that arrives in one piece is not copied.
    pub(super) async fn read(self) -> Result<Bytes, BoxError> {
        let length = self.body.content_length().and_then(|length| usize::try_from(length).ok());
        let mut pieces = ByteStream::new(self.body);
        let first = pieces.next().await.transpose()?.unwrap_or_default();
        let Some(second) = pieces.next().await.transpose()? else { return Ok(first) };
        let mut whole = BytesMut::with_capacity(length.unwrap_or(1 << 20).min(RESPONSE_BYTES_MAX));
        whole.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(piece) = next {
            if whole.len() + piece.len() > RESPONSE_BYTES_MAX {
                return Err("the response is larger than any page of records".into());
            }
            whole.extend_from_slice(&piece);
            next = pieces.next().await.transpose()?;
        }
        Ok(whole.freeze())
    }
}
