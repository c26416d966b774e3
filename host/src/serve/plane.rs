//! What the API sees of the running host.

use crate::{
    api::{
        Check, Deed, NotDecided, Plane, Word,
        view::{BundleInfo, Figures, MissingEntry, Plugin, SlotEntry, SlotStatus, Slots as SlotsView, SubjectRisk},
    },
    control::{self, Control, NotTaken},
    fabric::{Fabric, NodeView},
    plugins::{FiguresView, Slot, Slots},
    store::{self, Store},
};
use aether_core::{
    decision::{Envelope, Role},
    id::{DecisionId, NodeId},
    incident::Approval,
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
}

#[async_trait]
impl Plane for Running {
    fn nodes(&self) -> Vec<NodeView> {
        self.fabric.nodes()
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
            digest: self.slots.digest().clone(),
        })
    }

    fn slots(&self) -> SlotsView {
        let missing = self.slots.failures().iter().map(|failure| MissingEntry {
            slot: failure.slot.clone(),
            component: failure.component.clone(),
            code: failure.code.to_string(),
            reason: failure.reason.clone(),
        });
        SlotsView {
            bundle: self.bundle(),
            slots: self.slots.all().iter().map(slot_status).collect(),
            missing: missing.collect(),
        }
    }

    fn plugins(&self) -> Vec<Plugin> {
        let mut plugins: BTreeMap<String, Plugin> = BTreeMap::new();
        for slot in self.slots.all() {
            for entry in &slot.entries {
                let path = self.plugins_dir.join(format!("{}.wasm", entry.component));
                let plugin = plugins.entry(entry.component.clone()).or_insert_with(|| Plugin {
                    component: entry.component.clone(),
                    digest: entry.prepared.digest().clone(),
                    role: entry.prepared.role(),
                    description: entry.prepared.description().clone(),
                    size_bytes: std::fs::metadata(path).map_or(0, |file| file.len()),
                    slots: vec![],
                });
                plugin.slots.push(slot.id.clone());
            }
        }
        plugins.into_values().collect()
    }

    async fn decide(&self, word: Word) -> Result<(), NotDecided> {
        let Word { deed, incident, plan, by, rank, comment, at } = word;
        let approval = |approved| Approval { plan: plan.clone(), by: by.clone(), rank, at, approved, comment };
        let taken = match deed {
            Deed::Approve => self.control.approve(&incident, approval(true)).await,
            Deed::Deny => self.control.deny(&incident, approval(false)).await,
            Deed::Withdraw => self.control.withdraw(&incident, &plan, &by).await,
        };
        taken.map_err(|error| match error {
            NotTaken::Refused(refused) => NotDecided::Refused(refused),
            NotTaken::Closed => NotDecided::Closed,
            NotTaken::Begun => NotDecided::Begun,
            NotTaken::NothingToWithdraw => NotDecided::NothingToWithdraw,
            NotTaken::Store(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a person's word could not be written down");
                NotDecided::Driver("it could not be written down, so it does not count; try again".into())
            }
        })
    }

    async fn create_join_token(&self, node: Option<&NodeId>, expires_at: Time) -> Result<String, store::Error> {
        self.store.create_join_token(node, expires_at).await
    }

    fn recent_decision(&self, id: &DecisionId) -> Option<Envelope> {
        self.control.recent_decision(id)
    }

    fn checks(&self) -> Vec<Check> {
        let empty: Vec<&str> = Role::ALL
            .into_iter()
            .filter(|role| self.slots.of(*role).all(|s| s.entries.is_empty()))
            .map(Role::world)
            .collect();
        let failure = (!empty.is_empty()).then(|| {
            let why: Vec<String> = self.slots.failures().iter().map(ToString::to_string).collect();
            format!("no component stands for {}. {}", empty.join(", "), why.join("; "))
        });
        vec![Check { name: "slots", failure }]
    }
}

fn slot_status(slot: &Slot) -> SlotStatus {
    let entries = slot
        .entries
        .iter()
        .map(|entry| SlotEntry {
            component: entry.component.clone(),
            name: entry.prepared.description().name.clone(),
            version: entry.prepared.description().version.clone(),
            digest: entry.prepared.digest().clone(),
            config: entry.declared.config.clone(),
            limits: entry.declared.limits.clone(),
            figures: figures(entry.figures.view()),
        })
        .collect();
    SlotStatus { id: slot.id.clone(), role: slot.role, rule: slot.rule, entries }
}

fn figures(view: FiguresView) -> Figures {
    let FiguresView { evaluations, faults, fuel_p50, fuel_p99, latency_us_p50, latency_us_p99, last_at, last_fault } =
        view;
    let name = |kind| match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    };
    let faults = faults.into_iter().map(|(kind, count)| (name(kind), count)).collect();
    Figures { evaluations, faults, fuel_p50, fuel_p99, latency_us_p50, latency_us_p99, last_at, last_fault }
}
