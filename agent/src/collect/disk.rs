//! Disks, from `/proc/diskstats`: whole disks only, since partitions would be counted twice.

use super::{Missing, Sink, Source, file::Kept};
use aether_core::{metric, time::Time};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Disks that are told one by one; all count for the bytes.
const DISKS_MAXIMUM: usize = 64;
/// The unit of the kernel's sector counts, whatever the disk's own is.
const SECTOR_BYTES: f64 = 512.0;
/// What is a whole disk is looked up again this often: a name may become another's.
const LOOK_EVERY_MS: u64 = 60_000;

pub(super) struct Disk {
    stats: Kept,
    sys: PathBuf,
    /// Whether names are of whole disks, and since when that is known.
    whole: BTreeMap<String, bool>,
    looked: Option<Time>,
}

impl Default for Disk {
    fn default() -> Self {
        Self { stats: Kept::at("/proc/diskstats"), sys: "/sys/block".into(), whole: BTreeMap::new(), looked: None }
    }
}

impl Source for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let Self { stats, sys, whole, looked } = self;
        let at = into.at;
        if looked.is_none_or(|looked| at < looked || at.since_ms(looked) >= LOOK_EVERY_MS) {
            whole.clear();
            *looked = Some(at);
        }
        let (mut read, mut written, mut told) = (0.0, 0.0, 0);
        for line in stats.text()?.lines() {
            let Some((name, counts)) = parse(line) else { continue };
            let is_whole = match whole.get(name) {
                Some(is_whole) => *is_whole,
                None => *whole.entry(name.into()).or_insert(is_whole(sys, name)),
            };
            if !is_whole {
                continue;
            }
            read += counts[2] as f64;
            written += counts[6] as f64;
            if told < DISKS_MAXIMUM {
                tell(into, name, &counts);
            }
            told += 1;
        }
        if told == 0 {
            return Err(Missing::new("no disk is to be seen"));
        }
        into.node(metric::DISK_IO, "By", &[("disk.io.direction", "read")], read * SECTOR_BYTES);
        into.node(metric::DISK_IO, "By", &[("disk.io.direction", "write")], written * SECTOR_BYTES);
        Ok(())
    }

    fn rest(&mut self) {
        self.stats.close();
        self.looked = None;
    }
}

/// Of reading, writing, discarding and flushing, in the kernel's order.
type Counts = [u64; 17];

/// Major, minor, name, and what is counted; an older kernel counts less.
fn parse(line: &str) -> Option<(&str, Counts)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.nth(2)?;
    let mut counts = Counts::default();
    let mut read = 0;
    for (count, word) in counts.iter_mut().zip(words) {
        *count = word.parse().ok()?;
        read += 1;
    }
    (read >= 11).then_some((name, counts))
}

fn tell(into: &mut Sink<'_>, name: &str, counts: &Counts) {
    let [
        reads,
        reads_merged,
        sectors_read,
        read_ms,
        writes,
        writes_merged,
        sectors_written,
        write_ms,
        pending,
        busy_ms,
        queue_ms,
        discards,
        _,
        sectors_discarded,
        discard_ms,
        flushes,
        flush_ms,
    ] = *counts;
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let device = ("system.device", name);
    into.node(metric::DISK_IO_TIME, "s", &[device], seconds(busy_ms));
    into.node(metric::DISK_QUEUE_TIME, "s", &[device], seconds(queue_ms));
    into.node(metric::DISK_PENDING, "{operation}", &[device], pending as f64);
    for (direction, operations, ms) in [
        ("read", reads, read_ms),
        ("write", writes, write_ms),
        ("discard", discards, discard_ms),
        ("flush", flushes, flush_ms),
    ] {
        // Many disks are never asked to discard or to flush.
        if operations > 0 || ["read", "write"].contains(&direction) {
            let attributes = [device, ("disk.io.direction", direction)];
            into.node(metric::DISK_OPERATIONS, "{operation}", &attributes, operations as f64);
            into.node(metric::DISK_OPERATION_TIME, "s", &attributes, seconds(ms));
        }
    }
    for (direction, sectors) in [("read", sectors_read), ("write", sectors_written), ("discard", sectors_discarded)] {
        if sectors > 0 || direction != "discard" {
            let attributes = [device, ("disk.io.direction", direction)];
            into.node(metric::DISK_EACH_IO, "By", &attributes, sectors as f64 * SECTOR_BYTES);
        }
    }
    for (direction, merged) in [("read", reads_merged), ("write", writes_merged)] {
        let attributes = [device, ("disk.io.direction", direction)];
        into.node(metric::DISK_MERGED, "{operation}", &attributes, merged as f64);
    }
}

fn is_whole(sys: &Path, name: &str) -> bool {
    let made_up = ["loop", "ram", "zram"].iter().any(|prefix| name.starts_with(prefix));
    !made_up && sys.join(name).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::id::NodeId;

    #[test]
    fn whole_disks_are_told_and_what_was_never_asked_of_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for disk in ["sda", "nvme0n1", "zram0"] {
            std::fs::create_dir(folder.path().join(disk)).unwrap();
        }
        let lines = [
            " 8 0 sda 10 1 100 5 20 2 200 6 3 70 80 4 0 400 9 5 11",
            " 8 1 sda1 10 1 100 5 20 2 200 6 3 70 80 4 0 400 9 5 11",
            // As kernels before 4.18 have it.
            " 259 0 nvme0n1 1 0 8 1 1 0 8 1 0 1 1",
            " 253 0 zram0 9 9 9 9 9 9 9 9 9 9 9",
            " 8 16 sdb 1",
        ];
        let path = folder.path().join("diskstats");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let mut disk = Disk { stats: Kept::at(path), sys: folder.path().into(), ..Disk::default() };
        let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
        disk.sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings }).unwrap();
        let told: BTreeMap<String, f64> = readings
            .sorted()
            .into_iter()
            .map(|(key, samples)| {
                let attributes: Vec<String> = key.attributes.into_values().collect();
                (format!("{} {}", key.metric, attributes.join(" ")), samples[0].value)
            })
            .collect();
        assert_eq!(told[&format!("{} read", metric::DISK_IO)], 108.0 * 512.0, "of both, and no partition");
        for (name, wanted) in [
            (format!("{} discard sda", metric::DISK_OPERATIONS), Some(4.0)),
            (format!("{} flush sda", metric::DISK_OPERATION_TIME), Some(0.011)),
            (format!("{} discard sda", metric::DISK_EACH_IO), Some(400.0 * 512.0)),
            (format!("{} write sda", metric::DISK_MERGED), Some(2.0)),
            (format!("{} sda", metric::DISK_QUEUE_TIME), Some(0.08)),
            (format!("{} write nvme0n1", metric::DISK_OPERATIONS), Some(1.0)),
            (format!("{} discard nvme0n1", metric::DISK_OPERATIONS), None),
            (format!("{} sda1", metric::DISK_PENDING), None),
        ] {
            assert_eq!(told.get(&name).copied(), wanted, "{name}: {told:?}");
        }
    }
}
