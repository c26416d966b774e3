//! Disks, from `/proc/diskstats`: whole disks only, since partitions would be counted twice.

use super::{Missing, Sink, Source};
use aether_core::metric;
use std::path::Path;

/// Disks that are told one by one; all count for the bytes.
const DISKS_MAXIMUM: usize = 64;
/// The unit of the kernel's sector counts, whatever the disk's own is.
const SECTOR_BYTES: f64 = 512.0;

pub(super) struct Disk;

impl Source for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let mut disks: Vec<_> = procfs::diskstats()?.into_iter().filter(|disk| is_whole(&disk.name)).collect();
        if disks.is_empty() {
            return Err(Missing::new("no disk is to be seen"));
        }
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        let read: f64 = disks.iter().map(|disk| disk.sectors_read as f64).sum();
        let written: f64 = disks.iter().map(|disk| disk.sectors_written as f64).sum();
        into.node(metric::DISK_IO, "By", &[("disk.io.direction", "read")], read * SECTOR_BYTES);
        into.node(metric::DISK_IO, "By", &[("disk.io.direction", "write")], written * SECTOR_BYTES);
        for disk in disks.iter().take(DISKS_MAXIMUM) {
            let seconds = |ms: u64| ms as f64 / 1_000.0;
            let device = ("system.device", disk.name.as_str());
            into.node(metric::DISK_IO_TIME, "s", &[device], seconds(disk.time_in_progress));
            into.node(metric::DISK_PENDING, "{operation}", &[device], disk.in_progress as f64);
            for (direction, operations, ms) in
                [("read", disk.reads, disk.time_reading), ("write", disk.writes, disk.time_writing)]
            {
                let attributes = [device, ("disk.io.direction", direction)];
                into.node(metric::DISK_OPERATIONS, "{operation}", &attributes, operations as f64);
                into.node(metric::DISK_OPERATION_TIME, "s", &attributes, seconds(ms));
            }
        }
        Ok(())
    }
}

fn is_whole(name: &str) -> bool {
    let made_up = ["loop", "ram", "zram"].iter().any(|prefix| name.starts_with(prefix));
    !made_up && Path::new("/sys/block").join(name).exists()
}
