//! How the images of memory are cut into chunks: where the memory itself has its borders, not where the file has.
//!
//! CRIU writes the pages of a process one after the other. Cut at fixed offsets, one page more would shift, and so
//! change, every chunk behind it. Here a chunk holds the pages of one aligned stretch of addresses, so it keeps its
//! content for as long as that stretch does: what was sent while the workload ran need not be sent again.

use prost::Message;
use std::{collections::BTreeMap, fs, io, path::Path};

pub const PAGE_BYTES: u64 = 4096;
/// The two magic numbers at the beginning of a `pagemap-*.img` (CRIU's `criu/include/magic.h`).
const MAGIC: [u8; 8] = [0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56];
/// The pages of an entry are in the file (`PE_PRESENT` of CRIU's `criu/include/pagemap.h`).
const PRESENT: u32 = 1 << 2;
/// They may be brought after the restore (`PE_LAZY`). Alone: they are in the process still.
const LAZY: u32 = 1 << 1;

/// CRIU's `images/pagemap.proto`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint32, required, tag = "1")]
    pages_id: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, required, tag = "1")]
    vaddr: u64,
    /// Of CRIU before 4.1.
    #[prost(uint32, optional, tag = "2")]
    compat_nr_pages: Option<u32>,
    /// Kept as it is; no images before these are ever used.
    #[prost(bool, optional, tag = "3")]
    in_parent: Option<bool>,
    #[prost(uint32, optional, tag = "4")]
    flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    nr_pages: Option<u64>,
}

/// One chunk of a file of pages, and where its bytes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    pub bytes: u32,
    pub runs: Vec<Run>,
}

/// Bytes that follow each other in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub place: Place,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the process itself, which stands still: at this address.
    Memory(u64),
    /// In the file that CRIU wrote: at this offset.
    File(u64),
}

/// Cuts runs of pages, in ascending order of address, into pieces of at most `chunk_bytes`.
#[derive(Clone, Debug)]
pub struct Cutter {
    stretch: u64,
    current: Option<u64>,
    cuts: Vec<Cut>,
    /// Bytes that are in CRIU's own file, so far.
    written: u64,
}

impl Cutter {
    /// `chunk_bytes` is rounded down to a power of two of at least a page.
    pub fn new(chunk_bytes: usize) -> Self {
        let bytes = u64::try_from(chunk_bytes).unwrap_or(PAGE_BYTES).max(PAGE_BYTES);
        Self { stretch: 1 << bytes.ilog2(), current: None, cuts: vec![], written: 0 }
    }

    /// The aligned stretch of addresses that an address is in.
    pub fn stretch_of(&self, vaddr: u64) -> u64 {
        vaddr / self.stretch
    }

    /// Takes pages that follow each other: `held` are still in the process, others in CRIU's file.
    pub fn run(&mut self, mut vaddr: u64, mut pages: u64, held: bool) {
        while pages > 0 {
            let stretch = self.stretch_of(vaddr);
            let end = (stretch + 1) * self.stretch;
            let fit = pages.min((end - vaddr).div_ceil(PAGE_BYTES));
            let bytes = fit * PAGE_BYTES;
            let place = if held { Place::Memory(vaddr) } else { Place::File(self.written) };
            self.written += if held { 0 } else { bytes };
            let run = Run { place, bytes };
            let short = u32::try_from(bytes).unwrap_or(u32::MAX);
            match self.cuts.last_mut() {
                Some(last) if self.current == Some(stretch) && u64::from(last.bytes + short) <= self.stretch => {
                    last.bytes += short;
                    last.runs.push(run);
                }
                _ => self.cuts.push(Cut { bytes: short, runs: vec![run] }),
            }
            self.current = Some(stretch);
            vaddr += bytes;
            pages -= fit;
        }
    }
}

/// A file that CRIU wrote whole, in pieces of one length.
pub fn evenly(size_bytes: u64, chunk_bytes: usize) -> Vec<Cut> {
    let chunk = u64::try_from(chunk_bytes).unwrap_or(u64::MAX).max(1);
    let offsets = (0..size_bytes).step_by(usize::try_from(chunk).unwrap_or(usize::MAX));
    let cut = |offset| {
        let bytes = chunk.min(size_bytes - offset);
        Cut { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), runs: vec![Run { place: Place::File(offset), bytes }] }
    };
    offsets.map(cut).collect()
}

/// A file of pages as the snapshot has it: with the pages that CRIU wrote, and those that it left in the process.
#[derive(Debug, Default)]
pub struct Pages {
    pub cuts: Vec<Cut>,
    /// The process that has the rest, by its pid in its own namespace.
    pub held_by: Option<u32>,
}

/// How each file of pages in a folder of images is cut, by its name. One that is not among them is to be cut evenly.
///
/// A pagemap that leaves pages in the process is written anew, as one that has them: the snapshot will.
pub fn of_images(folder: &Path, chunk_bytes: usize) -> io::Result<BTreeMap<String, Pages>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(of) = name.to_str().and_then(|name| name.strip_prefix("pagemap-")?.strip_suffix(".img")) else {
            continue;
        };
        let path = folder.join(&name);
        let Some(pagemap) = read(&fs::read(&path)?, chunk_bytes) else { continue };
        let pages = format!("pages-{}.img", pagemap.pages);
        let written = fs::metadata(folder.join(&pages)).map_or(0, |metadata| metadata.len());
        match (pagemap.whole, written == pagemap.written) {
            (None, false) => continue,
            (Some(_), false) => {
                return Err(io::Error::other(format!("{pages} is not as long as CRIU says that it is")));
            }
            (None, true) => drop(found.insert(pages, Pages { cuts: pagemap.cuts, held_by: None })),
            (Some(whole), true) => {
                let pid = of.parse().map_err(|_| io::Error::other("CRIU left pages in what is no process"))?;
                fs::write(&path, whole)?;
                found.insert(pages, Pages { cuts: pagemap.cuts, held_by: Some(pid) });
            }
        }
    }
    Ok(found)
}

/// What a pagemap says.
#[derive(Debug, PartialEq, Eq)]
struct Pagemap {
    /// The number of the file of pages that it belongs to.
    pages: u32,
    cuts: Vec<Cut>,
    /// Bytes in the file of pages as CRIU wrote it.
    written: u64,
    /// The pagemap with all pages in the file, if CRIU left some in the process.
    whole: Option<Vec<u8>>,
}

fn read(bytes: &[u8], chunk_bytes: usize) -> Option<Pagemap> {
    let mut rest = bytes.strip_prefix(&MAGIC)?;
    let head = record(&mut rest)?;
    let mut whole = MAGIC.to_vec();
    put(&mut whole, head);
    let mut cutter = Cutter::new(chunk_bytes);
    let mut left = false;
    while !rest.is_empty() {
        let mut entry = Entry::decode(record(&mut rest)?).ok()?;
        let flags = entry.flags.unwrap_or(PRESENT);
        if flags & (PRESENT | LAZY) != 0 {
            let held = flags & PRESENT == 0;
            cutter.run(entry.vaddr, entry.nr_pages.or(entry.compat_nr_pages.map(u64::from))?, held);
            if held {
                left = true;
                entry.flags = Some(flags | PRESENT);
            }
        }
        put(&mut whole, &entry.encode_to_vec());
    }
    let Cutter { cuts, written, .. } = cutter;
    Some(Pagemap { pages: Head::decode(head).ok()?.pages_id, cuts, written, whole: left.then_some(whole) })
}

fn put(bytes: &mut Vec<u8>, record: &[u8]) {
    bytes.extend(u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(record);
}

fn record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (body, behind) = behind.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *rest = behind;
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(cuts: &[Cut]) -> Vec<u32> {
        cuts.iter().map(|cut| cut.bytes).collect()
    }

    #[test]
    fn chunks_end_where_stretches_of_addresses_do() {
        let mut cutter = Cutter::new(1 << 20);
        cutter.run(0x10_0000 - 2 * PAGE_BYTES, 3, false);
        cutter.run(0x10_0000 + 8 * PAGE_BYTES, 1, true);
        cutter.run(0x40_0000, 513, true);
        assert_eq!(lengths(&cutter.cuts), [8_192, 8_192, 1 << 20, 1 << 20, 4_096]);
        let (file, memory) = (Place::File(8_192), Place::Memory(0x10_0000 + 8 * PAGE_BYTES));
        let run = |place| Run { place, bytes: PAGE_BYTES };
        assert_eq!(cutter.cuts[1].runs, [run(file), run(memory)]);
        assert_eq!(lengths(&evenly(2_500, 1_000)), [1_000, 1_000, 500]);
    }

    #[test]
    fn a_pagemap_of_criu_is_read_and_a_torn_one_is_not() {
        let entry = |vaddr, nr_pages, flags| {
            Entry { vaddr, compat_nr_pages: Some(0), in_parent: None, flags: Some(flags), nr_pages }.encode_to_vec()
        };
        let pagemap = |held| {
            let mut bytes = MAGIC.to_vec();
            put(&mut bytes, &Head { pages_id: 3 }.encode_to_vec());
            put(&mut bytes, &entry(0x1000, Some(2), PRESENT));
            put(&mut bytes, &entry(0x9000, Some(7), 1));
            put(&mut bytes, &entry(0x20_0000, Some(1), held));
            bytes
        };
        let there = read(&pagemap(PRESENT | LAZY), 1 << 20).unwrap();
        assert_eq!((there.pages, lengths(&there.cuts), there.written), (3, vec![8_192, 4_096], 12_288));
        assert_eq!(there.whole, None);
        let torn = pagemap(PRESENT);
        assert_eq!(read(&torn[..torn.len() - 1], 1 << 20), None);
        // What CRIU left in the process is cut alike, and the snapshot's own pagemap says that it is there.
        let left = read(&pagemap(LAZY), 1 << 20).unwrap();
        assert_eq!((lengths(&left.cuts), left.written), (vec![8_192, 4_096], 8_192));
        assert_eq!(left.cuts[1].runs, [Run { place: Place::Memory(0x20_0000), bytes: PAGE_BYTES }]);
        assert_eq!(left.whole, Some(pagemap(PRESENT | LAZY)));
    }
}
