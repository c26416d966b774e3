//! Who decides, in the stead of components: scorers, a planner, a gate and a router that answer sensibly, and fault as
//! often as the odds say.

use crate::{
    dice::{Rng, dice, happens},
    faults::Fault,
    node,
    shared::{Mutation, Shared},
};
use aether_core::{
    catalogue::{argument, verb},
    decision::{
        Answer, Assessment, Choice, Condition, Demand, Envelope, Fault as GuestFault, FaultKind, Judgement, Level,
        Limits, OnFailure, Proposal, ProposedStep, Question, Reason, Risk, Role, RoutingQuestion, Verdict,
    },
    id::{DecisionId, Digest, EntryId, SlotId},
    observation::{Aggregation, Input, MetricInput, Observation},
    slot::Stage,
    subject::{Subject, SubjectKind, SubjectRef},
    telemetry::{Batch, Sample, SeriesKey, SeriesSamples},
    time::Time,
    value::Value,
};
use aether_host::{
    control::{Asking, Panel, Panels},
    plugins::runbooks::Runbooks,
};
use aether_runtime::bundle::Failure;
use std::sync::{Arc, Mutex, PoisonError};

/// Of a node; a plan needs it below 0.9 on its target.
pub(crate) const LOAD: &str = "sim.load";
/// Of a node: 1 while it is in trouble.
const TROUBLE: &str = "sim.trouble";
/// How far back whoever scores looks.
const EVIDENCE_MS: u64 = 5_000;
/// Of a workload; success is that it is at least 0.5.
pub(crate) const PROGRESS: &str = "sim.progress";

const STEP_TIMEOUT_MS: u64 = 20_000;
const WATCH_MS: u64 = 3_000;

/// One seed's way of approving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// None: plans run by themselves.
    pub approvers: Option<u32>,
}

impl Rules {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = dice(seed, "rules");
        Self { approvers: happens(&mut dice, 0.7).then(|| dice.u32(1..=2)) }
    }
}

pub(crate) struct Minds {
    shared: Arc<Shared>,
    rules: Rules,
    dice: Arc<Mutex<Rng>>,
    runbooks: Runbooks,
}

impl Minds {
    pub(crate) fn new(shared: Arc<Shared>, rules: Rules, dice: Rng) -> Self {
        Self { shared, rules, dice: Arc::new(Mutex::new(dice)), runbooks: Runbooks::default() }
    }
}

impl Minds {
    /// Broken: nobody is asked, though approvals are due.
    pub(crate) fn asks_nobody(&self) -> bool {
        self.shared.is_broken(Mutation::AsksNobody)
    }
}

impl Panels for Minds {
    fn runbooks(&self) -> &Runbooks {
        &self.runbooks
    }

    fn at_once(&self) -> usize {
        2
    }

    fn in_force(&self) -> (Vec<Arc<dyn Panel>>, Digest) {
        let roles = [Role::PolicyGate, Role::RemediationPlanner, Role::RiskScorer, Role::Router];
        let mind = |role| -> Arc<dyn Panel> {
            Arc::new(Mind { role, shared: self.shared.clone(), rules: self.rules, dice: self.dice.clone() })
        };
        (roles.into_iter().map(mind).collect(), Digest::of(b"the simulation's policy"))
    }
}

struct Mind {
    role: Role,
    shared: Arc<Shared>,
    rules: Rules,
    dice: Arc<Mutex<Rng>>,
}

#[tonic::async_trait]
impl Panel for Mind {
    fn role(&self) -> Role {
        self.role
    }

    async fn ask(&self, at: Time, question: &Asking<'_>) -> Vec<Envelope> {
        let question = question(&self.reads());
        let outcome = self.answer(&question);
        vec![envelope(self.role, at, question, outcome)]
    }

    fn inputs(&self, _entry: &EntryId) -> &[Input] {
        &[]
    }

    fn silent(&self) -> Vec<Failure> {
        vec![]
    }
}

impl Mind {
    /// What it reads of whoever it is asked about.
    fn reads(&self) -> Vec<Input> {
        let trouble = || MetricInput {
            name: TROUBLE.into(),
            unit: "1".into(),
            window_ms: EVIDENCE_MS,
            step_ms: 1_000,
            aggregation: Aggregation::Last,
        };
        if self.role == Role::RiskScorer { vec![Input::Metric(trouble())] } else { vec![] }
    }

    /// Whether this guest fails, and how.
    fn fails(&self, dice: &mut Rng) -> Option<Fault> {
        let kinds = [Fault::GuestTrapped, Fault::GuestOutOfFuel, Fault::GuestTimedOut, Fault::GuestWrong];
        let failing = kinds.into_iter().find(|kind| happens(dice, self.shared.odds.get(*kind)))?;
        (!self.shared.is_quiet()).then(|| {
            self.shared.fault(failing, self.role.world());
            failing
        })
    }

    fn answer(&self, question: &Question) -> Result<Answer, GuestFault> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |kind| Err(GuestFault { kind, message: "as was wanted".into() });
        match self.fails(&mut dice) {
            None => {}
            Some(Fault::GuestWrong) => return Ok(self.wrong(&mut dice, question)),
            Some(Fault::GuestOutOfFuel) => return failed(FaultKind::OutOfFuel),
            Some(Fault::GuestTimedOut) => return failed(FaultKind::TimedOut),
            Some(_) => return failed(FaultKind::Trapped),
        }
        Ok(match question {
            Question::Score(observation) => Answer::Assessment(Self::assess(observation)),
            Question::Plan { finding, candidates, .. } => {
                let workload = dice.choice(&finding.workloads);
                let to = candidates.first().map(|candidate| &candidate.node);
                let proposals = workload.zip(to).map(|(workload, to)| migration(workload, to));
                Answer::Proposals(proposals.into_iter().collect())
            }
            Question::Judge(_) => Answer::Judgement(self.judge(&mut dice)),
            Question::Route(RoutingQuestion::Placement(placement)) => {
                let mut nodes: Vec<String> = placement.nodes.iter().map(|node| node.subject.id.clone()).collect();
                dice.shuffle(&mut nodes);
                Answer::Choices(nodes.into_iter().map(choice).collect())
            }
            Question::Route(RoutingQuestion::Message(_)) => Answer::Choices(vec![]),
        })
    }

    /// Something plausible or mad, and in any case not right.
    fn wrong(&self, dice: &mut Rng, question: &Question) -> Answer {
        match question {
            Question::Score(observation) if dice.bool() => {
                self.shared.book().reason(&observation.subject.id, self.shared.now());
                Answer::Assessment(Assessment::Risk(risk(true)))
            }
            Question::Plan { finding, candidates, .. } => {
                let workload = finding.workloads.first();
                let to = candidates.first().map(|candidate| &candidate.node);
                let Some(mut mad) = workload.zip(to).map(|(workload, to)| migration(workload, to)) else {
                    return Answer::Choices(vec![]);
                };
                for step in &mut mad.steps {
                    match dice.u8(0..4) {
                        0 => step.verb = "shell.run".into(),
                        1 => step.target.generation += 7,
                        2 => drop(step.arguments.insert(argument::TO.into(), Value::Text("node-9".into()))),
                        _ => step.verb = verb::RETIRE.into(),
                    }
                }
                Answer::Proposals(vec![mad])
            }
            Question::Route(_) => Answer::Choices(vec![choice("node-9".into()), choice("node-9".into())]),
            Question::Score(_) | Question::Judge(_) => Answer::Choices(vec![]),
        }
    }

    /// By what was sampled, and nothing else.
    fn assess(observation: &Observation) -> Assessment {
        let mut values = observation.columns.iter().flat_map(|column| &column.values);
        match values.rfind(|value| value.is_finite()) {
            Some(value) => Assessment::Risk(risk(*value >= 0.5)),
            None => Assessment::Insufficient("nothing was sampled lately".into()),
        }
    }

    fn judge(&self, dice: &mut Rng) -> Judgement {
        let reason = |code: &str| Reason { code: code.into(), text: code.into() };
        if !self.shared.is_quiet() && happens(dice, 0.03) {
            return Judgement { verdict: Verdict::Deny, reasons: vec![reason("sim.denied")] };
        }
        let verdict = match self.rules.approvers.filter(|_| !self.shared.is_broken(Mutation::AsksNobody)) {
            None => Verdict::Allow,
            Some(approvers) => Verdict::RequireApproval(Demand {
                approvers,
                role: "approver".into(),
                approve_within_ms: dice.u64(10_000..60_000),
                execute_within_ms: dice.u64(20_000..90_000),
                comment: dice.bool(),
            }),
        };
        Judgement { verdict, reasons: vec![reason("sim.judged")] }
    }
}

fn risk(trouble: bool) -> Risk {
    let (level, score) = if trouble { (Level::Critical, 0.9) } else { (Level::Low, 0.1) };
    Risk {
        level,
        score,
        confidence: 0.9,
        horizon_ms: None,
        cause: "sim.trouble".into(),
        reason: "the simulation says so".into(),
        contributions: vec![],
    }
}

fn choice(id: String) -> Choice {
    let reason = Reason { code: "sim.chosen".into(), text: "by the dice".into() };
    Choice { id, score: 0.5, reason }
}

fn migration(workload: &Subject, to: &Subject) -> Proposal {
    let condition = |metric: &str, subject: &Subject, minimum, maximum| Condition {
        metric: metric.into(),
        target: subject.target(),
        minimum,
        maximum,
        fresh_within_ms: 10_000,
    };
    Proposal {
        title: format!("Move {} to {}", workload.id, to.id),
        rationale: "its node is in trouble".into(),
        steps: vec![ProposedStep {
            verb: verb::MIGRATE.into(),
            target: workload.target(),
            arguments: [
                (argument::TO.to_string(), Value::Text(to.id.clone())),
                (argument::TIMEOUT.to_string(), Value::Duration(STEP_TIMEOUT_MS)),
            ]
            .into(),
            preconditions: vec![condition(LOAD, to, None, Some(0.9))],
            on_failure: OnFailure::Compensate,
        }],
        success: vec![condition(PROGRESS, workload, Some(0.5), None)],
        watch_ms: WATCH_MS,
        confidence: 0.9,
    }
}

fn envelope(role: Role, at: Time, question: Question, outcome: Result<Answer, GuestFault>) -> Envelope {
    let name = format!("sim-{}", role.world());
    let what = format!("{name} {} {question:?}", at.0);
    Envelope {
        schema_version: 1,
        id: DecisionId(format!("dec-{}", blake3::hash(what.as_bytes()).to_hex())),
        slot: SlotId(name.clone()),
        generation: 1,
        entry: EntryId(name.clone()),
        stage: Stage::Active,
        component: Digest::of(name.as_bytes()),
        component_name: name,
        component_version: "1".into(),
        config: Digest::of(b"{}"),
        assets: None,
        wit_version: "0".into(),
        engine_version: "the simulation".into(),
        limits: Limits::default(),
        at,
        question,
        host_calls: vec![],
        log: vec![],
        outcome,
        fuel: 0,
        memory_bytes: 0,
        duration_us: 0,
    }
}

/// The telemetry of a second: the load of a node, whether it is in trouble, and the progress of what runs on it.
pub(crate) fn telemetry(number: usize, sequence: u64, at: Time, load: f64, trouble: bool, running: &[String]) -> Batch {
    let series = |kind, id: &str, metric: &str, value| SeriesSamples {
        key: SeriesKey {
            subject: SubjectRef { kind, id: id.into() },
            metric: metric.into(),
            unit: "1".into(),
            attributes: Default::default(),
        }
        .into(),
        samples: [Sample { at, value }].into(),
    };
    let origin = node::id(number);
    let node = |metric, value| series(SubjectKind::Node, origin.as_str(), metric, value);
    let mut all = vec![node(LOAD, load), node(TROUBLE, f64::from(u8::from(trouble)))];
    all.extend(running.iter().map(|id| series(SubjectKind::Workload, id, PROGRESS, 1.0)));
    Batch { origin, epoch: 1, sequence, series: all.into(), events: vec![] }
}
