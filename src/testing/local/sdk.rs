use std::fmt;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;

use super::connections::Client;
use super::endpoints::Endpoints;

/// How requests of an SDK client reach the endpoints.
///
/// Timeouts are the caller's: the operation and attempt timeouts of the SDK drop the request.
#[derive(Clone)]
pub(super) enum Transport {
    /// By a function call, without any connection.
    InProcess(Arc<Endpoints>),
    /// Over loopback, without TLS.
    Loopback(Box<Client>),
}

impl HttpClient for Transport {
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let transport = self.clone();
        HttpConnectorFuture::new(async move { transport.send(request).await })
    }
}

impl Transport {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let user = |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::user(error);
        let request = request.try_into_http1x().map_err(|error| user(error.into()))?;
        let (parts, body) = request.into_parts();
        let body: Bytes = body.collect().await.map_err(user)?.to_bytes();
        let response = match self {
            Self::InProcess(endpoints) => endpoints
                .handle(Request::from_parts(parts, body))
                .await
                .map_err(|error| ConnectorError::io(error.into()))?
                .map(SdkBody::from_body_1_x),
            Self::Loopback(client) => client
                .request(Request::from_parts(parts, Full::new(body)))
                .await
                .map_err(|error| ConnectorError::io(error.into()))?
                .map(SdkBody::from_body_1_x),
        };
        HttpResponse::try_from(response).map_err(|error| user(error.into()))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProcess(_) => "InProcess",
            Self::Loopback(_) => "Loopback",
        })
    }
}
