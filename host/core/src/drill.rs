//! Drills: troubles to practise on. What each does to a node, which story is expected of the fleet, and how a run of it
//! is scored, line by line. Pure: the same facts give the same score.

use crate::{
    catalogue::{capability, verb},
    id::{DrillId, IncidentId, NodeId},
    incident::{Event, Incident, Phase, Resolution},
    order::{Direction, OutcomeStatus},
    plan::canonical,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// The attribute of series and events that belong to a drill; its value is the drill's name. Incidents that rest on
/// such are flagged.
pub const ATTRIBUTE: &str = "drill";

/// The drills that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = DrillKind)]
pub enum Kind {
    SpotReclaim,
    GpuLost,
    MemoryLeak,
    NoisyNeighbour,
    DiskFilling,
    HostDeath,
}

/// What is expected of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// An incident: a finding of one of these causes, a plan of these verbs, an approval, and success.
    Incident { causes: &'static [&'static str], verbs: &'static [&'static str], within_ms: u64 },
    /// Silence: noticed, taken for what it is, and nothing done on the word of it.
    Silence { within_ms: u64, back_within_ms: u64 },
}

/// The steps of a migration.
const MIGRATION: &[&str] = &[verb::CHECKPOINT, verb::RESTORE, verb::CONFIRM, verb::RETIRE];
const LIMIT: &[&str] = &[verb::LIMIT];

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::SpotReclaim, Kind::GpuLost, Kind::MemoryLeak, Kind::NoisyNeighbour, Kind::DiskFilling, Kind::HostDeath];

    pub fn name(self) -> &'static str {
        match self {
            Kind::SpotReclaim => "spot-reclaim",
            Kind::GpuLost => "gpu-lost",
            Kind::MemoryLeak => "memory-leak",
            Kind::NoisyNeighbour => "noisy-neighbour",
            Kind::DiskFilling => "disk-filling",
            Kind::HostDeath => "host-death",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What happens to the node, for a person.
    pub fn disturbance(self) -> &'static str {
        match self {
            Kind::SpotReclaim => {
                "The spot market takes the node back: the price climbs, then the provider recommends to leave. The signals are played by the host."
            }
            Kind::GpuLost => {
                "A GPU falls off the bus. Only where the agent was started with a stand-in for NVML; a real GPU is left alone."
            }
            Kind::MemoryLeak => {
                "A process of its own leaks memory, evenly and for real, up to 384 MiB and in a cgroup of at most 512 MiB."
            }
            Kind::NoisyNeighbour => {
                "A best-effort process of its own wants every processor of the node, at the lowest priority."
            }
            Kind::DiskFilling => "A file system of 64 MiB in memory, which the agent watches, fills up for real.",
            Kind::HostDeath => {
                "The node falls silent, as the host sees it: its agent cuts its link. Its workloads go on."
            }
        }
    }

    /// What is expected to follow, for a person.
    pub fn expectation(self) -> &'static str {
        match self {
            Kind::SpotReclaim | Kind::GpuLost | Kind::DiskFilling => {
                "a finding, a plan that moves the node's workloads away, an approval, each step once, and the workloads seen to progress elsewhere"
            }
            Kind::MemoryLeak | Kind::NoisyNeighbour => {
                "a finding, a plan that limits the one process by its cgroup, an approval, the step once, and the limit seen to hold"
            }
            Kind::HostDeath => {
                "the silence noticed, the risk unknown rather than low, nothing ordered meanwhile, and afterwards the node back with all it had"
            }
        }
    }

    /// What the node's agent must report: that it allows this drill, and can do it.
    pub fn capability(self) -> String {
        format!("{}{}", capability::DRILL, self.name())
    }

    /// How long the disturbance lasts at most, unless somebody says otherwise.
    pub fn limit_ms(self) -> u64 {
        match self {
            Kind::HostDeath => 30_000,
            Kind::SpotReclaim | Kind::GpuLost | Kind::MemoryLeak | Kind::NoisyNeighbour | Kind::DiskFilling => 600_000,
        }
    }

    pub fn story(self) -> Story {
        match self {
            Kind::SpotReclaim => Story::Incident {
                causes: &["spot.rebalance", "spot.price-trend", "spot.price-volatility"],
                verbs: MIGRATION,
                within_ms: 15_000,
            },
            Kind::GpuLost => Story::Incident { causes: &["gpu.lost"], verbs: MIGRATION, within_ms: 30_000 },
            Kind::MemoryLeak => Story::Incident { causes: &["workload.memory-leak"], verbs: LIMIT, within_ms: 120_000 },
            Kind::NoisyNeighbour => {
                Story::Incident { causes: &["workload.noisy-neighbour"], verbs: LIMIT, within_ms: 60_000 }
            }
            Kind::DiskFilling => Story::Incident { causes: &["host.filesystem"], verbs: MIGRATION, within_ms: 60_000 },
            Kind::HostDeath => Story::Silence { within_ms: 20_000, back_within_ms: 60_000 },
        }
    }
}

/// What the host tells an agent: begin or end a disturbance. Signed like an order; the agent refuses what it was not
/// configured to allow, and ends it by itself at `until`, whatever becomes of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disturb {
    pub drill: DrillId,
    pub node: NodeId,
    pub kind: Kind,
    /// False: it is to end now.
    pub begin: bool,
    pub until: Time,
}

impl Disturb {
    /// The bytes that the host signs (ed25519) and the agent verifies.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = b"aether.drill.v1\n".to_vec();
        bytes.extend(canonical(self));
        bytes
    }
}

/// Facts of an agent's report about the disturbance that it makes, or made last.
pub mod fact {
    pub const ID: &str = "drill.id";
    /// One of the states below.
    pub const STATE: &str = "drill.state";
    /// Why it was refused, or what could not be undone.
    pub const REASON: &str = "drill.reason";

    pub const RUNNING: &str = "running";
    pub const OVER: &str = "over";
    pub const REFUSED: &str = "refused";
    /// Over, and something of it is left.
    pub const LEFT: &str = "left";
}

/// What was seen of one drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = DrillFacts)]
pub struct Facts {
    /// The disturbance was seen to begin.
    pub begun_at: Option<Time>,
    /// Why it did not.
    pub refused: Option<String>,
    /// It was seen to be undone.
    pub undone_at: Option<Time>,
    /// What of it is left.
    pub left: Option<String>,
    pub incident: Option<Seen>,
    pub silence: Silence,
}

/// What was seen of the incident that followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = DrillIncident)]
pub struct Seen {
    pub id: IncidentId,
    pub opened_at: Time,
    pub cause: String,
    /// The incident says that it is a drill.
    pub flagged: bool,
    pub planned_at: Option<Time>,
    /// The verbs of the plan's steps, in order.
    pub verbs: Vec<String>,
    pub approved_at: Option<Time>,
    /// The first step was reserved.
    pub begun_at: Option<Time>,
    /// Steps that ended, and how many of them succeeded.
    pub ended: u32,
    pub succeeded: u32,
    /// Steps that were begun more than once.
    pub repeated: u32,
    pub finished_at: Option<Time>,
    pub closed_at: Option<Time>,
    pub resolution: Option<Resolution>,
}

/// What was seen of a node that fell silent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = DrillSilence)]
pub struct Silence {
    pub noticed_at: Option<Time>,
    /// Whether the node's risk was unknown while it was silent.
    pub unknown: Option<bool>,
    /// Orders to the node that were begun while it was silent.
    pub ordered: u32,
    pub back_at: Option<Time>,
    /// Its generation and its workloads, before and after.
    pub before: Option<String>,
    pub after: Option<String>,
    /// Batches of telemetry that it lost, before and after.
    pub lost_before: u64,
    pub lost_after: u64,
}

impl Seen {
    /// What the journal of an incident says since `since`; none if nothing of it is of that time.
    pub fn of(incident: &Incident, journal: &[(Time, Event)], since: Time) -> Option<Self> {
        let journal = journal.iter().filter(|(at, _)| *at >= since);
        let mut seen: Option<Seen> = None;
        let mut keys = BTreeSet::new();
        for (at, event) in journal {
            if let Event::Opened(opening) | Event::Relapsed(opening) = event {
                seen = Some(Seen {
                    id: incident.id.clone(),
                    opened_at: *at,
                    cause: opening.finding.shape.cause.clone(),
                    flagged: opening.flags.drill,
                    planned_at: None,
                    verbs: vec![],
                    approved_at: None,
                    begun_at: None,
                    ended: 0,
                    succeeded: 0,
                    repeated: 0,
                    finished_at: None,
                    closed_at: None,
                    resolution: None,
                });
                keys.clear();
            }
            let Some(seen) = &mut seen else { continue };
            match event {
                Event::Judged { .. } => seen.planned_at = Some(*at),
                Event::Approved(_) => seen.approved_at = seen.approved_at.or(Some(*at)),
                Event::Reserved { key, .. } => {
                    seen.begun_at = seen.begun_at.or(Some(*at));
                    seen.repeated += u32::from(!keys.insert(key.clone()));
                }
                Event::Finished { outcome, .. } => {
                    seen.ended += 1;
                    seen.succeeded += u32::from(outcome.status == OutcomeStatus::Succeeded);
                    seen.finished_at = Some(*at);
                }
                Event::Opened(_)
                | Event::Relapsed(_)
                | Event::Recurred { .. }
                | Event::Proposed { .. }
                | Event::Denied(_)
                | Event::Withdrawn { .. }
                | Event::CalledOff { .. }
                | Event::TimerFired { .. }
                | Event::ReservationRefused { .. }
                | Event::DispatchRefused { .. }
                | Event::Accepted { .. }
                | Event::Read { .. } => {}
            }
            seen.closed_at = Some(*at);
        }
        let mut seen = seen?;
        let plan = incident.plan.iter().flat_map(|plan| &plan.steps);
        seen.verbs = plan.map(|step| step.verb.clone()).collect();
        if let Phase::Closed { resolution } = &incident.phase {
            seen.resolution = Some(*resolution);
        } else {
            seen.closed_at = None;
        }
        // An undoing is no step of the story.
        let undone = incident.steps.iter().filter(|step| step.direction == Direction::Compensate);
        seen.succeeded = seen.succeeded.saturating_sub(u32::try_from(undone.count()).unwrap_or(u32::MAX));
        Some(seen)
    }
}

/// How one line of the story went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Met,
    NotMet,
    /// It did not come so far.
    NotReached,
}

/// One line of the expected story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = DrillLine)]
pub struct Line {
    pub expected: String,
    pub verdict: Verdict,
    /// Milliseconds from the drill's start.
    pub after_ms: Option<u64>,
    /// What was seen, for a person.
    pub saw: String,
}

/// Whether every line is met.
pub fn passed(lines: &[Line]) -> bool {
    lines.iter().all(|line| line.verdict == Verdict::Met)
}

/// The expected story of a drill that began at `start`, line by line, by what was seen.
pub fn score(kind: Kind, start: Time, facts: &Facts) -> Vec<Line> {
    let mut lines = Lines { start, lines: vec![] };
    let begun = match (facts.begun_at, &facts.refused) {
        (Some(at), _) => (Verdict::Met, Some(at), String::new()),
        (None, Some(why)) => (Verdict::NotMet, None, why.clone()),
        (None, None) => (Verdict::NotMet, None, "it was not seen to begin".into()),
    };
    lines.put("the disturbance begins", begun);
    match kind.story() {
        Story::Incident { causes, verbs, within_ms } => {
            lines.incident(facts.incident.as_ref(), causes, verbs, within_ms);
        }
        Story::Silence { within_ms, back_within_ms } => lines.silence(facts, within_ms, back_within_ms),
    }
    let left = match (facts.undone_at, &facts.left) {
        (_, Some(left)) => (Verdict::NotMet, facts.undone_at, left.clone()),
        (Some(at), None) => (Verdict::Met, Some(at), String::new()),
        (None, None) if facts.begun_at.is_none() => (Verdict::NotReached, None, String::new()),
        (None, None) => (Verdict::NotMet, None, "the disturbance was not seen to end".into()),
    };
    lines.put("nothing of it is left behind", left);
    lines.lines
}

type Told = (Verdict, Option<Time>, String);

struct Lines {
    start: Time,
    lines: Vec<Line>,
}

fn judged(met: bool) -> Verdict {
    if met { Verdict::Met } else { Verdict::NotMet }
}

fn not_reached() -> Told {
    (Verdict::NotReached, None, String::new())
}

impl Lines {
    fn put(&mut self, expected: impl Into<String>, (verdict, at, saw): Told) {
        let after_ms = at.map(|at| at.since_ms(self.start));
        self.lines.push(Line { expected: expected.into(), verdict, after_ms, saw });
    }

    fn incident(&mut self, seen: Option<&Seen>, causes: &[&str], verbs: &[&str], within_ms: u64) {
        let start = self.start;
        let found = seen.map_or((Verdict::NotMet, None, "no incident".into()), |seen| {
            let met = seen.opened_at.since_ms(start) <= within_ms;
            (judged(met), Some(seen.opened_at), seen.id.0.clone())
        });
        self.put(format!("a finding within {} s", within_ms / 1_000), found);
        let of = |told: &dyn Fn(&Seen) -> Told| seen.map_or_else(not_reached, told);
        let cause = of(&|seen| (judged(causes.contains(&seen.cause.as_str())), None, seen.cause.clone()));
        let flagged = of(&|seen| (judged(seen.flagged), None, String::new()));
        let planned = of(&|seen| match (seen.planned_at, seen.verbs.as_slice()) {
            (_, []) if seen.resolution.is_none() => not_reached(),
            (at, plan) => (judged(is_plan(plan, verbs)), at, plan.join(", ")),
        });
        let asked = of(&|seen| match (seen.approved_at, seen.begun_at) {
            (Some(said), Some(begun)) => (judged(said <= begun), Some(said), String::new()),
            (Some(said), None) => (Verdict::Met, Some(said), String::new()),
            (None, Some(begun)) => (Verdict::NotMet, Some(begun), "it was begun without one".into()),
            (None, None) => (Verdict::NotReached, None, "nobody approved".into()),
        });
        let once = of(&|seen| {
            let steps = u32::try_from(seen.verbs.len()).unwrap_or(u32::MAX);
            let saw = format!("{} of {steps} succeeded, {} begun twice", seen.succeeded, seen.repeated);
            match seen.begun_at {
                None => not_reached(),
                Some(_) if seen.ended < steps && seen.resolution.is_none() => (Verdict::NotReached, None, saw),
                Some(_) => (judged(seen.succeeded == steps && seen.repeated == 0), seen.finished_at, saw),
            }
        });
        let verified = of(&|seen| match seen.resolution {
            None => not_reached(),
            Some(resolution) if seen.begun_at.is_none() && resolution != Resolution::Resolved => {
                (Verdict::NotReached, seen.closed_at, format!("it ended as {resolution:?}"))
            }
            Some(resolution) => {
                (judged(resolution == Resolution::Resolved), seen.closed_at, format!("it ended as {resolution:?}"))
            }
        });
        self.put(format!("its cause is {}", causes.join(" or ")), cause);
        self.put("the incident says that it is a drill", flagged);
        self.put(format!("the plan is {}", verbs.join(", ")), planned);
        self.put("a person approves before anything is done", asked);
        self.put("every step is done, and once", once);
        self.put("success holds on fresh evidence", verified);
    }

    fn silence(&mut self, facts: &Facts, within_ms: u64, back_within_ms: u64) {
        let start = facts.begun_at.unwrap_or(self.start);
        let Silence { noticed_at, unknown, ordered, back_at, before, after, lost_before, lost_after } = &facts.silence;
        let noticed = match noticed_at {
            Some(at) => (judged(at.since_ms(start) <= within_ms), Some(*at), String::new()),
            None => (Verdict::NotMet, None, "the node stayed live".into()),
        };
        self.put(format!("the silence is noticed within {} s", within_ms / 1_000), noticed);
        let silent = noticed_at.is_some();
        let if_silent = |told: Told| if silent { told } else { not_reached() };
        let risk = match unknown {
            Some(unknown) => (judged(*unknown), None, String::new()),
            None => not_reached(),
        };
        self.put("its risk is unknown, not low", if_silent(risk));
        let saw = format!("{ordered} orders");
        self.put("nothing is ordered of it meanwhile", if_silent((judged(*ordered == 0), None, saw)));
        let back = match (back_at, facts.undone_at) {
            (Some(at), Some(end)) => (judged(at.since_ms(end) <= back_within_ms), Some(*at), String::new()),
            (Some(at), None) => (Verdict::Met, Some(*at), String::new()),
            (None, _) => (Verdict::NotMet, None, "it did not come back".into()),
        };
        self.put(format!("it is back within {} s of the end", back_within_ms / 1_000), if_silent(back));
        let if_back = |told: Told| if back_at.is_some() { told } else { not_reached() };
        let same = (judged(before == after), None, after.clone().unwrap_or_default());
        self.put("with the generation and the workloads that it had", if_back(same));
        let lost = lost_after.saturating_sub(*lost_before);
        self.put("no telemetry is lost", if_back((judged(lost == 0), None, format!("{lost} batches"))));
    }
}

/// Whether the plan is these verbs, for one workload or for several.
fn is_plan(plan: &[String], verbs: &[&str]) -> bool {
    let expected: BTreeSet<&str> = verbs.iter().copied().collect();
    let given: BTreeSet<&str> = plan.iter().map(String::as_str).collect();
    !plan.is_empty() && given == expected && plan.len().is_multiple_of(verbs.len())
}

#[cfg(test)]
mod tests;
