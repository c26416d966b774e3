//! A snapshot on its way down, for a restore: what came ahead and is right stays where it is, the rest is fetched, and
//! every byte that the manifest names has been hashed here before this returns.

use super::{Error, ahead::Stage, corrupt, pack::unpack as unpack_small, unpack};
use crate::{
    act::{
        images::{Images, room},
        run::Run,
    },
    uplink::{Fault, Piece},
};
use aether_core::{
    id::Digest,
    order::IdempotencyKey,
    snapshot::{ChunkRef, Manifest},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// What a fetch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    pub folder: PathBuf,
    /// Bytes that stood here already, verified when they came.
    pub ahead_bytes: u64,
}

/// One chunk and where it belongs.
struct Wanted<'a> {
    name: &'a str,
    offset: u64,
    chunk: &'a ChunkRef,
}

/// Brings every file of the manifest into a folder for the order. Only when this returns may anything be restored.
pub fn fetch(run: &Run, manifest: &Manifest, images: &Images, stage: Option<Stage>) -> Result<Fetched, Error> {
    let key = &run.task().order.key;
    let (folder, mut files, here) = match stage {
        Some(stage) => take_over(stage, manifest, images, key)?,
        None => (images.make(key, manifest.total_bytes)?, BTreeMap::new(), BTreeSet::new()),
    };
    let needed: u64 = manifest.total_bytes.saturating_sub(size_on_disk(&folder));
    let free = room(&folder)?;
    if needed > free {
        return Err(Error::NoRoom { needed, free });
    }
    let mut done = Fetched { folder: folder.clone(), ahead_bytes: 0 };
    let mut unasked = VecDeque::new();
    for listed in &manifest.files {
        if !files.contains_key(&listed.name) {
            files.insert(listed.name.clone(), create(&folder, &listed.name)?);
        }
        let mut offset = 0;
        for chunk in &listed.chunks {
            if here.contains(&(listed.name.clone(), offset)) {
                done.ahead_bytes += u64::from(chunk.size_bytes);
            } else {
                unasked.push_back(Wanted { name: &listed.name, offset, chunk });
            }
            offset += u64::from(chunk.size_bytes);
        }
    }
    let mut fetched = done.ahead_bytes;
    let mut asked: VecDeque<(Wanted<'_>, _)> = VecDeque::new();
    // Several are asked for at a time; they come in order. An equal chunk is asked for again only after it came.
    loop {
        while asked.len() < run.link.chunks_in_flight() {
            let Some(next) = unasked.front() else { break };
            if asked.iter().any(|(other, _)| other.chunk.digest == next.chunk.digest) {
                break;
            }
            let answer = run.wait(run.link.read(next.chunk.digest.clone(), false))?;
            if let Some(next) = unasked.pop_front() {
                asked.push_back((next, answer));
            }
        }
        let Some((wanted, answer)) = asked.pop_front() else { break };
        let piece = run.wait(answer)?.unwrap_or(Err(Fault::Stopping))?;
        let bytes = verified(piece, wanted.chunk, wanted.name)?;
        if let Some(file) = files.get(wanted.name) {
            file.write_all_at(&bytes, wanted.offset)?;
        }
        // Equal chunks are in many places of sparse memory.
        while let Some(next) = unasked.front().filter(|next| next.chunk == wanted.chunk) {
            if let Some(file) = files.get(next.name) {
                file.write_all_at(&bytes, next.offset)?;
            }
            fetched += u64::from(next.chunk.size_bytes);
            unasked.pop_front();
        }
        fetched += u64::from(wanted.chunk.size_bytes);
        let permille = fetched.saturating_mul(1_000).checked_div(manifest.total_bytes).unwrap_or(0);
        let note = format!("{fetched} of {} bytes verified", manifest.total_bytes);
        run.tell(u32::try_from(permille).unwrap_or(0), note);
    }
    for listed in &manifest.files {
        let size = files.get(&listed.name).map(File::metadata).transpose()?.map(|metadata| metadata.len());
        if size != Some(listed.size_bytes) {
            return corrupt(format!("{} has another size than the manifest says", listed.name));
        }
    }
    unpack_small(&folder)?;
    Ok(done)
}

type Taken = (PathBuf, BTreeMap<String, File>, BTreeSet<(String, u64)>);

/// Makes what came ahead the order's own folder. Gives its files, and where a chunk of the manifest stands already.
fn take_over(mut stage: Stage, manifest: &Manifest, images: &Images, key: &IdempotencyKey) -> Result<Taken, Error> {
    images.forget(key);
    let [folder, _] = images.places(key);
    fs::rename(&stage.folder, &folder)?;
    let (mut files, mut here) = (BTreeMap::new(), BTreeSet::new());
    // Where each chunk stands, of all files: one may have moved by a page since.
    let mut stands: BTreeMap<Digest, (String, u64)> = BTreeMap::new();
    for (name, staged) in &stage.files {
        for (offset, (digest, _)) in &staged.slots {
            stands.entry(digest.clone()).or_insert_with(|| (name.clone(), *offset));
        }
    }
    let mut replaced = Vec::new();
    for listed in &manifest.files {
        let mut offset = 0;
        let (mut right, mut elsewhere) = (Vec::new(), Vec::new());
        for chunk in &listed.chunks {
            let slot = stage.files.get(&listed.name).and_then(|staged| staged.slots.get(&offset));
            if slot.is_some_and(|slot| slot.0 == chunk.digest && slot.1 == chunk.size_bytes) {
                right.push(offset);
            } else if let Some((name, at)) = stands.get(&chunk.digest) {
                elsewhere.push((offset, name, *at, chunk.size_bytes));
            }
            offset += u64::from(chunk.size_bytes);
        }
        if elsewhere.is_empty() {
            here.extend(right.into_iter().map(|offset| (listed.name.clone(), offset)));
            continue;
        }
        // Written beside, since what is overwritten may be needed further on.
        let name = format!("{}.moved", listed.name);
        let file = create(&folder, &name)?;
        let moves = elsewhere.into_iter().map(|(offset, name, at, size)| (offset, name.as_str(), at, size));
        let sizes: BTreeMap<u64, u32> = chunk_offsets(&listed.chunks);
        let stays =
            right.into_iter().filter_map(|offset| Some((offset, listed.name.as_str(), offset, *sizes.get(&offset)?)));
        for (offset, from, at, size) in moves.chain(stays) {
            let Some(staged) = stage.files.get(from) else { continue };
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            staged.file.read_exact_at(&mut bytes, at)?;
            file.write_all_at(&bytes, offset)?;
            here.insert((listed.name.clone(), offset));
        }
        replaced.push((name, listed.name.clone(), file));
    }
    for (from, to, file) in replaced {
        fs::rename(folder.join(from), folder.join(&to))?;
        files.insert(to, file);
    }
    for (name, staged) in std::mem::take(&mut stage.files) {
        match manifest.files.iter().find(|listed| listed.name == name) {
            None => fs::remove_file(folder.join(&name))?,
            Some(_) if files.contains_key(&name) => {}
            Some(listed) => {
                staged.file.set_len(listed.size_bytes)?;
                files.insert(name, staged.file);
            }
        }
    }
    Ok((folder, files, here))
}

fn chunk_offsets(chunks: &[ChunkRef]) -> BTreeMap<u64, u32> {
    let mut offset = 0;
    let mut at = |chunk: &ChunkRef| {
        let here = (offset, chunk.size_bytes);
        offset += u64::from(chunk.size_bytes);
        here
    };
    chunks.iter().map(&mut at).collect()
}

fn create(folder: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(folder.join(name))
}

fn size_on_disk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

pub(super) fn verified(piece: Piece, chunk: &ChunkRef, name: &str) -> Result<Vec<u8>, Error> {
    let size = usize::try_from(chunk.size_bytes).unwrap_or(usize::MAX);
    let bytes = unpack(piece, size)?;
    if bytes.len() != size || Digest::of(&bytes) != chunk.digest {
        return corrupt(format!("a chunk of {name} is not the one that was stored ({})", chunk.digest.short()));
    }
    Ok(bytes)
}
