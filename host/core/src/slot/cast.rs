//! Who is asked about a subject, and whether an answer that has no effect would have led to another deed.

use super::{Entry, Slot, Stage};
use crate::{
    combine::{self, Scored},
    decision::{Answer, Assessment, Fault, Question, Role, RoutingQuestion},
    id::EntryId,
    subject::SubjectRef,
};

/// Who is asked about one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast<'a> {
    /// Their answers are combined by the slot's rule.
    pub answering: Vec<&'a Entry>,
    /// Asked and compared, without effect.
    pub shadows: Vec<&'a Entry>,
}

impl Slot {
    /// Who answers for the subject that `key` names, and who is only watched.
    pub fn cast(&self, key: &str) -> Cast<'_> {
        let canary =
            |entry: &&Entry| matches!(entry.stage, Stage::Canary { percent } if self.share(&entry.id, key) < percent);
        let canaries: Vec<&Entry> = self.entries.iter().filter(canary).collect();
        let displaced = |entry: &Entry| canaries.iter().any(|canary| canary.replaces.as_ref() == Some(&entry.id));
        let mut answering: Vec<&Entry> = self.active().filter(|entry| !displaced(entry)).collect();
        answering.extend(&canaries);
        let shadows = self.entries.iter().filter(|entry| entry.stage == Stage::Shadow).collect();
        Cast { answering, shadows }
    }

    /// 0 to 99, the same for one entry and key for ever.
    fn share(&self, entry: &EntryId, key: &str) -> u8 {
        let hash = blake3::hash(format!("{}\n{entry}\n{key}", self.id).as_bytes());
        let number = hash.as_bytes().iter().take(4).fold(0u32, |number, byte| (number << 8) | u32::from(*byte));
        u8::try_from(number % 100).unwrap_or(0)
    }
}

/// What decides on whose side of a canary's share a question falls.
pub fn key(question: &Question) -> String {
    let of = |subject: SubjectRef| subject.to_string();
    match question {
        Question::Score(observation) => of(observation.subject.subject()),
        Question::Plan { finding, .. } => of(finding.subject.subject()),
        Question::Judge(question) => {
            question.proposal.steps.first().map_or_else(String::new, |step| of(step.target.subject()))
        }
        Question::Route(RoutingQuestion::Placement(placement)) => of(placement.workload.subject()),
        Question::Route(RoutingQuestion::Message(message)) => format!("topic/{}", message.topic),
    }
}

/// What one entry said.
#[derive(Clone, Copy, Debug)]
pub struct Spoken<'a> {
    pub entry: &'a EntryId,
    pub outcome: &'a Result<Answer, Fault>,
}

/// Whether what a shadow said would have led to another deed than what was `answered`. A shadow that replaces an entry
/// is compared with that one alone; one that stands beside the others is compared by what all would have come to with
/// and without it. None: there is nothing to compare, because one of the two gave no answer; a fault is counted as such.
pub fn compare(role: Role, answered: &[Spoken<'_>], shadow: &Entry, said: &Result<Answer, Fault>) -> Option<bool> {
    if said.is_err() {
        return None;
    }
    match &shadow.replaces {
        Some(replaced) => {
            let beside = answered.iter().find(|spoken| spoken.entry == replaced)?;
            beside.outcome.is_ok().then(|| diverges(beside.outcome, said))
        }
        None if answered.is_empty() || answered.iter().any(|spoken| spoken.outcome.is_err()) => None,
        None => {
            let without = combined(role, answered);
            let mut all = answered.to_vec();
            all.push(Spoken { entry: &shadow.id, outcome: said });
            Some(diverges(&without, &combined(role, &all)))
        }
    }
}

/// What a slot comes to when these have spoken.
fn combined(role: Role, spoken: &[Spoken<'_>]) -> Result<Answer, Fault> {
    Ok(match role {
        Role::RiskScorer => {
            let answers = spoken.iter().filter_map(|spoken| match spoken.outcome {
                Ok(Answer::Assessment(assessment)) => Some((spoken.entry.as_str(), Ok(assessment))),
                Ok(Answer::Proposals(_) | Answer::Judgement(_) | Answer::Choices(_)) => None,
                Err(fault) => Some((spoken.entry.as_str(), Err(fault))),
            });
            Answer::Assessment(match combine::scores(answers) {
                Scored::Risk(risk) => Assessment::Risk(risk),
                Scored::Unknown(why) => Assessment::Insufficient(why),
            })
        }
        Role::PolicyGate => {
            let answers = spoken.iter().filter_map(|spoken| match spoken.outcome {
                Ok(Answer::Judgement(judgement)) => Some((spoken.entry.as_str(), Ok(judgement))),
                Ok(Answer::Proposals(_) | Answer::Assessment(_) | Answer::Choices(_)) => None,
                Err(fault) => Some((spoken.entry.as_str(), Err(fault))),
            });
            Answer::Judgement(combine::judgements(answers))
        }
        Role::RemediationPlanner => {
            let answers = spoken.iter().filter_map(|spoken| match spoken.outcome {
                Ok(Answer::Proposals(proposals)) => Some(proposals.clone()),
                Ok(Answer::Judgement(_) | Answer::Assessment(_) | Answer::Choices(_)) | Err(_) => None,
            });
            Answer::Proposals(combine::proposals(answers.collect()))
        }
        Role::Router => {
            let answers = spoken.iter().filter_map(|spoken| match spoken.outcome {
                Ok(Answer::Choices(choices)) => Some(choices.clone()),
                Ok(Answer::Judgement(_) | Answer::Assessment(_) | Answer::Proposals(_)) | Err(_) => None,
            });
            Answer::Choices(combine::choices(answers.collect()))
        }
    })
}

/// Whether two answers to one question would lead to different deeds. Wording, confidence and small differences of a
/// score do not count.
pub fn diverges(a: &Result<Answer, Fault>, b: &Result<Answer, Fault>) -> bool {
    match (a, b) {
        (Ok(Answer::Assessment(a)), Ok(Answer::Assessment(b))) => match (a, b) {
            (Assessment::Risk(a), Assessment::Risk(b)) => a.level != b.level,
            (Assessment::Insufficient(_), Assessment::Insufficient(_)) => false,
            (Assessment::Risk(_), Assessment::Insufficient(_)) | (Assessment::Insufficient(_), Assessment::Risk(_)) => {
                true
            }
        },
        (Ok(Answer::Judgement(a)), Ok(Answer::Judgement(b))) => a.verdict != b.verdict,
        (Ok(Answer::Proposals(a)), Ok(Answer::Proposals(b))) => match (a.first(), b.first()) {
            (Some(a), Some(b)) => a.steps != b.steps,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        },
        (Ok(Answer::Choices(a)), Ok(Answer::Choices(b))) => a.first().map(|a| &a.id) != b.first().map(|b| &b.id),
        (Err(_), Err(_)) => false,
        (Ok(Answer::Assessment(_) | Answer::Judgement(_) | Answer::Proposals(_) | Answer::Choices(_)) | Err(_), _) => {
            true
        }
    }
}
