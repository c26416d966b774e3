//! Parts of snapshots on their way up and down. A node may add only to the checkpoint that it was ordered to take, and
//! may read only the snapshot that an order of its own names.

use super::{Inner, convert::shown, counters};
use crate::blobs::{self, Encoded, Needed, Signed};
use aether_core::{
    catalogue::verb,
    id::{Digest, NodeId},
    snapshot::Manifest,
};
use aether_proto::v1::{
    Codec, SnapshotAhead, SnapshotChunk, SnapshotData, SnapshotManifest, SnapshotRead, SnapshotStored,
    server_frame::Payload,
};
use bytes::Bytes;
use ed25519_dalek::Signer as _;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// The input of an order that names the manifest of a snapshot.
const MANIFEST_INPUT: &str = "manifest";
/// How long a source may be held up by a target that does not take what is sent ahead.
const AHEAD_WITHIN: Duration = Duration::from_millis(250);
/// Manifests whose chunks one session remembers as readable.
const READABLE: usize = 4;

struct Problem {
    code: &'static str,
    text: String,
}

impl From<blobs::Error> for Problem {
    fn from(error: blobs::Error) -> Self {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        if error.code() == "store.failed" {
            tracing::error!(%error, source, "the snapshot store failed");
        }
        Problem { code: error.code(), text: error.to_string() }
    }
}

/// The chunks of the manifests that one session may read, found once.
#[derive(Clone, Default)]
pub(crate) struct Readable(Arc<Mutex<Known>>);

type Known = VecDeque<(Digest, Arc<BTreeSet<Digest>>)>;

impl Readable {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn chunks(&self, fabric: &Inner, manifest: &Digest) -> Result<Arc<BTreeSet<Digest>>, blobs::Error> {
        if let Some((_, chunks)) = self.lock().iter().find(|(known, _)| known == manifest) {
            return Ok(chunks.clone());
        }
        let document = fabric.blobs.manifest(manifest).await?;
        let chunks = document.files.into_iter().flat_map(|file| file.chunks).map(|chunk| chunk.digest);
        let chunks = Arc::new(chunks.collect::<BTreeSet<_>>());
        let mut known = self.lock();
        known.push_back((manifest.clone(), chunks.clone()));
        if known.len() > READABLE {
            known.pop_front();
        }
        Ok(chunks)
    }
}

/// Whether a checkpoint under this key is outstanding for the node.
fn ordered(fabric: &Inner, node: &NodeId, key: &str) -> Result<(), Problem> {
    let registry = fabric.registry();
    let order = registry.order_of(node, key).filter(|order| !order.ended && order.row.verb == verb::CHECKPOINT);
    order.map(|_| ()).ok_or_else(|| Problem {
        code: "not-ordered",
        text: format!("no checkpoint under the key {} is outstanding for `{node}`: nothing was stored", shown(key)),
    })
}

fn answer(part: &'static str, digest: String, result: Result<(), Problem>) -> SnapshotStored {
    let (error_code, error) = match result {
        Ok(()) => ("", String::new()),
        Err(Problem { code, text }) => {
            tracing::warn!(part, digest = shown(&digest), code, problem = text, "a part of a snapshot was not stored");
            (code, text)
        }
    };
    counters::snapshot(part, if error_code.is_empty() { "ok" } else { error_code });
    SnapshotStored { digest, error_code: error_code.into(), error }
}

pub(crate) async fn store_chunk(fabric: &Inner, node: &NodeId, chunk: SnapshotChunk) -> SnapshotStored {
    let SnapshotChunk { key, digest, codec, size_bytes, data, file, offset } = chunk;
    let result = async {
        ordered(fabric, node, &key)?;
        let data = Bytes::from(data);
        let sent_on = data.clone();
        let encoded = match Codec::try_from(codec) {
            Ok(Codec::Raw) => Encoded::Raw(data),
            Ok(Codec::Zstd) => Encoded::Zstd(data),
            Ok(Codec::Unspecified) | Err(_) => {
                return Err(Problem { code: "chunk.encoding", text: format!("{codec} is no codec of this host") });
            }
        };
        let size = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        fabric.blobs.put_chunk(&Digest(digest.clone()), encoded, size).await?;
        if !file.is_empty() {
            let (digest, data) = (digest.clone(), sent_on.to_vec());
            send_ahead(fabric, node, SnapshotAhead { key, digest, file, offset, size_bytes, codec, data }).await;
        }
        Ok(())
    };
    let result = result.await;
    answer("chunk", digest, result)
}

/// Sends a chunk on to the node that will restore it, or drops it: that node fetches what did not come.
pub(crate) async fn send_ahead(fabric: &Inner, node: &NodeId, ahead: SnapshotAhead) {
    let outgoing = {
        let registry = fabric.registry();
        let order = registry.order_of(node, &ahead.key).filter(|order| !order.ended);
        order.and_then(|order| order.ahead.as_ref()).and_then(|target| registry.outgoing(target))
    };
    if let Some(outgoing) = outgoing
        && timeout(AHEAD_WITHIN, outgoing.send(Payload::SnapshotAhead(ahead).into())).await.is_err()
    {
        counters::limit("ahead");
    }
}

pub(crate) async fn store_manifest(fabric: &Inner, node: &NodeId, manifest: SnapshotManifest) -> SnapshotStored {
    let SnapshotManifest { key, manifest } = manifest;
    let digest = Digest::of(&manifest);
    let result = async {
        ordered(fabric, node, &key)?;
        let document = blobs::manifest::parse(&manifest)?;
        if document.snapshot.as_str() != key || document.source != *node {
            let text = "the manifest is of another snapshot or another node than the order's: it was not stored".into();
            return Err(Problem { code: "not-ordered", text });
        }
        let signature = fabric.signer.sign(&Manifest::signed_bytes(&manifest)).to_bytes();
        fabric.blobs.put_manifest(Signed { manifest: manifest.into(), signature }).await?;
        fabric.snapshot_stored.notify_one();
        Ok(())
    };
    let result = result.await;
    answer("manifest", digest.0, result)
}

pub(crate) async fn read(fabric: &Inner, node: &NodeId, readable: &Readable, read: SnapshotRead) -> SnapshotData {
    let SnapshotRead { digest, manifest } = read;
    let wanted = Digest(digest.clone());
    let result = async {
        let granted = fabric.manifests_for(node);
        if manifest {
            if granted.contains(&wanted) {
                let Signed { manifest, signature } = fabric.blobs.get_manifest(&wanted).await?;
                return Ok((Codec::Raw, manifest, signature.to_vec()));
            }
        } else {
            for granted in &granted {
                if readable.chunks(fabric, granted).await?.contains(&wanted) {
                    return Ok((Codec::Zstd, fabric.blobs.get_chunk(&wanted).await?, vec![]));
                }
            }
        }
        let text = format!("no outstanding order of `{node}` names {}", shown(&digest));
        Err(Problem { code: "not-ordered", text })
    };
    match result.await {
        Ok((codec, data, signature)) => {
            counters::snapshot("read", "ok");
            let (data, error_code, error) = (data.to_vec(), String::new(), String::new());
            SnapshotData { digest, codec: codec.into(), data, error_code, error, signature }
        }
        Err(Problem { code, text }) => {
            counters::snapshot("read", code);
            tracing::warn!(%node, digest = shown(&digest), code, problem = text, "a part of a snapshot was not given out");
            let (codec, error_code) = (Codec::Raw.into(), code.into());
            SnapshotData { digest, codec, data: vec![], error_code, error: text, signature: vec![] }
        }
    }
}

impl Inner {
    /// The manifests that outstanding orders of this node name.
    fn manifests_for(&self, node: &NodeId) -> BTreeSet<Digest> {
        let registry = self.registry();
        let of_node = registry.orders.values().filter(|order| order.row.node == *node && !order.ended);
        of_node.filter_map(|order| order.row.inputs.get(MANIFEST_INPUT)).map(|digest| Digest(digest.clone())).collect()
    }

    /// What outstanding orders name or are about to store: it must stay.
    pub(crate) fn snapshots_needed(&self) -> Needed {
        let registry = self.registry();
        let mut needed = Needed::default();
        for order in registry.orders.values() {
            needed.manifests.extend(order.row.inputs.get(MANIFEST_INPUT).map(|digest| Digest(digest.clone())));
            if order.row.verb == verb::CHECKPOINT && !order.ended {
                let since = needed.uploads_since.map_or(order.row.at, |since| since.min(order.row.at));
                needed.uploads_since = Some(since);
            }
        }
        needed
    }
}
