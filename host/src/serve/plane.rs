//! What the API sees of the running host.

use crate::{
    api::{
        Check, Deed, NotDecided, Plane, Proofs, Word,
        view::{
            BundleInfo, Figures, MissingEntry, Plugin, SlotEntry, SlotNews, SlotStatus, Slots as SlotsView, SubjectRisk,
        },
    },
    control::{self, Ask, Control, NotAsked, NotTaken},
    drills::Drills,
    fabric::{Configured, Cordon, Fabric, NodeView, NotReplayed, Replayed},
    plugins::{self, Added, By, Deed as SlotDeed, Generation, Live, Slots, Standing},
    snapshots::Desk,
    store::{self, Store, dead_letters::DeadLetter},
};
use aether_core::{
    audit::Act,
    breaker::{self, Scope},
    decision::{Envelope, Role},
    id::{DecisionId, IncidentId, NodeId, SlotId},
    incident::Approval,
    telemetry::Batch,
    time::Time,
};
use async_trait::async_trait;
use std::{collections::BTreeMap, path::PathBuf};

pub(super) struct Running {
    pub(super) store: Store,
    pub(super) fabric: Fabric,
    pub(super) control: Control,
    pub(super) slots: Slots,
    pub(super) plugins_dir: PathBuf,
    pub(super) proofs: Proofs,
    pub(super) snapshots: Desk,
    pub(super) drills: Drills,
}

#[async_trait]
impl Plane for Running {
    fn nodes(&self) -> Vec<NodeView> {
        self.fabric.nodes()
    }

    fn node(&self, id: &NodeId) -> Option<NodeView> {
        self.fabric.node(id)
    }

    fn risks(&self) -> Vec<SubjectRisk> {
        let told = self.control.risks().into_iter();
        told.map(|control::SubjectRisk { subject, at, risk, unknown, decision, incident }| SubjectRisk {
            subject,
            at: Some(at),
            risk,
            unknown,
            decision,
            incident,
        })
        .collect()
    }

    fn bundle(&self) -> Option<BundleInfo> {
        let bundle = self.slots.bundle();
        Some(BundleInfo {
            name: bundle.name.clone(),
            version: bundle.version.clone(),
            summary: bundle.summary.clone(),
            digest: self.slots.digest(),
        })
    }

    fn slots(&self) -> SlotsView {
        let missing = self.slots.failures().into_iter().map(|failure| MissingEntry {
            slot: failure.slot,
            component: failure.component,
            code: failure.code.to_string(),
            reason: failure.reason,
        });
        SlotsView {
            bundle: self.bundle(),
            slots: self.slots.all().iter().map(|generation| slot_status(generation)).collect(),
            missing: missing.collect(),
        }
    }

    fn slot_news(&self) -> Vec<SlotNews> {
        self.slots.all().iter().map(|generation| SlotNews::from(&generation.made)).collect()
    }

    async fn act_on_slot(&self, slot: &SlotId, deed: SlotDeed, by: By) -> Result<Option<Added>, plugins::Error> {
        self.slots.act(slot, deed, by).await
    }

    fn plugins(&self) -> Vec<Plugin> {
        let mut plugins: BTreeMap<String, Plugin> = BTreeMap::new();
        for generation in self.slots.all() {
            for live in generation.slot().active().filter_map(|entry| generation.live(&entry.id)) {
                let name = &live.entry.name;
                let path = self.plugins_dir.join(format!("{name}.wasm"));
                let plugin = plugins.entry(name.clone()).or_insert_with(|| Plugin {
                    component: name.clone(),
                    digest: live.prepared.digest().clone(),
                    role: live.prepared.role(),
                    description: live.prepared.description().clone(),
                    size_bytes: std::fs::metadata(path).map_or(0, |file| file.len()),
                    slots: vec![],
                    registered: None,
                });
                plugin.slots.push(live.slot.clone());
            }
        }
        plugins.into_values().collect()
    }

    async fn decide(&self, word: Word) -> Result<(), NotDecided> {
        let Word { deed, incident, plan, by, rank, comment, break_glass, at } = word;
        let approval = |approved, comment| Approval {
            plan: plan.clone(),
            by: by.clone(),
            rank,
            at,
            approved,
            comment,
            break_glass,
        };
        let taken = match deed {
            Deed::Approve => self.control.approve(&incident, approval(true, comment)).await,
            Deed::Deny => self.control.deny(&incident, approval(false, comment)).await,
            Deed::Withdraw => self.control.withdraw(&incident, &plan, &by, comment).await,
            Deed::CallOff => self.control.call_off(&incident, &plan, &by, rank, comment.unwrap_or_default()).await,
        };
        taken.map_err(|error| match error {
            NotTaken::Refused(refused) => NotDecided::Refused(refused),
            NotTaken::CallOff(refused) => NotDecided::CallOff(refused),
            NotTaken::Closed => NotDecided::Closed,
            NotTaken::Begun => NotDecided::Begun,
            NotTaken::NothingToWithdraw => NotDecided::NothingToWithdraw,
            NotTaken::Store(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a person's word could not be written down");
                NotDecided::Driver("it could not be written down, so it does not count; try again".into())
            }
        })
    }

    fn breakers(&self) -> Vec<breaker::Standing> {
        self.control.breakers()
    }

    async fn reset_breaker(&self, scope: &Scope, act: Act) -> Result<bool, store::Error> {
        self.control.reset_breaker(scope, act).await
    }

    async fn set_cordon(
        &self,
        node: &NodeId,
        cordon: Option<Cordon>,
        at: Time,
        act: Act,
    ) -> Result<bool, store::Error> {
        self.fabric.set_cordon(node, cordon, at, act).await
    }

    fn agent_configs(&self) -> Vec<Configured> {
        self.fabric.agent_configs()
    }

    async fn configure_agents(&self, word: Configured, act: Act) -> Result<Configured, store::Error> {
        self.fabric.configure_agents(word, act).await
    }

    async fn request(&self, ask: Ask) -> Result<IncidentId, NotAsked> {
        self.control.request(ask).await
    }

    async fn read_dead_letter(
        &self,
        number: u64,
    ) -> Result<Option<(DeadLetter, Result<Batch, NotReplayed>)>, store::Error> {
        self.fabric.read_dead_letter(number).await
    }

    async fn replay_dead_letter(&self, number: u64, act: Act) -> Result<Replayed, NotReplayed> {
        self.fabric.replay_dead_letter(number, act).await
    }

    async fn create_join_token(&self, node: Option<&NodeId>, expires_at: Time) -> Result<String, store::Error> {
        self.store.create_join_token(node, expires_at).await
    }

    fn recent_decision(&self, id: &DecisionId) -> Option<Envelope> {
        self.control.recent_decision(id)
    }

    fn drills(&self) -> Option<Drills> {
        Some(self.drills.clone())
    }

    fn proofs(&self) -> Option<Proofs> {
        Some(self.proofs.clone())
    }

    fn snapshots(&self) -> Option<Desk> {
        Some(self.snapshots.clone())
    }

    fn checks(&self) -> Vec<Check> {
        let empty: Vec<&str> = Role::ALL
            .into_iter()
            .filter(|role| {
                let mut generations = self.slots.of(*role).into_iter();
                generations
                    .all(|generation| generation.slot().active().all(|entry| generation.live(&entry.id).is_none()))
            })
            .map(Role::world)
            .collect();
        let failure = (!empty.is_empty()).then(|| {
            let why: Vec<String> = self.slots.failures().iter().map(ToString::to_string).collect();
            format!("no component stands for {}. {}", empty.join(", "), why.join("; "))
        });
        vec![Check { name: "slots", failure }]
    }
}

fn slot_status(generation: &Generation) -> SlotStatus {
    let slot = generation.slot();
    let entries = slot.entries.iter().map(|entry| {
        let live = generation.live(&entry.id);
        SlotEntry {
            id: entry.id.clone(),
            component: entry.name.clone(),
            name: entry.name.clone(),
            version: entry.version.clone(),
            digest: entry.component.clone(),
            config: entry.config.clone(),
            limits: entry.limits.clone(),
            assets: entry.assets.clone(),
            grants: entry.grants.clone(),
            stage: entry.stage,
            since: entry.since,
            replaces: entry.replaces.clone(),
            predecessor: slot.predecessor(&entry.id).filter(|_| entry.is_open()).map(|found| found.id.clone()),
            proofs: entry.proofs.clone(),
            quarantine: entry.quarantine.clone(),
            ready: live.is_some(),
            figures: live.filter(|_| entry.is_open()).map(|live| figures(live)).unwrap_or_default(),
        }
    });
    SlotStatus {
        id: slot.id.clone(),
        role: slot.role,
        rule: slot.rule,
        generation: slot.generation,
        budget: slot.budget.clone(),
        last: SlotNews::from(&generation.made),
        entries: entries.collect(),
    }
}

fn figures(live: &Live) -> Figures {
    let Standing { figures, last_at, last_fault, dropped } = live.standing();
    Figures { figures, last_at, last_fault, dropped }
}
