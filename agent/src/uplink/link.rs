//! What the executor asks of the uplink: to tell a state, to store a piece of a snapshot, to read one. A request
//! outlives the stream that it was sent on: it is sent again on the next, until it is answered or given up.

use super::Limits;
use aether_core::id::Digest;
use aether_proto::v1::{self, client_frame::Payload};
use std::collections::BTreeMap;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

/// Why the host did not store or give a piece.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("the host answered `{code}`: {reason}")]
    Refused { code: String, reason: String },
    #[error("the agent is stopping")]
    Stopping,
}

/// A piece of a snapshot as the host gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub codec: i32,
    pub data: Vec<u8>,
    /// The host's, of a manifest.
    pub signature: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Request {
    State(Box<v1::DispatchState>),
    Ahead(Box<v1::SnapshotAhead>),
    Store { digest: Digest, payload: Box<Payload>, reply: oneshot::Sender<Result<(), Fault>> },
    Read { digest: Digest, manifest: bool, reply: oneshot::Sender<Result<Piece, Fault>> },
}

/// The executor's end.
#[derive(Clone, Debug)]
pub struct Link {
    requests: mpsc::Sender<Request>,
    limits: watch::Receiver<Limits>,
}

impl Link {
    pub(super) fn new(requests: mpsc::Sender<Request>, limits: watch::Receiver<Limits>) -> Self {
        Self { requests, limits }
    }

    /// Told if there is a stream, else dropped: what matters is told again on the next.
    pub async fn tell(&self, state: v1::DispatchState) {
        // The receiving end lives as long as the agent.
        let _ = self.requests.send(Request::State(Box::new(state))).await;
    }

    /// Tells whoever will restore a snapshot where a chunk that was sent will stand too. Never answered.
    pub async fn ahead(&self, ahead: v1::SnapshotAhead) {
        let _ = self.requests.send(Request::Ahead(Box::new(ahead))).await;
    }

    /// Pieces that may be on their way at the same time.
    pub fn chunks_in_flight(&self) -> usize {
        self.limits.borrow().chunks_in_flight
    }

    pub fn chunk_bytes(&self) -> usize {
        self.limits.borrow().chunk_bytes
    }

    /// Sends one chunk; what comes back resolves once it is safe at the host.
    pub async fn store_chunk(&self, chunk: v1::SnapshotChunk) -> oneshot::Receiver<Result<(), Fault>> {
        let digest = Digest(chunk.digest.clone());
        self.store(digest, Payload::SnapshotChunk(chunk)).await
    }

    pub async fn store_manifest(
        &self,
        digest: Digest,
        manifest: v1::SnapshotManifest,
    ) -> oneshot::Receiver<Result<(), Fault>> {
        self.store(digest, Payload::SnapshotManifest(manifest)).await
    }

    async fn store(&self, digest: Digest, payload: Payload) -> oneshot::Receiver<Result<(), Fault>> {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Store { digest, payload: Box::new(payload), reply }).await;
        answer
    }

    /// Asks for a manifest or a chunk.
    pub async fn read(&self, digest: Digest, manifest: bool) -> oneshot::Receiver<Result<Piece, Fault>> {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Read { digest, manifest, reply }).await;
        answer
    }
}

type Store = (Box<Payload>, Vec<oneshot::Sender<Result<(), Fault>>>);
type Read = (bool, Vec<oneshot::Sender<Result<Piece, Fault>>>);

/// Requests that the host has not answered. Two orders may ask for the same piece; one answer serves both.
#[derive(Debug, Default)]
pub(super) struct Pending {
    stores: BTreeMap<Digest, Store>,
    reads: BTreeMap<Digest, Read>,
}

impl Pending {
    /// Notes a request and gives what is to be sent for it.
    pub(super) fn take_in(&mut self, request: Request) -> Payload {
        match request {
            Request::State(state) => Payload::DispatchState(*state),
            Request::Ahead(ahead) => Payload::SnapshotAhead(*ahead),
            Request::Store { digest, payload, reply } => {
                let frame = (*payload).clone();
                self.stores.entry(digest).or_insert_with(|| (payload, vec![])).1.push(reply);
                frame
            }
            Request::Read { digest, manifest, reply } => {
                let frame = read_frame(&digest, manifest);
                self.reads.entry(digest).or_insert_with(|| (manifest, vec![])).1.push(reply);
                frame
            }
        }
    }

    /// What a new stream must carry again. Requests that were given up meanwhile are forgotten.
    pub(super) fn again(&mut self) -> Vec<Payload> {
        self.stores.retain(|_, (_, replies)| replies.iter().any(|reply| !reply.is_closed()));
        self.reads.retain(|_, (_, replies)| replies.iter().any(|reply| !reply.is_closed()));
        let stores = self.stores.values().map(|(payload, _)| (**payload).clone());
        let reads = self.reads.iter().map(|(digest, (manifest, _))| read_frame(digest, *manifest));
        stores.chain(reads).collect()
    }

    pub(super) fn stored(&mut self, v1::SnapshotStored { digest, error_code, error }: v1::SnapshotStored) {
        let answer = if error_code.is_empty() { Ok(()) } else { Err(refused(error_code, error)) };
        for reply in self.stores.remove(&Digest(digest)).into_iter().flat_map(|(_, replies)| replies) {
            // A closed reply: the executor has given up.
            let _ = reply.send(answer.clone());
        }
    }

    pub(super) fn read(&mut self, data: v1::SnapshotData) {
        let v1::SnapshotData { digest, codec, data, error_code, error, signature } = data;
        let answer =
            if error_code.is_empty() { Ok(Piece { codec, data, signature }) } else { Err(refused(error_code, error)) };
        for reply in self.reads.remove(&Digest(digest)).into_iter().flat_map(|(_, replies)| replies) {
            let _ = reply.send(answer.clone());
        }
    }
}

fn read_frame(digest: &Digest, manifest: bool) -> Payload {
    Payload::SnapshotRead(v1::SnapshotRead { digest: digest.0.clone(), manifest })
}

fn refused(code: String, reason: String) -> Fault {
    Fault::Refused { code, reason }
}
