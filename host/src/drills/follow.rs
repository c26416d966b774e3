//! Follows one drill from its beginning to its score. What is seen is kept as it is seen, so that another host can go
//! on with it.

use super::{By, Drills, Parts, act};
use crate::{clock, fabric::NodeView, store::drills::Drill};
use aether_core::{
    audit::ActOutcome,
    drill::{Disturb, Kind, Seen, Story, fact, passed, score},
    incident::{Incident, Rank},
    subject::SubjectRef,
    time::Time,
};
use std::{sync::PoisonError, time::Duration};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the undoing may take after it was asked for.
const UNDO_WITHIN_MS: u64 = 20_000;
/// Incidents that are looked at for the one that follows from a drill.
const INCIDENTS_MAXIMUM: u32 = 20;

impl Drills {
    pub(super) async fn follow(self, mut drill: Drill, begin: bool) {
        let Parts { stop, .. } = &self.0.parts;
        if begin {
            self.look(&mut drill).await;
            self.begin(&mut drill).await;
        }
        let mut ending: Option<Time> = None;
        loop {
            let kept = drill.clone();
            self.look(&mut drill).await;
            drill.score = score(drill.kind, drill.started_at, &drill.facts);
            let now = clock::now();
            if ending.is_none() && (self.is_asked_to_end(&mut drill, now) || is_told(&drill) || now >= drill.until) {
                ending = Some(now);
                self.end(&mut drill).await;
            }
            if is_over(&drill, ending, now) {
                break;
            }
            if kept != drill {
                self.keep(&drill, None).await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.news.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        let now = clock::now();
        drill.over_at = Some(now);
        drill.score = score(drill.kind, drill.started_at, &drill.facts);
        drill.passed = Some(passed(&drill.score));
        let by = By { id: drill.by.clone(), name: drill.name.clone(), rank: Rank::Operator };
        let verdict = if drill.passed == Some(true) { "passed" } else { "failed" };
        let over = act(&drill, &by, "drill.end", ActOutcome::Done, [("score", verdict.to_owned())]);
        tracing::info!(drill = %drill.id, kind = drill.kind.name(), verdict, "a drill is over");
        self.keep(&drill, Some(over)).await;
    }

    async fn keep(&self, drill: &Drill, act: Option<aether_core::audit::Act>) {
        if let Err(error) = self.0.parts.store.keep_drill(drill, clock::now(), act).await {
            tracing::error!(error = &error as &dyn std::error::Error, "what was seen of a drill could not be kept");
        }
    }

    fn is_asked_to_end(&self, drill: &mut Drill, now: Time) -> bool {
        let mut stopping = self.0.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = stopping.as_ref() == Some(&drill.id);
        if asked {
            *stopping = None;
            drill.stopped_at = Some(now);
        }
        asked
    }

    async fn begin(&self, drill: &mut Drill) {
        let Parts { recorder, .. } = &self.0.parts;
        let now = clock::now();
        let begun = match drill.kind {
            Kind::SpotReclaim => self.0.market.climb(recorder, drill, now).map(|()| drill.facts.begun_at = Some(now)),
            _ => self.disturb(drill, true).await,
        };
        if let Err(why) = begun {
            drill.facts.refused = Some(why);
        }
    }

    async fn end(&self, drill: &mut Drill) {
        let Parts { recorder, .. } = &self.0.parts;
        let now = clock::now();
        let ended = match drill.kind {
            Kind::SpotReclaim => self.0.market.calm(recorder, drill, now).map(|()| drill.facts.undone_at = Some(now)),
            // Over already, or out of reach: then it ends by itself.
            _ => self.disturb(drill, false).await,
        };
        if let Err(why) = ended {
            tracing::warn!(drill = %drill.id, why, "the end of a drill was not told to its agent; it ends by itself");
        }
    }

    async fn disturb(&self, drill: &Drill, begin: bool) -> Result<(), String> {
        let Drill { id, kind, node, until, .. } = drill;
        let order = Disturb { drill: id.clone(), node: node.clone(), kind: *kind, begin, until: *until };
        self.0.parts.fabric.disturb(&order).await.map_err(|error| error.to_string())
    }

    /// What is to be seen now.
    async fn look(&self, drill: &mut Drill) {
        let Parts { fabric, .. } = &self.0.parts;
        let now = clock::now();
        let Some(node) = fabric.node(&drill.node) else { return };
        let said = |name: &str| node.facts.get(name).map_or("", String::as_str);
        if said(fact::ID) == drill.id.as_str() {
            let reason = said(fact::REASON).to_owned();
            match said(fact::STATE) {
                fact::RUNNING => drill.facts.begun_at = drill.facts.begun_at.or(Some(now)),
                fact::REFUSED => drill.facts.refused = Some(reason),
                fact::LEFT => drill.facts.left = Some(reason),
                fact::OVER => drill.facts.undone_at = drill.facts.undone_at.or(Some(now)),
                _ => {}
            }
        }
        match drill.kind.story() {
            Story::Incident { causes, .. } => {
                if let Some(seen) = self.incident(drill, causes).await {
                    drill.facts.incident = Some(seen);
                }
            }
            Story::Silence { .. } => self.silence(drill, &node, now).await,
        }
    }

    /// The incident that follows from it: the newest about the node of an expected cause, else any.
    async fn incident(&self, drill: &Drill, causes: &[&str]) -> Option<Seen> {
        let Parts { store, .. } = &self.0.parts;
        let subject = SubjectRef::node(drill.node.as_str());
        let incidents = store.incidents(None, None, INCIDENTS_MAXIMUM).await.ok()?;
        let about =
            incidents.into_iter().filter(|one| one.shape.subject == subject && one.updated_at >= drill.started_at);
        let mut found: Option<Seen> = None;
        for summary in about {
            let Ok(journal) = store.journal(&summary.id).await else { continue };
            let Some(incident) = Incident::fold(journal.iter().map(|(at, event)| (*at, event))) else { continue };
            let Some(seen) = Seen::of(&incident, &journal, drill.started_at) else { continue };
            let expected = causes.contains(&seen.cause.as_str());
            if expected || found.is_none() {
                found = Some(seen);
            }
            if expected {
                break;
            }
        }
        found
    }

    async fn silence(&self, drill: &mut Drill, node: &NodeView, now: Time) {
        let Parts { store, control, .. } = &self.0.parts;
        let facts = &mut drill.facts;
        if facts.silence.before.is_none() {
            facts.silence.before = Some(standing(node));
            facts.silence.lost_before = node.telemetry.lost;
        }
        let Some(begun) = facts.begun_at else { return };
        let silence = &mut facts.silence;
        match (silence.noticed_at, node.live) {
            (None, false) => silence.noticed_at = Some(now.max(begun)),
            (None, true) => {}
            (Some(noticed), live) if silence.back_at.is_none() => {
                if let Ok(ordered) = store.reserved_on(&drill.node, noticed, now).await {
                    silence.ordered = ordered;
                }
                if live {
                    silence.back_at = Some(now);
                    silence.after = Some(standing(node));
                    silence.lost_after = node.telemetry.lost;
                } else {
                    let subject = SubjectRef::node(drill.node.as_str());
                    let risk = control.risks().into_iter().find(|risk| risk.subject == subject && risk.at > noticed);
                    if let Some(risk) = risk {
                        let unknown = risk.risk.is_none();
                        silence.unknown = Some(silence.unknown.unwrap_or(true) && unknown);
                    }
                }
            }
            (Some(_), _) => {}
        }
    }
}

/// What a node has, for a comparison.
fn standing(node: &NodeView) -> String {
    let workloads: Vec<String> =
        node.workloads.iter().map(|one| format!("{} {} {:?}", one.id, one.generation, one.state)).collect();
    format!("generation {}: {}", node.generation, workloads.join(", "))
}

/// Whether the story has come to its end, so that the disturbance may, too.
fn is_told(drill: &Drill) -> bool {
    let facts = &drill.facts;
    match drill.kind.story() {
        _ if facts.refused.is_some() => true,
        Story::Incident { .. } => facts.incident.as_ref().is_some_and(|seen| seen.resolution.is_some()),
        Story::Silence { .. } => false,
    }
}

fn is_over(drill: &Drill, ending: Option<Time>, now: Time) -> bool {
    let facts = &drill.facts;
    let undone = facts.undone_at.is_some() || facts.left.is_some() || facts.refused.is_some();
    let given_up = |within: u64| ending.is_some_and(|since| now.since_ms(since) >= within);
    match drill.kind.story() {
        Story::Incident { .. } => ending.is_some() && (undone || given_up(UNDO_WITHIN_MS)),
        Story::Silence { back_within_ms, .. } => {
            let back = facts.silence.noticed_at.is_none() || facts.silence.back_at.is_some();
            (undone && back) || given_up(UNDO_WITHIN_MS + back_within_ms)
        }
    }
}
