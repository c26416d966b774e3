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
    #[prost(uint32, optional, tag = "4")]
    flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    nr_pages: Option<u64>,
}

/// Cuts runs of pages, in ascending order of address, into pieces of at most `chunk_bytes`. Gives their lengths.
#[derive(Clone, Debug)]
pub struct Cutter {
    stretch: u64,
    current: Option<u64>,
    lengths: Vec<u32>,
}

impl Cutter {
    /// `chunk_bytes` is rounded down to a power of two of at least a page.
    pub fn new(chunk_bytes: usize) -> Self {
        let bytes = u64::try_from(chunk_bytes).unwrap_or(PAGE_BYTES).max(PAGE_BYTES);
        Self { stretch: 1 << bytes.ilog2(), current: None, lengths: vec![] }
    }

    /// The aligned stretch of addresses that an address is in.
    pub fn stretch_of(&self, vaddr: u64) -> u64 {
        vaddr / self.stretch
    }

    pub fn run(&mut self, mut vaddr: u64, mut pages: u64) {
        while pages > 0 {
            let stretch = self.stretch_of(vaddr);
            let end = (stretch + 1) * self.stretch;
            let fit = pages.min((end - vaddr).div_ceil(PAGE_BYTES));
            let bytes = u32::try_from(fit * PAGE_BYTES).unwrap_or(u32::MAX);
            match self.lengths.last_mut() {
                Some(last) if self.current == Some(stretch) && u64::from(*last + bytes) <= self.stretch => {
                    *last += bytes;
                }
                _ => self.lengths.push(bytes),
            }
            self.current = Some(stretch);
            vaddr += fit * PAGE_BYTES;
            pages -= fit;
        }
    }

    pub fn lengths(self) -> Vec<u32> {
        self.lengths
    }
}

/// The lengths of the chunks of each pages file in a folder of images. A file that is not among them, or whose lengths
/// do not add up to its size, is to be cut evenly.
pub fn of_images(folder: &Path, chunk_bytes: usize) -> io::Result<BTreeMap<String, Vec<u32>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("pagemap-") && name.ends_with(".img")) else {
            continue;
        };
        if let Some((pages, lengths)) = read(&fs::read(folder.join(name))?, chunk_bytes) {
            found.insert(format!("pages-{pages}.img"), lengths);
        }
    }
    found.retain(|name, lengths| {
        let sum: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        fs::metadata(folder.join(name)).is_ok_and(|metadata| metadata.len() == sum)
    });
    Ok(found)
}

/// The number of the pages file that a pagemap belongs to, and the lengths of its chunks.
fn read(bytes: &[u8], chunk_bytes: usize) -> Option<(u32, Vec<u32>)> {
    let mut rest = bytes.strip_prefix(&MAGIC)?;
    let head = Head::decode(record(&mut rest)?).ok()?;
    let mut cutter = Cutter::new(chunk_bytes);
    while !rest.is_empty() {
        let Entry { vaddr, compat_nr_pages, flags, nr_pages } = Entry::decode(record(&mut rest)?).ok()?;
        if flags.is_none_or(|flags| flags & PRESENT != 0) {
            cutter.run(vaddr, nr_pages.or(compat_nr_pages.map(u64::from))?);
        }
    }
    Some((head.pages_id, cutter.lengths()))
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

    #[test]
    fn chunks_end_where_stretches_of_addresses_do() {
        let mut cutter = Cutter::new(1 << 20);
        cutter.run(0x10_0000 - 2 * PAGE_BYTES, 3);
        cutter.run(0x10_0000 + 8 * PAGE_BYTES, 1);
        cutter.run(0x40_0000, 513);
        assert_eq!(cutter.lengths(), [8_192, 8_192, 1 << 20, 1 << 20, 4_096]);
    }

    #[test]
    fn a_pagemap_of_criu_is_read_and_a_torn_one_is_not() {
        let mut bytes = MAGIC.to_vec();
        let mut put = |record: Vec<u8>| {
            bytes.extend(u32::try_from(record.len()).unwrap().to_le_bytes());
            bytes.extend(record);
        };
        let entry = |vaddr, nr_pages, flags| Entry { vaddr, compat_nr_pages: Some(0), flags: Some(flags), nr_pages };
        put(Head { pages_id: 3 }.encode_to_vec());
        put(entry(0x1000, Some(2), PRESENT).encode_to_vec());
        put(entry(0x9000, Some(7), 1).encode_to_vec());
        put(entry(0x20_0000, Some(1), PRESENT).encode_to_vec());
        assert_eq!(read(&bytes, 1 << 20), Some((3, vec![8_192, 4_096])));
        assert_eq!(read(&bytes[..bytes.len() - 1], 1 << 20), None);
    }
}
