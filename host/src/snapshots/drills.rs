//! Restore drills: a stored snapshot is really restored by CRIU on an agent, in namespaces of its own, kept stopped,
//! looked at and ended. What an agent does of it is in its `act/rehearsal.rs`.
//!
//! A drill is an order like any other: signed, journaled by the agent, done at most once. It belongs to no incident and
//! changes nothing that an incident could be about, so nobody approves it; whoever asks for one is in the audit.

use super::{Desk, Error};
use crate::{
    clock,
    fabric::NodeView,
    store::snapshots::{Drill, DrillResult},
};
use aether_core::{
    audit::Act,
    catalogue::{SafetyClass, argument, capability, verb},
    decision::OnFailure,
    id::{Digest, NodeId},
    order::{Direction, Order, OutcomeStatus, Provenance},
    plan::{BlastCount, Plan, Shape, Step},
    subject::{SubjectKind, SubjectRef, Target},
    time::Time,
    value::Value,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long an agent may take to read, verify and restore.
const WITHIN_MS: u64 = 900_000;
/// How long after that it may take to say so.
const SAY_WITHIN_MS: u64 = 30_000;
/// How long an order may be on its way.
const BEGIN_WITHIN_MS: u64 = 60_000;
const INPUT: &str = "manifest";
/// Drills that ended, by `result`.
const ENDED: &str = "aether_snapshots_drills_total";
/// Snapshots whose last drill did not restore them.
const FAILED: &str = "aether_snapshots_drills_failed";

fn plan(id: &str, node: &NodeId, manifest: &Digest) -> Plan {
    let arguments = BTreeMap::from([
        (argument::MANIFEST.to_owned(), Value::Text(manifest.0.clone())),
        (argument::TIMEOUT.to_owned(), Value::Duration(WITHIN_MS)),
    ]);
    let none = Digest::of(b"");
    Plan {
        schema_version: Plan::SCHEMA_VERSION,
        shape: Shape { cause: "restore-drill".into(), subject: SubjectRef::node(node.as_str()) },
        steps: vec![Step {
            verb: verb::RESTORE_DRILL.into(),
            node: node.clone(),
            // Of its own, so that its fence is nobody else's and no repeat is taken for it.
            target: Target { kind: SubjectKind::Workload, id: id.into(), generation: 1 },
            arguments,
            preconditions: vec![],
            on_failure: OnFailure::Stop,
            compensation: None,
        }],
        success: vec![],
        watch_ms: 0,
        class: SafetyClass::ReadOnly,
        blast: BlastCount { nodes: 1, gpus: 0, workloads: 0 },
        dry_run: false,
        planner: none.clone(),
        gates: vec![],
        policy_bundle: none,
        parent: None,
    }
}

fn can(node: &NodeView) -> bool {
    let able =
        |view: &crate::fabric::CapabilityView| view.name == capability::RESTORE && view.available && !view.simulated;
    node.live && node.capabilities.iter().any(able)
}

impl Desk {
    /// Begins a drill; how it ends is in the store. `node`: where. None: where the snapshot was taken, else anywhere.
    pub async fn drill(
        &self,
        manifest: &Digest,
        node: Option<NodeId>,
        asked_by: &str,
        act: Act,
    ) -> Result<Drill, Error> {
        let view = self.view(manifest).await?;
        let node = self.place(&view.source, node)?;
        if self.inner.store.newest_drills().await?.get(manifest).is_some_and(|drill| drill.ended_at.is_none()) {
            return Err(Error::NotDrilled("a drill of it is under way".into()));
        }
        let drill = Drill {
            id: clock::id("drill"),
            manifest: manifest.clone(),
            node,
            asked_by: asked_by.into(),
            began_at: clock::now(),
            ended_at: None,
            result: DrillResult::Running,
            code: String::new(),
            message: String::new(),
        };
        self.inner.store.begin_drill(&drill, act).await?;
        let (desk, begun) = (self.clone(), drill.clone());
        self.inner.tasks.spawn(async move { desk.carry_out(begun).await });
        Ok(drill)
    }

    fn place(&self, source: &NodeId, asked: Option<NodeId>) -> Result<NodeId, Error> {
        let nodes = self.inner.fabric.nodes();
        let able: Vec<&NodeView> = nodes.iter().filter(|node| can(node)).collect();
        let wanted = asked.as_ref().unwrap_or(source);
        let found = able.iter().find(|node| node.id == *wanted).or(able.first().filter(|_| asked.is_none()));
        found.map(|node| node.id.clone()).ok_or_else(|| {
            Error::NotDrilled(match asked {
                Some(node) => format!("the node {node} is not live, or cannot restore"),
                None => "no live node can restore".into(),
            })
        })
    }

    async fn carry_out(&self, mut drill: Drill) {
        let plan = plan(&drill.id, &drill.node, &drill.manifest);
        let ended = match plan.key(0, Direction::Forward) {
            None => (DrillResult::Failed, "drill.plan".into(), "the plan of the drill has no step".into()),
            Some(key) => {
                let order = Order {
                    key,
                    plan: plan.hash(),
                    step: 0,
                    direction: Direction::Forward,
                    node: drill.node.clone(),
                    target: plan.steps[0].target.clone(),
                    decided_by: Provenance::of(&plan),
                    fence: 1,
                    lease: self.inner.store.lease(),
                    nonce: drill.id.clone(),
                    execute_by: clock::now().plus_ms(BEGIN_WITHIN_MS),
                    inputs: BTreeMap::from([(INPUT.to_owned(), drill.manifest.0.clone())]),
                };
                let within = Duration::from_millis(BEGIN_WITHIN_MS + WITHIN_MS + SAY_WITHIN_MS);
                match self.inner.fabric.carry_out(&plan, order, within).await {
                    Ok(outcome) => {
                        let result = match outcome.status {
                            OutcomeStatus::Succeeded => DrillResult::Restored,
                            OutcomeStatus::Failed => DrillResult::Failed,
                            OutcomeStatus::Unknown => DrillResult::Unknown,
                        };
                        (result, outcome.code, outcome.message)
                    }
                    Err(not) => {
                        (if not.begun { DrillResult::Unknown } else { DrillResult::Failed }, not.code, not.reason)
                    }
                }
            }
        };
        (drill.result, drill.code, drill.message) = ended;
        drill.ended_at = Some(clock::now());
        let Drill { id, manifest, node, result, code, message, .. } = &drill;
        metrics::counter!(ENDED, "result" => result.name()).increment(1);
        match result {
            DrillResult::Restored => {
                tracing::info!(id, %manifest, %node, message, "a snapshot was restored as a drill")
            }
            _ => tracing::error!(id, %manifest, %node, code, message, "a snapshot could not be restored as a drill"),
        }
        let detail = BTreeMap::from([
            ("node".to_owned(), node.to_string()),
            ("result".to_owned(), result.name().to_owned()),
            ("code".to_owned(), code.clone()),
        ]);
        let act = Act::by_itself("snapshot.drill.end", format!("snapshot/{manifest}"), detail);
        if let Err(error) = self.inner.store.end_drill(&drill, act).await {
            tracing::error!(error = &error as &dyn std::error::Error, "how a drill ended could not be kept");
        }
        self.count_failed().await;
    }

    async fn count_failed(&self) {
        if let Ok(failed) = self.failed_drills().await {
            metrics::gauge!(FAILED).set(u32::try_from(failed.len()).unwrap_or(u32::MAX));
        }
    }

    /// The last drills of snapshots that are still there, where they did not restore them.
    pub async fn failed_drills(&self) -> Result<Vec<Drill>, Error> {
        let there: BTreeSet<Digest> =
            self.inner.blobs.snapshots().await?.into_iter().map(|view| view.manifest).collect();
        let failed = |drill: &Drill| matches!(drill.result, DrillResult::Failed | DrillResult::Unknown);
        let drills = self.inner.store.newest_drills().await?.into_values();
        Ok(drills.filter(|drill| failed(drill) && there.contains(&drill.manifest)).collect())
    }

    /// At most one for each period: of the snapshots that were never drilled the newest, else the one whose drill is the
    /// longest ago.
    pub(super) async fn drill_when_due(&self, now: Time) -> Result<(), Error> {
        let every_ms = self.inner.blobs.settings().drill_every_ms;
        if every_ms == 0 {
            return Ok(());
        }
        self.count_failed().await;
        let drills = self.inner.store.newest_drills().await?;
        if drills.values().any(|drill| drill.ended_at.is_none() || now.since_ms(drill.began_at) < every_ms) {
            return Ok(());
        }
        let views = self.inner.blobs.snapshots().await?;
        let began = |view: &crate::blobs::SnapshotView| drills.get(&view.manifest).map(|drill| drill.began_at);
        // Newest first, so the first of equals is the newest.
        let Some(next) = views.iter().min_by_key(|view| began(view)) else { return Ok(()) };
        let detail = BTreeMap::from([("asked-by".to_owned(), "schedule".to_owned())]);
        let act = Act::by_itself("snapshot.drill", format!("snapshot/{}", next.manifest), detail);
        self.drill(&next.manifest, None, "schedule", act).await.map(|_| ())
    }
}
