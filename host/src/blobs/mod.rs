//! The only object store of the host: snapshots of workloads, as manifests and content-addressed chunks.
//!
//! A chunk is named by the BLAKE3 of its plain bytes and kept compressed, and sealed where the host has a key; it is
//! verified when it comes and whenever it is read, so nothing that differs from its name ever goes out. A manifest is
//! taken only when all its chunks are there, and kept with the host's signature. Writes are atomic and durable (on a
//! disk: a staged file, synced, then a rename; in S3: one put) before a method returns: whoever got an `Ok` may tell
//! others. Nothing here is larger than a chunk, so no snapshot is ever in memory as a whole, and no upload needs parts.
//!
//! | module | what |
//! |---|---|
//! | [`place`] | a folder or a bucket |
//! | [`index`] | what is in the store, and what of it may go |
//! | [`keys`] | sealing at rest |
//! | [`hot`] | a cache on this machine's disk |
//! | [`retention`] | removing, and moving to the cold store |
//! | [`manifest`] | manifests, read strictly |
//!
//! Segments of telemetry are the recorder's own.

mod counters;
mod hot;
mod index;
mod keys;
pub(crate) mod manifest;
mod place;
mod retention;
mod settings;

pub use index::Locked;
pub use keys::VARIABLE as KEYS_VARIABLE;
pub use manifest::Signed;
pub use retention::{Mark, Needed, Retained};
pub use settings::{Cold, S3, Settings};

use aether_core::{
    id::{Digest, NodeId, SnapshotId, WorkloadId},
    snapshot::Manifest,
    time::Time,
};
use aether_proto::CHUNK_BYTES;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hot::Hot;
use index::{Held, Index, Kept, distinct};
use keys::{Key, Keys};
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path as Location};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use thiserror::Error;
use tokio::sync::{Notify, OnceCell};
use utoipa::ToSchema;

/// What compression and sealing may add to bytes that do not compress.
const ENCODING_SLACK: usize = 64 << 10;
/// Requests to a store that are under way at the same time on account of one call.
const AT_ONCE: usize = 8;
const CHUNKS: &str = "chunks";
const MANIFESTS: &str = "manifests";
/// What is sealed lies below here, by its key's id.
const SEALED: &str = "sealed";

#[derive(Debug, Error)]
pub enum Error {
    #[error("snapshot setting {name} is {value}: it must be between {least} and {most}")]
    Setting { name: &'static str, value: u64, least: u64, most: u64 },
    #[error("`snapshots.cold` needs one of `folder` and `s3`, and not both")]
    Cold,
    #[error("the secret in {path} cannot be read")]
    Secret { path: PathBuf, source: std::io::Error },
    #[error("others than its owner may read {path}, which holds a secret: `chmod 600 {path}`")]
    Open { path: PathBuf },
    #[error(
        "the keys for snapshots are not right: one a line is wanted, each of 64 hexadecimal digits (`openssl rand -hex 32`), \
         each once, and at least one"
    )]
    Keys,
    #[error(
        "what is asked for is sealed with the key {0}, which this host does not have: add it as a further line to \
         `snapshots.key_file`, and start the host again"
    )]
    Locked(String),
    #[error("sealing failed")]
    Sealing,
    #[error("`{0}` is not a digest: 64 hexadecimal digits in lower case are wanted")]
    NotADigest(String),
    #[error("the bytes do not hash to {0}; they were changed on the way or in the store, and were not taken")]
    Mismatch(Digest),
    #[error("a chunk has {size} bytes, and {limit} is the limit")]
    Oversized { size: usize, limit: usize },
    #[error("the chunk cannot be decompressed to the {0} bytes that it should have")]
    Encoding(usize),
    #[error("{0} is not in the snapshot store")]
    Missing(Digest),
    #[error("the manifest names chunk {0}, which is not in the snapshot store: send it first")]
    MissingChunk(Digest),
    #[error("the manifest is not valid: {0}")]
    Manifest(String),
    #[error("the snapshot store holds {bytes} bytes, and {limit} is the limit: remove snapshots or raise the limit")]
    Full { bytes: u64, limit: u64 },
    #[error("the snapshot store could not be used")]
    Store(#[from] object_store::Error),
    #[error("the folder of the snapshot store could not be used")]
    Folder(#[source] std::io::Error),
}

impl Error {
    /// A stable code, as `SnapshotStored.error_code` carries it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Setting { .. } | Self::Cold | Self::Secret { .. } | Self::Open { .. } | Self::Keys => "store.setting",
            Self::Locked(_) => "store.key",
            Self::NotADigest(_) => "digest.malformed",
            Self::Mismatch(_) => "digest.mismatch",
            Self::Oversized { .. } => "chunk.oversized",
            Self::Encoding(_) => "chunk.encoding",
            Self::Missing(_) => "not-found",
            Self::MissingChunk(_) => "manifest.missing-chunk",
            Self::Manifest(_) => "manifest.malformed",
            Self::Full { .. } => "store.full",
            Self::Store(_) | Self::Folder(_) | Self::Sealing => "store.failed",
        }
    }
}

/// A chunk's bytes as they travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    Raw(Bytes),
    Zstd(Bytes),
}

/// Which of the stores something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StoreTier {
    Warm,
    Cold,
}

impl StoreTier {
    pub(crate) const ALL: [Self; 2] = [Self::Warm, Self::Cold];

    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    fn number(self) -> usize {
        match self {
            Self::Warm => 0,
            Self::Cold => 1,
        }
    }
}

/// One stored snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    pub snapshot: SnapshotId,
    pub manifest: Digest,
    pub workload: WorkloadId,
    pub generation: u64,
    pub source: NodeId,
    pub taken_at: Time,
    pub total_bytes: u64,
    pub chunks: usize,
    /// Chunks that were not in the store when the host started: it cannot be restored.
    pub missing_chunks: usize,
    /// The id of the key that it is sealed with. None: it is kept as it is.
    pub key: Option<String>,
    pub tier: StoreTier,
}

/// What [`Blobs::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// Distinct chunks that were read from the store, decompressed and hashed.
    pub chunks: usize,
    pub bytes: u64,
    /// Chunks that are missing or not what they ought to be; the first hundred.
    pub damaged: Vec<Digest>,
    pub damaged_count: usize,
}

/// The snapshot store. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    warm: Arc<dyn ObjectStore>,
    cold: Option<Arc<dyn ObjectStore>>,
    hot: Option<Hot>,
    keys: Keys,
    /// Read from the stores when it is first needed: a host starts while its bucket cannot be reached.
    index: OnceCell<Mutex<Index>>,
    /// A copy that was leaving has left.
    left: Notify,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the stores nothing: they know credentials.
        formatter.debug_struct("Blobs").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

/// A digest that is safe in a path.
fn checked(digest: &Digest) -> Result<&str, Error> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digest.0.len() == 64 && digest.0.bytes().all(hex) {
        Ok(&digest.0)
    } else {
        Err(Error::NotADigest(digest.0.chars().take(80).collect()))
    }
}

fn chunk_at(key: Option<&Key>, digest: &Digest) -> Result<String, Error> {
    let plain = checked(digest)?;
    Ok(match key {
        None => format!("{CHUNKS}/{}/{plain}.zst", plain.get(..2).unwrap_or_default()),
        Some(key) => {
            let name = key.name(digest);
            format!("{SEALED}/{}/{CHUNKS}/{}/{name}", key.id, name.get(..2).unwrap_or_default())
        }
    })
}

fn manifest_at(key: Option<&Key>, digest: &Digest) -> Result<String, Error> {
    let plain = checked(digest)?;
    Ok(match key {
        None => format!("{MANIFESTS}/{plain}"),
        Some(key) => format!("{SEALED}/{}/{MANIFESTS}/{}", key.id, key.name(digest)),
    })
}

/// What lies at a location: whether it is a manifest, and the id of the key that it is sealed with.
fn read_location(location: &str) -> Option<(bool, Option<&str>)> {
    let (key, rest) = match location.strip_prefix("sealed/") {
        Some(rest) => rest.split_once('/').map(|(key, rest)| (Some(key), rest))?,
        None => (None, location),
    };
    match rest.split_once('/')?.0 {
        CHUNKS => Some((false, key)),
        MANIFESTS => Some((true, key)),
        _ => None,
    }
}

/// Decompresses within `capacity` and compares with the name: a bomb stops at the capacity.
fn open_chunk(digest: &Digest, compressed: &[u8], capacity: usize) -> Result<Bytes, Error> {
    let plain = zstd::bulk::decompress(compressed, capacity).map_err(|_| Error::Encoding(capacity))?;
    if Digest::of(&plain) == *digest { Ok(plain.into()) } else { Err(Error::Mismatch(digest.clone())) }
}

/// Verifies what came and answers the compressed form that is kept.
fn admit(digest: &Digest, encoded: &Encoded, size_bytes: usize) -> Result<Bytes, Error> {
    let (Encoded::Raw(data) | Encoded::Zstd(data)) = encoded;
    if size_bytes > CHUNK_BYTES || data.len() > CHUNK_BYTES + ENCODING_SLACK {
        return Err(Error::Oversized { size: size_bytes.max(data.len()), limit: CHUNK_BYTES });
    }
    match encoded {
        Encoded::Zstd(data) => {
            let plain = open_chunk(digest, data, size_bytes)?;
            if plain.len() == size_bytes { Ok(data.clone()) } else { Err(Error::Encoding(size_bytes)) }
        }
        Encoded::Raw(data) if data.len() != size_bytes => Err(Error::Encoding(size_bytes)),
        Encoded::Raw(data) if Digest::of(data) != *digest => Err(Error::Mismatch(digest.clone())),
        Encoded::Raw(data) => zstd::bulk::compress(data, 1).map(Bytes::from).map_err(|_| Error::Encoding(size_bytes)),
    }
}

/// Hashing and compressing a chunk takes milliseconds: not on the threads that serve sessions.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Folder(std::io::Error::other(error)))
}

impl Blobs {
    /// The store that the settings name, else one in `folder`. What lies in a folder must be readable now; a bucket may
    /// be out of reach, and is asked again when something is wanted of it.
    pub async fn open(settings: Settings, folder: &Path) -> Result<Self, Error> {
        settings.check()?;
        let keys = Keys::read(settings.key_file.as_deref())?;
        let warm = match &settings.s3 {
            Some(s3) => place::bucket(s3)?,
            None => place::folder(folder)?,
        };
        let cold = match &settings.cold {
            Some(Cold { folder: Some(folder), .. }) => Some(place::folder(folder)?),
            Some(Cold { s3: Some(s3), .. }) => Some(place::bucket(s3)?),
            Some(Cold { folder: None, s3: None, .. }) | None => None,
        };
        let elsewhere = settings.s3.is_some() || cold.is_some();
        let beside = folder.with_extension("hot");
        let hot = match settings.hot_bytes {
            limit if limit > 0 && elsewhere => Some(Hot::open(&beside, limit).await?),
            _ => None,
        };
        let (index, left) = (OnceCell::new(), Notify::new());
        let blobs = Self { inner: Arc::new(Inner { settings, warm, cold, hot, keys, index, left }) };
        let remote = blobs.inner.settings.s3.is_some()
            || blobs.inner.settings.cold.as_ref().is_some_and(|cold| cold.s3.is_some());
        if !remote {
            drop(blobs.index().await?);
        }
        Ok(blobs)
    }

    /// Any other object store; it must make a put durable before it answers.
    pub async fn with_store(settings: Settings, warm: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        settings.check()?;
        let (cold, hot, keys, index, left) = (None, None, Keys::default(), OnceCell::new(), Notify::new());
        let blobs = Self { inner: Arc::new(Inner { settings, warm, cold, hot, keys, index, left }) };
        drop(blobs.index().await?);
        Ok(blobs)
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    async fn index(&self) -> Result<MutexGuard<'_, Index>, Error> {
        let index = self.inner.index.get_or_try_init(|| async { self.load().await.map(Mutex::new) }).await?;
        Ok(index.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn store(&self, tier: StoreTier) -> Option<&Arc<dyn ObjectStore>> {
        match tier {
            StoreTier::Warm => Some(&self.inner.warm),
            StoreTier::Cold => self.inner.cold.as_ref(),
        }
    }

    /// Everything that is in the stores. Manifests are in the main one alone.
    async fn load(&self) -> Result<Index, Error> {
        let mut index = Index::new(crate::clock::now());
        let mut manifests = Vec::new();
        for tier in StoreTier::ALL {
            let Some(store) = self.store(tier) else { continue };
            let mut listed = store.list(None);
            while let Some(meta) = listed.try_next().await? {
                let location = meta.location.to_string();
                match read_location(&location) {
                    Some((true, key)) => manifests.push((key.map(ToOwned::to_owned), location)),
                    // Whether somebody needs these cannot be seen without their key: they are left alone.
                    Some((false, Some(key))) if self.inner.keys.get(key).is_none() => {}
                    Some((false, _)) => {
                        index.add(location, meta.size, tier, Time(meta.last_modified.timestamp_millis()))
                    }
                    None => tracing::warn!(location, "something that is not ours lies in the snapshot store"),
                }
            }
        }
        let mut locked: BTreeMap<String, usize> = BTreeMap::new();
        let mut open = Vec::new();
        for (key, location) in manifests {
            match key {
                Some(key) if self.inner.keys.get(&key).is_none() => *locked.entry(key).or_default() += 1,
                key => open.push((key, location)),
            }
        }
        let mut read = stream::iter(open)
            .map(async |(key, location)| {
                let key = key.and_then(|key| self.inner.keys.get(&key));
                (self.read_manifest(key, &location).await, key, location)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((read, key, location)) = read.next().await {
            let (digest, manifest) = match read {
                Ok((signed, manifest)) => (Digest::of(&signed.manifest), manifest),
                Err(error @ (Error::Store(_) | Error::Folder(_))) => return Err(error),
                Err(error) => {
                    counters::damaged("warm");
                    tracing::error!(location, %error, "a snapshot's manifest is damaged and left out");
                    continue;
                }
            };
            let chunks = distinct(&manifest, |digest| chunk_at(key, digest))?;
            let missing = index.missing(&chunks);
            let there: BTreeSet<_> = chunks.difference(&missing).cloned().collect();
            let cold = index.is_cold(&there);
            // All of them are there, so this cannot fail.
            let _ = index.refer(&there, cold);
            if !missing.is_empty() {
                counters::damaged("warm");
                tracing::error!(manifest = %digest, chunks = missing.len(), "a snapshot is not whole: chunks are missing");
            }
            let mut view = view(digest.clone(), &manifest, key, if cold { StoreTier::Cold } else { StoreTier::Warm });
            view.missing_chunks = missing.len();
            index.snapshots.insert(digest, Kept { view, location, missing });
        }
        drop(read);
        for (key, snapshots) in locked {
            tracing::warn!(key, snapshots, "snapshots are sealed with a key that this host does not have");
            index.locked.push(Locked { key, snapshots });
        }
        self.tell(&index);
        Ok(index)
    }

    fn tell(&self, index: &Index) {
        for tier in StoreTier::ALL {
            counters::bytes(tier.name(), index.bytes(tier));
            let of_tier = index.snapshots.values().filter(|kept| kept.view.tier == tier);
            counters::snapshots(tier.name(), of_tier.count());
        }
        counters::snapshots("locked", index.locked.iter().map(|locked| locked.snapshots).sum());
        if let Some(hot) = &self.inner.hot {
            counters::bytes("hot", hot.bytes());
        }
    }

    /// Bytes of all chunks in a store, as they are kept.
    pub async fn bytes(&self, tier: StoreTier) -> Result<u64, Error> {
        Ok(self.index().await?.bytes(tier))
    }

    /// Takes one chunk of `size_bytes` plain bytes; one that is there already and intact is not written again.
    pub async fn put_chunk(&self, digest: &Digest, encoded: Encoded, size_bytes: usize) -> Result<(), Error> {
        let key = self.inner.keys.sealing();
        let location = chunk_at(key, digest)?;
        let (name, sealing, at) = (digest.clone(), key.cloned(), location.clone());
        let data = blocking(move || {
            let data = admit(&name, &encoded, size_bytes)?;
            sealing.map_or(Ok(data.clone()), |key| key.seal(&at, &data))
        })
        .await??;
        let held = loop {
            let left = self.inner.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            {
                let mut index = self.index().await?;
                if !index.is_leaving(&location) {
                    break index.claim(&location, crate::clock::now());
                }
            }
            left.await;
        };
        if let Some(held) = held.filter(|held| held.warm) {
            match self.read_copies(digest, key, &location, held).await {
                Ok(_) => return Ok(()),
                // Damaged in the store: this is the chance to mend it.
                Err(Error::Missing(_) | Error::Mismatch(_) | Error::Encoding(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let (bytes, limit) = (self.bytes(StoreTier::Warm).await?, self.inner.settings.bytes_maximum);
        if bytes.saturating_add(size) > limit {
            return Err(Error::Full { bytes, limit });
        }
        self.write(StoreTier::Warm, &location, data.clone()).await?;
        self.index().await?.add(location.clone(), size, StoreTier::Warm, crate::clock::now());
        counters::written("warm");
        if let Some(hot) = &self.inner.hot {
            hot.put(&location, &data).await;
        }
        Ok(())
    }

    async fn write(&self, tier: StoreTier, location: &str, data: Bytes) -> Result<(), Error> {
        let store = self.store(tier).ok_or_else(|| Error::Folder(std::io::Error::other("there is no cold store")))?;
        store.put(&Location::from(location), data.into()).await.inspect_err(|_| counters::failed(tier.name()))?;
        Ok(())
    }

    /// None: it is not there.
    async fn fetch(&self, tier: StoreTier, location: &str) -> Result<Option<Bytes>, Error> {
        let Some(store) = self.store(tier) else { return Ok(None) };
        let got = async { store.get(&Location::from(location)).await?.bytes().await };
        match got.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => {
                counters::failed(tier.name());
                Err(error.into())
            }
        }
    }

    async fn remove(&self, tier: StoreTier, location: &str) -> Result<(), Error> {
        let Some(store) = self.store(tier) else { return Ok(()) };
        match store.delete(&Location::from(location)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => {
                counters::failed(tier.name());
                Err(error.into())
            }
        }
    }

    /// Whether a chunk is there; not whether it is intact.
    pub async fn has_chunk(&self, digest: &Digest) -> Result<bool, Error> {
        let index = self.index().await?;
        for key in self.inner.keys.all() {
            if index.get(&chunk_at(key, digest)?).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A chunk in its compressed form, verified.
    pub async fn get_chunk(&self, digest: &Digest) -> Result<Bytes, Error> {
        Ok(self.find_chunk(digest).await?.0)
    }

    /// A chunk's plain bytes, verified.
    pub async fn read_chunk(&self, digest: &Digest) -> Result<Bytes, Error> {
        Ok(self.find_chunk(digest).await?.1)
    }

    /// Under whichever key it is kept: compressed and plain.
    async fn find_chunk(&self, digest: &Digest) -> Result<(Bytes, Bytes), Error> {
        let mut problem = Error::Missing(digest.clone());
        for key in self.inner.keys.all() {
            let location = chunk_at(key, digest)?;
            let Some(held) = self.index().await?.get(&location) else { continue };
            if let Some(hot) = &self.inner.hot
                && let Some(data) = hot.get(&location).await
            {
                match unpack(digest, key, &location, data).await {
                    Ok(found) => {
                        counters::read("hot");
                        return Ok(found);
                    }
                    Err(_) => hot.remove(&location).await,
                }
            }
            match self.read_copies(digest, key, &location, held).await {
                Ok(found) => return Ok(found),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    /// From the main store, else from the cold one.
    async fn read_copies(
        &self,
        digest: &Digest,
        key: Option<&Key>,
        location: &str,
        held: Held,
    ) -> Result<(Bytes, Bytes), Error> {
        let mut problem = Error::Missing(digest.clone());
        for tier in StoreTier::ALL.into_iter().filter(|tier| held.is_in(*tier)) {
            let read = async {
                let data = self.fetch(tier, location).await?.ok_or_else(|| Error::Missing(digest.clone()))?;
                Ok((unpack(digest, key, location, data.clone()).await?, data))
            };
            match read.await {
                Ok((found, data)) => {
                    counters::read(tier.name());
                    if let Some(hot) = &self.inner.hot {
                        hot.put(location, &data).await;
                    }
                    return Ok(found);
                }
                Err(error) => {
                    if !matches!(error, Error::Store(_) | Error::Folder(_)) {
                        counters::damaged(tier.name());
                    }
                    problem = error;
                }
            }
        }
        Err(problem)
    }

    /// Takes a manifest. Refused unless its bytes are canonical and every chunk is there. The signature is the caller's
    /// word: this module has no keys of that kind.
    pub async fn put_manifest(&self, signed: Signed) -> Result<(Digest, Manifest), Error> {
        let manifest = manifest::parse(&signed.manifest)?;
        let digest = Digest::of(&signed.manifest);
        let key = self.inner.keys.sealing();
        let location = manifest_at(key, &digest)?;
        let chunks = distinct(&manifest, |digest| chunk_at(key, digest))?;
        {
            let mut index = self.index().await?;
            if index.snapshots.contains_key(&digest) {
                return Ok((digest, manifest));
            }
            // From here on none of them can be removed.
            if let Err(missing) = index.refer(&chunks, false) {
                let named = manifest.files.iter().flat_map(|file| &file.chunks).map(|chunk| &chunk.digest);
                let missing = named.into_iter().find(|digest| chunk_at(key, digest).is_ok_and(|at| at == missing));
                return Err(Error::MissingChunk(missing.cloned().unwrap_or(digest)));
            }
        }
        let bytes = signed.to_bytes();
        let body = key.map_or_else(|| Ok(bytes.clone().into()), |key| key.seal(&location, &bytes));
        let written = match body {
            Ok(body) => self.write(StoreTier::Warm, &location, body).await,
            Err(error) => Err(error),
        };
        let mut index = self.index().await?;
        if let Err(error) = written {
            index.release(&chunks, false);
            return Err(error);
        }
        let view = view(digest.clone(), &manifest, key, StoreTier::Warm);
        if index.snapshots.insert(digest.clone(), Kept { view, location, missing: BTreeSet::new() }).is_some() {
            // The same came twice at the same time.
            index.release(&chunks, false);
        }
        self.tell(&index);
        Ok((digest, manifest))
    }

    async fn read_manifest(&self, key: Option<&Key>, location: &str) -> Result<(Signed, Manifest), Error> {
        let wrong = || Error::Manifest("what lies in the store is not what was put there".into());
        let bytes = self.fetch(StoreTier::Warm, location).await?.ok_or_else(wrong)?;
        let bytes = match key {
            Some(key) => key.open(location, &bytes).ok_or_else(wrong)?,
            None => bytes,
        };
        let signed = Signed::from_bytes(&bytes)?;
        let manifest = manifest::parse(&signed.manifest)?;
        if manifest_at(key, &Digest::of(&signed.manifest))? == location { Ok((signed, manifest)) } else { Err(wrong()) }
    }

    async fn find_manifest(&self, digest: &Digest) -> Result<(Kept, Option<&Key>, Signed, Manifest), Error> {
        checked(digest)?;
        let missing = || Error::Missing(digest.clone());
        let kept = self.index().await?.snapshots.get(digest).cloned().ok_or_else(missing)?;
        let key = kept.view.key.as_ref().and_then(|key| self.inner.keys.get(key));
        let (signed, manifest) = self.read_manifest(key, &kept.location).await?;
        Ok((kept, key, signed, manifest))
    }

    /// A manifest's canonical bytes, verified, and the signature that it was stored with.
    pub async fn get_manifest(&self, digest: &Digest) -> Result<Signed, Error> {
        Ok(self.find_manifest(digest).await?.2)
    }

    /// A manifest as a document, verified.
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        Ok(self.find_manifest(digest).await?.3)
    }

    /// All snapshots, the newest first. One whose manifest is damaged is left out and logged.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, Error> {
        let mut views: Vec<_> = self.index().await?.snapshots.values().map(|kept| kept.view.clone()).collect();
        views.sort_by(|a, b| (b.taken_at, &b.manifest).cmp(&(a.taken_at, &a.manifest)));
        Ok(views)
    }

    pub async fn snapshot(&self, manifest: &Digest) -> Result<Option<SnapshotView>, Error> {
        Ok(self.index().await?.snapshots.get(manifest).map(|kept| kept.view.clone()))
    }

    /// Snapshots that this host cannot read, by the key that is missing.
    pub async fn locked(&self) -> Result<Vec<Locked>, Error> {
        Ok(self.index().await?.locked.clone())
    }

    /// Reads every chunk of a snapshot anew, from the store and not from what lies nearer.
    pub async fn verify(&self, digest: &Digest) -> Result<Verified, Error> {
        const SHOWN: usize = 100;
        let (_, key, _, manifest) = self.find_manifest(digest).await?;
        let all = manifest.files.iter().flat_map(|file| &file.chunks);
        let mut chunks: Vec<_> = all.map(|chunk| (chunk.digest.clone(), chunk.size_bytes)).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let mut read = stream::iter(chunks)
            .map(async |(digest, size_bytes)| {
                let location = chunk_at(key, &digest)?;
                let held = self.index().await?.get(&location).ok_or_else(|| Error::Missing(digest.clone()));
                let read = match held {
                    Ok(held) => self.read_copies(&digest, key, &location, held).await,
                    Err(missing) => Err(missing),
                };
                match read {
                    Ok((_, plain)) if plain.len() == usize::try_from(size_bytes).unwrap_or(usize::MAX) => {
                        Ok((digest, Some(plain.len())))
                    }
                    Err(error @ (Error::Store(_) | Error::Folder(_))) => Err(error),
                    Ok(_) | Err(_) => Ok((digest, None)),
                }
            })
            .buffer_unordered(AT_ONCE);
        let mut done = Verified::default();
        while let Some((digest, size)) = read.try_next().await? {
            done.chunks += 1;
            match size {
                Some(size) => done.bytes += u64::try_from(size).unwrap_or(u64::MAX),
                None => {
                    done.damaged_count += 1;
                    done.damaged.extend(Some(digest).filter(|_| done.damaged.len() < SHOWN));
                }
            }
        }
        Ok(done)
    }
}

/// What lies in a store, as it travels and plain; verified.
async fn unpack(digest: &Digest, key: Option<&Key>, at: &str, data: Bytes) -> Result<(Bytes, Bytes), Error> {
    let (name, key, at) = (digest.clone(), key.cloned(), at.to_owned());
    blocking(move || {
        let data = match key {
            Some(key) => key.open(&at, &data).ok_or_else(|| Error::Mismatch(name.clone()))?,
            None => data,
        };
        let plain = open_chunk(&name, &data, CHUNK_BYTES)?;
        Ok((data, plain))
    })
    .await?
}

fn view(digest: Digest, manifest: &Manifest, key: Option<&Key>, tier: StoreTier) -> SnapshotView {
    SnapshotView {
        snapshot: manifest.snapshot.clone(),
        manifest: digest,
        workload: manifest.workload.id.clone(),
        generation: manifest.generation,
        source: manifest.source.clone(),
        taken_at: manifest.taken_at,
        total_bytes: manifest.total_bytes,
        chunks: manifest.files.iter().map(|file| file.chunks.len()).sum(),
        missing_chunks: 0,
        key: key.map(|key| key.id.clone()),
        tier,
    }
}

#[cfg(test)]
mod s3_tests;
#[cfg(test)]
mod tests;
