//! Reports of agents, from the wire's form to what the host keeps, within bounds.

use super::view::{CapabilityView, WorkloadState, WorkloadView};
use aether_core::time::Time;
use aether_proto::{Workload, v1, workload_from_proto};
use std::collections::{BTreeMap, BTreeSet};

const CAPABILITIES: usize = 256;
const FACTS: usize = 256;
const TEXT_BYTES: usize = 2_048;

fn text(what: &str, text: &str, limit: usize) -> Result<(), String> {
    let fits = text.len() <= limit && !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    if fits { Ok(()) } else { Err(format!("{what} has more than {limit} bytes, or control characters")) }
}

/// A text from a participant as it may be shown and logged: bounded, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).take(TEXT_BYTES).collect()
}

/// What an agent can do, in order of name, and its facts.
pub(crate) fn capabilities(
    report: v1::CapabilityReport,
) -> Result<(Vec<CapabilityView>, BTreeMap<String, String>), String> {
    let v1::CapabilityReport { capabilities, facts } = report;
    if capabilities.len() > CAPABILITIES || facts.len() > FACTS {
        return Err(format!("more than {CAPABILITIES} capabilities or {FACTS} facts"));
    }
    let mut names = BTreeSet::new();
    let mut views = Vec::with_capacity(capabilities.len());
    for v1::Capability { name, available, reason, fallback, simulated } in capabilities {
        text("a capability's name", &name, 128)?;
        text("a capability's reason", &reason, TEXT_BYTES)?;
        text("a capability's fallback", &fallback, TEXT_BYTES)?;
        if name.is_empty() || !names.insert(name.clone()) {
            return Err(format!("the capability `{name}` has no name or is there twice"));
        }
        views.push(CapabilityView { name, available, reason, fallback, simulated });
    }
    views.sort_by(|a, b| a.name.cmp(&b.name));
    for (name, value) in &facts {
        text("a fact's name", name, 128)?;
        text("a fact", value, TEXT_BYTES)?;
    }
    Ok((views, facts.into_iter().collect()))
}

/// An agent's workloads.
pub(crate) fn workloads(report: v1::WorkloadReport, limit: usize) -> Result<Vec<WorkloadView>, String> {
    let v1::WorkloadReport { workloads } = report;
    if workloads.len() > limit {
        return Err(format!("{} workloads, and {limit} is the limit", workloads.len()));
    }
    let mut ids = BTreeSet::new();
    let mut views = Vec::with_capacity(workloads.len());
    for workload in workloads {
        let workload = workload_from_proto(workload).map_err(|malformed| shown(&malformed.to_string()))?;
        let Workload { id, name, tier, generation, state, since_ms, pid, adopted } = workload;
        text("a workload's name", &name, 256)?;
        if !ids.insert(id.clone()) {
            return Err(format!("the workload `{id}` is there twice"));
        }
        let state = match state {
            v1::WorkloadState::Running => WorkloadState::Running,
            v1::WorkloadState::Stopped => WorkloadState::Stopped,
            v1::WorkloadState::Exited => WorkloadState::Exited,
            v1::WorkloadState::Unspecified => return Err(format!("the workload `{id}` has no state")),
        };
        views.push(WorkloadView { id, name, tier, generation, state, since: Time(since_ms), pid, adopted });
    }
    Ok(views)
}
