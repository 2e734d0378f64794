//! The service: a topic, its groups, and the routes to them.

mod group;
mod http;
mod reset;
mod topic;

use std::io;
use std::sync::Arc;

use aws_config::SdkConfig;
use kinesis_consumer::BoxError;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::group::Group;
use self::topic::Topic;

/// The groups, and with them their names.
const GROUPS: [&str; 2] = ["A", "B"];

/// A running service. Dropping it stops its consumers as the end of the process would.
pub(crate) struct App(Arc<Shared>);

/// What the routes work with.
pub(crate) struct Shared {
    topic: Arc<Topic>,
    groups: Vec<Group>,
    /// Changes when there is something new to show.
    changes: watch::Sender<u64>,
}

impl App {
    /// Opens the topic and starts a consumer for each group.
    pub(crate) async fn start(config: &SdkConfig, topic: &str) -> Result<Self, BoxError> {
        let topic = Arc::new(Topic::open(config, topic).await?);
        let changes = watch::Sender::new(0);
        let mut groups = Vec::new();
        for name in GROUPS {
            groups.push(Group::start(name, config, Arc::clone(&topic), changes.clone()).await?);
        }
        Ok(Self(Arc::new(Shared { topic, groups, changes })))
    }

    /// Answers requests.
    pub(crate) async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        axum::serve(listener, http::router(Arc::clone(&self.0))).await
    }

    /// Stops the consumers and gives their leases back.
    pub(crate) async fn shutdown(&self) -> Result<(), BoxError> {
        for group in &self.0.groups {
            group.stop().await?;
        }
        Ok(())
    }
}

impl Shared {
    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name() == name)
    }
}
