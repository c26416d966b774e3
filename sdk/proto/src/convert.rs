//! Proto to domain and back, without a `..` or a `_`: a new field breaks the build until someone decides what becomes
//! of it.

use crate::v1;
use aether_core::{
    id::{WorkloadId, is_name},
    snapshot::Tier,
    subject::{SubjectKind, SubjectRef},
};
use thiserror::Error;

/// What came over the wire does not mean anything.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{field}` is not valid: {problem}")]
    Invalid { field: &'static str, problem: String },
}

impl Malformed {
    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Malformed::Invalid { field, problem: problem.into() }
    }
}

pub fn subject_to_proto(subject: &SubjectRef) -> v1::Subject {
    let kind = match subject.kind {
        SubjectKind::Node => "node",
        SubjectKind::Gpu => "gpu",
        SubjectKind::Workload => "workload",
        SubjectKind::Pool => "pool",
        SubjectKind::Participant => "participant",
    };
    v1::Subject { kind: kind.into(), id: subject.id.clone() }
}

pub fn subject_from_proto(subject: v1::Subject) -> Result<SubjectRef, Malformed> {
    let v1::Subject { kind, id } = subject;
    let kind = match kind.as_str() {
        "node" => SubjectKind::Node,
        "gpu" => SubjectKind::Gpu,
        "workload" => SubjectKind::Workload,
        "pool" => SubjectKind::Pool,
        "participant" => SubjectKind::Participant,
        other => return Err(Malformed::invalid("subject.kind", format!("`{other}` is no kind of subject"))),
    };
    if id.is_empty() || id.len() > 128 {
        return Err(Malformed::invalid("subject.id", "must have 1 to 128 characters"));
    }
    Ok(SubjectRef { kind, id })
}

/// A principal's kind and its name within the kind, such as (`node-agent`, `node-a`). The name is the key of the
/// session's lock.
pub fn principal_name(principal: &v1::Principal) -> Result<(&'static str, String), Malformed> {
    use v1::principal::Kind;
    let v1::Principal { kind } = principal;
    let (kind, parts): (_, Vec<&str>) = match kind.as_ref().ok_or(Malformed::Missing("principal.kind"))? {
        Kind::NodeAgent(v1::NodeAgent { node }) => ("node-agent", vec![node]),
        Kind::Agent(v1::Agent { workspace, implementation, specifier }) => {
            ("agent", vec![workspace, implementation, specifier])
        }
        Kind::UniqueTask(v1::UniqueTask { workspace, implementation, specifier }) => {
            ("unique-task", vec![workspace, implementation, specifier])
        }
        Kind::Task(v1::Task { workspace, implementation, id }) => ("task", vec![workspace, implementation, id]),
        Kind::User(v1::User { user, window, workspace }) => ("user", vec![user, window, workspace]),
        Kind::WorkflowEngine(v1::WorkflowEngine { workspace, engine }) => ("workflow-engine", vec![workspace, engine]),
        Kind::MetricsBridge(v1::MetricsBridge { bridge }) => ("metrics-bridge", vec![bridge]),
        Kind::Orchestrator(v1::Orchestrator { workspace, implementation }) => {
            ("orchestrator", vec![workspace, implementation])
        }
        Kind::Service(v1::Service { implementation, specifier }) => ("service", vec![implementation, specifier]),
        Kind::Bridge(v1::Bridge { bridge }) => ("bridge", vec![bridge]),
    };
    if let Some(bad) = parts.iter().find(|part| !is_name(part)) {
        let problem = format!("`{}` is not a name: 1 to 63 of a-z 0-9 - .", bad.chars().take(64).collect::<String>());
        return Err(Malformed::invalid("principal", problem));
    }
    Ok((kind, parts.join("/")))
}

/// A workload as an agent reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub id: WorkloadId,
    pub name: String,
    pub tier: Tier,
    pub generation: u64,
    pub state: v1::WorkloadState,
    pub since_ms: i64,
    pub pid: u32,
    pub adopted: bool,
}

pub fn workload_to_proto(workload: &Workload) -> v1::Workload {
    let Workload { id, name, tier, generation, state, since_ms, pid, adopted } = workload;
    let tier = match tier {
        Tier::BestEffort => "best-effort",
        Tier::Standard => "standard",
        Tier::Critical => "critical",
    };
    v1::Workload {
        id: id.0.clone(),
        name: name.clone(),
        tier: tier.into(),
        generation: *generation,
        state: i32::from(*state),
        since_ms: *since_ms,
        pid: *pid,
        adopted: *adopted,
    }
}

pub fn workload_from_proto(workload: v1::Workload) -> Result<Workload, Malformed> {
    let v1::Workload { id, name, tier, generation, state, since_ms, pid, adopted } = workload;
    if !is_name(&id) {
        return Err(Malformed::invalid("workload.id", format!("`{id}` is not a name: 1 to 63 of a-z 0-9 - .")));
    }
    let tier = match tier.as_str() {
        "best-effort" => Tier::BestEffort,
        "standard" => Tier::Standard,
        "critical" => Tier::Critical,
        other => return Err(Malformed::invalid("workload.tier", format!("`{other}` is no tier"))),
    };
    let state = v1::WorkloadState::try_from(state)
        .ok()
        .filter(|state| *state != v1::WorkloadState::Unspecified)
        .ok_or_else(|| Malformed::invalid("workload.state", format!("{state} is no state")))?;
    Ok(Workload { id: WorkloadId(id), name, tier, generation, state, since_ms, pid, adopted })
}
