use aws_sdk_dynamodb::Client;
use kinesis_consumer::BoxError;

/// Forgets the checkpoints of an application that has stopped: it begins again at its start strategy. Applications have
/// tables of their own, so that others do not notice.
pub(crate) async fn forget_checkpoints(client: &Client, table: &str) -> Result<(), BoxError> {
    let key = "leaseKey";
    let mut pages = client
        .scan()
        .table_name(table)
        .projection_expression(key)
        .consistent_read(true)
        .into_paginator()
        .send();
    while let Some(page) = pages.try_next().await? {
        for item in page.items.unwrap_or_default() {
            let Some(value) = item.get(key).cloned() else { continue };
            client.delete_item().table_name(table).key(key, value).send().await?;
        }
    }
    Ok(())
}
