/// The Kinesis service behind the port.
#[derive(Debug)]
pub(crate) struct AwsStream {}
