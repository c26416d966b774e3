//! One request to a metadata service: plain HTTP, no redirects, bounded in time and bytes.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// Bytes of one answer.
const ANSWER_BYTES: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{address} cannot be reached: {source}")]
    Connect { address: SocketAddr, source: std::io::Error },
    #[error("{address} gave no answer within {} ms", within.as_millis())]
    Slow { address: SocketAddr, within: Duration },
    #[error("{address} broke off: {reason}")]
    Broken { address: SocketAddr, reason: String },
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) etag: Option<String>,
}

pub(super) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    within: Duration,
) -> Result<Answer, Error> {
    let broken = |reason: String| Error::Broken { address, reason };
    let asked = async {
        let stream = TcpStream::connect(address).await.map_err(|source| Error::Connect { address, source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.to_string()))?;
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| broken(error.to_string()))?;
        let answered = async {
            let answer = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
            let status = answer.status().as_u16();
            let etag = answer.headers().get(header::ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
            Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), etag })
        };
        // The connection is driven by the same task: it ends with the answer.
        tokio::pin!(answered);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            answer = &mut answered => answer,
            ended = &mut connection => match ended {
                // All of the answer may be here already.
                Ok(()) => answered.await,
                Err(error) => Err(broken(error.to_string())),
            },
        }
    };
    timeout(within, asked).await.unwrap_or(Err(Error::Slow { address, within }))
}
