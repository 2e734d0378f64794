/// The wire format of GetRecords and SubscribeToShard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KinesisProtocol {
    /// The CBOR form of the API, as the SDK for Java uses it. Records arrive as raw bytes instead of
    /// base64, and payloads are slices of the response, so a page costs a fraction of the CPU time and
    /// three quarters of the network traffic. A request that an endpoint does not answer in CBOR is sent
    /// again in JSON. After three in a row, JSON is used, and CBOR is tried again later.
    ///
    /// A record kept beyond its batch keeps its whole page in memory: copy the payloads you keep for
    /// long. Interceptors of the SDK client see requests and responses as they are sent, but no records
    /// in the output of the operation.
    #[default]
    Cbor,
    /// The JSON form, parsed by the SDK for Rust.
    Json,
}
