//! Pages that a copy is given while it runs already: CRIU copies them out of images that are whole and were verified
//! before anything was restored, so that a workload need not stand still for it.
//!
//! A page that is missed waits for CRIU's daemon, through a `userfaultfd` of its process. The kernel lets go of those who
//! wait when the last descriptor of that is closed, and gives them zeros: if only the daemon had one and died, the copy
//! would go on with another memory than its own. So the copy is left stopped until this agent has a descriptor of each
//! as well, and the agent keeps them until all pages are in or the copy is dead. Were the agent killed, the daemon would
//! go on, and the next agent would end the copy first, and the daemon after.

use super::criu::{Criu, explain};
use crate::process::{self, ProcessRef};
use procfs::process::{FDTarget, Process, VmFlags};
use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

/// CRIU's name of the daemon's socket, in the folder that both work in.
const SOCKET: &str = "lazy-pages.socket";
const LOG: &str = "lazy-pages.log";
/// How the kernel calls what the pages of a process are waited for with.
const USERFAULTFD: &str = "[userfaultfd]";
/// How long the daemon may take to listen, and to take what the restore hands it.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Pages on their way into a copy. To be dropped once the copy is whole or dead, and not before.
#[derive(Debug)]
pub struct Pages {
    daemon: Child,
    log: PathBuf,
    held: Vec<OwnedFd>,
}

impl Pages {
    /// Has CRIU's daemon serve what a restore of these images leaves out.
    pub fn serve(criu: &Criu, images: &Path) -> Result<Self, String> {
        let daemon = criu.begin_pages(images, LOG).map_err(|error| error.to_string())?;
        let mut pages = Self { daemon, log: images.join(LOG), held: vec![] };
        let socket = images.join(SOCKET);
        pages.until(|_| socket.exists()).map(|()| pages)
    }

    /// Makes sure that nothing of a copy, which is stopped, can be given zeros while this lives.
    pub fn hold(&mut self, copy: &[ProcessRef]) -> Result<(), String> {
        self.until(|pages| {
            let daemon = ProcessRef::find(pages.daemon.id());
            let is = |target: &FDTarget| matches!(target, FDTarget::AnonInode(name) if name == USERFAULTFD);
            pages.held = daemon.map(|daemon| daemon.descriptors(is)).unwrap_or_default();
            // Those that wait are looked at after: what the daemon is done with by now is held all the same.
            let waiting = copy.iter().filter(|process| misses_pages(process)).count();
            pages.held.len() >= waiting
        })
    }

    /// Tries until `reached`; an error in CRIU's words if the daemon ends badly before.
    fn until(&mut self, reached: impl Fn(&mut Self) -> bool) -> Result<(), String> {
        let tried = process::poll(READY_WITHIN, || {
            if reached(self) {
                return Some(Ok(()));
            }
            self.look().filter(Result::is_err)
        });
        tried.unwrap_or_else(|| Err("CRIU's daemon of pages is not ready in time".into()))
    }

    /// Whether all are in; an error in CRIU's words if they will never be. None: they are coming.
    pub fn look(&mut self) -> Option<Result<(), String>> {
        match self.daemon.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) if status.success() => Some(Ok(())),
            Ok(Some(_)) => Some(Err(explain(&self.log))),
            Err(error) => Some(Err(error.to_string())),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Whether some of its memory is watched for pages that are missing. What cannot be read counts as such: to wait in vain
/// fails a restore, and not to wait could let it go on with zeros.
fn misses_pages(process: &ProcessRef) -> bool {
    let maps = i32::try_from(process.pid).ok().and_then(|pid| Process::new(pid).ok()?.smaps().ok());
    maps.is_none_or(|maps| maps.iter().any(|map| map.extension.vm_flags.contains(VmFlags::UM)))
}
