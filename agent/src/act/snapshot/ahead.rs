//! Chunks that this node will probably need, kept in memory before it is told to restore anything.
//!
//! Each is verified against its digest as it comes and written where it will probably stand. What stands where is known
//! by digest, so nothing that comes here can get into a restore unless the manifest names it; what is wrong or missing
//! is fetched by [`super::fetch`]. All of it is a cache: bounded, dropped when there is no room, forgotten with the agent.

use super::unpack;
use crate::{
    act::images::{Images, reserve},
    clock::Stopwatch,
    uplink::Piece,
};
use aether_core::id::Digest;
use aether_proto::{CHUNK_BYTES, v1::SnapshotAhead};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::Duration,
};
use tracing::{debug, warn};

/// Pieces that wait to be written; more are dropped.
const WAITING_MAXIMUM: usize = 64;
/// Snapshots that are kept ahead at a time.
const STAGES_MAXIMUM: usize = 4;
/// A file that holds memory for the restored workload, and by how much it grows.
const ASIDE: &str = "aside";
const ASIDE_STEP_BYTES: u64 = 16 << 20;
/// Chunks that are expected, and places of one.
const EXPECTED_MAXIMUM: usize = 16_384;
/// After this without a further piece, a snapshot is not expected any more.
const IDLE_MAXIMUM: Duration = Duration::from_secs(900);

/// One file, as far as it is known.
#[derive(Debug)]
pub struct Staged {
    pub file: File,
    /// By offset: the digest and length of what was verified and stands there.
    pub slots: BTreeMap<u64, (Digest, u32)>,
}

/// One snapshot, as far as it has come.
#[derive(Debug)]
pub struct Stage {
    pub folder: PathBuf,
    pub files: BTreeMap<String, Staged>,
    /// Places of chunks that are still to come.
    expected: BTreeMap<Digest, Vec<(String, u64)>>,
    touched: Stopwatch,
    /// Bytes that are held for the restored workload.
    aside: u64,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Renamed if a restore took it over.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[derive(Debug)]
enum Message {
    Piece(Box<SnapshotAhead>),
    Take(String, mpsc::Sender<Option<Stage>>),
}

/// The way in and out.
#[derive(Clone, Debug)]
pub struct Ahead {
    messages: mpsc::SyncSender<Message>,
}

impl Ahead {
    /// Begins to keep pieces, on a thread of its own that ends with the last clone of what this returns.
    pub fn begin(images: Images) -> io::Result<Self> {
        let (messages, incoming) = mpsc::sync_channel(WAITING_MAXIMUM);
        thread::Builder::new().name("ahead".into()).spawn(move || {
            let mut keeper = Keeper { images, stages: BTreeMap::new() };
            for message in incoming {
                match message {
                    Message::Piece(piece) => keeper.take_in(*piece),
                    Message::Take(snapshot, reply) => {
                        let stage = keeper.stages.remove(&snapshot);
                        let aside = stage.as_ref().map(|stage| stage.folder.with_extension("aside"));
                        if let (Some(stage), Some(aside)) = (&stage, &aside) {
                            let _ = fs::rename(stage.folder.join(ASIDE), aside);
                        }
                        let _ = reply.send(stage);
                        // Giving much memory back takes a while, and a workload stands still.
                        let _ = aside.map(fs::remove_file);
                    }
                }
            }
        })?;
        Ok(Self { messages })
    }

    /// Hands a piece over, or drops it.
    pub fn offer(&self, piece: SnapshotAhead) {
        if self.messages.try_send(Message::Piece(Box::new(piece))).is_err() {
            debug!("a piece that came ahead found no room; it will be fetched");
        }
    }

    /// What came of a snapshot, once all that was offered before is written.
    pub fn take(&self, snapshot: &str) -> Option<Stage> {
        let (reply, answer) = mpsc::channel();
        self.messages.send(Message::Take(snapshot.into(), reply)).ok()?;
        answer.recv().ok().flatten()
    }
}

struct Keeper {
    images: Images,
    stages: BTreeMap<String, Stage>,
}

impl Keeper {
    fn take_in(&mut self, piece: SnapshotAhead) {
        self.stages.retain(|_, stage| stage.touched.elapsed() < IDLE_MAXIMUM);
        let SnapshotAhead { key, digest, file, offset, size_bytes, codec, data } = piece;
        let digest = Digest(digest);
        let size = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        if !is_plain(&key) || !is_plain(&file) || size == 0 || size > CHUNK_BYTES {
            return;
        }
        let end = offset.saturating_add(u64::from(size_bytes));
        if !self.stages.contains_key(&key) {
            if self.stages.len() >= STAGES_MAXIMUM {
                return;
            }
            let Some(folder) = self.images.make_in_memory(&format!("{key}.ahead"), end) else { return };
            let (files, expected) = (BTreeMap::new(), BTreeMap::new());
            let stage = Stage { folder, files, expected, touched: Stopwatch::start(), aside: 0 };
            self.stages.insert(key.clone(), stage);
        }
        let Some(stage) = self.stages.get_mut(&key) else { return };
        stage.touched = Stopwatch::start();
        let known = if data.is_empty() {
            stage.find(&digest, size_bytes)
        } else {
            unpack(Piece { codec, data, signature: vec![] }, size)
                .ok()
                .filter(|bytes| bytes.len() == size && Digest::of(bytes) == digest)
        };
        let Some(bytes) = known else {
            // It was sent before, but may be overtaken by this.
            if stage.expected.len() < EXPECTED_MAXIMUM {
                let places = stage.expected.entry(digest).or_default();
                if places.len() < EXPECTED_MAXIMUM {
                    places.push((file, offset));
                }
            }
            return;
        };
        let mut places = stage.expected.remove(&digest).unwrap_or_default();
        places.push((file, offset));
        for (file, offset) in places {
            // Only what makes the file longer needs more memory.
            let end = offset.saturating_add(u64::from(size_bytes));
            let longer = end.saturating_sub(stage.length(&file));
            if longer > 0 && !self.images.has_memory(longer.saturating_add(stage.bytes())) {
                return;
            }
            if let Err(error) = stage.write(&file, offset, digest.clone(), &bytes).and_then(|()| stage.set_aside()) {
                warn!(%error, "a piece that came ahead could not be kept; the rest will be fetched");
                self.stages.remove(&key);
                return;
            }
        }
    }
}

impl Stage {
    fn bytes(&self) -> u64 {
        self.files.keys().map(|file| self.length(file)).sum()
    }

    /// Holds as much memory again, which the restored workload will need; given back when the restore begins.
    fn set_aside(&mut self) -> io::Result<()> {
        let bytes = self.bytes();
        if bytes > self.aside {
            self.aside = bytes + ASIDE_STEP_BYTES;
            reserve(&self.folder.join(ASIDE), self.aside)?;
        }
        Ok(())
    }

    fn length(&self, file: &str) -> u64 {
        let last = self.files.get(file).and_then(|staged| staged.slots.last_key_value());
        last.map_or(0, |(offset, (_, size))| offset + u64::from(*size))
    }

    fn find(&self, digest: &Digest, size_bytes: u32) -> Option<Vec<u8>> {
        self.files.values().find_map(|staged| {
            let (offset, _) = staged.slots.iter().find(|(_, slot)| slot.0 == *digest && slot.1 == size_bytes)?;
            let mut bytes = vec![0; usize::try_from(size_bytes).ok()?];
            staged.file.read_exact_at(&mut bytes, *offset).ok()?;
            Some(bytes)
        })
    }

    fn write(&mut self, name: &str, offset: u64, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        if !self.files.contains_key(name) {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).mode(0o600).open(self.folder.join(name))?;
            self.files.insert(name.into(), Staged { file, slots: BTreeMap::new() });
        }
        let Some(staged) = self.files.get_mut(name) else { return Ok(()) };
        staged.write(offset, digest, bytes)
    }
}

impl Staged {
    /// Writes verified bytes and notes that they stand there, and that what they overwrote does not any more.
    pub fn write(&mut self, offset: u64, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let end = offset + u64::from(size);
        // A slot that begins before may reach in; none is longer than a chunk.
        let reach = offset.saturating_sub(CHUNK_BYTES as u64);
        let over = self.slots.range(reach..end).filter(|(begin, slot)| *begin + u64::from(slot.1) > offset);
        let over: Vec<u64> = over.map(|(begin, _)| *begin).collect();
        for begin in over {
            self.slots.remove(&begin);
        }
        self.file.write_all_at(bytes, offset)?;
        self.slots.insert(offset, (digest, size));
        Ok(())
    }
}

/// A name that stays within its folder.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_proto::v1::Codec;

    fn piece(file: &str, offset: u64, bytes: &[u8], digest: Digest) -> SnapshotAhead {
        SnapshotAhead {
            key: "key".into(),
            digest: digest.0,
            file: file.into(),
            offset,
            size_bytes: u32::try_from(bytes.len()).unwrap(),
            codec: Codec::Raw.into(),
            data: bytes.to_vec(),
        }
    }

    #[test]
    fn only_verified_pieces_are_kept_and_what_was_overwritten_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let ahead = Ahead::begin(Images::new(folder.path().join("snapshots"), 64 << 20)).unwrap();
        let (a, b) = (vec![1u8; 8_192], vec![2u8; 4_096]);
        ahead.offer(piece("pages-1.img", 0, &a, Digest::of(&a)));
        ahead.offer(piece("pages-1.img", 8_192, &a, Digest::of(b"something else")));
        ahead.offer(piece("../evil", 0, &a, Digest::of(&a)));
        ahead.offer(piece("pages-1.img", 16_384, &b, Digest::of(&b)));
        ahead.offer(SnapshotAhead { data: vec![], ..piece("pages-2.img", 4_096, &b, Digest::of(&b)) });
        ahead.offer(piece("pages-1.img", 4_096, &b, Digest::of(&b)));
        let stage = ahead.take("key").unwrap();
        let slots = |file: &str| stage.files[file].slots.iter().map(|(at, slot)| (*at, slot.1)).collect::<Vec<_>>();
        assert_eq!(slots("pages-1.img"), [(4_096, 4_096), (16_384, 4_096)]);
        assert_eq!(slots("pages-2.img"), [(4_096, 4_096)]);
        assert_eq!(stage.files.len(), 2);
        let at = stage.folder.clone();
        drop(stage);
        assert!(!at.exists() && ahead.take("key").is_none());
        Images::new(folder.path().join("snapshots"), 0).forget_all();
    }
}
