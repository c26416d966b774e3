//! How full the file system is that holds the agent's state: where spool, journal and snapshots go.

use super::{Missing, Sink, Source};
use aether_core::metric;
use std::path::{Path, PathBuf};

pub(super) struct FileSystem {
    path: PathBuf,
}

impl FileSystem {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Source for FileSystem {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let stat = rustix::fs::statvfs(&self.path)
            .map_err(|error| Missing(format!("{} cannot be asked: {error}", self.path.display())))?;
        // As df has it: what is reserved for root counts as neither used nor free.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree) as f64;
        let usable = used + stat.f_bavail as f64;
        if usable > 0.0 {
            into.node(metric::FILESYSTEM_UTILIZATION, "1", &[], used / usable);
        }
        Ok(())
    }
}
