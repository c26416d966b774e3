//! A snapshot on its way up: hashed, compressed and stored chunk by chunk, on several threads, in two turns: while the
//! workload runs, and what is left once it stands still.
//!
//! A chunk is sent once: what the first turn has sent, the second only hashes. Only the digests of the second, of what
//! CRIU wrote and of the memory that it holds, go into the manifest.

use super::{
    Error,
    layout::{self, Cut, PAGE_BYTES, Pages},
    pack::pack as pack_small,
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
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};
use tokio::sync::oneshot;

/// Threads that hash and compress.
const THREADS_MAXIMUM: usize = 8;
/// Turns over the memory of a workload that runs, at most.
const PASSES_MAXIMUM: u32 = 4;
/// Chunks that the memory of a small workload is cut into, and their least size.
const CHUNKS_WANTED: u64 = 64;
const CHUNK_LEAST_BYTES: usize = 64 << 10;
/// Less than so many chunks, or bytes, is left for when it is stopped.
const PASS_WORTH_CHUNKS: u64 = 4;
const PASS_WORTH_BYTES: u64 = 16 << 20;

pub struct Sender<'a> {
    run: &'a Run,
    key: String,
    /// Most that one chunk has.
    pub chunk_bytes: usize,
    known: Mutex<BTreeSet<Digest>>,
    /// What whoever will restore it was last told of a place.
    told: Mutex<BTreeMap<(String, u64), Digest>>,
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

/// What one thread works with.
#[derive(Default)]
struct Bench {
    /// Chunks that it has sent and that are not known to be stored.
    waiting: VecDeque<oneshot::Receiver<Result<(), Fault>>>,
    /// The chunk under its hands. Kept, because fresh memory costs more than what is done with it.
    bytes: Vec<u8>,
}

/// One chunk of the images.
struct Chunk<'a> {
    file: &'a str,
    offset: u64,
    cut: Cut,
}

impl<'a> Sender<'a> {
    /// For a workload of about `memory_bytes`. A small one has small chunks: a page that changes takes its whole chunk with
    /// it, and that is most of what is left to send once it stands still.
    pub fn new(run: &'a Run, memory_bytes: u64) -> Self {
        let key = run.task().order.key.0.clone();
        let most = run.link.chunk_bytes();
        let part = usize::try_from(memory_bytes / CHUNKS_WANTED).unwrap_or(most).max(1);
        let chunk_bytes = (1 << part.ilog2()).max(CHUNK_LEAST_BYTES).min(most);
        Self { run, key, chunk_bytes, known: Mutex::default(), told: Mutex::default(), sent: AtomicU64::new(0) }
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
            let memories = precopy::survey(root, self.chunk_bytes);
            let regions: Vec<(&Memory, &precopy::Region)> =
                memories.iter().flat_map(|memory| memory.regions.iter().map(move |region| (memory, region))).collect();
            done.bytes = memories.iter().map(Memory::bytes).sum();
            let sent_before = self.sent_bytes();
            let total = done.bytes;
            self.each(regions.len(), |index, bench| {
                let Some((memory, region)) = regions.get(index) else { return Ok(()) };
                if memory.read(region, &mut bench.bytes) {
                    self.send(bench, (&memory.file, region.offset))?;
                    let part = u32::try_from(region.offset.saturating_mul(1_000).checked_div(total).unwrap_or(0));
                    self.run.tell(part.unwrap_or(0), format!("{total} bytes of memory are copied ahead"));
                }
                Ok(())
            })?;
            done.passes += 1;
            let sent = self.sent_bytes() - sent_before;
            done.sent_bytes += sent;
            let worth = PASS_WORTH_CHUNKS.saturating_mul(self.chunk_bytes as u64).min(PASS_WORTH_BYTES);
            if sent < worth || sent > before / 2 {
                break;
            }
            before = sent;
        }
        Ok(done)
    }

    /// Sends all files of `images` whose names `wanted` takes, and of the processes under `root` the pages that CRIU
    /// left there. Gives them as a manifest lists them, and their bytes.
    pub fn finish(
        &self,
        images: &Path,
        root: Option<&ProcessRef>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(Vec<SnapshotFile>, u64), Error> {
        let chunk_bytes = self.chunk_bytes;
        let mut cut = layout::of_images(images, chunk_bytes)?;
        let mut written = BTreeMap::new();
        for entry in fs::read_dir(images)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().into_string().map_err(|_| io::Error::other("a file name is not text"))?;
            if metadata.is_file() && wanted(&name) {
                written.insert(name, metadata.len());
            }
        }
        let mut whole: BTreeMap<String, u64> = written.clone();
        whole.retain(|name, _| !cut.contains_key(name));
        pack_small(images, &mut whole)?;
        let sources = sources(images, &cut, written.keys().chain(whole.keys()), root)?;
        // First what must be stored in any case: it is while the rest is hashed.
        let mut chunks = Vec::new();
        for (name, bytes) in &whole {
            chunks.extend(in_order(name, layout::evenly(*bytes, chunk_bytes)));
        }
        let names: Vec<String> = cut.keys().cloned().collect();
        for name in &names {
            chunks.extend(in_order(name, cut.remove(name).unwrap_or_default().cuts));
        }
        let total: u64 = chunks.iter().map(|chunk| u64::from(chunk.cut.bytes)).sum();
        let hashed = Mutex::new(BTreeMap::new());
        self.each(chunks.len(), |index, bench| {
            let Some(Chunk { file, offset, cut }) = chunks.get(index) else { return Ok(()) };
            let source = sources.get(*file).ok_or_else(|| io::Error::other("a file was not opened"))?;
            source.read(cut, &mut bench.bytes)?;
            let digest = self.send(bench, (file, *offset))?;
            self.lock(&hashed).insert(index, digest);
            self.run.tell(500, format!("{total} bytes are being stored"));
            Ok(())
        })?;
        let mut hashed = hashed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut files: BTreeMap<&str, SnapshotFile> = BTreeMap::new();
        for name in whole.keys().chain(&names) {
            files.insert(name, SnapshotFile { name: name.clone(), size_bytes: 0, chunks: vec![] });
        }
        for (index, chunk) in chunks.iter().enumerate() {
            let digest = hashed.remove(&index);
            let digest = digest.ok_or_else(|| io::Error::other("a part of a file was not hashed"))?;
            if let Some(file) = files.get_mut(chunk.file) {
                file.size_bytes += u64::from(chunk.cut.bytes);
                file.chunks.push(ChunkRef { digest, size_bytes: chunk.cut.bytes });
            }
        }
        Ok((files.into_values().collect(), total))
    }

    fn lock<'b, T>(&self, mutex: &'b Mutex<T>) -> std::sync::MutexGuard<'b, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on `count` things on several threads, each of which waits for what it sent at its end.
    fn each(&self, count: usize, work: impl Fn(usize, &mut Bench) -> Result<(), Error> + Sync) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let one = || {
            let mut bench = Bench::default();
            loop {
                let index = next.fetch_add(1, Relaxed);
                if index >= count {
                    return self.settle_all(bench);
                }
                if let Err(error) = self.run.check().map_err(Error::from).and_then(|()| work(index, &mut bench)) {
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

    /// Sends the chunk on the bench, unless an equal one was sent, and waits when too many are on their way. `place` is
    /// told to whoever will restore it.
    fn send(&self, bench: &mut Bench, place: (&str, u64)) -> Result<Digest, Error> {
        let bytes = &bench.bytes;
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
        while bench.waiting.len() >= self.run.link.chunks_in_flight() {
            self.settle(bench)?;
        }
        let answer = self.run.wait(self.run.link.store_chunk(chunk))?;
        bench.waiting.push_back(answer);
        Ok(digest)
    }

    fn settle(&self, bench: &mut Bench) -> Result<(), Error> {
        let Some(answer) = bench.waiting.pop_front() else { return Ok(()) };
        Ok(self.run.wait(answer)?.unwrap_or(Err(Fault::Stopping))?)
    }

    fn settle_all(&self, mut bench: Bench) -> Result<(), Error> {
        while !bench.waiting.is_empty() {
            self.settle(&mut bench)?;
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

/// The chunks of one file, each where it stands.
fn in_order<'a>(file: &'a str, cuts: Vec<Cut>) -> impl Iterator<Item = Chunk<'a>> {
    cuts.into_iter().scan(0, move |offset, cut| {
        let chunk = Chunk { file, offset: *offset, cut };
        *offset += u64::from(chunk.cut.bytes);
        Some(chunk)
    })
}

/// Where the bytes of one file come from.
struct Source {
    /// As CRIU wrote it; none if it wrote nothing.
    written: Option<File>,
    /// The memory of the process that has the rest.
    memory: Option<File>,
}

impl Source {
    fn read(&self, cut: &Cut, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.resize(usize::try_from(cut.bytes).unwrap_or(0), 0);
        let mut rest = bytes.as_mut_slice();
        for run in &cut.runs {
            let (from, at) = match run.place {
                layout::Place::Memory(vaddr) => (&self.memory, vaddr),
                layout::Place::File(offset) => (&self.written, offset),
            };
            let from = from.as_ref().ok_or_else(|| io::Error::other("a part of the images has no source"))?;
            let length = usize::try_from(run.bytes).unwrap_or(usize::MAX);
            let (part, behind) = rest.split_at_mut_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
            from.read_exact_at(part, at)?;
            rest = behind;
        }
        if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Opens what the files are made of: each file of the folder, and the memory of each process that has a part of one.
fn sources<'a>(
    images: &Path,
    cut: &BTreeMap<String, Pages>,
    written: impl Iterator<Item = &'a String>,
    root: Option<&ProcessRef>,
) -> io::Result<BTreeMap<String, Source>> {
    let mut sources = BTreeMap::new();
    for name in written {
        sources.insert(name.clone(), Source { written: Some(File::open(images.join(name))?), memory: None });
    }
    let mut tree = BTreeMap::new();
    for process in root.into_iter().flat_map(|root| root.descendants().into_iter().chain([*root])) {
        tree.insert(process.pid_in_namespace().unwrap_or(process.pid), process.pid);
    }
    for (name, pid) in cut.iter().filter_map(|(name, pages)| Some((name, pages.held_by?))) {
        let pid =
            tree.get(&pid).ok_or_else(|| io::Error::other(format!("the process {pid} is not of the workload")))?;
        let source = sources.entry(name.clone()).or_insert(Source { written: None, memory: None });
        source.memory = Some(File::open(format!("/proc/{pid}/mem"))?);
    }
    Ok(sources)
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
    }
}
