use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::endpoints::{BODY_BYTES_MAX, Dropped, Endpoints};
use super::protocol::{Body, full};

/// A client of loopback addresses, without TLS.
pub(super) type Client = legacy::Client<HttpConnector, Full<Bytes>>;

/// The maximum number of connections served at once; others wait to be accepted.
const CONNECTIONS_MAX: usize = 2048;

const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Owns every task of the endpoints: they end when it is closed or dropped.
#[derive(Debug, Default)]
pub(super) struct Connections {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Spawns the HTTP library's tasks among the owned ones.
#[derive(Debug, Clone)]
struct Owned {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Connections {
    pub(super) fn client(&self) -> Client {
        legacy::Client::builder(self.owned()).build(HttpConnector::new())
    }

    /// Runs `task` until it ends or all tasks are stopped.
    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.owned().spawn(task);
    }

    /// Serves `endpoints` to every connection.
    pub(super) fn serve(&self, listener: TcpListener, endpoints: Arc<Endpoints>) {
        let owned = self.owned();
        self.run(async move {
            let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            while let Ok(seat) = Arc::clone(&seats).acquire_owned().await {
                let Ok((stream, _)) = listener.accept().await else {
                    // The connection was closed already, or the process has no file descriptor left for
                    // it.
                    endpoints.clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let connection = serve_connection(stream, Arc::clone(&endpoints), owned.clone());
                owned.spawn(async move {
                    connection.await;
                    drop(seat);
                });
            }
        });
    }

    /// Ends every task and waits for them.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn owned(&self) -> Owned {
        Owned { stop: self.stop.clone(), tasks: self.tasks.clone() }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Owned {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}

impl<F> hyper::rt::Executor<F> for Owned
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.spawn(async {
            task.await;
        });
    }
}

async fn serve_connection(stream: TcpStream, endpoints: Arc<Endpoints>, owned: Owned) {
    // Small responses must not wait for others to fill a packet.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| serve_request(request, Arc::clone(&endpoints)));
    // If the connection fails, the client notices, and nothing else is affected.
    let _ = auto::Builder::new(owned).serve_connection(TokioIo::new(stream), service).await;
}

async fn serve_request(
    request: Request<Incoming>,
    endpoints: Arc<Endpoints>,
) -> Result<Response<Body>, Dropped> {
    let (parts, body) = request.into_parts();
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => endpoints.handle(Request::from_parts(parts, body.to_bytes())).await,
        Err(_) => {
            let mut response = Response::new(full(Bytes::from_static(b"The request body is too large.\n")));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            Ok(response)
        }
    }
}
