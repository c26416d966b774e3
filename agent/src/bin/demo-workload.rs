//! A workload to show a migration with: it counts in memory and appends each count to a file.
//!
//! The count lives in memory alone. A process that lost its memory would begin again at 1, so lost progress shows in
//! the file; one that was restored goes on from where it was. With each count it looks at one page more, and says so and
//! ends if that does not hold what it wrote there. It holds no socket and no pipe, so that any CRIU takes
//! it, and it needs nothing of Aether: it is what a team's own process would be.

use std::{fs::OpenOptions, io::Write, path::PathBuf, time::Duration};

/// Between two counts, unless told otherwise.
const PACE_MS: u64 = 100;
const PAGE: usize = 4096;
/// From one page that is looked at to the next: a prime, so that it comes to all of them, and soon to each part of the memory.
const STRIDE: usize = 7_919;
const USAGE: &str =
    "usage: aether-demo-workload --file PATH [--memory-mib N] [--pace-ms N] [--fill sparse|mixed] [--stamp yes|no]";

struct Arguments {
    file: PathBuf,
    memory_mib: usize,
    pace: Duration,
    /// Every other page is noise, as weights and compressed data are.
    mixed: bool,
    /// The time of day stands behind each count, in milliseconds, so that a pause shows.
    stamp: bool,
}

fn arguments(mut from: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut file, mut memory_mib, mut pace_ms, mut mixed, mut stamp) = (None, 1, PACE_MS, false, false);
    while let Some(name) = from.next() {
        let value = from.next().ok_or_else(|| format!("`{name}` needs a value; {USAGE}"))?;
        match name.as_str() {
            "--file" => file = Some(PathBuf::from(value)),
            "--memory-mib" => {
                memory_mib = value
                    .parse()
                    .ok()
                    .filter(|mib| (0..=65_536).contains(mib))
                    .ok_or_else(|| format!("`--memory-mib {value}` is not a number from 0 to 65536; {USAGE}"))?;
            }
            "--pace-ms" => {
                pace_ms = value
                    .parse()
                    .ok()
                    .filter(|ms| (1..=60_000).contains(ms))
                    .ok_or_else(|| format!("`--pace-ms {value}` is not a number from 1 to 60000; {USAGE}"))?;
            }
            "--fill" if value == "sparse" || value == "mixed" => mixed = value == "mixed",
            "--stamp" if value == "yes" || value == "no" => stamp = value == "yes",
            other => return Err(format!("`{other} {value}` is not known; {USAGE}")),
        }
    }
    let file = file.ok_or_else(|| format!("`--file` is missing; {USAGE}"))?;
    Ok(Arguments { file, memory_mib, pace: Duration::from_millis(pace_ms), mixed, stamp })
}

fn main() -> Result<(), String> {
    let Arguments { file: path, memory_mib, pace, mixed, stamp } = arguments(std::env::args().skip(1))?;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| format!("cannot append to {}: {error}", path.display()))?;
    let mut memory = vec![0u8; memory_mib << 20];
    let mut count = 0u64;
    // Each page differs, so that a snapshot is as large as it says.
    let mut noise = 88_172_645_463_325_252u64;
    for (index, page) in memory.chunks_mut(PAGE).enumerate() {
        if mixed && index % 2 == 0 {
            for word in page.chunks_exact_mut(8) {
                // Marsaglia's xorshift.
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                word.copy_from_slice(&noise.to_le_bytes());
            }
        }
        page[..8].copy_from_slice(&(index as u64).to_le_bytes());
    }
    loop {
        count += 1;
        // One page a count is changed, so that the memory is in use and not only there; and another is looked at.
        let pages = (memory.len() / PAGE).max(1);
        let count_here = usize::try_from(count).unwrap_or(0);
        if let Some(page) = memory.chunks_mut(PAGE).nth(count_here % pages) {
            page[8..16].copy_from_slice(&count.to_le_bytes());
        }
        let index = count_here.wrapping_mul(STRIDE) % pages;
        if memory.chunks(PAGE).nth(index).is_some_and(|page| page[..8] != (index as u64).to_le_bytes()) {
            let _ = writeln!(file, "lost page {index}");
            return Err(format!("page {index} of its memory does not hold what it wrote there"));
        }
        // In one write, so that no reader sees half a line. A full disk costs a line, not the work.
        let line = if stamp { format!("{count} {}\n", aether_agent::clock::now().0) } else { format!("{count}\n") };
        let _ = file.write_all(line.as_bytes());
        std::thread::sleep(pace);
    }
}
