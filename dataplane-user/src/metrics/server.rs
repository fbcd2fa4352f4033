//! The HTTP endpoint that Prometheus asks.

use std::{cell::RefCell, convert::Infallible, net::SocketAddrV4, rc::Rc, sync::Arc, time::Duration};

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
use tracing::{debug, info, warn};

use crate::control::{self, Answer, server::Pending};

/// Connections at a time; one more is closed at once.
const CONNECTIONS: usize = 16;

/// How long a client may take to ask and to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an address that cannot be listened on waits for the next try: it may come later, as with a VPN.
const RETRY: Duration = Duration::from_secs(2);

/// An endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddrV4,
    task: AbortHandle,
    complaint: Rc<RefCell<Option<String>>>,
}

impl Server {
    /// Listens there, and hands each question to the daemon's loop as [`control::Request::Metrics`]. Where that cannot be, it
    /// is tried again, and [`Self::complaint`] says so meanwhile.
    pub async fn start(address: SocketAddrV4, requests: mpsc::Sender<Pending>) -> Self {
        let complaint = Rc::new(RefCell::new(None));
        let first = listen(address, &complaint).await;
        let of_task = Rc::clone(&complaint);
        let task = tokio::task::spawn_local(async move {
            let mut listener = first;
            let listener = loop {
                if let Some(listener) = listener {
                    break listener;
                }
                tokio::time::sleep(RETRY).await;
                listener = listen(address, &of_task).await;
            };
            accept(&listener, &requests).await;
        });
        Self { address, task: task.abort_handle(), complaint }
    }

    /// Where it is to listen.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Why it does not listen.
    pub fn complaint(&self) -> Option<String> {
        self.complaint.borrow().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens there if that can be, and else says so, once.
async fn listen(address: SocketAddrV4, complaint: &RefCell<Option<String>>) -> Option<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => {
            info!("metrics: listening on {address}");
            complaint.replace(None);
            Some(listener)
        }
        Err(error) => {
            let text = format!(
                "[metrics] cannot listen on {address}: {error}; change `listen`, or end the program that does; it is \
                 tried again every {} s",
                RETRY.as_secs()
            );
            if complaint.replace(Some(text.clone())).is_none() {
                warn!("{text}");
            }
            None
        }
    }
}

async fn accept(listener: &TcpListener, requests: &mpsc::Sender<Pending>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
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
}

/// One question on each connection: then none is kept open by who does not ask.
async fn serve(stream: TcpStream, requests: mpsc::Sender<Pending>) -> Result<()> {
    let service = service_fn(|request| answer(request, requests.clone()));
    // A client that closes its side when it has asked waits for the answer all the same.
    let mut builder = http1::Builder::new();
    let connection =
        builder.keep_alive(false).half_close(true).serve_connection(TokioIo::new(stream), service);
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
