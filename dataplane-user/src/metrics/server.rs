//! The HTTP endpoint that Prometheus asks.

use std::{convert::Infallible, net::SocketAddrV4, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};
use tracing::debug;

use crate::control::{self, Answer, server::Pending};

/// Connections at a time; one more is closed at once.
const CONNECTIONS: usize = 16;

/// How long a client may take to ask and to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddrV4,
    task: AbortHandle,
}

impl Server {
    /// Listens there, and hands each question to the daemon's loop as [`control::Request::Metrics`].
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on.
    pub async fn start(address: SocketAddrV4, requests: mpsc::Sender<Pending>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            anyhow!(
                "[metrics] cannot listen on {address}: {error}; change `listen`, or end the program that does"
            )
        })?;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let task = tokio::task::spawn_local(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors, say: the next one may go.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let requests = requests.clone();
                tokio::task::spawn_local(async move {
                    let _place = place;
                    if let Err(error) = serve(stream, requests).await {
                        debug!("metrics: a client went away: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, task: task.abort_handle() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One question on each connection: then none is kept open by who does not ask.
async fn serve(stream: TcpStream, requests: mpsc::Sender<Pending>) -> Result<()> {
    let service = service_fn(|request| answer(request, requests.clone()));
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    timeout(PATIENCE, connection).await.context("it took too long")??;
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    requests: mpsc::Sender<Pending>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match ask(requests).await {
            Ok(text) => (StatusCode::OK, super::CONTENT_TYPE, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error:#}\n")),
        },
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET it\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "the metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    Ok(response)
}

async fn ask(requests: mpsc::Sender<Pending>) -> Result<String> {
    let (answer, answered) = oneshot::channel();
    let pending = Pending { request: control::Request::Metrics, answer, client: None };
    requests.send(pending).await.context("the daemon is stopping")?;
    match answered.await.context("the daemon is stopping")? {
        Answer::Ok(serde_json::Value::String(text)) => Ok(text),
        Answer::Error(error) | Answer::BadFile(error) => Err(anyhow!("{error}")),
        Answer::Ok(other) => Err(anyhow!("no text: {other}")),
    }
}
