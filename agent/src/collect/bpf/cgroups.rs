//! Which cgroup a number of the kernel's means, and which workload.
//!
//! The number of a cgroup is the inode of its folder. Folders are walked when a number comes that is not known, and not
//! more often than each few seconds; what is gone by then has no name, and counts for the node alone. A workload is told
//! of only where its cgroup is its own.

use crate::{
    act::control::cgroup::{Cgroups, Kind},
    workloads::Registry,
};
use aether_core::{id::WorkloadId, time::Time};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::PathBuf,
    sync::Arc,
};

/// Between two walks.
const WALK_EVERY_MS: u64 = 5_000;
/// Folders that are looked at in one walk.
const FOLDERS_MAXIMUM: usize = 16_384;
/// The longest path that becomes an attribute.
const PATH_BYTES: usize = 512;

/// Of `hierarchy` in `agent/bpf/aether.h`.
const HIERARCHY_TWO: u32 = 0;
const HIERARCHY_CPU: u32 = 1;
const HIERARCHY_MEMORY: u32 = 2;

pub(super) struct Places {
    cgroups: Cgroups,
    registry: Arc<Registry>,
    kind: Kind,
    paths: BTreeMap<u64, String>,
    workloads: BTreeMap<u64, WorkloadId>,
    walked: Option<Time>,
}

impl Places {
    pub(super) fn of(cgroups: Cgroups, registry: Arc<Registry>, kind: Kind) -> Self {
        Self { cgroups, registry, kind, paths: BTreeMap::new(), workloads: BTreeMap::new(), walked: None }
    }

    /// What the programs are told of it: which hierarchy's numbers to take.
    pub(super) fn hierarchy(&self) -> u32 {
        match (self.cgroups.hierarchy(self.kind), self.kind) {
            (Some((_, false)), Kind::Memory) => HIERARCHY_MEMORY,
            (Some((_, false)), _) => HIERARCHY_CPU,
            (Some((_, true)) | None, _) => HIERARCHY_TWO,
        }
    }

    /// Looks which workloads are where, and walks the folders again if one of these numbers is not known.
    pub(super) fn refresh(&mut self, at: Time, numbers: impl IntoIterator<Item = u64>) {
        // Each time: of a workload that has left, this node must not speak.
        self.find_workloads();
        let lately = self.walked.is_some_and(|walked| at.since_ms(walked) < WALK_EVERY_MS);
        if !lately && numbers.into_iter().any(|number| !self.paths.contains_key(&number)) {
            self.walked = Some(at);
            self.walk();
        }
    }

    fn find_workloads(&mut self) {
        let mut found: BTreeMap<u64, Option<WorkloadId>> = BTreeMap::new();
        for entry in self.registry.all() {
            let folder = entry.root().and_then(|root| self.cgroups.home(&root, self.kind));
            let Some(Ok(folder)) = folder.map(fs::metadata) else { continue };
            // What two share is neither's.
            found.entry(folder.ino()).and_modify(|owner| *owner = None).or_insert(Some(entry.spec.id));
        }
        self.workloads = found.into_iter().filter_map(|(number, owner)| Some((number, owner?))).collect();
    }

    fn walk(&mut self) {
        self.paths.clear();
        let Some((point, _)) = self.cgroups.hierarchy(self.kind) else { return };
        if let Ok(root) = fs::metadata(point) {
            self.paths.insert(root.ino(), "/".into());
        }
        let mut unseen: Vec<(PathBuf, String)> = vec![(point.to_owned(), String::new())];
        while let Some((folder, path)) = unseen.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if self.paths.len() >= FOLDERS_MAXIMUM || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let name = entry.file_name().to_string_lossy().replace(char::is_control, "?");
                let path = format!("{path}/{name}");
                self.paths.insert(entry.ino(), path.chars().take(PATH_BYTES).collect());
                unseen.push((entry.path(), path));
            }
        }
    }

    pub(super) fn path(&self, number: u64) -> Option<&str> {
        self.paths.get(&number).map(String::as_str)
    }

    pub(super) fn workload(&self, number: u64) -> Option<&WorkloadId> {
        self.workloads.get(&number)
    }

    /// Whether there is still a cgroup of this number, as far as was seen.
    pub(super) fn is_gone(&self, number: u64) -> bool {
        !self.paths.contains_key(&number)
    }
}
