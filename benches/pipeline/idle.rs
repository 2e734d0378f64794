use crate::Outcome;
pub(crate) async fn run() -> Outcome {
    Ok(())
}
