//! What is asked, and what must be answered. The native logic says what is right; every engine's answer is held against
//! it before anything is timed.

use aether_core::{
    catalogue::SafetyClass,
    decision::{Activity, BlastRadius, GateQuestion, Level, OnFailure, Proposal, ProposedStep, Question, Risk},
    observation::{Column, Observation},
    subject::{Subject, SubjectKind, Target},
    time::Time,
};
use anyhow::{Result, ensure};
use bench_logic::{ewma, gate};

/// Samples of a series: ten minutes at one in ten seconds.
pub const SAMPLES: u32 = 60;
/// What the other order of summation in Rego may change.
const TOLERANCE: f64 = 1e-9;

pub const GATE: gate::Rules = gate::Rules { max_nodes: 8, max_gpus: 64, max_pool_percent: 25.0 };
pub const EWMA: ewma::Rules = ewma::Rules { alpha: 0.1, elevated: 3.0, high: 4.0, critical: 6.0 };

/// One that is allowed, two that need people, and one that is denied for everything at once.
pub fn plans() -> Vec<gate::Plan> {
    let plan = |class, nodes, gpus, pool_percent| gate::Plan { class, nodes, gpus, pool_percent };
    vec![
        plan(gate::Class::ReadOnly, 40, 320, 90.0),
        plan(gate::Class::Reversible, 1, 8, 2.5),
        plan(gate::Class::Impactful, 3, 24, 12.5),
        plan(gate::Class::Destructive, 12, 96, 37.5),
    ]
}

/// The same noise, ending calmly, and with a jump that is elevated, high, critical.
pub fn series() -> Vec<ewma::Series> {
    let noise = |i: u32| 70.0 + f64::from(i * 7 % 11) * 0.25;
    [0.0, 2.5, 3.5, 12.0]
        .into_iter()
        .map(|jump| ewma::Series {
            values: (0..SAMPLES).map(|i| if i + 1 == SAMPLES { 71.0 + jump } else { noise(i) }).collect(),
        })
        .collect()
}

pub fn judged(plan: &gate::Plan) -> gate::Judgement {
    gate::judge(plan, &GATE)
}

pub fn scored(series: &ewma::Series) -> Result<ewma::Risk> {
    ewma::score(&series.values, &EWMA).ok_or_else(|| anyhow::anyhow!("a series of the benchmark is too short"))
}

/// The whole question that a gate is asked in a host: a proposal of one step with its risk, of which the rules look at
/// four numbers.
pub fn gate_question(plan: &gate::Plan) -> Question {
    Question::Judge(gate_asked(plan))
}

pub fn gate_asked(plan: &gate::Plan) -> GateQuestion {
    let target = Target { kind: SubjectKind::Workload, id: "train-7".into(), generation: 3 };
    let step = ProposedStep {
        verb: "process.migrate".into(),
        target,
        arguments: [("to".to_owned(), aether_core::value::Value::Text("node-b".into()))].into(),
        preconditions: vec![],
        on_failure: OnFailure::Compensate,
    };
    let activity = Activity {
        verb: "process.checkpoint".into(),
        target_id: "train-7".into(),
        at: Time(3_000_000),
        succeeded: Some(true),
    };
    GateQuestion {
        at: Time(3_600_000),
        utc_offset_minutes: 0,
        proposal: Proposal {
            title: "Move train-7 to node-b".into(),
            rationale: "node-a is about to be taken back".into(),
            steps: vec![step],
            success: vec![],
            watch_ms: 60_000,
            confidence: 0.9,
        },
        risk: Risk {
            level: Level::Critical,
            score: 0.97,
            confidence: 0.9,
            horizon_ms: Some(120_000),
            cause: "spot.rebalance".into(),
            reason: "the market announced a rebalance".into(),
            contributions: vec![],
        },
        class: match plan.class {
            gate::Class::ReadOnly => SafetyClass::ReadOnly,
            gate::Class::Reversible => SafetyClass::Reversible,
            gate::Class::Impactful => SafetyClass::Impactful,
            gate::Class::Destructive => SafetyClass::Destructive,
        },
        blast: BlastRadius {
            nodes: plan.nodes,
            gpus: plan.gpus,
            workloads: 1,
            pool_percent: plan.pool_percent,
            fleet_percent: plan.pool_percent / 4.0,
        },
        recent: vec![activity],
        dry_run: false,
    }
}

pub fn scorer_question(series: &ewma::Series) -> Question {
    Question::Score(scorer_asked(series))
}

pub fn scorer_asked(series: &ewma::Series) -> Observation {
    let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: Default::default() };
    let column = Column {
        input: 0,
        attributes: Default::default(),
        start: Time(3_000_000),
        step_ms: 10_000,
        values: series.values.clone(),
    };
    Observation { subject, at: Time(3_600_000), columns: vec![column], events: vec![] }
}

/// The same verdict for the same reasons. Their order and wording are an engine's own: Rego's sets have no order, and
/// Cedar writes no text.
pub fn same_judgement(answer: &gate::Judgement, native: &gate::Judgement) -> Result<()> {
    let codes = |judgement: &gate::Judgement| {
        let mut codes: Vec<String> = judgement.reasons.iter().map(|reason| reason.code.clone()).collect();
        codes.sort_unstable();
        codes
    };
    ensure!(answer.verdict == native.verdict, "the verdict is {:?}, natively {:?}", answer.verdict, native.verdict);
    ensure!(codes(answer) == codes(native), "the reasons are {:?}, natively {:?}", codes(answer), codes(native));
    Ok(())
}

/// The same level and the same score, which the mean and the variance are in.
pub fn same_score(level: ewma::Level, score: f64, native: &ewma::Risk) -> Result<()> {
    ensure!(level == native.level, "the level is {level:?}, natively {:?}", native.level);
    ensure!((score - native.score).abs() <= TOLERANCE, "the score is {score}, natively {}", native.score);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{judged, plans, scored, series};
    use bench_logic::{ewma::Level, gate::Verdict};

    #[test]
    fn every_verdict_and_level_occurs() {
        let verdicts: Vec<Verdict> = plans().iter().map(|plan| judged(plan).verdict).collect();
        let expected = [Verdict::Allow, Verdict::RequireApproval(1), Verdict::RequireApproval(2), Verdict::Deny];
        assert_eq!(verdicts, expected);
        let levels: Vec<Level> = series().iter().map(|series| scored(series).expect("long enough").level).collect();
        assert_eq!(levels, [Level::Low, Level::Elevated, Level::High, Level::Critical]);
    }
}
