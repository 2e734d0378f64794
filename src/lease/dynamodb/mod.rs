/// The lease table in DynamoDB.
#[derive(Debug)]
pub(crate) struct DynamoDbLeaseStore {}
