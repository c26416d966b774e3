//! A snapshot on its way up: hashed, compressed and stored chunk by chunk, on several threads, in three turns: while
//! the workload runs, while CRIU writes, and what is left once it has written.
//!
//! A chunk is sent once. What a turn has sent, or hashed from a file that CRIU had written to that point, the next need
//! not do again. Only the digests of the last two turns, of the images that CRIU wrote, go into the manifest.

use super::{
    Error,
    layout::{self, PAGE_BYTES},
    precopy::{self, Memory},
};
use crate::{act::run::Run, process::ProcessRef, uplink::Fault};
use aether_core::{
    id::Digest,
    snapshot::{ChunkRef, SnapshotFile},
};
use aether_proto::v1::{Codec, SnapshotAhead, SnapshotChunk};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File},
    io,
    num::NonZero,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// Threads that hash and compress.
const THREADS_MAXIMUM: usize = 8;
/// Turns over the memory of a workload that runs, at most.
const PASSES_MAXIMUM: u32 = 4;
/// Less than this is left for when it is stopped.
const PASS_WORTH_BYTES: u64 = 16 << 20;
/// Between two looks at a file that CRIU writes.
const TAIL_EVERY: Duration = Duration::from_millis(2);

/// Where a chunk stands: file, offset and length.
type Place = (String, u64, u32);

pub struct Sender<'a> {
    run: &'a Run,
    key: String,
    known: Mutex<BTreeSet<Digest>>,
    /// What whoever will restore it was last told of a place.
    told: Mutex<BTreeMap<(String, u64), Digest>>,
    /// What was hashed of CRIU's own files.
    hashed: Mutex<BTreeMap<Place, Digest>>,
    /// Bytes whose chunk had to be sent, before compression.
    sent: AtomicU64,
}

/// What a precopy did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Precopied {
    pub passes: u32,
    /// Of the memory, at the last look.
    pub bytes: u64,
    pub sent_bytes: u64,
}

/// Chunks that one thread has sent and that are not known to be stored.
type Waiting = VecDeque<oneshot::Receiver<Result<(), Fault>>>;

impl<'a> Sender<'a> {
    pub fn new(run: &'a Run) -> Self {
        let key = run.task().order.key.0.clone();
        let (known, told, hashed) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { run, key, known, told, hashed, sent: AtomicU64::new(0) }
    }

    /// Bytes whose chunks had to be sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Sends what the workload holds while it runs, until a turn finds little that is new.
    pub fn precopy(&self, root: &ProcessRef) -> Result<Precopied, Error> {
        let mut done = Precopied::default();
        let mut before = u64::MAX;
        while done.passes < PASSES_MAXIMUM {
            let memories = precopy::survey(root, self.run.link.chunk_bytes());
            let regions: Vec<(&Memory, &precopy::Region)> =
                memories.iter().flat_map(|memory| memory.regions.iter().map(move |region| (memory, region))).collect();
            done.bytes = memories.iter().map(Memory::bytes).sum();
            let sent_before = self.sent_bytes();
            let total = done.bytes;
            self.each(regions.len(), |index, waiting| {
                let Some((memory, region)) = regions.get(index) else { return Ok(()) };
                if let Some(bytes) = memory.read(region) {
                    self.send(&bytes, (&memory.file, region.offset), waiting)?;
                    let part = u32::try_from(region.offset.saturating_mul(1_000).checked_div(total).unwrap_or(0));
                    self.run.tell(part.unwrap_or(0), format!("{total} bytes of memory are copied ahead"));
                }
                Ok(())
            })?;
            done.passes += 1;
            let sent = self.sent_bytes() - sent_before;
            done.sent_bytes += sent;
            if sent < PASS_WORTH_BYTES || sent > before / 2 {
                break;
            }
            before = sent;
        }
        Ok(done)
    }

    /// Hashes and sends what CRIU writes into `folder` while it writes, cut as `memories` foretell, until `over`. A
    /// failure here is no failure: what was not done is done by [`Self::finish`].
    pub fn follow(&self, folder: &Path, memories: &[Memory], over: &AtomicBool) {
        let mut waiting = Waiting::new();
        for memory in memories {
            let path = folder.join(&memory.file);
            let mut file = None;
            for region in &memory.regions {
                let end = region.offset + region.bytes;
                loop {
                    if file.is_none() {
                        file = File::open(&path).ok();
                    }
                    let written = file.as_ref().and_then(|file: &File| file.metadata().ok()).map_or(0, |m| m.len());
                    if written >= end {
                        break;
                    }
                    if over.load(Relaxed) || self.run.check().is_err() {
                        return;
                    }
                    thread::sleep(TAIL_EVERY);
                }
                let (Some(file), Ok(length)) = (&file, u32::try_from(region.bytes)) else { return };
                let place = (memory.file.clone(), region.offset, length);
                if self.place(file, place, &mut waiting).is_err() {
                    return;
                }
            }
        }
        // What is not answered yet is known as sent; a chunk that was not stored fails the manifest.
        let _ = self.settle_all(waiting);
    }

    /// Sends all files of `folder` whose names `wanted` takes. Gives them as a manifest lists them, and their bytes.
    pub fn finish(&self, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<(Vec<SnapshotFile>, u64), Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().into_string().map_err(|_| io::Error::other("a file name is not text"))?;
            if metadata.is_file() && wanted(&name) {
                names.push((name, metadata.len()));
            }
        }
        names.sort();
        let chunk_bytes = self.run.link.chunk_bytes();
        let cut = layout::of_images(folder, chunk_bytes)?;
        let mut opened = BTreeMap::new();
        let mut places = Vec::new();
        for (name, size_bytes) in &names {
            opened.insert(name.clone(), File::open(folder.join(name))?);
            let even = || evenly(*size_bytes, chunk_bytes);
            let mut offset = 0;
            for length in cut.get(name).cloned().unwrap_or_else(even) {
                places.push((name.clone(), offset, length));
                offset += u64::from(length);
            }
        }
        let total: u64 = names.iter().map(|(_, size_bytes)| size_bytes).sum();
        self.each(places.len(), |index, waiting| {
            let Some(place) = places.get(index) else { return Ok(()) };
            if !self.lock(&self.hashed).contains_key(place)
                && let Some(file) = opened.get(&place.0)
            {
                self.place(file, place.clone(), waiting)?;
                self.run.tell(500, format!("{total} bytes are being stored"));
            }
            Ok(())
        })?;
        let hashed = self.lock(&self.hashed);
        let mut files: BTreeMap<String, SnapshotFile> = names
            .into_iter()
            .map(|(name, size_bytes)| (name.clone(), SnapshotFile { name, size_bytes, chunks: vec![] }))
            .collect();
        for place in places {
            let digest = hashed.get(&place).cloned();
            let digest = digest.ok_or_else(|| io::Error::other("a part of a file was not hashed"))?;
            if let Some(file) = files.get_mut(&place.0) {
                file.chunks.push(ChunkRef { digest, size_bytes: place.2 });
            }
        }
        Ok((files.into_values().collect(), total))
    }

    fn lock<'b, T>(&self, mutex: &'b Mutex<T>) -> std::sync::MutexGuard<'b, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes a part of a file of CRIU's, and sends it if it is new.
    fn place(&self, file: &File, place: Place, waiting: &mut Waiting) -> Result<(), Error> {
        let mut bytes = vec![0; usize::try_from(place.2).unwrap_or(0)];
        file.read_exact_at(&mut bytes, place.1)?;
        let digest = self.send(&bytes, (&place.0, place.1), waiting)?;
        self.lock(&self.hashed).insert(place, digest);
        Ok(())
    }

    /// Works on `count` things on several threads, each of which waits for what it sent at its end.
    fn each(&self, count: usize, work: impl Fn(usize, &mut Waiting) -> Result<(), Error> + Sync) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let one = || {
            let mut waiting = Waiting::new();
            loop {
                let index = next.fetch_add(1, Relaxed);
                if index >= count {
                    return self.settle_all(waiting);
                }
                if let Err(error) = self.run.check().map_err(Error::from).and_then(|()| work(index, &mut waiting)) {
                    // The others have nothing more to do.
                    next.store(count, Relaxed);
                    return Err(error);
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAXIMUM).min(count.max(1));
        thread::scope(|scope| {
            let started: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
            let mut result = one();
            for thread in started {
                let ended =
                    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread that sends failed").into()));
                result = result.and(ended);
            }
            result
        })
    }

    /// Sends a chunk, unless an equal one was sent, and waits when too many are on their way. `place` is told to
    /// whoever will restore it.
    fn send(&self, bytes: &[u8], place: (&str, u64), waiting: &mut Waiting) -> Result<Digest, Error> {
        let size_bytes = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a chunk is too large"))?;
        let digest = Digest::of(bytes);
        let (file, offset) = (place.0.to_string(), place.1);
        if self.lock(&self.told).insert((file.clone(), offset), digest.clone()).as_ref() == Some(&digest) {
            return Ok(digest);
        }
        let fresh = self.lock(&self.known).insert(digest.clone());
        if !fresh {
            let ahead = SnapshotAhead {
                key: self.key.clone(),
                digest: digest.0.clone(),
                file,
                offset,
                size_bytes,
                codec: Codec::Unspecified.into(),
                data: vec![],
            };
            self.run.wait(self.run.link.ahead(ahead))?;
            return Ok(digest);
        }
        self.sent.fetch_add(u64::from(size_bytes), Relaxed);
        let (codec, data) = pack(bytes)?;
        let (key, codec) = (self.key.clone(), codec.into());
        let chunk = SnapshotChunk { key, digest: digest.0.clone(), codec, size_bytes, data, file, offset };
        while waiting.len() >= self.run.link.chunks_in_flight() {
            self.settle(waiting)?;
        }
        let answer = self.run.wait(self.run.link.store_chunk(chunk))?;
        waiting.push_back(answer);
        Ok(digest)
    }

    fn settle(&self, waiting: &mut Waiting) -> Result<(), Error> {
        let Some(answer) = waiting.pop_front() else { return Ok(()) };
        Ok(self.run.wait(answer)?.unwrap_or(Err(Fault::Stopping))?)
    }

    fn settle_all(&self, mut waiting: Waiting) -> Result<(), Error> {
        while !waiting.is_empty() {
            self.settle(&mut waiting)?;
        }
        Ok(())
    }
}

/// Compressed, unless a sample of it says that it would not become much smaller.
fn pack(bytes: &[u8]) -> io::Result<(Codec, Vec<u8>)> {
    let page = usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX);
    if bytes.len() >= 16 * page {
        let parts = [0, bytes.len() / 2, bytes.len() - page];
        let sample: Vec<u8> = parts.iter().flat_map(|at| &bytes[*at..*at + page]).copied().collect();
        if zstd::bulk::compress(&sample, 1)?.len() * 20 > sample.len() * 19 {
            return Ok((Codec::Raw, bytes.to_vec()));
        }
    }
    let packed = zstd::bulk::compress(bytes, 1)?;
    Ok(if packed.len() < bytes.len() { (Codec::Zstd, packed) } else { (Codec::Raw, bytes.to_vec()) })
}

fn evenly(size_bytes: u64, chunk_bytes: usize) -> Vec<u32> {
    let chunk = u32::try_from(chunk_bytes).unwrap_or(u32::MAX).max(1);
    let mut left = size_bytes;
    let mut lengths = Vec::new();
    while left > 0 {
        let length = u32::try_from(left).unwrap_or(u32::MAX).min(chunk);
        lengths.push(length);
        left -= u64::from(length);
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_become_smaller_is_not_compressed() {
        let mut state = 1u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let noisy: Vec<u8> = (0..32_768).flat_map(|_| noise()).collect();
        assert_eq!(pack(&noisy).unwrap(), (Codec::Raw, noisy.clone()));
        let (codec, packed) = pack(&[7; 200_000]).unwrap();
        assert!(codec == Codec::Zstd && packed.len() < 1_000);
        assert_eq!(evenly(2_500, 1_000), [1_000, 1_000, 500]);
    }
}
