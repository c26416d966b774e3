//! The only object store of the host: snapshots of workloads, as manifests and content-addressed chunks.
//!
//! A chunk is named by the BLAKE3 of its plain bytes and kept compressed; it is verified when it comes and whenever it
//! is read, so nothing that differs from its name ever goes out. A manifest is taken only when all its chunks are
//! there. Writes are atomic (a staged file, then a rename) and synced together with their folder before a method
//! returns: whoever got an `Ok` may tell others. Segments of telemetry are the recorder's own.

use aether_core::{
    id::{Digest, NodeId, SnapshotId, WorkloadId},
    snapshot::Manifest,
    time::Time,
};
use aether_proto::CHUNK_BYTES;
use bytes::Bytes;
use object_store::{ObjectStore, local::LocalFileSystem, path::Path as Location};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use thiserror::Error;

/// Bounds of the snapshot store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Snapshots that are kept. Default 64, 1 to 100,000. The oldest go first; those that an outstanding order needs stay.
    pub snapshots_maximum: usize,
    /// Bytes of all chunks, as they are kept. Default 64 GiB, 16 MiB to 1 PiB. The oldest snapshots go first; when that
    /// makes no room, new chunks are refused as `store.full`.
    pub bytes_maximum: u64,
    /// How long a chunk may wait for its manifest before it is removed. Default 24 h, 1 min to 30 days.
    pub orphan_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { snapshots_maximum: 64, bytes_maximum: 64 << 30, orphan_ms: 86_400_000 }
    }
}

impl Settings {
    /// Refuses a value outside its range, by name.
    pub fn check(&self) -> Result<(), Error> {
        let ranges = [
            ("snapshots_maximum", u64::try_from(self.snapshots_maximum).unwrap_or(u64::MAX), 1, 100_000),
            ("bytes_maximum", self.bytes_maximum, 16 << 20, 1 << 50),
            ("orphan_ms", self.orphan_ms, 60_000, 30 * 86_400_000),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(Error::Setting { name, value, least, most });
            }
        }
        Ok(())
    }
}

#[derive(Debug, Error)]
pub enum Error {
    #[error("snapshot setting {name} is {value}: it must be between {least} and {most}")]
    Setting { name: &'static str, value: u64, least: u64, most: u64 },
    #[error("`{0}` is not a digest: 64 hexadecimal digits in lower case are wanted")]
    NotADigest(String),
    #[error("the bytes do not hash to {0}; they were changed on the way or on the disk, and were not taken")]
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
            Self::Setting { .. } => "store.setting",
            Self::NotADigest(_) => "digest.malformed",
            Self::Mismatch(_) => "digest.mismatch",
            Self::Oversized { .. } => "chunk.oversized",
            Self::Encoding(_) => "chunk.encoding",
            Self::Missing(_) => "not-found",
            Self::MissingChunk(_) => "manifest.missing-chunk",
            Self::Manifest(_) => "manifest.malformed",
            Self::Full { .. } => "store.full",
            Self::Store(_) | Self::Folder(_) => "store.failed",
        }
    }
}

/// A chunk's bytes as they travel and are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    Raw(Bytes),
    Zstd(Bytes),
}

/// One stored snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SnapshotView {
    pub snapshot: SnapshotId,
    pub manifest: Digest,
    pub workload: WorkloadId,
    pub generation: u64,
    pub source: NodeId,
    pub taken_at: Time,
    pub total_bytes: u64,
    pub chunks: usize,
}

/// What a round of [`Blobs::retain`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    pub snapshots: usize,
    pub chunks: usize,
    pub bytes: u64,
}

/// The snapshot store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    store: Arc<dyn ObjectStore>,
    /// Bytes of all chunks as kept; counted anew by every retention.
    bytes: std::sync::atomic::AtomicU64,
    /// Held for reading by whoever adds, for writing by whoever removes, so that no chunk vanishes under a manifest
    /// that is being checked.
    removal: tokio::sync::RwLock<()>,
}

use futures::TryStreamExt;
use object_store::ObjectStoreExt as _;
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

const CHUNKS: &str = "chunks";
const MANIFESTS: &str = "manifests";
/// Bytes of one manifest: what fits a frame.
const MANIFEST_BYTES: usize = 3 << 20;
/// What compression may add to bytes that do not compress.
const ENCODING_SLACK: usize = 64 << 10;

/// A digest that is safe in a path.
fn checked(digest: &Digest) -> Result<&str, Error> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digest.0.len() == 64 && digest.0.bytes().all(hex) {
        Ok(&digest.0)
    } else {
        Err(Error::NotADigest(digest.0.chars().take(80).collect()))
    }
}

fn chunk_location(digest: &Digest) -> Result<Location, Error> {
    let digest = checked(digest)?;
    Ok(Location::from(format!("{CHUNKS}/{}/{digest}.zst", digest.get(..2).unwrap_or_default())))
}

fn manifest_location(digest: &Digest) -> Result<Location, Error> {
    Ok(Location::from(format!("{MANIFESTS}/{}.json", checked(digest)?)))
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
    /// A store in a folder of this machine.
    pub async fn open(settings: Settings, folder: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(Error::Folder)?;
        // Without `with_fsync` a write is atomic but not synced.
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Self::with_store(settings, Arc::new(store)).await
    }

    /// Any other object store; it must make a put durable before it answers.
    pub async fn with_store(settings: Settings, store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        settings.check()?;
        let mut bytes = 0;
        let mut listed = store.list(Some(&Location::from(CHUNKS)));
        while let Some(meta) = listed.try_next().await? {
            bytes += meta.size;
        }
        drop(listed);
        let inner = Inner { settings, store, bytes: bytes.into(), removal: tokio::sync::RwLock::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Bytes of all chunks as they are kept.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes.load(Relaxed)
    }

    /// Takes one chunk of `size_bytes` plain bytes; one that is there already and intact is not written again.
    pub async fn put_chunk(&self, digest: &Digest, encoded: Encoded, size_bytes: usize) -> Result<(), Error> {
        let location = chunk_location(digest)?;
        let name = digest.clone();
        let data = blocking(move || admit(&name, &encoded, size_bytes)).await??;
        let _adding = self.inner.removal.read().await;
        match self.get_chunk(digest).await {
            Ok(_) => return Ok(()),
            // Damaged on the disk: this is the chance to mend it.
            Err(Error::Missing(_) | Error::Mismatch(_) | Error::Encoding(_)) => {}
            Err(error) => return Err(error),
        }
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let (bytes, limit) = (self.bytes(), self.inner.settings.bytes_maximum);
        if bytes.saturating_add(size) > limit {
            return Err(Error::Full { bytes, limit });
        }
        self.inner.store.put(&location, data.into()).await?;
        self.inner.bytes.fetch_add(size, Relaxed);
        Ok(())
    }

    /// Whether a chunk is there; not whether it is intact.
    pub async fn has_chunk(&self, digest: &Digest) -> Result<bool, Error> {
        match self.inner.store.head(&chunk_location(digest)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A chunk in its compressed form, verified.
    pub async fn get_chunk(&self, digest: &Digest) -> Result<Bytes, Error> {
        let data = self.get(&chunk_location(digest)?, digest).await?;
        let name = digest.clone();
        blocking(move || open_chunk(&name, &data, CHUNK_BYTES).map(|_| data)).await?
    }

    /// A chunk's plain bytes, verified.
    pub async fn read_chunk(&self, digest: &Digest) -> Result<Bytes, Error> {
        let data = self.get(&chunk_location(digest)?, digest).await?;
        let name = digest.clone();
        blocking(move || open_chunk(&name, &data, CHUNK_BYTES)).await?
    }

    async fn get(&self, location: &Location, digest: &Digest) -> Result<Bytes, Error> {
        match self.inner.store.get(location).await {
            Ok(found) => Ok(found.bytes().await?),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing(digest.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes canonical bytes of a manifest. Refused unless they are canonical and every chunk is there.
    pub async fn put_manifest(&self, bytes: Bytes) -> Result<(Digest, Manifest), Error> {
        let manifest = parse_manifest(&bytes)?;
        let _adding = self.inner.removal.read().await;
        let mut seen = BTreeSet::new();
        for chunk in manifest.files.iter().flat_map(|file| &file.chunks) {
            if seen.insert(&chunk.digest) && !self.has_chunk(&chunk.digest).await? {
                return Err(Error::MissingChunk(chunk.digest.clone()));
            }
        }
        let digest = Digest::of(&bytes);
        self.inner.store.put(&manifest_location(&digest)?, bytes.into()).await?;
        Ok((digest, manifest))
    }

    /// A manifest's canonical bytes, verified.
    pub async fn get_manifest(&self, digest: &Digest) -> Result<Bytes, Error> {
        let bytes = self.get(&manifest_location(digest)?, digest).await?;
        if Digest::of(&bytes) == *digest { Ok(bytes) } else { Err(Error::Mismatch(digest.clone())) }
    }

    /// A manifest as a document, verified.
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        parse_manifest(&self.get_manifest(digest).await?)
    }

    /// All snapshots, the newest first. One whose manifest is damaged is left out and logged.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, Error> {
        let mut views: Vec<_> =
            self.manifests().await?.into_iter().map(|(digest, manifest)| view(digest, &manifest)).collect();
        views.sort_by(|a, b| (b.taken_at, &b.manifest).cmp(&(a.taken_at, &a.manifest)));
        Ok(views)
    }

    async fn manifests(&self) -> Result<Vec<(Digest, Manifest)>, Error> {
        let listed: Vec<_> = self.inner.store.list(Some(&Location::from(MANIFESTS))).try_collect().await?;
        let mut manifests = Vec::with_capacity(listed.len());
        for meta in listed {
            let Some(name) = meta.location.filename().and_then(|name| name.strip_suffix(".json")) else { continue };
            let digest = Digest(name.into());
            match self.manifest(&digest).await {
                Ok(manifest) => manifests.push((digest, manifest)),
                Err(error) => tracing::error!(%digest, %error, "a snapshot's manifest is damaged and left out"),
            }
        }
        Ok(manifests)
    }

    /// Removes a snapshot's manifest; its chunks go with the next [`Blobs::retain`], unless others share them.
    pub async fn delete_snapshot(&self, manifest: &Digest) -> Result<(), Error> {
        let _removing = self.inner.removal.write().await;
        match self.inner.store.delete(&manifest_location(manifest)?).await {
            Ok(()) => Ok(()),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing(manifest.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the oldest snapshots beyond the limits of count and bytes, except those in `keep` (by digest of the
    /// manifest), and chunks that nobody names and that are older than `orphan_ms`.
    pub async fn retain(&self, keep: &BTreeSet<Digest>, now: Time) -> Result<Retained, Error> {
        let _removing = self.inner.removal.write().await;
        let Settings { snapshots_maximum, bytes_maximum, orphan_ms } = self.inner.settings;
        let mut done = Retained::default();
        let mut manifests = self.manifests().await?;
        manifests.sort_by_key(|(_, manifest)| std::cmp::Reverse(manifest.taken_at));
        let mut stored = BTreeMap::new();
        let mut listed = self.inner.store.list(Some(&Location::from(CHUNKS)));
        while let Some(meta) = listed.try_next().await? {
            if let Some(name) = meta.location.filename().and_then(|name| name.strip_suffix(".zst")) {
                stored
                    .insert(name.to_owned(), (meta.location.clone(), meta.size, meta.last_modified.timestamp_millis()));
            }
        }
        drop(listed);
        // The newest come first; each claims the chunks that none before it claimed.
        let mut named: BTreeSet<String> = BTreeSet::new();
        let (mut count, mut bytes) = (0, 0);
        let mut freed: BTreeSet<String> = BTreeSet::new();
        for (digest, manifest) in &manifests {
            let chunks = || manifest.files.iter().flat_map(|file| &file.chunks).map(|chunk| &chunk.digest.0);
            let new: BTreeSet<_> = chunks().filter(|chunk| !named.contains(*chunk)).collect();
            let size: u64 = new.iter().filter_map(|chunk| stored.get(*chunk)).map(|(_, size, _)| size).sum();
            let fits = count < snapshots_maximum && bytes + size <= bytes_maximum;
            if fits || keep.contains(digest) {
                count += 1;
                bytes += size;
                named.extend(chunks().cloned());
            } else {
                self.inner.store.delete(&manifest_location(digest)?).await?;
                done.snapshots += 1;
                freed.extend(chunks().cloned());
            }
        }
        let mut left = 0;
        for (name, (location, size, written_ms)) in stored {
            let orphaned = freed.contains(&name) || now.since_ms(Time(written_ms)) > orphan_ms;
            if !named.contains(&name) && orphaned {
                self.inner.store.delete(&location).await?;
                done.chunks += 1;
                done.bytes += size;
            } else {
                left += size;
            }
        }
        self.inner.bytes.store(left, Relaxed);
        Ok(done)
    }
}

fn view(digest: Digest, manifest: &Manifest) -> SnapshotView {
    SnapshotView {
        snapshot: manifest.snapshot.clone(),
        manifest: digest,
        workload: manifest.workload.id.clone(),
        generation: manifest.generation,
        source: manifest.source.clone(),
        taken_at: manifest.taken_at,
        total_bytes: manifest.total_bytes,
        chunks: manifest.files.iter().map(|file| file.chunks.len()).sum(),
    }
}

/// Strict: canonical bytes, plain file names, digests that are digests, sums that add up.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Manifest, Error> {
    let no = |problem: String| Error::Manifest(problem);
    if bytes.len() > MANIFEST_BYTES {
        return Err(no(format!("it has {} bytes, and {MANIFEST_BYTES} is the limit", bytes.len())));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| no(error.to_string()))?;
    if aether_core::plan::canonical(&manifest) != bytes {
        return Err(no("its bytes are not the canonical form of what is in them".into()));
    }
    if manifest.schema_version != Manifest::SCHEMA_VERSION {
        return Err(no(format!(
            "its schema version is {}, and {} is known",
            manifest.schema_version,
            Manifest::SCHEMA_VERSION
        )));
    }
    let mut total: u64 = 0;
    let mut names = BTreeSet::new();
    for file in &manifest.files {
        let plain = !file.name.is_empty() && file.name.len() <= 255 && file.name != "." && file.name != "..";
        if !plain || file.name.contains(['/', '\\', '\0']) || !names.insert(&file.name) {
            return Err(no(format!("`{}` is no plain file name, or is there twice", file.name.escape_debug())));
        }
        let mut size: u64 = 0;
        for chunk in &file.chunks {
            checked(&chunk.digest)?;
            if chunk.size_bytes == 0 || usize::try_from(chunk.size_bytes).unwrap_or(usize::MAX) > CHUNK_BYTES {
                return Err(no(format!("a chunk of `{}` has {} bytes", file.name, chunk.size_bytes)));
            }
            size += u64::from(chunk.size_bytes);
        }
        if size != file.size_bytes {
            return Err(no(format!(
                "the chunks of `{}` have {size} bytes and the file {}",
                file.name, file.size_bytes
            )));
        }
        total = total.saturating_add(size);
    }
    if total != manifest.total_bytes {
        return Err(no(format!("its files have {total} bytes, and it says {}", manifest.total_bytes)));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests;
