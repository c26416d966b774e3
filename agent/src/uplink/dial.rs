//! The way to the host: gRPC, or what a simulation puts in its place.

use super::Error;
use crate::config::Config;
use aether_proto::v1::{self, fabric_client::FabricClient};
use hyper_util::client::legacy::connect::HttpConnector;
use std::{pin::Pin, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Status,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the host's machine may take to say that it has bytes: else it has died, or the network did.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// The host's frames.
pub type Incoming = Pin<Box<dyn Stream<Item = Result<v1::ServerFrame, Status>> + Send>>;

/// Opens streams to the host.
#[tonic::async_trait]
pub trait Dial: Send + Sync {
    /// A new stream: what comes out of `outgoing` goes up it.
    async fn connect(&self, outgoing: mpsc::Receiver<v1::ClientFrame>) -> Result<Incoming, Status>;
}

/// gRPC over TCP, with TLS where the host's address says so.
pub(super) struct Grpc(Endpoint);

impl Grpc {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let mut endpoint = Endpoint::from_shared(config.host.clone())?
            .connect_timeout(CONNECT_WITHIN)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20);
        if config.host.starts_with("https:") {
            let mut tls = ClientTlsConfig::new();
            if let Some(path) = &config.host_ca {
                let pem = std::fs::read(path).map_err(|source| Error::Authority { path: path.clone(), source })?;
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls)?;
        }
        Ok(Self(endpoint))
    }
}

#[tonic::async_trait]
impl Dial for Grpc {
    async fn connect(&self, outgoing: mpsc::Receiver<v1::ClientFrame>) -> Result<Incoming, Status> {
        let mut tcp = HttpConnector::new();
        // What speaks over it may be TLS.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_WITHIN));
        tcp.set_tcp_user_timeout(Some(TAKEN_WITHIN));
        let channel = self.0.connect_with_connector(tcp).await.map_err(|error| Status::unavailable(chain(&error)))?;
        let mut client = FabricClient::new(channel).max_decoding_message_size(aether_proto::FRAME_BYTES_MAXIMUM);
        Ok(Box::pin(client.connect(ReceiverStream::new(outgoing)).await?.into_inner()))
    }
}

/// An error with all that caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
