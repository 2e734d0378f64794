//! A page, metrics and probes of a fleet.

use aws_config::SdkConfig;
use kinesis_consumer::http::fleet_router;
use tokio::net::TcpListener;

use crate::args::Serve;
use crate::fleet::admin;
use crate::{Ended, Failure};

pub(crate) async fn run(config: &SdkConfig, args: &Serve) -> Result<Ended, Failure> {
    let admin = admin(config, &args.fleet);
    // What cannot work is said at once.
    admin.status().await?;
    let listener = TcpListener::bind(args.bind).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another address with --bind", args.bind)
    })?;
    println!("http://{}/", listener.local_addr()?);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, fleet_router(admin)).with_graceful_shutdown(stop).await?;
    Ok(Ended::Done)
}
