//! Snapshots as operators see them: which there are, which must stay and why, removing them, proving them whole.
//!
//! The object store knows limits and chunks; here is what it does not know: what open incidents, outstanding orders and
//! people need. All removals are made here, one at a time, so that nothing goes that was pinned a moment before.

mod drills;

use crate::{
    blobs::{self, Blobs, Locked, Needed, SnapshotView, StoreTier, Verified},
    clock,
    fabric::Fabric,
    store::{
        self, Store,
        snapshots::{Drill, DrillResult, Pin},
    },
};
use aether_core::{
    audit::Act,
    id::{Digest, IncidentId, SnapshotId},
    snapshot::SnapshotFile,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    sync::{Mutex, Notify},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::ToSchema;

/// How often old snapshots are looked for.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// How long after a snapshot was stored: a target is about to read, and removing would hold it up.
const RETAIN_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum Error {
    #[error("there is no snapshot {0}")]
    Unknown(Digest),
    /// Why it stays as it is.
    #[error("the snapshot was not changed: {0}")]
    Unchanged(String),
    #[error("no drill was begun: {0}")]
    NotDrilled(String),
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// A stable code; `docs/errors.md` has a section for each.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unknown(_) | Error::Blobs(blobs::Error::Missing(_) | blobs::Error::NotADigest(_)) => "AE0004",
            Error::Unchanged(_) => "AE0101",
            Error::NotDrilled(_) => "AE0104",
            Error::Blobs(blobs::Error::Locked(_)) => "AE0102",
            Error::Blobs(blobs::Error::Store(_) | blobs::Error::Folder(_)) => "AE0100",
            Error::Blobs(_) => "AE0103",
            Error::Store(_) => "AE0031",
        }
    }
}

/// A snapshot with what is known of it elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    #[serde(flatten)]
    pub view: SnapshotView,
    /// It stays until this is taken away.
    pub pin: Option<Pin>,
    /// Something that goes on and cannot do without it.
    pub needed_by: Option<String>,
    /// The last restore drill of it.
    pub drill: Option<Drill>,
}

/// All snapshots, and those of which nothing can be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshots {
    /// Newest first.
    pub snapshots: Vec<Snapshot>,
    pub locked: Vec<Locked>,
    /// Bytes of all chunks as they are kept, in the main store and in the cold one.
    pub warm_bytes: u64,
    pub cold_bytes: u64,
}

/// One snapshot with its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotDetail {
    #[serde(flatten)]
    pub snapshot: Snapshot,
    pub progress: Option<u64>,
    pub criu_version: String,
    pub kernel_release: String,
    pub architecture: String,
    /// Whether this host signed the manifest: an agent restores no other.
    pub signed: bool,
    pub files: Vec<SnapshotFile>,
}

/// What reading a snapshot anew has shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotVerified {
    /// Signed by this host, and every chunk there and what it ought to be.
    pub whole: bool,
    pub signed: bool,
    #[serde(flatten)]
    pub found: Verified,
}

struct Inner {
    blobs: Blobs,
    fabric: Fabric,
    store: Store,
    /// Held by whoever removes or pins.
    changing: Mutex<()>,
    /// There is something to put in order.
    wanted: Notify,
    tasks: TaskTracker,
}

/// The desk of snapshots. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    inner: Arc<Inner>,
}

/// What must stay, with reasons.
struct Held {
    needed: Needed,
    pins: BTreeMap<Digest, Pin>,
    incidents: BTreeMap<SnapshotId, IncidentId>,
    drills: BTreeMap<Digest, Drill>,
}

impl Held {
    /// What goes on with it, but for pins.
    fn reason(&self, view: &SnapshotView) -> Option<String> {
        if let Some(incident) = self.incidents.get(&view.snapshot) {
            return Some(format!("the open incident {incident}"));
        }
        if self.drills.get(&view.manifest).is_some_and(|drill| drill.result == DrillResult::Running) {
            return Some("a restore drill".into());
        }
        self.needed.manifests.contains(&view.manifest).then(|| "an outstanding order".into())
    }

    fn dress(&self, view: SnapshotView) -> Snapshot {
        let (pin, needed_by) = (self.pins.get(&view.manifest).cloned(), self.reason(&view));
        let drill = self.drills.get(&view.manifest).cloned();
        Snapshot { view, pin, needed_by, drill }
    }

    /// All of it, for whoever removes.
    fn all(&self) -> Needed {
        let mut needed = self.needed.clone();
        needed.manifests.extend(self.pins.keys().cloned());
        needed.snapshots.extend(self.incidents.keys().cloned());
        let drilled = self.drills.values().filter(|drill| drill.result == DrillResult::Running);
        needed.manifests.extend(drilled.map(|drill| drill.manifest.clone()));
        needed
    }
}

impl Desk {
    pub fn new(blobs: Blobs, fabric: Fabric, store: Store, tasks: TaskTracker) -> Self {
        let (changing, wanted) = Default::default();
        Self { inner: Arc::new(Inner { blobs, fabric, store, changing, wanted, tasks }) }
    }

    async fn held(&self) -> Result<Held, Error> {
        // Orders first: one that is settled meanwhile is in its incident then.
        let needed = self.inner.fabric.snapshots_needed();
        let incidents = self.inner.store.snapshots_of_open_incidents().await?;
        let pins = self.inner.store.snapshot_pins().await?;
        let drills = self.inner.store.newest_drills().await?;
        Ok(Held { needed, pins, incidents, drills })
    }

    async fn view(&self, manifest: &Digest) -> Result<SnapshotView, Error> {
        let view = self.inner.blobs.snapshot(manifest).await?;
        view.ok_or_else(|| Error::Unknown(Digest(manifest.0.chars().take(80).collect())))
    }

    pub async fn list(&self) -> Result<Snapshots, Error> {
        let blobs = &self.inner.blobs;
        let views = blobs.snapshots().await?;
        let held = self.held().await?;
        Ok(Snapshots {
            snapshots: views.into_iter().map(|view| held.dress(view)).collect(),
            locked: blobs.locked().await?,
            warm_bytes: blobs.bytes(StoreTier::Warm).await?,
            cold_bytes: blobs.bytes(StoreTier::Cold).await?,
        })
    }

    pub async fn show(&self, manifest: &Digest) -> Result<SnapshotDetail, Error> {
        let snapshot = self.held().await?.dress(self.view(manifest).await?);
        let signed = self.inner.blobs.get_manifest(manifest).await?;
        let document = blobs::manifest::parse(&signed.manifest)?;
        Ok(SnapshotDetail {
            snapshot,
            progress: document.progress,
            criu_version: document.criu_version,
            kernel_release: document.kernel_release,
            architecture: document.architecture,
            signed: self.inner.fabric.has_signed(&signed),
            files: document.files,
        })
    }

    pub async fn pin(&self, manifest: &Digest, pin: &Pin, act: Act) -> Result<Snapshot, Error> {
        let _changing = self.inner.changing.lock().await;
        let view = self.view(manifest).await?;
        if !self.inner.store.pin_snapshot(manifest, pin, act).await? {
            return Err(Error::Unchanged("it is pinned already".into()));
        }
        Ok(self.held().await?.dress(view))
    }

    pub async fn unpin(&self, manifest: &Digest, at: Time, act: Act) -> Result<Snapshot, Error> {
        let _changing = self.inner.changing.lock().await;
        let view = self.view(manifest).await?;
        if !self.inner.store.unpin_snapshot(manifest, at, act).await? {
            return Err(Error::Unchanged("it is not pinned".into()));
        }
        Ok(self.held().await?.dress(view))
    }

    /// Removes a snapshot that nothing needs. In the audit before it is done: a removal that the audit does not know
    /// must not be.
    pub async fn remove(&self, manifest: &Digest, at: Time, act: Act) -> Result<(), Error> {
        let _changing = self.inner.changing.lock().await;
        let snapshot = self.held().await?.dress(self.view(manifest).await?);
        if let Some(what) = snapshot.needed_by {
            return Err(Error::Unchanged(format!("{what} needs it; wait until that is over")));
        }
        if let Some(pin) = snapshot.pin {
            return Err(Error::Unchanged(format!("{} pinned it ({}); unpin it first", pin.name, pin.comment)));
        }
        self.inner.store.audit(at, act).await?;
        self.inner.blobs.delete_snapshot(manifest).await?;
        self.inner.wanted.notify_one();
        Ok(())
    }

    pub async fn verify(&self, manifest: &Digest) -> Result<SnapshotVerified, Error> {
        self.view(manifest).await?;
        let signed = self.inner.fabric.has_signed(&self.inner.blobs.get_manifest(manifest).await?);
        let found = self.inner.blobs.verify(manifest).await?;
        Ok(SnapshotVerified { whole: signed && found.damaged_count == 0, signed, found })
    }

    /// Makes room, now.
    pub async fn retain(&self) -> Result<blobs::Retained, Error> {
        let _changing = self.inner.changing.lock().await;
        // What is claimed after this stays; what was claimed before is seen as an order that is under way.
        let mark = self.inner.blobs.mark().await?;
        let held = self.held().await?;
        Ok(self.inner.blobs.retain(mark, &held.all(), clock::now()).await?)
    }

    /// Makes room beside everything else, until the host stops.
    pub async fn keep(self, stop: CancellationToken) {
        if let Err(error) = self.inner.store.cut_drills_short(clock::now()).await {
            tracing::error!(error = &error as &dyn std::error::Error, "drills that were cut short could not be noted");
        }
        let mut due = tokio::time::interval(RETAIN_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = due.tick() => {}
                () = self.inner.wanted.notified() => {}
                () = self.inner.fabric.snapshot_stored() => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(RETAIN_AFTER) => {}
                    }
                }
            }
            // What is cut short here is done at the next start.
            let retained = tokio::select! {
                () = stop.cancelled() => return,
                retained = self.retain() => retained,
            };
            match retained {
                Ok(done) if done.snapshots + done.chunks + done.cooled > 0 => {
                    tracing::info!(?done, "snapshots were put in order");
                }
                Ok(_) => {}
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "snapshots could not be put in order; what is stored stays as it is, and it is tried again"
                ),
            }
            if let Err(error) = self.drill_when_due(clock::now()).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the restore drill that is due was not begun");
            }
        }
    }
}
