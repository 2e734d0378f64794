//! Where what is shown comes from.

use std::sync::Arc;

use super::INTERVAL;
use super::view::View;
use crate::admin::Admin;
use crate::consumer::ConsumerHandle;
use crate::error::{Error, ErrorKind};
use crate::runtime::Clock;
use crate::types::Moment;

/// What is shown.
pub(super) enum Source {
    /// One running consumer: cheap to look at.
    Consumer(ConsumerHandle),
    /// A fleet: looking costs a scan of its table.
    Fleet(Box<Fleet>),
}

/// A fleet, and what was last seen of it.
pub(super) struct Fleet {
    admin: Admin,
    /// Held while somebody looks, so that the others wait for the same answer.
    last: tokio::sync::Mutex<Option<(Moment, Arc<Shown>)>>,
}

/// A status, in all forms in which it is served.
pub(super) struct Shown {
    pub(super) view: View,
    pub(super) view_json: String,
    /// The status as JSON.
    pub(super) document: String,
}

impl Source {
    pub(super) fn fleet(admin: Admin) -> Self {
        Self::Fleet(Box::new(Fleet { admin, last: tokio::sync::Mutex::default() }))
    }

    pub(super) fn clock(&self) -> &Clock {
        match self {
            Self::Consumer(handle) => handle.clock(),
            Self::Fleet(fleet) => fleet.admin.clock(),
        }
    }

    pub(super) async fn look(&self) -> Result<Arc<Shown>, Error> {
        match self {
            Self::Consumer(handle) => {
                let status = handle.status();
                Shown::new(View::from(&status), &status).map(Arc::new)
            }
            Self::Fleet(fleet) => fleet.look().await,
        }
    }
}

impl Fleet {
    async fn look(&self) -> Result<Arc<Shown>, Error> {
        let mut last = self.last.lock().await;
        let now = self.admin.clock().now();
        if let Some((_, shown)) = last.as_ref().filter(|(at, _)| now.since(*at) < INTERVAL) {
            return Ok(Arc::clone(shown));
        }
        let status = self.admin.status().await?;
        let shown = Arc::new(Shown::new(View::from(&status), &status)?);
        *last = Some((now, Arc::clone(&shown)));
        Ok(shown)
    }
}

impl Shown {
    fn new(view: View, status: &impl serde::Serialize) -> Result<Self, Error> {
        let text = |document: Result<String, serde_json::Error>| {
            document.map_err(|error| {
                Error::new(ErrorKind::Internal, "the status cannot be written as JSON").with_source(error)
            })
        };
        let (view_json, document) =
            (text(serde_json::to_string(&view))?, text(serde_json::to_string(status))?);
        Ok(Self { view, view_json, document })
    }
}
