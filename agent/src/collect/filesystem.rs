//! How full the file system is that holds the agent's state: where spool, journal and snapshots go.

use super::{Missing, Sink, Source};
use crate::drill::Stage;
use aether_core::{
    drill::{ATTRIBUTE, Kind},
    metric,
};
use std::path::{Path, PathBuf};

pub(super) struct FileSystem {
    path: PathBuf,
    stage: Stage,
}

impl FileSystem {
    pub(super) fn of(path: &Path, stage: Stage) -> Self {
        Self { path: path.to_owned(), stage }
    }
}

impl Source for FileSystem {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        if let Some(share) = used(&self.path)? {
            into.node(metric::FILESYSTEM_UTILIZATION, "1", &[], share);
        }
        // One that a drill fills up. It may be gone by now.
        if let Some(path) = self.stage.filesystem()
            && let Ok(Some(share)) = used(&path)
        {
            let drill = (ATTRIBUTE, Kind::DiskFilling.name());
            into.node(
                metric::FILESYSTEM_UTILIZATION,
                "1",
                &[("system.filesystem.mountpoint", &path.to_string_lossy()), drill],
                share,
            );
        }
        Ok(())
    }
}

/// The used share. As df has it: what is reserved for root counts as neither used nor free.
fn used(path: &Path) -> Result<Option<f64>, Missing> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| Missing::new(format!("{} cannot be asked: {error}", path.display())))?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree) as f64;
    let usable = used + stat.f_bavail as f64;
    Ok((usable > 0.0).then(|| used / usable))
}
