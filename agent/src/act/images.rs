//! Where CRIU's images lie: in memory while there is plenty, else on the disk of the agent's state. A folder for each
//! order; whatever a crash left behind is removed at the next start.

use aether_core::{id::Digest, order::IdempotencyKey};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use tracing::{debug, warn};

/// A file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";
/// Left free, of memory and of disk.
const RESERVE_BYTES: u64 = 256 << 20;

#[derive(Clone, Debug)]
pub struct Images {
    disk: PathBuf,
    memory: PathBuf,
    /// Most that lies in memory; 0: nothing does.
    memory_bytes: u64,
}

impl Images {
    /// `disk` is a folder of the agent's state, whose path also names the folder in memory.
    pub fn new(disk: PathBuf, memory_bytes: u64) -> Self {
        let memory = Self::memory_of(&disk);
        Self { disk, memory, memory_bytes }
    }

    /// The folder in memory that belongs to the one on disk.
    pub fn memory_of(disk: &Path) -> PathBuf {
        let name = Digest::of(disk.as_os_str().as_encoded_bytes());
        Path::new(MEMORY).join(format!("aether-agent-{}", name.short()))
    }

    /// Both places where an order's images may be.
    pub fn places(&self, key: &IdempotencyKey) -> [PathBuf; 2] {
        [self.memory.join(&key.0), self.disk.join(&key.0)]
    }

    /// A fresh folder for an order whose images will take about `bytes`.
    pub fn make(&self, key: &IdempotencyKey, bytes: u64) -> io::Result<PathBuf> {
        self.forget(key);
        match self.make_in_memory(&key.0, bytes) {
            Some(folder) => Ok(folder),
            None => {
                let folder = self.disk.join(&key.0);
                private(&folder)?;
                Ok(folder)
            }
        }
    }

    /// A fresh folder in memory, if there is plenty of it.
    pub fn make_in_memory(&self, name: &str, bytes: u64) -> Option<PathBuf> {
        if !self.has_memory(bytes) {
            return None;
        }
        if let Err(error) = private(&self.memory)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return None;
        }
        let folder = self.memory.join(name);
        let _ = fs::remove_dir_all(&folder);
        private(&folder).ok().map(|()| folder)
    }

    /// Touches as much memory as images will need, before a workload stands still for them: memory that a virtual
    /// machine never used costs far more the first time.
    pub fn warm(&self, folder: &Path, bytes: u64) {
        if folder.starts_with(&self.memory) {
            let path = folder.join("warm");
            if let Err(error) = reserve(&path, bytes) {
                debug!(%error, "memory for images could not be touched ahead");
            }
            let _ = fs::remove_file(path);
        }
    }

    /// Whether so much more may lie in memory. As much again must be left, for the workload itself.
    pub fn has_memory(&self, bytes: u64) -> bool {
        if bytes > self.memory_bytes {
            return false;
        }
        let room = free(Path::new(MEMORY)).unwrap_or(0);
        self.leaves_memory(bytes) && room >= bytes.saturating_add(RESERVE_BYTES)
    }

    /// Whether a copy of so many bytes, beside its images, leaves enough memory for everything else.
    pub fn leaves_memory(&self, bytes: u64) -> bool {
        let available = procfs::Current::current().ok().and_then(|info: procfs::Meminfo| info.mem_available);
        let needed = bytes.saturating_mul(2).saturating_add(RESERVE_BYTES);
        available.is_some_and(|available| available >= needed)
    }

    pub fn forget(&self, key: &IdempotencyKey) {
        for place in self.places(key) {
            remove(&place);
        }
        // Only if nothing else is in it.
        let _ = fs::remove_dir(&self.memory);
    }

    /// Removes all that is there.
    pub fn forget_all(&self) {
        for entry in fs::read_dir(&self.disk).into_iter().flatten().flatten() {
            remove(&entry.path());
        }
        remove(&self.memory);
    }
}

/// Makes a file take up so many bytes, of zeros.
pub fn reserve(path: &Path, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
}

fn private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, images = %folder.display(), "images that are not needed any more could not be removed");
    }
}

/// Bytes that are free where a path lies, less a reserve.
pub fn room(path: &Path) -> io::Result<u64> {
    free(path).map(|free| free.saturating_sub(RESERVE_BYTES / 4))
}

fn free(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
