//! The registry: components and sets of assets, known by content, with where they came from and who brought them.
//!
//! ```text
//! upload / pull / bundle -> Spool (bounded, on the disk) -> Registry::put -> object store, then the database
//!     checks, each with its own error: size, is it a component, which world and version, which imports, signature;
//!     then it is compiled and describes itself
//! ```
//! The digest is the identity: the same bytes are one record however often and by however many they are brought. Name
//! and version are a component's own words; several digests can say the same ones, which is told and not refused.
//! Nothing that a slot, the active bundle or a recorded decision refers to is ever removed.
//!
//! Bytes lie below `<data>/components/` and are verified whenever they are read; sets of assets are folders below
//! `<data>/assets/`. Deliberately absent: who stands in which slot, and ranks of callers.

pub mod archive;
mod error;
mod files;
pub mod oci;
mod record;
pub mod retention;
mod settings;
pub mod signature;

pub use error::Error;
pub use record::{AssetFile, AssetsRecord, ComponentRecord, Provenance, Quarantined};
pub use settings::Settings;
pub use signature::SignedBy;

use crate::{clock, store::Store};
use aether_core::{
    id::{Digest, PrincipalId, is_name},
    time::Time,
};
use aether_runtime::{Assets, Component, Engine};
use bytes::Bytes;
use files::Files;
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path as Location};
use retention::{Kept, Why};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::SeekFrom,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, RwLock, Semaphore},
};

/// Compiled components that are kept in memory; the one that was asked for longest ago goes first.
const LOADED_MAXIMUM: usize = 64;
/// Uploads that are checked and compiled at one time; more wait on the disk.
const CHECKS_MAXIMUM: usize = 2;
/// Uploads that can be coming in at one time; another is told to come again.
pub const UPLOADS_MAXIMUM: usize = 16;
/// Of the same name and version, that a new one is told of.
const SAME_VERSION_MAXIMUM: usize = 8;

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    settings: Settings,
    store: Store,
    engine: Engine,
    objects: Arc<dyn ObjectStore>,
    files: Files,
    uploads: PathBuf,
    coming: Arc<Semaphore>,
    checks: Semaphore,
    /// In order of use, the newest last.
    loaded: Mutex<Vec<(Digest, Component)>>,
    /// Who in this process needs what, by a name for people.
    held: Mutex<BTreeMap<String, BTreeSet<Digest>>>,
    /// Held for reading by whoever adds, for writing by whoever removes.
    removal: RwLock<()>,
}

/// What comes along with the bytes of a component.
#[derive(Clone, Debug)]
pub struct Upload {
    pub provenance: Provenance,
    pub signature: Option<signature::Document>,
    pub by: PrincipalId,
}

/// What became of an upload.
#[derive(Clone, Debug)]
pub struct Stored {
    pub record: ComponentRecord,
    /// False: the same bytes were there before, and their record stands.
    pub is_new: bool,
    /// Other components that call themselves by the same name and version, the newest first.
    pub same_version: Vec<Digest>,
}

/// Something that was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub digest: Digest,
    pub name: String,
    /// Empty for a set of assets.
    pub version: String,
    pub bytes: u64,
    pub why: Why,
}

/// Whether it is 64 hexadecimal digits in lower case, and thereby safe in a path.
fn is_digest(digest: &Digest) -> bool {
    digest.0.len() == 64 && digest.0.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn location(digest: &Digest) -> Location {
    Location::from(format!("{digest}.wasm"))
}

fn unknown(digest: &Digest) -> Error {
    Error::Unknown { what: "component", digest: digest.0.chars().take(80).collect() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Died)
}

/// A file of at most `limit` bytes; one byte more than that is read, so that a larger one shows.
async fn read_file(path: &Path, limit: u64) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(limit + 1).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

fn counted(kind: &'static str, outcome: &'static str) {
    metrics::counter!("aether_registry_uploads_total", "kind" => kind, "outcome" => outcome).increment(1);
}

impl Registry {
    /// Opens the folders `components`, `assets` and `uploads` of `data`.
    pub async fn open(data: &Path, store: Store, engine: Engine, settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let objects = aether_recorder::local_store(&data.join("components"))
            .map_err(|error| Error::Folder(std::io::Error::other(error)))?;
        let files = Files::open(data.join("assets"))?;
        let uploads = data.join("uploads");
        std::fs::create_dir_all(&uploads)?;
        let registry = Self(Arc::new(Inner {
            settings,
            store,
            engine,
            objects,
            files,
            uploads,
            coming: Arc::new(Semaphore::new(UPLOADS_MAXIMUM)),
            checks: Semaphore::new(CHECKS_MAXIMUM),
            loaded: Mutex::default(),
            held: Mutex::default(),
            removal: RwLock::default(),
        }));
        registry.sweep().await?;
        Ok(registry)
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// A bounded place on the disk for a component that is coming in.
    pub fn spool_component(&self) -> Result<Spool, Error> {
        self.spool("component", "upload_bytes", self.0.settings.upload_bytes)
    }

    /// A bounded place on the disk for an archive of assets that is coming in.
    pub fn spool_assets(&self) -> Result<Spool, Error> {
        self.spool("archive of assets", "assets_bytes", self.0.settings.assets_bytes)
    }

    fn spool(&self, what: &'static str, setting: &'static str, limit: u64) -> Result<Spool, Error> {
        let place = Arc::clone(&self.0.coming).try_acquire_owned().map_err(|_| Error::Busy(UPLOADS_MAXIMUM))?;
        // A file without a name: gone with its last handle, even where the process is killed.
        let file = tempfile::tempfile_in(&self.0.uploads)?;
        Ok(Spool { file: tokio::fs::File::from_std(file), written: 0, what, setting, limit, _place: place })
    }

    /// Pulls a component from a registry and keeps it.
    pub async fn pull(&self, reference: &str, login: Option<oci::Login>, by: PrincipalId) -> Result<Stored, Error> {
        let pulled = oci::pull(&self.0.settings, reference, login, self.spool_component()?).await;
        if let Err(error) = &pulled {
            counted("component", error.code());
        }
        let oci::Pulled { bytes, signature, reference, manifest } = pulled?;
        self.put(bytes, Upload { provenance: Provenance::Oci { reference, manifest }, signature, by }).await
    }

    /// Checks a component and keeps it. Refused, it leaves nothing behind; known, it stays as it was, but a signature
    /// is added to one that had none.
    pub async fn put(&self, bytes: Bytes, upload: Upload) -> Result<Stored, Error> {
        let result = self.admit(bytes, upload).await;
        self.mind_the_room().await;
        let outcome = match &result {
            Ok(Stored { is_new: true, .. }) => "stored",
            Ok(Stored { is_new: false, .. }) => "known",
            Err(error) => error.code(),
        };
        counted("component", outcome);
        result
    }

    /// Keeps a component from a file of this machine, with the signature that lies beside it as `FILE.sig`, if one does.
    pub async fn put_file(&self, path: &Path, provenance: Provenance, by: PrincipalId) -> Result<Stored, Error> {
        let bytes = read_file(path, self.0.settings.upload_bytes).await?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".sig");
        let signature = match read_file(Path::new(&beside), signature::DOCUMENT_BYTES as u64).await {
            Ok(text) => Some(signature::parse(&text)?),
            Err(Error::Folder(error)) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.put(bytes, Upload { provenance, signature, by }).await
    }

    async fn admit(&self, bytes: Bytes, upload: Upload) -> Result<Stored, Error> {
        let Upload { provenance, signature, by } = upload;
        let settings = &self.0.settings;
        if bytes.len() as u64 > settings.upload_bytes {
            return Err(Error::TooLarge { what: "component", setting: "upload_bytes", limit: settings.upload_bytes });
        }
        let _place = self.0.checks.acquire().await.map_err(|_| Error::Died)?;
        let (engine, looked_at) = (self.0.engine.clone(), bytes.clone());
        let (digest, inspected) = blocking(move || (Digest::of(&looked_at), engine.inspect(&looked_at))).await?;
        let inspected = inspected?;
        // Before anything is compiled: a compiler is no place for what nobody answers for.
        let signed =
            signature::verify(&digest, signature.as_ref(), &settings.trusted_keys, settings.require_signature)?;
        let _adding = self.0.removal.read().await;
        let known = self.0.store.component(&digest).await?;
        if let Some(record) = known
            && self.bytes(&digest).await.is_ok()
        {
            let record = self.signed_now(record, signed).await?;
            let same_version = self.same_version(&record).await?;
            return Ok(Stored { record, is_new: false, same_version });
        }
        let component = self.compile(bytes.clone()).await?;
        let now = clock::now();
        self.make_room(bytes.len() as u64, now).await?;
        let description = component.description().clone();
        let record = ComponentRecord {
            digest: digest.clone(),
            name: description.name.clone(),
            version: description.version.clone(),
            role: inspected.role,
            bytes: bytes.len() as u64,
            description,
            imports: inspected.imports,
            provenance,
            signature: signed.clone(),
            uploaded_at: now,
            uploaded_by: by,
            used_at: now,
            quarantine: None,
        };
        // The bytes first: a record always has its bytes, and bytes without a record are swept away.
        self.0.objects.put(&location(&digest), bytes.into()).await?;
        let is_new = self.0.store.insert_component(&record).await?;
        self.remember(&component);
        let record = self.0.store.component(&digest).await?.ok_or_else(|| unknown(&digest))?;
        let record = self.signed_now(record, signed).await?;
        let same_version = self.same_version(&record).await?;
        Ok(Stored { record, is_new, same_version })
    }

    async fn signed_now(
        &self,
        mut record: ComponentRecord,
        signed: Option<SignedBy>,
    ) -> Result<ComponentRecord, Error> {
        if let (None, Some(signed)) = (&record.signature, signed) {
            self.0.store.sign_component(&record.digest, &signed).await?;
            record.signature = Some(signed);
        }
        Ok(record)
    }

    async fn same_version(&self, record: &ComponentRecord) -> Result<Vec<Digest>, Error> {
        let all = self.0.store.components().await?.into_iter();
        let same = all.filter(|other| {
            other.digest != record.digest && other.name == record.name && other.version == record.version
        });
        Ok(same.map(|other| other.digest).take(SAME_VERSION_MAXIMUM).collect())
    }

    pub async fn record(&self, digest: &Digest) -> Result<ComponentRecord, Error> {
        self.0.store.component(digest).await?.ok_or_else(|| unknown(digest))
    }

    /// By name, and of one name the newest first.
    pub async fn list(&self) -> Result<Vec<ComponentRecord>, Error> {
        Ok(self.0.store.components().await?)
    }

    /// A component's bytes, verified.
    pub async fn bytes(&self, digest: &Digest) -> Result<Bytes, Error> {
        if !is_digest(digest) {
            return Err(unknown(digest));
        }
        let found = match self.0.objects.get(&location(digest)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Err(unknown(digest)),
            Err(error) => return Err(error.into()),
        };
        let (name, bytes) = (digest.clone(), found.clone());
        let intact = blocking(move || Digest::of(&bytes) == name).await?;
        if intact { Ok(found) } else { Err(Error::Damaged(digest.clone())) }
    }

    /// A component, compiled. Those of late are kept in memory.
    pub async fn load(&self, digest: &Digest) -> Result<Component, Error> {
        if let Some(component) = self.recall(digest) {
            return Ok(component);
        }
        let component = self.compile(self.bytes(digest).await?).await?;
        self.remember(&component);
        Ok(component)
    }

    async fn compile(&self, bytes: Bytes) -> Result<Component, Error> {
        let engine = self.0.engine.clone();
        Ok(blocking(move || engine.load(&bytes)).await??)
    }

    fn recall(&self, digest: &Digest) -> Option<Component> {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let at = loaded.iter().position(|(known, _)| known == digest)?;
        let found = loaded.remove(at);
        let component = found.1.clone();
        loaded.push(found);
        Some(component)
    }

    fn remember(&self, component: &Component) {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|(known, _)| known != component.digest());
        if loaded.len() >= LOADED_MAXIMUM {
            loaded.remove(0);
        }
        loaded.push((component.digest().clone(), component.clone()));
    }

    /// Keeps the files of a tar archive as a set, under a name for people. False: the very files were there before.
    pub async fn put_archive(
        &self,
        name: &str,
        archive: Bytes,
        by: PrincipalId,
    ) -> Result<(AssetsRecord, bool), Error> {
        let result = match blocking(move || archive::read(&archive)).await? {
            Ok(files) => self.put_assets(name, files, by).await,
            Err(refused) => Err(refused.into()),
        };
        counted(
            "assets",
            match &result {
                Ok((_, true)) => "stored",
                Ok((_, false)) => "known",
                Err(error) => error.code(),
            },
        );
        result
    }

    /// Keeps a set of files under a name for people.
    pub async fn put_assets(
        &self,
        name: &str,
        files: BTreeMap<String, Arc<[u8]>>,
        by: PrincipalId,
    ) -> Result<(AssetsRecord, bool), Error> {
        if !is_name(name) {
            return Err(Error::Name(name.chars().take(80).collect()));
        }
        let assets = blocking(move || Assets::of(files)).await?;
        let listed: Vec<AssetFile> = assets
            .files()
            .map(|(name, bytes)| AssetFile { name: name.into(), bytes: bytes.len() as u64, digest: Digest::of(bytes) })
            .collect();
        let digest = assets.digest().cloned().ok_or(archive::Refused::Empty)?;
        let bytes = listed.iter().map(|file| file.bytes).sum();
        let adding = self.0.removal.read().await;
        let now = clock::now();
        if self.0.store.asset_set(&digest).await?.is_none() {
            self.make_room(bytes, now).await?;
        }
        let (files, name_of) = (self.0.files.clone(), digest.clone());
        blocking(move || files.put(&name_of, &assets)).await??;
        let record = AssetsRecord {
            digest: digest.clone(),
            name: name.into(),
            files: listed,
            bytes,
            uploaded_at: now,
            uploaded_by: by,
            used_at: now,
        };
        let is_new = self.0.store.insert_assets(&record).await?;
        let record = self.assets_record(&digest).await?;
        drop(adding);
        self.mind_the_room().await;
        Ok((record, is_new))
    }

    pub async fn assets_record(&self, digest: &Digest) -> Result<AssetsRecord, Error> {
        let missing = || Error::Unknown { what: "set of assets", digest: digest.0.chars().take(80).collect() };
        self.0.store.asset_set(digest).await?.ok_or_else(missing)
    }

    /// By name, and of one name the newest first.
    pub async fn list_assets(&self) -> Result<Vec<AssetsRecord>, Error> {
        Ok(self.0.store.asset_sets().await?)
    }

    /// A set of files, verified.
    pub async fn assets(&self, digest: &Digest) -> Result<Assets, Error> {
        let (files, digest) = (self.0.files.clone(), digest.clone());
        blocking(move || files.read(&digest)).await?
    }

    /// Says that no slot is to take it any more. It can still be loaded, so that what it decided can be run again.
    pub async fn quarantine(&self, digest: &Digest, quarantine: &Quarantined) -> Result<(), Error> {
        match self.0.store.set_quarantine(digest, Some(quarantine)).await? {
            true => Ok(()),
            false => Err(unknown(digest)),
        }
    }

    pub async fn lift_quarantine(&self, digest: &Digest) -> Result<(), Error> {
        match self.0.store.set_quarantine(digest, None).await? {
            true => Ok(()),
            false => Err(unknown(digest)),
        }
    }

    /// Says what `who`, by a name for people, needs from now on; what it needed before is replaced.
    pub fn hold(&self, who: &str, digests: impl IntoIterator<Item = Digest>) {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(who.into(), digests.into_iter().collect());
    }

    /// Who refers to what: slots, the active bundle, recorded decisions.
    pub async fn references(&self) -> Result<BTreeMap<Digest, Vec<String>>, Error> {
        let mut found: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        {
            let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
            for (who, digests) in held.iter() {
                for digest in digests {
                    found.entry(digest.clone()).or_default().push(who.clone());
                }
            }
        }
        for (digest, slots) in self.0.store.stood_in().await? {
            let slots = slots.into_iter().map(|slot| format!("a generation of the slot `{slot}`"));
            found.entry(digest).or_default().extend(slots);
        }
        for (digest, times) in self.0.store.decided_with().await? {
            let who = if times == 1 { "one recorded decision".into() } else { format!("{times} recorded decisions") };
            found.entry(digest).or_default().push(who);
        }
        Ok(found)
    }

    /// Removes a component that nobody refers to.
    pub async fn remove(&self, digest: &Digest) -> Result<ComponentRecord, Error> {
        let _removing = self.0.removal.write().await;
        let record = self.record(digest).await?;
        self.free(digest).await?;
        self.forget(digest).await?;
        Ok(record)
    }

    /// Removes a set of assets that nobody refers to.
    pub async fn remove_assets(&self, digest: &Digest) -> Result<AssetsRecord, Error> {
        let _removing = self.0.removal.write().await;
        let record = self.assets_record(digest).await?;
        self.free(digest).await?;
        self.forget(digest).await?;
        Ok(record)
    }

    async fn free(&self, digest: &Digest) -> Result<(), Error> {
        match self.references().await?.remove(digest) {
            Some(by) => Err(Error::InUse { digest: digest.clone(), by }),
            None => Ok(()),
        }
    }

    /// The record first: what is left of the bytes when this breaks off is swept away at the next start.
    async fn forget(&self, digest: &Digest) -> Result<(), Error> {
        if self.0.store.delete_component(digest).await? {
            self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != digest);
            self.delete_object(digest).await?;
        }
        if self.0.store.delete_assets(digest).await? {
            let (files, digest) = (self.0.files.clone(), digest.clone());
            blocking(move || files.remove(&digest)).await??;
        }
        Ok(())
    }

    async fn delete_object(&self, digest: &Digest) -> Result<(), Error> {
        match self.0.objects.delete(&location(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what the policy lets go; with `dry_run` it only says what that would be.
    pub async fn collect_garbage(&self, now: Time, dry_run: bool) -> Result<Vec<Removed>, Error> {
        let _removing = self.0.removal.write().await;
        let removed = self.garbage(0, now).await?;
        if dry_run {
            return Ok(removed);
        }
        for one in &removed {
            self.forget(&one.digest).await?;
            metrics::counter!("aether_registry_removed_total").increment(1);
        }
        Ok(removed)
    }

    async fn garbage(&self, coming: u64, now: Time) -> Result<Vec<Removed>, Error> {
        let references = self.references().await?;
        self.0.store.touch_plugins(references.keys(), now).await?;
        let kept = self.kept().await?;
        let needed = references.keys().collect();
        let gone = retention::garbage(&kept, &needed, &self.0.settings, coming, now);
        let removed = gone.into_iter().map(|(one, why)| Removed {
            digest: one.digest.clone(),
            name: one.name.clone(),
            version: one.version.clone(),
            bytes: one.bytes,
            why,
        });
        Ok(removed.collect())
    }

    async fn kept(&self) -> Result<Vec<Kept>, Error> {
        let components = self.0.store.components().await?.into_iter().map(|record| Kept {
            digest: record.digest,
            name: record.name,
            version: record.version,
            bytes: record.bytes,
            uploaded_at: record.uploaded_at,
            used_at: record.used_at,
        });
        let assets = self.0.store.asset_sets().await?.into_iter().map(|record| Kept {
            digest: record.digest,
            // A component and its model may share a name, and neither counts among the versions of the other.
            name: format!("assets/{}", record.name),
            version: String::new(),
            bytes: record.bytes,
            uploaded_at: record.uploaded_at,
            used_at: record.used_at,
        });
        Ok(components.chain(assets).collect())
    }

    /// Refuses what would not fit even if everything that nobody needs went. What has to go for it goes afterwards, not
    /// here: an upload that fails must not have cost anybody anything.
    async fn make_room(&self, coming: u64, now: Time) -> Result<(), Error> {
        let kept: u64 = self.kept().await?.iter().map(|one| one.bytes).sum();
        let limit = self.0.settings.bytes_maximum;
        if kept.saturating_add(coming) <= limit {
            return Ok(());
        }
        let freed: u64 = self.garbage(coming, now).await?.iter().map(|one| one.bytes).sum();
        if kept.saturating_sub(freed).saturating_add(coming) <= limit {
            return Ok(());
        }
        Err(Error::Full { bytes: kept, limit })
    }

    /// Lets go what an upload left no room for. A failure is not the uploader's; the next round tries again.
    async fn mind_the_room(&self) {
        let over = match self.kept().await {
            Ok(kept) => kept.iter().map(|one| one.bytes).sum::<u64>() > self.0.settings.bytes_maximum,
            Err(_) => false,
        };
        if over && let Err(error) = self.collect_garbage(clock::now(), false).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the registry could not make room");
        }
    }

    /// Removes bytes without a record: what a crash left of an upload or of a removal.
    async fn sweep(&self) -> Result<(), Error> {
        let _removing = self.0.removal.write().await;
        let known: BTreeSet<Digest> =
            self.0.store.components().await?.into_iter().map(|record| record.digest).collect();
        let lying: Vec<_> = self.0.objects.list(None).try_collect().await?;
        for meta in lying {
            let digest = meta.location.filename().and_then(|name| name.strip_suffix(".wasm")).map(|d| Digest(d.into()));
            match digest {
                Some(digest) if is_digest(&digest) && !known.contains(&digest) => self.delete_object(&digest).await?,
                Some(_) | None => {}
            }
        }
        let known: BTreeSet<Digest> =
            self.0.store.asset_sets().await?.into_iter().map(|record| record.digest).collect();
        let files = self.0.files.clone();
        blocking(move || {
            let lying = files.list()?;
            lying.iter().filter(|digest| !known.contains(digest)).try_for_each(|digest| files.remove(digest))
        })
        .await?
    }
}

/// Bytes that are coming in: on the disk, bounded, and gone when this is dropped.
#[derive(Debug)]
pub struct Spool {
    file: tokio::fs::File,
    written: u64,
    what: &'static str,
    setting: &'static str,
    limit: u64,
    _place: OwnedSemaphorePermit,
}

impl Spool {
    /// Refuses at once what will be too large.
    pub fn expect(&self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.limit {
            return Ok(());
        }
        Err(Error::TooLarge { what: self.what, setting: self.setting, limit: self.limit })
    }

    pub async fn write(&mut self, part: &[u8]) -> Result<(), Error> {
        self.written = self.written.saturating_add(part.len() as u64);
        self.expect(self.written)?;
        Ok(self.file.write_all(part).await?)
    }

    /// All of it.
    pub async fn read(mut self) -> Result<Bytes, Error> {
        self.file.flush().await?;
        self.file.seek(SeekFrom::Start(0)).await?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.written).unwrap_or_default());
        self.file.read_to_end(&mut bytes).await?;
        Ok(bytes.into())
    }
}
