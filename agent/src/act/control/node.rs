//! Draining: this node takes no new work. Kept on disk, reported to the host, which places nothing here.
//!
//! It is Aether's own mark and nobody else's: a cordon that a person set lives at the host, and is never lifted here.

use super::settings::Settings;
use crate::{act::hands::Failure, durable};
use aether_core::catalogue::fact;
use aether_proto::v1::CapabilityReport;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, path::PathBuf, sync::Arc};
use tokio::sync::watch;

pub const DRAINED: &str = "drained";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    /// Empty: the node takes work.
    why: String,
}

/// The mark of this node.
#[derive(Clone)]
pub struct Drain {
    path: PathBuf,
    report: Arc<watch::Sender<CapabilityReport>>,
}

impl Drain {
    /// Takes up what was kept, and reports it.
    pub fn open(path: PathBuf, report: Arc<watch::Sender<CapabilityReport>>) -> Result<Self, durable::Error> {
        let drain = Self { path, report };
        let kept = durable::read::<Mark>(&drain.path)?.unwrap_or_default();
        drain.tell(&kept.why);
        Ok(drain)
    }

    fn tell(&self, why: &str) {
        self.report.send_if_modified(|report| {
            let facts: &mut HashMap<String, String> = &mut report.facts;
            let before = facts.get(fact::DRAINED).cloned();
            if why.is_empty() {
                facts.remove(fact::DRAINED);
            } else {
                facts.insert(fact::DRAINED.into(), why.into());
            }
            before.as_deref().unwrap_or_default() != why
        });
    }
}

impl Settings for Drain {
    fn read(&self, _: &str) -> Result<String, Failure> {
        let kept = durable::read::<Mark>(&self.path);
        let kept =
            kept.map_err(|error| Failure::new("agent.disk", format!("the node's mark cannot be read: {error}")))?;
        Ok(kept.unwrap_or_default().why)
    }

    fn write(&self, _: &str, value: &str) -> Result<(), Failure> {
        let kept = durable::write(&self.path, &Mark { why: value.into() });
        kept.map_err(|error| Failure::new("agent.disk", format!("the node's mark cannot be kept: {error}")))?;
        self.tell(value);
        Ok(())
    }
}
