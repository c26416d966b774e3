//! What was compiled before, in a folder of this host's own. A file is used only if this host sealed it, under this name;
//! any other is removed, counted, and compiled anew. Losing the folder costs time and nothing else.

use super::{Head, artifact::Artifact};
use crate::{clock, metric};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

const MAGIC: &[u8; 16] = b"aether-code-0001";
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Magic, seal, length of the head.
const PREFIX_BYTES: usize = 16 + 32 + 4;
const EXTENSION: &str = "code";

/// What a host seals its code with: 32 bytes that nobody else can read.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheKey(pub [u8; 32]);

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey(..)")
    }
}

/// Where compiled code is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Made if it is not there, for its owner alone.
    pub folder: PathBuf,
    pub key: CacheKey,
    /// Of all files together; what was not used for the longest time goes first.
    pub bytes: u64,
}

pub(super) struct Cache {
    settings: CacheSettings,
    file_bytes: u64,
    /// For names of files that are being written.
    written: AtomicU64,
    /// One sweep at a time.
    sweep: Mutex<()>,
}

impl Cache {
    pub(super) fn open(settings: CacheSettings, artifact_bytes: u64) -> Self {
        let cache = Self {
            settings,
            file_bytes: artifact_bytes + u64::from(HEAD_BYTES_MAX) + PREFIX_BYTES as u64,
            written: AtomicU64::new(0),
            sweep: Mutex::new(()),
        };
        let folder = &cache.settings.folder;
        if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder) {
            tracing::warn!(folder = %folder.display(), %error, "compiled components cannot be kept; each start compiles them anew");
        }
        cache.forget_unfinished();
        cache
    }

    pub(super) fn get(&self, name: &str) -> Option<(Head, Artifact)> {
        let outcome = match self.read(name) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                count("miss");
                return None;
            }
            Err(_) => None,
        };
        if outcome.is_none() {
            tracing::warn!(
                name,
                "a file among the compiled components is not what this host wrote; it is removed and compiled anew"
            );
            count("rejected");
            self.remove(name);
        } else {
            count("hit");
        }
        outcome
    }

    /// Keeps the code. A failure costs a compilation later, and is told.
    pub(super) fn put(&self, name: &str, head: &Head, artifact: &Artifact) {
        match self.write(name, head, artifact) {
            Ok(()) => {
                count("stored");
                self.evict();
            }
            Err(error) => tracing::warn!(%error, "a compiled component could not be kept"),
        }
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.path(name);
        // A folder of that name is not ours either.
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.folder.join(name).with_extension(EXTENSION)
    }

    /// None: it is there and not ours.
    fn read(&self, name: &str) -> io::Result<Option<(Head, Artifact)>> {
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.path(name))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > self.file_bytes {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
        (&file).take(self.file_bytes).read_to_end(&mut bytes)?;
        let found = self.open_sealed(name, &bytes);
        if found.is_some() {
            // When it was last of use. Only the order of eviction depends on it.
            let _ = file.set_modified(clock::wall());
        }
        Ok(found)
    }

    fn open_sealed(&self, name: &str, bytes: &[u8]) -> Option<(Head, Artifact)> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (seal, rest) = rest.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (head, code) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let artifact = Artifact::unseal(&self.settings.key.0, name, seal, head, code)?;
        Some((serde_json::from_slice(head).ok()?, artifact))
    }

    fn write(&self, name: &str, head: &Head, artifact: &Artifact) -> io::Result<()> {
        let head = serde_json::to_vec(head)?;
        let length = u32::try_from(head.len()).ok().filter(|length| *length <= HEAD_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("the head of compiled code is too long"))?;
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let new = self.settings.folder.join(format!("{name}.{}-{number}.new", std::process::id()));
        let written = (|| {
            let mut file = File::options().create_new(true).write(true).mode(0o600).open(&new)?;
            file.write_all(MAGIC)?;
            file.write_all(&artifact.seal(&self.settings.key.0, name, &head))?;
            file.write_all(&length.to_le_bytes())?;
            file.write_all(&head)?;
            file.write_all(artifact.bytes())?;
            // Not synced: after a crash the seal tells what is whole.
            fs::rename(&new, self.path(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Brings the folder below its limit, oldest first.
    fn evict(&self) {
        let _one = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files: Vec<_> = self.files(EXTENSION).collect();
        let mut total: u64 = files.iter().map(|(_, metadata)| metadata.len()).sum();
        files.sort_by_key(|(path, metadata)| (metadata.modified().ok(), path.clone()));
        for (path, metadata) in files {
            if total <= self.settings.bytes {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                count("evicted");
                total -= metadata.len();
            }
        }
    }

    /// What an earlier process left half written.
    fn forget_unfinished(&self) {
        for (path, _) in self.files("new") {
            let _ = fs::remove_file(path);
        }
    }

    fn files(&self, extension: &'static str) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
        let entries = fs::read_dir(&self.settings.folder).into_iter().flatten().flatten();
        entries
            .filter(move |entry| Path::new(&entry.file_name()).extension().is_some_and(|found| found == extension))
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
            .filter(|(_, metadata)| metadata.is_file())
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(metric::COMPILE_CACHE, "outcome" => outcome).increment(1);
}
