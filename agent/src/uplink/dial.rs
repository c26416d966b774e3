//! The way to the host: gRPC, or what a simulation puts in its place.

use super::Error;
use crate::config::Config;
use aether_proto::v1::{self, fabric_client::FabricClient};
use std::{pin::Pin, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Status,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

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
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
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
        let channel = self.0.connect().await.map_err(|error| Status::unavailable(chain(&error)))?;
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
