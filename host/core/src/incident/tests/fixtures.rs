//! One world and one trouble: a workload `train` on `node-a`, which is about to be reclaimed, and a free `node-b`.

use crate::{
    artifact::{Flags, SummaryEvent, SummaryReading},
    catalogue::{SafetyClass, argument, capability, verb},
    decision::{
        BlastRadius, Condition, Contribution, Demand, Fault, FaultKind, Judgement, Level, OnFailure, Proposal,
        ProposedStep, Reason, Risk, Verdict,
    },
    finding::Finding,
    id::{DecisionId, Digest, IncidentId, NodeId, PrincipalId, WorkloadId},
    incident::{Approval, Context, Event, GateAnswer, GateContext, Opening, PlannerAnswer, Rank, Reading},
    order::{Outcome, OutcomeStatus},
    plan::{KnownNode, KnownWorkload, PlanHash, Shape, World},
    policy::Posture,
    subject::{Subject, SubjectKind, SubjectRef, Target},
    time::Time,
    value::Value,
};
use std::collections::BTreeMap;

/// 2026-11-21T02:00:00Z.
pub(super) const START: Time = Time(1_795_226_400_000);

pub(super) fn context(name: &str) -> Context {
    Context {
        decision: DecisionId::new(format!("decision-{name}")),
        component: Digest::of(name.as_bytes()),
        name: name.into(),
    }
}

pub(super) fn risk(confidence: f64) -> Risk {
    Risk {
        level: Level::Critical,
        score: 0.93,
        confidence,
        horizon_ms: Some(120_000),
        cause: "spot.rebalance".into(),
        reason: "the provider recommends to leave this node".into(),
        contributions: vec![Contribution { input: 1, weight: 0.8, note: "rebalance signal".into() }],
    }
}

pub(super) fn node() -> Subject {
    Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: BTreeMap::new() }
}

pub(super) fn workload() -> Subject {
    let labels = BTreeMap::from([("node".to_string(), "node-a".to_string())]);
    Subject { kind: SubjectKind::Workload, id: "train".into(), generation: 7, labels }
}

pub(super) fn opening() -> Opening {
    Opening {
        incident: IncidentId::new("inc-1"),
        finding: Finding {
            shape: Shape { cause: "spot.rebalance".into(), subject: SubjectRef::node("node-a") },
            risk: risk(0.9),
            first_seen: START.minus_ms(2_000),
            consecutive: 2,
        },
        subject: node(),
        workloads: vec![workload()],
        readings: vec![SummaryReading {
            metric: "aether.market.price".into(),
            unit: "{USD}/h".into(),
            attributes: BTreeMap::new(),
            value: Some(3.2),
            at: Some(START.minus_ms(500)),
            samples: 60,
        }],
        events: vec![SummaryEvent {
            name: "aether.market.rebalance".into(),
            at: START.minus_ms(3_000),
            attributes: BTreeMap::new(),
        }],
        window_ms: 60_000,
        decisions: vec![context("spot-risk")],
        unknown: vec!["host-pressure: no sample of memory".into()],
        flags: Flags { drill: true, ..Flags::default() },
        requested: None,
    }
}

pub(super) fn target() -> Target {
    workload().target()
}

pub(super) fn progress(target: Target) -> Condition {
    Condition {
        metric: "aether.workload.progress.rate".into(),
        target,
        minimum: Some(0.5),
        maximum: None,
        fresh_within_ms: 5_000,
    }
}

/// Success as the plan has it: of the generation that the restore makes.
pub(super) fn success() -> Condition {
    progress(Target { generation: 8, ..target() })
}

pub(super) fn proposal() -> Proposal {
    Proposal {
        title: "Move train to node-b".into(),
        rationale: "node-a will be reclaimed".into(),
        steps: vec![ProposedStep {
            verb: verb::MIGRATE.into(),
            target: target(),
            arguments: BTreeMap::from([
                (argument::TO.to_string(), Value::Text("node-b".into())),
                (argument::TIMEOUT.to_string(), Value::Duration(60_000)),
            ]),
            preconditions: vec![progress(target())],
            on_failure: OnFailure::Compensate,
        }],
        success: vec![progress(target())],
        watch_ms: 10_000,
        confidence: 0.8,
    }
}

pub(super) fn world() -> World {
    let able = KnownNode {
        generation: 1,
        live: true,
        capabilities: BTreeMap::from([
            (capability::CHECKPOINT.to_string(), Ok(())),
            (capability::RESTORE.to_string(), Ok(())),
        ]),
        ..KnownNode::default()
    };
    World {
        nodes: BTreeMap::from([(NodeId::new("node-a"), able.clone()), (NodeId::new("node-b"), able)]),
        workloads: BTreeMap::from([(
            WorkloadId::new("train"),
            KnownWorkload { generation: 7, node: NodeId::new("node-a"), forecast: None },
        )]),
        ..World::default()
    }
}

/// Live, with approval, and with room for what a migration is.
pub(super) fn posture() -> Posture {
    Posture { dry_run: false, highest_live_class: SafetyClass::Impactful, ..Posture::default() }
}

pub(super) fn fault(message: &str) -> Fault {
    Fault { kind: FaultKind::Trapped, message: message.into() }
}

pub(super) fn proposed(outcome: Result<Vec<Proposal>, Fault>, world: World) -> Event {
    let answers = vec![PlannerAnswer { by: context("planner"), outcome }];
    Event::Proposed { answers, world, posture: posture(), tried: Default::default() }
}

pub(super) fn demand(approvers: u32) -> Demand {
    Demand {
        approvers,
        role: "approver".into(),
        approve_within_ms: 600_000,
        execute_within_ms: 300_000,
        comment: false,
    }
}

pub(super) fn judgement(verdict: Verdict) -> Judgement {
    Judgement { verdict, reasons: vec![Reason { code: "class".into(), text: "the class is impactful".into() }] }
}

pub(super) fn gate_context() -> GateContext {
    GateContext {
        blast: BlastRadius { nodes: 2, gpus: 0, workloads: 1, pool_percent: 100.0, fleet_percent: 100.0 },
        posture: posture(),
        bundle: Digest::of(b"bundle"),
        requester: None,
        parent: None,
    }
}

pub(super) fn judged(outcome: Result<Judgement, Fault>, context_: GateContext) -> Event {
    Event::Judged {
        answers: vec![GateAnswer { by: context("gate"), outcome }],
        context: context_,
        before: vec![Reading { condition: success(), value: Some(1.0), sampled_at: Some(START) }],
    }
}

pub(super) fn approval(plan: PlanHash, by: &str, rank: Rank, at: Time, comment: Option<&str>) -> Approval {
    let by = PrincipalId::new(by);
    Approval { plan, by, rank, at, approved: true, comment: comment.map(Into::into), break_glass: None }
}

pub(super) fn outcome(status: OutcomeStatus, at: Time) -> Outcome {
    let (code, message) = match status {
        OutcomeStatus::Succeeded => ("ok", "done"),
        OutcomeStatus::Failed => ("criu.failed", "it failed; the process goes on"),
        OutcomeStatus::Unknown => ("agent.restarted", "the agent died in the middle"),
    };
    let manifest = || ("manifest".to_string(), Digest::of(b"manifest").0);
    Outcome {
        status,
        code: code.into(),
        message: message.into(),
        evidence: BTreeMap::from([("size".to_string(), Value::Bytes(4096))]),
        outputs: (status == OutcomeStatus::Succeeded).then(manifest).into_iter().collect(),
        simulated: false,
        started_at: at,
        ended_at: at,
    }
}
