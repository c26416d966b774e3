//! The memory of a workload that still runs, read and sent ahead, so that little is left to send once it is stopped.
//!
//! CRIU's own pre-dumps need a kernel that tracks soft-dirty pages. This needs none: memory is read through
//! `/proc/PID/mem`, cut as [`super::layout`] cuts the images, and a chunk whose content was sent is not sent again. What
//! is read here is never restored by itself: the manifest lists what was hashed after the workload had stopped, so a
//! page that changed meanwhile, or was read while it changed, is hashed and sent anew.

use super::layout::{Cutter, PAGE_BYTES};
use crate::process::ProcessRef;
use procfs::process::{MMPermissions, MMapPath, Process};
use std::{fs::File, io, os::unix::fs::FileExt};

/// Bits of an entry of `/proc/PID/pagemap` (`Documentation/admin-guide/mm/pagemap.rst`).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;
const FRAME: u64 = (1 << 55) - 1;
/// Of `/proc/kpageflags`: the page of zeros that all untouched memory shares. CRIU leaves it out.
const ZERO_PAGE: u64 = 1 << 24;
/// Entries of the pagemap that are read at a time.
const ENTRIES: u64 = 64 << 10;

/// Pages of one aligned stretch of addresses: one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address and number of pages, ascending.
    pub runs: Vec<(u64, u64)>,
    /// Where it will probably stand in the pages file.
    pub offset: u64,
    pub bytes: u64,
}

/// What CRIU would write of one process.
#[derive(Debug)]
pub struct Memory {
    /// The pages file that CRIU will probably write it to.
    pub file: String,
    pub regions: Vec<Region>,
    /// Of these bytes, what CRIU writes itself even where it leaves the rest in the process: changed pages of files, and
    /// what is locked into memory. All locked memory counts.
    pub written_bytes: u64,
    source: File,
}

impl Memory {
    /// Reads the content of a region as it is now; false if it is gone.
    pub fn read(&self, region: &Region, bytes: &mut Vec<u8>) -> bool {
        bytes.resize(usize::try_from(region.bytes).unwrap_or(0), 0);
        let mut rest = bytes.as_mut_slice();
        for (vaddr, pages) in &region.runs {
            let length = usize::try_from(pages * PAGE_BYTES).unwrap_or(usize::MAX);
            let Some((part, behind)) = rest.split_at_mut_checked(length) else { return false };
            if self.source.read_exact_at(part, *vaddr).is_err() {
                return false;
            }
            rest = behind;
        }
        true
    }

    pub fn bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.bytes).sum()
    }
}

/// The private memory of a tree of processes. What cannot be read is left out: the dump will have it.
pub fn survey(root: &ProcessRef, chunk_bytes: usize) -> Vec<Memory> {
    let frames = File::open("/proc/kpageflags").ok();
    let mut zero = None;
    let mut found = Vec::new();
    let mut tree = vec![*root];
    tree.extend(root.descendants());
    for (index, process) in tree.iter().enumerate() {
        // CRIU numbers its pages files in the order in which it dumps the tree.
        if let Ok(memory) = of_process(process.pid, format!("pages-{}.img", index + 1), chunk_bytes, &frames, &mut zero)
        {
            found.push(memory);
        }
    }
    found
}

fn of_process(
    pid: u32,
    file: String,
    chunk_bytes: usize,
    frames: &Option<File>,
    zero: &mut Option<u64>,
) -> io::Result<Memory> {
    let process =
        i32::try_from(pid).map_err(io::Error::other).and_then(|pid| Process::new(pid).map_err(io::Error::other))?;
    let maps = process.maps().map_err(io::Error::other)?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let source = File::open(format!("/proc/{pid}/mem"))?;
    let cutter = Cutter::new(chunk_bytes);
    let locked = process.status().ok().and_then(|status| status.vmlck).unwrap_or(0);
    let mut memory = Memory { file, regions: vec![], written_bytes: locked.saturating_mul(1_024), source };
    let mut stretch = None;
    let mut parasite = None;
    for map in maps {
        let of_kernel = match &map.pathname {
            MMapPath::Vsyscall | MMapPath::Vvar => true,
            MMapPath::Other(name) => name.starts_with("[vvar") || name.starts_with("[uprobes"),
            _ => false,
        };
        if of_kernel || !map.perms.contains(MMPermissions::PRIVATE) {
            continue;
        }
        let of_file = map.inode != 0;
        let (begin, end) = map.address;
        // CRIU writes these whether or not they were touched: the vDSO, and the page of code that it borrows to make
        // the process call into it, the first that is executable.
        let whole = map.pathname == MMapPath::Vdso;
        if map.perms.contains(MMPermissions::EXECUTE) && parasite.is_none() {
            parasite = Some(begin);
        }
        let mut at = begin;
        while at < end {
            let count = ((end - at) / PAGE_BYTES).min(ENTRIES);
            let mut entries = vec![0u8; usize::try_from(count * 8).unwrap_or(0)];
            pagemap.read_exact_at(&mut entries, at / PAGE_BYTES * 8)?;
            for entry in entries.as_chunks::<8>().0 {
                let vaddr = at;
                at += PAGE_BYTES;
                let entry = u64::from_le_bytes(*entry);
                let there = entry & (PRESENT | SWAPPED) != 0 && !(of_file && entry & FILE_OR_SHARED != 0);
                let always = whole || parasite == Some(vaddr);
                if !always && (!there || is_zero(entry, frames, zero)) {
                    continue;
                }
                if of_file {
                    memory.written_bytes += PAGE_BYTES;
                }
                let here = cutter.stretch_of(vaddr);
                if stretch == Some(here)
                    && let Some(region) = memory.regions.last_mut()
                {
                    match region.runs.last_mut() {
                        Some((begin, pages)) if *begin + *pages * PAGE_BYTES == vaddr => *pages += 1,
                        _ => region.runs.push((vaddr, 1)),
                    }
                    region.bytes += PAGE_BYTES;
                } else {
                    let offset = memory.regions.last().map_or(0, |last| last.offset + last.bytes);
                    memory.regions.push(Region { runs: vec![(vaddr, 1)], offset, bytes: PAGE_BYTES });
                    stretch = Some(here);
                }
            }
        }
    }
    Ok(memory)
}

/// Whether an entry is the kernel's page of zeros. One look at the frame's flags finds it, and then its number is known.
fn is_zero(entry: u64, frames: &Option<File>, zero: &mut Option<u64>) -> bool {
    if entry & PRESENT == 0 || entry & FILE_OR_SHARED != 0 {
        return false;
    }
    let frame = entry & FRAME;
    if frame == 0 || zero.is_some() {
        return *zero == Some(frame);
    }
    let mut flags = [0u8; 8];
    let read = frames.as_ref().map(|frames| frames.read_exact_at(&mut flags, frame * 8));
    let found = matches!(read, Some(Ok(()))) && u64::from_le_bytes(flags) & ZERO_PAGE != 0;
    if found {
        *zero = Some(frame);
    }
    found
}
