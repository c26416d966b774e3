//! How full the file systems of this machine are: those on disks that can be written to, each once, wherever else it is
//! mounted.

use super::{Missing, Sink, Source};
use aether_core::metric;
use procfs::process::{MountInfo, Process};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

const EVERY: Duration = Duration::from_secs(15);
const MOUNTS_MAXIMUM: usize = 16;
/// On disks, though their source is no device.
const OF_MANY_DISKS: [&str; 3] = ["zfs", "btrfs", "bcachefs"];

pub(super) struct Mounts;

/// A file system that is told.
#[derive(Debug, PartialEq)]
struct Mount {
    point: PathBuf,
    kind: String,
}

impl Source for Mounts {
    fn name(&self) -> &'static str {
        "mounts"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let mut failed = None;
        for Mount { point, kind } in chosen(Process::myself()?.mountinfo()?.0) {
            let stat = match rustix::fs::statvfs(&point) {
                Ok(stat) => stat,
                Err(error) => {
                    failed.get_or_insert_with(|| format!("{} cannot be asked: {error}", point.display()));
                    continue;
                }
            };
            let name = point.to_string_lossy();
            let block = stat.f_frsize as f64;
            let mut tell = |metric: &str, unit: &str, state: &str, value: f64| {
                let attributes = [
                    ("system.filesystem.mountpoint", &*name),
                    ("system.filesystem.type", &kind),
                    ("system.filesystem.state", state),
                ];
                into.node(metric, unit, &attributes, value);
            };
            for (state, blocks) in [
                ("used", stat.f_blocks.saturating_sub(stat.f_bfree)),
                ("free", stat.f_bavail),
                // For root alone.
                ("reserved", stat.f_bfree.saturating_sub(stat.f_bavail)),
            ] {
                tell(metric::FILESYSTEM_USAGE, "By", state, blocks as f64 * block);
            }
            // One that makes inodes as it needs them says that it has none.
            if stat.f_files > 0 {
                let used = stat.f_files.saturating_sub(stat.f_ffree);
                for (state, inodes) in [("used", used), ("free", stat.f_ffree)] {
                    tell(metric::FILESYSTEM_INODES, "{inode}", state, inodes as f64);
                }
            }
        }
        failed.map_or(Ok(()), |why| Err(Missing::new(why).instead("the other file systems")))
    }
}

/// Of each file system the mount that is nearest to the root.
fn chosen(mut mounts: Vec<MountInfo>) -> Vec<Mount> {
    let root = PathBuf::from("/");
    mounts.retain(|mount| {
        let on_disk = mount.mount_source.as_deref().is_some_and(|source| source.starts_with("/dev/"))
            || OF_MANY_DISKS.contains(&mount.fs_type.as_str());
        // A program that answers for `/dev/fuse` is no disk, and may not answer.
        let fuse = mount.fs_type.starts_with("fuse") && mount.fs_type != "fuseblk";
        let is_ours = mount.mount_point == root || (on_disk && mount.fs_type != "squashfs" && !fuse);
        is_ours && !mount.mount_options.contains_key("ro") && !mount.super_options.contains_key("ro")
    });
    mounts.sort_by_key(|mount| (mount.mount_point.components().count(), mount.mount_point.clone()));
    let mut seen = BTreeSet::new();
    mounts.retain(|mount| seen.insert(mount.majmin.clone()));
    let mounts = mounts.into_iter().take(MOUNTS_MAXIMUM);
    mounts.map(|mount| Mount { point: mount.mount_point, kind: mount.fs_type }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_system_on_a_disk_is_told_once_where_it_is_nearest_to_the_root() {
        let lines = [
            "22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw",
            "23 22 0:21 / /proc rw,nosuid - proc proc rw",
            "24 22 0:22 / /run rw,nosuid - tmpfs tmpfs rw",
            "25 22 254:1 /var/lib/x /srv/x rw,relatime - ext4 /dev/vda1 rw",
            "26 22 254:16 / /srv/data/models rw,relatime - xfs /dev/vdb rw",
            "27 22 254:16 /a /srv/a rw,relatime - xfs /dev/vdb rw",
            "28 22 7:1 / /snap/core ro,nodev - squashfs /dev/loop1 ro",
            "29 22 254:32 / /srv/frozen ro,relatime - ext4 /dev/vdc ro",
            "32 22 0:46 / /srv/mine rw,relatime - fuse /dev/fuse rw",
            "33 22 8:17 / /srv/usb rw,relatime - fuseblk /dev/sdb1 rw",
            "30 22 0:44 / /tank rw,relatime - zfs tank rw",
            "31 22 0:45 / /home rw,relatime - nfs4 filer:/home rw",
        ];
        let mounts = lines.iter().map(|line| MountInfo::from_line(line).unwrap()).collect();
        let told: Vec<_> =
            chosen(mounts).into_iter().map(|mount| (mount.point.display().to_string(), mount.kind)).collect();
        let wanted = [("/", "ext4"), ("/srv/a", "xfs"), ("/srv/usb", "fuseblk"), ("/tank", "zfs")];
        let mut told: Vec<_> = told.iter().map(|(point, kind)| (point.as_str(), kind.as_str())).collect();
        told.sort_unstable();
        assert_eq!(told, wanted);
    }

    #[test]
    fn the_root_of_a_container_is_told_and_a_crowd_is_cut() {
        let mut mounts = vec![MountInfo::from_line("22 1 0:50 / / rw,relatime - overlay overlay rw").unwrap()];
        mounts.extend((0..50).map(|disk| {
            MountInfo::from_line(&format!("{} 22 8:{disk} / /d/{disk} rw - ext4 /dev/sd{disk} rw", 100 + disk)).unwrap()
        }));
        let told = chosen(mounts);
        assert_eq!((told.len(), &told[0].point), (MOUNTS_MAXIMUM, &PathBuf::from("/")));
    }
}
